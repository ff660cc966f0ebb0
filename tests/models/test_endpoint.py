"""The door to a model behind HTTP, against a real server on this machine: what is an answer, and how it gives up."""

import logging
import pickle
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import pytest

from robustlab.errors import ConfigError, DataError, Unanswered
from robustlab.models import endpoint
from robustlab.models.endpoint import Endpoint, Reply, is_loopback
from robustlab.spec.endpoints import EndpointSpec
from tests.chat_server import (
    Answer,
    ChatServer,
    hang,
    hang_up,
    hang_up_midway,
    reply_bytes,
    reply_json,
    reply_text,
    serve,
    trickle,
)

KEY, PROMPT, COMPLETION = "canary-key-8d1f", "canary prompt 77", "canary completion 31"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
ECHO = f"{KEY} {PROMPT} {COMPLETION}".encode()


def build_spec(url: str, **changes: Any) -> EndpointSpec:
    plain = {
        "base_url": url,
        "model": "small",
        "key_variable": None,
        "deadline_seconds": 20,
        "max_attempts": 3,
        "usd_per_million_prompt_tokens": 0.25,
        "usd_per_million_generated_tokens": 2,
        "price_source": "hand-made",
    }
    return EndpointSpec.model_validate(plain | changes)


class Waits:
    """Pauses that are written down instead of waited for; the clock moves by them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def clock(self) -> float:
        return sum(self.pauses)


def ask(server: ChatServer, waits: Waits | None = None, *, max_new_tokens: int = 64, **changes: Any) -> Reply:
    waits = waits or Waits()
    door = Endpoint(
        build_spec(server.url, **changes),
        environ={"KEY_HERE": KEY},
        sleep=waits.sleep,
        clock=waits.clock,
        jitter=lambda: 0.5,
    )
    return door.complete(MESSAGES, max_new_tokens=max_new_tokens)


def test_an_answer_is_its_text_its_tokens_and_whether_it_ended() -> None:
    with serve(reply_text("Hello.", prompt=12, generated=3)) as server:
        assert ask(server) == Reply("Hello.", prompt_tokens=12, generated_tokens=3, ended=True)


def test_the_request_is_greedy_bounded_and_holds_the_messages_as_they_are() -> None:
    with serve(reply_text("Hello.")) as server:
        ask(server, max_new_tokens=7)
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests == [
        {"model": "small", "messages": MESSAGES, "max_tokens": 7, "temperature": 0, "seed": 0, "stream": False}
    ]
    assert "Authorization" not in server.headers[0]


def test_a_newer_service_is_told_its_limit_by_the_name_that_it_knows() -> None:
    with serve(reply_text("Hello.")) as server:
        ask(server, max_new_tokens=7, limit_parameter="max_completion_tokens")
    assert (server.requests[0]["max_completion_tokens"], "max_tokens" in server.requests[0]) == (7, False)


def test_what_is_asked_at_once_is_under_way_at_once_and_comes_back_in_order() -> None:
    """Nobody is answered before the third has asked, and whoever asked first is answered last."""
    barrier = threading.Barrier(3, timeout=10)

    def answer(handler: Any, request: dict[str, Any]) -> None:
        barrier.wait()
        word = request["messages"][0]["content"]
        time.sleep(0.2 - 0.1 * int(word))
        reply_text(word)(handler, request)

    conversations = [[{"role": "user", "content": str(number)}] for number in range(3)]
    with serve(answer) as server:
        replies = Endpoint(build_spec(server.url)).complete_all(conversations, max_new_tokens=4)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == ["0", "1", "2"]


def test_one_that_has_no_answer_leaves_the_others_theirs() -> None:
    def answer(handler: Any, request: dict[str, Any]) -> None:
        word = request["messages"][0]["content"]
        (reply_bytes(ECHO, status=401) if word == "b" else reply_text(word))(handler, request)

    conversations = [[{"role": "user", "content": word}] for word in "abc"]
    with serve(answer) as server:
        replies = Endpoint(build_spec(server.url)).complete_all(conversations, max_new_tokens=4)
    first, second, third = replies
    assert isinstance(first, Reply) and isinstance(third, Reply)
    assert (first.text, third.text) == ("a", "c")
    assert isinstance(second, Unanswered) and second.problem == "no answer after 1 try: got HTTP 401"


def test_nothing_is_asked_where_one_message_cannot_be_written() -> None:
    with serve(reply_text("Hello.")) as server, pytest.raises(DataError, match="half of a surrogate pair"):
        conversations = [MESSAGES, [{"role": "user", "content": "\ud800"}]]
        Endpoint(build_spec(server.url)).complete_all(conversations, max_new_tokens=1)
    assert server.requests == []
    assert Endpoint(build_spec("http://127.0.0.1:1/v1")).complete_all([], max_new_tokens=1) == []


def test_a_completion_that_was_cut_at_the_limit_did_not_end() -> None:
    with serve(reply_text("Hello, I", finish="length")) as server:
        assert not ask(server).ended


def test_an_empty_completion_is_an_answer() -> None:
    with serve(reply_text("", generated=0)) as server:
        assert ask(server) == Reply("", prompt_tokens=10, generated_tokens=0, ended=True)


def test_a_refusal_in_a_field_of_its_own_is_the_completion() -> None:
    for content in (None, ""):
        message = {"role": "assistant", "content": content, "refusal": "I will not."}
        with serve(reply_json({"choices": [{"message": message, "finish_reason": "stop"}]})) as server:
            assert ask(server).text == "I will not."


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "much",
        {},
        {"prompt_tokens": -1, "completion_tokens": -1},
        {"prompt_tokens": "9", "completion_tokens": 1e3},
        {"prompt_tokens": 10**12, "completion_tokens": 10**12},
        {"prompt_tokens": True, "completion_tokens": None},
    ],
)
def test_tokens_that_the_server_does_not_tell_are_bounded_by_bytes(usage: object) -> None:
    """Rather too dear than too cheap. "system", "Be brief.", "user" and the prompt have 6 + 9 + 4 + 16 = 35 bytes."""
    with serve(reply_text("größer", usage=usage)) as server:
        assert ask(server) == Reply("größer", prompt_tokens=35, generated_tokens=8, ended=True, is_counted=False)
        assert ask(server, max_new_tokens=2).generated_tokens == 2


def test_a_count_that_cannot_be_is_not_believed() -> None:
    """64 tokens were asked for and the messages have 35 bytes; a server's template may add 8,192 tokens."""
    with serve(reply_text("Hi", prompt=35 + 8193, generated=65)) as server:
        assert ask(server) == Reply("Hi", prompt_tokens=35, generated_tokens=2, ended=True, is_counted=False)
    with serve(reply_text("Hi", prompt=35 + 8192, generated=64)) as server:
        assert ask(server) == Reply("Hi", prompt_tokens=35 + 8192, generated_tokens=64, ended=True)


def test_a_blocked_completion_is_told_apart() -> None:
    with serve(reply_text("", finish="content_filter")) as server:
        assert ask(server).is_filtered
    with serve(reply_text("Hello.")) as server:
        assert not ask(server).is_filtered


def test_a_key_goes_into_its_header_without_the_line_end_that_a_shell_left() -> None:
    with serve(reply_text("Hello.")) as server:
        door = Endpoint(build_spec(server.url, key_variable="KEY_HERE"), environ={"KEY_HERE": f"{KEY}\n"})
        door.complete(MESSAGES, max_new_tokens=1)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("environ", [{}, {"KEY_HERE": ""}, {"KEY_HERE": " \n"}])
def test_an_absent_key_is_refused_before_anything_is_asked(environ: dict[str, str]) -> None:
    expected = "environment variable KEY_HERE: is not set, and http://127.0.0.1:1/v1 wants a key; put the key into it"
    with pytest.raises(ConfigError) as caught:
        Endpoint(build_spec("http://127.0.0.1:1/v1", key_variable="KEY_HERE"), environ=environ)
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", [f"{KEY}\n{KEY}", f"Bearer {KEY}", f"{KEY}ü", f"{KEY}\x00"])
def test_a_key_that_is_none_is_refused_without_being_repeated(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(build_spec("http://127.0.0.1:1/v1", key_variable="KEY_HERE"), environ={"KEY_HERE": value})
    assert str(caught.value) == (
        "environment variable KEY_HERE: holds a space or a character that no key has; put the bare key into it"
    )


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_server_that_is_busy_is_asked_again(status: int) -> None:
    waits = Waits()
    with serve(reply_bytes(ECHO, status=status), reply_text("Hello.")) as server:
        assert ask(server, waits).text == "Hello."
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]
    assert waits.pauses == [0.75]  # 0.5 s times 1 + the jitter of 0.5


def test_pauses_double_and_end_with_the_tries() -> None:
    waits = Waits()
    with serve(reply_bytes(ECHO, status=500)) as server, pytest.raises(Unanswered) as caught:
        ask(server, waits, max_attempts=4)
    assert waits.pauses == [0.75, 1.5, 3.0]
    assert len(server.requests) == 4
    assert caught.value.is_outage
    assert str(caught.value) == (
        f"{server.url} (model small): no answer after 4 tries: got HTTP 500; "
        "see that the server is up and serves that model, or allow a longer deadline and more tries"
    )


@pytest.mark.parametrize(
    ("header", "pause"), [("7", 7.0), ("0", 0.75), ("900", 60.0), ("soon", 0.75), ("-5", 0.75), ("nan", 0.75)]
)
def test_a_wish_to_wait_is_honoured_up_to_a_minute(header: str, pause: float) -> None:
    waits = Waits()
    with serve(reply_bytes(ECHO, status=429, Retry_After=header), reply_text("Hello.")) as server:
        assert ask(server, waits, deadline_seconds=100).text == "Hello."
    assert waits.pauses == [pause]


def test_a_pause_never_reaches_past_the_deadline() -> None:
    waits = Waits()
    with serve(reply_bytes(ECHO, status=429, Retry_After="30")) as server, pytest.raises(Unanswered, match="1 try"):
        ask(server, waits, deadline_seconds=20)
    assert waits.pauses == []


@pytest.mark.parametrize("silent", [hang, trickle])
def test_a_server_that_never_comes_to_an_end_is_left_at_the_deadline(
    silent: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try gets half of 0.5 s, the second what is left after it."""
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.001)
    began = time.monotonic()
    with serve(silent) as server:
        door = Endpoint(build_spec(server.url, deadline_seconds=0.5, max_attempts=2), sleep=Waits().sleep)
        with pytest.raises(Unanswered, match="no answer after 2 tries: nothing within 0.2") as caught:
            door.complete(MESSAGES, max_new_tokens=1)
        assert time.monotonic() - began < 5
    assert caught.value.is_outage
    assert len(server.requests) == 2


@pytest.mark.parametrize("silent", [hang, hang_up, hang_up_midway])
def test_a_try_that_fails_leaves_time_for_another(silent: Answer) -> None:
    with serve(silent, reply_text("Hello.")) as server:
        assert ask(server, deadline_seconds=1).text == "Hello."


@pytest.mark.parametrize("broken", [hang_up, hang_up_midway])
def test_a_connection_that_always_breaks_is_an_outage(broken: Answer) -> None:
    with (
        serve(broken) as server,
        pytest.raises(Unanswered, match="3 tries: the connection failed, got RemoteProtocolError;") as caught,
    ):
        ask(server)
    assert caught.value.is_outage


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with serve(reply_text("Hello.")) as server:
        pass
    with pytest.raises(Unanswered, match="3 tries: the connection failed, got ConnectError;") as caught:
        ask(server)
    assert caught.value.is_outage


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_that_is_refused_is_not_sent_again(status: int) -> None:
    with serve(reply_bytes(ECHO, status=status)) as server, pytest.raises(Unanswered) as caught:
        ask(server)
    assert len(server.requests) == 1
    assert not caught.value.is_outage
    assert str(caught.value) == (
        f"{server.url} (model small): no answer after 1 try: got HTTP {status}; "
        "see that the address, the model's name and the key are those of the server"
    )


def test_a_redirect_is_not_followed() -> None:
    with serve(reply_text("Stolen.")) as other:
        away = reply_bytes(b"", status=307, Location=f"{other.url}/chat/completions")
        with serve(away) as server, pytest.raises(Unanswered, match="HTTP 307, which is not followed"):
            ask(server, key_variable="KEY_HERE")
    assert other.requests == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(reply_text("Hello.")) as server:
        assert ask(server).text == "Hello."


NOT_JSON = {
    "HTML": reply_bytes(b"<html><body>Welcome</body></html>" + ECHO),
    "nothing": reply_bytes(b""),
    "half": reply_bytes(b'{"choices": [{"message": {"content": "' + ECHO),
    "not UTF-8": reply_bytes(b'{"choices": "\xff\xfe"}'),
    "depth": reply_bytes(b"[" * 200_000),
    "a long number": reply_bytes(b'{"choices": ' + b"9" * 10_000 + b"}"),
}
NO_CHOICE = {
    "a list": reply_json([ECHO.decode()]),
    "a number": reply_json(7),
    "an error": reply_json({"error": {"message": ECHO.decode()}}),
    "no choices": reply_json({"choices": []}),
    "choices of text": reply_json({"choices": ECHO.decode()}),
    "choices of null": reply_json({"choices": [None]}),
    "no message": reply_json({"choices": [{"text": ECHO.decode()}]}),
    "message of text": reply_json({"choices": [{"message": ECHO.decode()}]}),
    "no content": reply_json({"choices": [{"message": {"content": None}}]}),
    "content of a number": reply_json({"choices": [{"message": {"content": 7}}]}),
    "content of parts": reply_json({"choices": [{"message": {"content": [{"text": ECHO.decode()}]}}]}),
}


@pytest.mark.parametrize("answer", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_one_clear_error(answer: Answer) -> None:
    with serve(answer) as server, pytest.raises(Unanswered, match=r"the answer is not JSON, got \d+ bytes; see") as got:
        ask(server)
    assert not got.value.is_outage
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", NO_CHOICE.values(), ids=NO_CHOICE)
def test_json_without_a_completion_is_one_clear_error(answer: Answer) -> None:
    with serve(answer) as server, pytest.raises(Unanswered, match=r"holds no choices\[0\].message.content, got \d+ b"):
        ask(server)


def test_a_reply_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_REPLY_BYTES", 1000)
    with serve(reply_text("a" * 2000)) as server, pytest.raises(Unanswered, match="longer than 1000 bytes"):
        ask(server)


def test_a_reply_that_was_compressed_unasked_is_not_unpacked() -> None:
    with (
        serve(reply_bytes(b"\x1f\x8b", Content_Encoding="gzip")) as server,
        pytest.raises(Unanswered, match="compressed though that was not asked for"),
    ):
        ask(server)
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_half_a_surrogate_pair_can_be_answered_but_not_asked() -> None:
    with serve(reply_text("a\ud800")) as server:
        assert ask(server).text == "a\ud800"
        with pytest.raises(DataError) as caught:
            Endpoint(build_spec(server.url)).complete([{"role": "user", "content": "\ud800"}], max_new_tokens=1)
    assert str(caught.value) == (
        "request: a message holds half of a surrogate pair, which UTF-8 has no bytes for; "
        "mend the row that it comes from"
    )


FAILURES = {
    **{str(status): reply_bytes(ECHO, status=status) for status in (307, 400, 401, 429, 500)},
    **{f"not JSON: {name}": answer for name, answer in NOT_JSON.items()},
    **{f"no choice: {name}": answer for name, answer in NO_CHOICE.items()},
    "hang": hang,
    "hang up": hang_up,
    "hang up midway": hang_up_midway,
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
def test_no_message_no_log_and_no_repr_holds_a_key_a_prompt_or_a_completion(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(answer) as server, pytest.raises(Unanswered) as caught:
        ask(server, key_variable="KEY_HERE", deadline_seconds=0.4)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
    assert caught.value.__context__ is None
    assert "canary" not in told + caplog.text
    assert pickle.loads(pickle.dumps(caught.value)).is_outage is caught.value.is_outage


def test_the_door_does_not_show_its_key() -> None:
    door = Endpoint(build_spec("http://127.0.0.1:1/v1", key_variable="KEY_HERE"), environ={"KEY_HERE": KEY})
    assert KEY not in f"{door!r} {door} {door.spec!r}"


def test_the_client_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, robustlab.models.endpoint; sys.exit(any(n in sys.modules for n in ('httpx', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://localhost:8000/v1", True),
        ("https://[::1]:8000/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("https://api.example.org/v1", False),
        ("http://0.0.0.0/v1", False),
    ],
)
def test_loopback_is_told_by_the_spelling_of_the_host(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
