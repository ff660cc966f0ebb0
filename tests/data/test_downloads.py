"""A network that fails: pip itself against a server of this machine, tried a bounded number of times, nothing kept."""

import hashlib
import io
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.data import sources
from robustlab.data.sources import PAUSES_SECONDS, fetch_source
from robustlab.errors import DataError
from robustlab.spec.sources import PypiSource

CONTENT = b"one mild line\n"
MEMBER, WHEEL = "example_pkg/rows.txt", "example_pkg-1.2.3-py3-none-any.whl"
INFO = "example_pkg-1.2.3.dist-info"
SUPPLY = "or run `pip download --no-deps example-pkg==1.2.3` on another machine and put the wheel in "
Answer = Callable[[BaseHTTPRequestHandler], None]


def make_wheel(content: bytes = CONTENT) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: example-pkg\nVersion: 1.2.3\n")
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    return made.getvalue()


def source(content: bytes = CONTENT) -> PypiSource:
    pin = hashlib.sha256(content).hexdigest()
    return PypiSource(kind="pypi", package="example-pkg", version="1.2.3", member=MEMBER, sha256=pin, licence="MIT")


class Index:
    """A package index on the loopback interface; its answers for the wheel come from a list; the last stays."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if self.path.endswith("/simple/example-pkg/"):
                    reply(200, f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html")(self)
                else:
                    answer = index.answers.pop(0) if len(index.answers) > 1 else index.answers[0]
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def reply(
    status: int, body: bytes = b"", kind: str = "application/octet-stream", *, claims: int | None = None
) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if claims is None else claims))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(url: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def stay_silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None, index: Index) -> Path:
    """An empty cache, and a pip that knows the index of this machine and nothing else."""
    monkeypatch.delenv("ROBUSTLAB_OFFLINE")
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(sources, "RETRIES", 0)
    monkeypatch.setattr(sources, "CONNECTION_SECONDS", 1)
    return tmp_path / "cache"


def fetch(waited: list[float] | None = None, said: list[str] | None = None, what: PypiSource | None = None) -> Path:
    heard: list[str] = [] if said is None else said
    slept: list[float] = [] if waited is None else waited
    return fetch_source(what or source(), progress=heard.append, sleep=slept.append)


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_body_that_is_cut_short_is_tried_again_and_then_had(cache: Path, index: Index) -> None:
    whole, waited, said = make_wheel(), list[float](), list[str]()
    index.answers = [reply(200, whole[:100], claims=len(whole)), reply(200, whole)]
    assert fetch(waited, said).read_bytes() == CONTENT
    assert waited == [PAUSES_SECONDS[0]]
    assert said[0] == "example-pkg==1.2.3: downloading the wheel"
    assert said[1].endswith("; trying again in 2 s") and len(said) == 2
    assert kept(cache) == ["rows.txt"]


def test_a_server_that_stays_away_is_given_up(cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES_SECONDS", (0.5,))
    waited: list[float] = []
    index.answers = [reply(503)]
    with pytest.raises(DataError) as caught:
        fetch(waited)
    assert waited == [0.5]
    assert str(caught.value).startswith(f"{MEMBER} of example-pkg==1.2.3: cannot be downloaded: ")
    assert str(caught.value).endswith(f"; check the network, {SUPPLY}{cache / 'wheels'}")
    assert kept(cache) == []


def test_nobody_listens(cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES_SECONDS", ())
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(DataError, match="cannot be downloaded: ERROR: No matching distribution found for example-pkg"):
        fetch()
    assert kept(cache) == [] and index.asked == []


def test_a_server_that_stays_silent_is_not_waited_for(
    cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PAUSES_SECONDS", ())
    index.answers = [stay_silent]
    with pytest.raises(DataError, match=r"cannot be downloaded: .*; check the network, or run `pip download"):
        fetch()
    assert kept(cache) == []


def test_where_a_redirect_leads_does_not_matter_only_the_bytes_do(cache: Path, index: Index) -> None:
    other = Index()
    other.answers = [reply(200, make_wheel(b"something else\n")), reply(200, make_wheel())]
    index.answers = [redirect(f"{other.url}/files/{WHEEL}")]
    try:
        with pytest.raises(DataError) as caught:
            fetch()
        found = hashlib.sha256(b"something else\n").hexdigest()
        assert str(caught.value) == (
            f"{MEMBER} of example-pkg==1.2.3: has sha256 {found}, pinned is {source().sha256}; nothing was kept; "
            "check the pin and where the wheel came from"
        )
        assert kept(cache) == []
        assert fetch().read_bytes() == CONTENT
    finally:
        other.close()


Told = list[list[str]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Told]:
    """A pip that always fails in the same words; the list collects its commands."""

    def fail(stderr: str) -> Told:
        commands: Told = []

        def run(command: list[str], **_: Any) -> SimpleNamespace:
            commands.append(command)
            return SimpleNamespace(returncode=1, stderr=stderr)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return fail


@pytest.mark.parametrize(
    ("stderr", "tries"),
    [
        ("WARNING: Retrying (Retry(total=1)) after NewConnectionError: [Errno -2] Name or service not known", 3),
        ("ERROR: HTTPSConnectionPool(host='pypi.org', port=443): Read timed out.", 3),
        ("pip._vendor.urllib3.exceptions.ProtocolError: ('Connection broken: IncompleteRead(1 read, 9 more)')", 3),
        ("ERROR: 503 Server Error: HTTP error 503 while getting x", 3),
        ("ERROR: No matching distribution found for example-pkg==1.2.3", 1),
        ("ERROR: HTTP error 404 while getting x", 1),
        ("No module named pip", 1),
    ],
)
def test_only_what_may_pass_is_tried_again(failing: Callable[[str], Told], stderr: str, tries: int) -> None:
    commands, waited = failing(stderr), list[float]()
    with pytest.raises(DataError, match="cannot be downloaded: "):
        fetch(waited)
    assert len(commands) == tries
    assert waited == list(PAUSES_SECONDS[: tries - 1]) and sum(PAUSES_SECONDS) == 10
    assert all("--retries" in command and "--timeout" in command for command in commands)


def test_a_download_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match="cannot be downloaded: ERROR: it took more than 3600 s; check the network"):
        fetch()
