"""A server that speaks OpenAI's chat protocol: where it is, which model it serves, and what its tokens cost.

The key is never in a file: the spec names the environment variable that holds it. This module opens no connection.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from robustlab.spec.base import NonEmpty, NonNegative, Positive, Spec

MOST_ATTEMPTS = 20
MOST_AT_ONCE = 64
_HOST = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


def is_loopback(base_url: str) -> bool:
    """Whether a server's address cannot leave this machine: ``localhost`` or a loopback IP address, by its spelling."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_base_url(url: str) -> str:
    # A message must not repeat what may be a password.
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL such as http://127.0.0.1:8000/v1, got one that cannot be read") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password; name an environment variable in key_variable instead")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or "") or port == 0:
        raise ValueError(f"must be a URL such as http://127.0.0.1:8000/v1, got {url!r}")
    if parts.query or parts.fragment or not url.isascii() or any(not c.isprintable() or c == " " for c in url):
        raise ValueError("must hold no query, no fragment, no spaces and only ASCII")
    return url.rstrip("/")


def _check_variable(name: str) -> str:
    # Whoever puts the key itself here must not see it repeated in a log.
    if not _VARIABLE.fullmatch(name):
        raise ValueError("must be the name of an environment variable such as OPENAI_API_KEY, not the key itself")
    return name


BaseUrl = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_check_base_url)]

LimitParameter = Literal["max_tokens", "max_completion_tokens"]


class EndpointSpec(Spec):
    """One model behind an OpenAI-compatible server."""

    base_url: BaseUrl
    """Address up to the version, such as ``http://127.0.0.1:8000/v1``; ``/chat/completions`` is added."""
    model: NonEmpty
    """The server's own name of the model."""
    key_variable: Annotated[str, AfterValidator(_check_variable)] | None
    """Environment variable that holds the key; null for a server that wants none."""
    deadline_seconds: Positive
    """Longest that one completion may take, all tries and pauses together; a try that is not the last gets half."""
    max_attempts: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)]
    """Tries for one completion before it counts as never answered."""
    usd_per_million_prompt_tokens: NonNegative
    """Price of what the server reads; 0 for a server of one's own."""
    usd_per_million_generated_tokens: NonNegative
    """Price of what the server writes; 0 for a server of one's own."""
    price_source: NonEmpty
    """Where these prices stand and as of when, or why there are none."""
    # Left out of the content hash while they are what every server was asked for before there were such fields.
    limit_parameter: Annotated[LimitParameter, Field(exclude_if=lambda name: name == "max_tokens")] = "max_tokens"
    """How the request calls the limit of new tokens; newer services take ``max_completion_tokens`` alone."""
    concurrency: Annotated[int, Field(ge=1, le=MOST_AT_ONCE, exclude_if=lambda count: count == 1)] = 1
    """Requests that are under way at once; what comes of them stands in the order in which they were asked."""

    @model_validator(mode="after")
    def _keeps_its_key_to_itself(self) -> Self:
        if self.key_variable is not None and self.base_url.startswith("http:") and not is_loopback(self.base_url):
            raise ValueError("base_url: must be https where a key is sent to another machine, got http")
        return self
