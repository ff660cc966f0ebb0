"""The one door to a model that answers over HTTP by OpenAI's chat protocol.

Who bounds what: a try ends after half of the deadline (the last one after what is left), a pause between tries never
reaches past the deadline, and a reply is read up to ``MAX_REPLY_BYTES``. There are no redirects, no proxies and no
``.netrc``: the key goes to the host that the spec names and nowhere else. No message holds a key, a prompt, a
completion or anything else that the server wrote, since it may repeat any of them. This module does not know what the
model is asked for or what it costs.
"""

import asyncio
import json
import os
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robustlab.errors import ConfigError, DataError, Unanswered
from robustlab.spec.endpoints import EndpointSpec
from robustlab.spec.endpoints import is_loopback as is_loopback  # callers of the door ask it here

MAX_REPLY_BYTES = 4 * 2**20
TEMPLATE_TOKENS = 8192
"""What a server's own template may add to the messages; a count beyond that is not believed."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
SEED = 0
_RETRIED = (408, 409, 429)
_RETRY_AFTER = re.compile(r"\d{1,6}")


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: The completion; it may be empty.
        prompt_tokens: Tokens that were read, by the server's ``usage``; where it tells none, the bytes of the messages,
            which are never fewer.
        generated_tokens: Tokens that were written, likewise; where the server tells none, at most the limit.
        ended: Whether the model ended by itself within the limit.
        is_counted: Whether the server told both counts, and neither is more than could be.
        is_filtered: Whether the provider blocked the completion instead of showing it.
    """

    text: str
    prompt_tokens: int
    generated_tokens: int
    ended: bool
    is_counted: bool = True
    is_filtered: bool = False


@dataclass(frozen=True)
class _Failure:
    """Why a try gave nothing.

    Attributes:
        problem: In words that hold nothing of the server's.
        is_retried: Whether another try may help.
        pause_seconds: What the server asked to wait; 0 where it asked for nothing.
    """

    problem: str
    is_retried: bool
    pause_seconds: float = 0.0


class Endpoint:
    """A model behind a server. Greedy: temperature 0 and a fixed seed, as far as the server obeys."""

    def __init__(
        self,
        spec: EndpointSpec,
        *,
        environ: Mapping[str, str] = os.environ,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the key out of the environment; no connection is opened yet.

        Args:
            spec: Where the server is.
            environ: Environment variables.
            sleep: Waits some seconds.
            clock: Monotonic seconds.
            jitter: A number in [0, 1) for each pause, so that many clients do not come back at once.

        Raises:
            ConfigError: If the variable that the spec names is not set or holds no key.
        """
        self.spec = spec
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "robustlab"} | _authorise(spec, environ)
        self._sleep, self._clock, self._jitter = sleep, clock, jitter

    def complete(self, messages: Sequence[Mapping[str, str]], *, max_new_tokens: int) -> Reply:
        """Have a conversation continued.

        Args:
            messages: ``role`` and ``content`` of each message, oldest first.
            max_new_tokens: Longest completion, >= 1.

        Returns:
            The completion; one that was cut at the limit is an answer too.

        Raises:
            Unanswered: If no try within the deadline gave an answer that can be read.
            DataError: If the messages cannot be written as JSON.
        """
        (outcome,) = self.complete_all([messages], max_new_tokens=max_new_tokens)
        if isinstance(outcome, Unanswered):
            raise outcome
        return outcome

    def complete_all(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], *, max_new_tokens: int
    ) -> list[Reply | Unanswered]:
        """Have several conversations continued at once, all of them together: the caller bounds how many they are.

        Args:
            conversations: The messages of each, as for ``complete``; each has the whole deadline.
            max_new_tokens: Longest completion, >= 1.

        Returns:
            What came of each, in the order of ``conversations``, whoever answered first.

        Raises:
            DataError: If messages cannot be written as JSON; nothing is asked then.
        """
        bodies = [_encode_request(self.spec, messages, max_new_tokens) for messages in conversations]
        pairs = list(zip(conversations, bodies, strict=True))

        async def gather() -> list[Reply | Unanswered]:
            return await asyncio.gather(*(self._complete(*pair, max_new_tokens) for pair in pairs))

        return asyncio.run(gather())

    async def _complete(
        self, messages: Sequence[Mapping[str, str]], body: bytes, max_new_tokens: int
    ) -> Reply | Unanswered:
        end = self._clock() + self.spec.deadline_seconds
        attempt = 1
        while True:
            outcome = await self._try(body, self._try_seconds(attempt, end))
            if not isinstance(outcome, _Failure):
                return _read_reply(self._where, outcome, messages, max_new_tokens)
            pause = self._pause_seconds(attempt, outcome)
            if not outcome.is_retried or attempt == self.spec.max_attempts or self._clock() + pause >= end:
                return self._give_up(outcome, attempt)
            await self._sleep(pause)
            attempt += 1

    @property
    def _where(self) -> str:
        return f"{self.spec.base_url} (model {self.spec.model})"

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpx

        if not self.spec.base_url.startswith("https:"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; reading the authorities takes a while
        return httpx.create_ssl_context(trust_env=False)

    def _try_seconds(self, attempt: int, end: float) -> float:
        left = max(end - self._clock(), 0.0)
        return left if attempt == self.spec.max_attempts else min(left, self.spec.deadline_seconds / 2)

    def _pause_seconds(self, attempt: int, failure: _Failure) -> float:
        backoff: float = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * (1 + self._jitter())
        return min(max(backoff, failure.pause_seconds), LONGEST_PAUSE_SECONDS)

    def _give_up(self, failure: _Failure, attempts: int) -> Unanswered:
        tries = "1 try" if attempts == 1 else f"{attempts} tries"
        remedy = "see that the server is up and serves that model, or allow a longer deadline and more tries"
        if not failure.is_retried:
            remedy = "see that the address, the model's name and the key are those of the server"
        return Unanswered(self._where, f"no answer after {tries}: {failure.problem}", remedy, failure.is_retried)

    async def _try(self, body: bytes, seconds: float) -> bytes | _Failure:
        """One request. A deadline of the event loop's, since a client's own is renewed by every byte that trickles."""
        import httpx  # not before it is needed: it takes a tenth of a second

        try:
            async with asyncio.timeout(seconds):
                return await self._post(body)
        except TimeoutError:
            return _Failure(f"nothing within {seconds:.3g} s", is_retried=True)
        except httpx.TransportError as error:
            return _Failure(f"the connection failed, got {type(error).__name__}", is_retried=True)

    async def _post(self, body: bytes) -> bytes | _Failure:
        import httpx

        url = f"{self.spec.base_url}/chat/completions"
        headers = self._headers | {"Content-Type": "application/json"}
        client = httpx.AsyncClient(
            trust_env=False, verify=self._tls, timeout=self.spec.deadline_seconds, follow_redirects=False
        )
        async with (
            client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                return _describe_status(response.status_code, response.headers.get("retry-after", ""))
            if response.headers.get("content-encoding", "identity") != "identity":
                return _Failure("the reply is compressed though that was not asked for", is_retried=False)
            reply = bytearray()
            async for chunk in response.aiter_raw():
                reply += chunk
                if len(reply) > MAX_REPLY_BYTES:
                    return _Failure(f"the reply is longer than {MAX_REPLY_BYTES} bytes", is_retried=False)
            return bytes(reply)


def _authorise(spec: EndpointSpec, environ: Mapping[str, str]) -> dict[str, str]:
    if spec.key_variable is None:
        return {}
    key = environ.get(spec.key_variable, "").strip()
    where = f"environment variable {spec.key_variable}"
    if not key:
        raise ConfigError(where, f"is not set, and {spec.base_url} wants a key", "put the key into it")
    # The library's own complaint would quote the header.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(where, "holds a space or a character that no key has", "put the bare key into it")
    return {"Authorization": f"Bearer {key}"}


def _encode_request(spec: EndpointSpec, messages: Sequence[Mapping[str, str]], max_new_tokens: int) -> bytes:
    plain = {
        "model": spec.model,
        "messages": [dict(message) for message in messages],
        spec.limit_parameter: max_new_tokens,
        "temperature": 0,
        "seed": SEED,
        "stream": False,
    }
    try:
        return json.dumps(plain, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        problem = "a message holds half of a surrogate pair, which UTF-8 has no bytes for"
    raise DataError("request", problem, "mend the row that it comes from")


def _describe_status(status: int, retry_after: str) -> _Failure:
    pause = float(retry_after) if _RETRY_AFTER.fullmatch(retry_after) else 0.0
    if 300 <= status < 400:
        return _Failure(f"it redirects with HTTP {status}, which is not followed", is_retried=False)
    return _Failure(f"got HTTP {status}", status in _RETRIED or status >= 500, pause)


def _read_reply(
    where: str, reply: bytes, messages: Sequence[Mapping[str, str]], max_new_tokens: int
) -> Reply | Unanswered:
    try:
        document = json.loads(reply)
    except (ValueError, RecursionError):
        document = None
    choice = _first(document.get("choices")) if isinstance(document, dict) else None
    message = choice.get("message") if choice else None
    text = _find_text(message) if isinstance(message, dict) else None
    if choice is None or text is None:
        what = "is not JSON" if document is None else "holds no choices[0].message.content"
        problem = f"the answer {what}, got {len(reply)} bytes"
        return Unanswered(where, problem, "see that the address is that of an OpenAI-compatible server")
    usage = document.get("usage")
    asked = sum(len(value.encode()) for each in messages for value in each.values())
    # Nobody may write a bill, or fill the memory, with a number that they made up.
    prompt = _read_usage(usage, "prompt_tokens", asked + TEMPLATE_TOKENS)
    generated = _read_usage(usage, "completion_tokens", max_new_tokens)
    return Reply(
        text=text,
        prompt_tokens=asked if prompt is None else prompt,
        generated_tokens=min(len(text.encode("utf-8", "replace")), max_new_tokens) if generated is None else generated,
        ended=choice.get("finish_reason") == "stop",
        is_counted=prompt is not None and generated is not None,
        is_filtered=choice.get("finish_reason") == "content_filter",
    )


def _first(choices: object) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _find_text(message: Mapping[str, object]) -> str | None:
    """The completion; a refusal that the protocol keeps in a field of its own is one too."""
    found = message.get("content") or message.get("refusal") or message.get("content")
    return found if isinstance(found, str) else None


def _read_usage(usage: object, name: str, most: int) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count <= most else None
