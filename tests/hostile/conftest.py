"""The room in which hostile artefacts are opened: nothing may run, be written outside, or call anybody.

An audit hook sees what Python itself is asked to do: files opened for writing, names that a pickle looks up, programs
started, sockets connected. A snapshot sees what libraries in other languages leave behind.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from robustlab import templates
from robustlab.cli.main import main
from robustlab.errors import RobustlabError

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CALLS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"}
_STARTS = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen", "os.startfile", "pty.spawn"}
_PLACES = {
    "os.link": (1,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
}
_HARMLESS = ("/dev/null", "/dev/tty")
_recording: list[list[tuple[str, Any]]] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _recording:
        return
    if event in _CALLS or event in _STARTS or event == "pickle.find_class":
        _recording[-1].append((event, repr(args)[:200]))
    elif event == "open" and isinstance(args[0], str | bytes) and (args[2] or 0) & _WRITES:
        _recording[-1].append(("write", os.fsdecode(args[0])))
    elif event in _PLACES:
        # What is an open file already was seen when it was opened.
        places = [args[place] for place in _PLACES[event] if not isinstance(args[place], int)]
        _recording[-1] += [("write", os.fsdecode(place)) for place in places]


sys.addaudithook(_hook)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Room:
    """A working folder, a home and a cache of their own.

    Attributes:
        path: All of it.
        work: Working folder, with the artefacts.
        cache: The cache, which may grow.
        runs: The folder of runs, which may grow.
        sentinel: What hostile code would make.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._patch, self._capture = path, monkeypatch, capsys
        self.work, self.cache, self.home = path / "work", path / "cache", path / "home"
        self.runs, self.sentinel = self.work / "runs", path / "sentinel"
        for folder in (self.work, self.cache, self.home):
            folder.mkdir()
        monkeypatch.chdir(self.work)
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("ROBUSTLAB_CACHE", str(self.cache))
        monkeypatch.setenv("HOSTILE_SENTINEL", str(self.sentinel))
        monkeypatch.setenv("COLUMNS", "200")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Hold what happens inside against the three promises."""
        before, events = self._snapshot(), list[tuple[str, Any]]()
        _recording.append(events)
        try:
            yield
        finally:
            _recording.pop()
        assert not self.sentinel.exists(), "code of the artefact was run"
        assert not [each for each in events if each[0] in _STARTS or each[0] == "pickle.find_class"], events
        assert not [each for each in events if each[0] in _CALLS], "somebody was called"
        outside = [place for kind, place in events if kind == "write" and not self._may_grow(place)]
        assert not outside, "something was written outside the run folder and the cache"
        assert self._snapshot() == before, "a file outside the run folder and the cache is new, changed or gone"
        assert not [name for name in sys.modules if name.startswith("transformers_modules")]

    def refused(self, call: Callable[[], object]) -> str:
        """The message with which a call refuses an artefact."""
        with self.watched(), pytest.raises(RobustlabError) as caught:
            call()
        return str(caught.value)

    def outcome(self, call: Callable[[], object]) -> str | None:
        """The message with which a call refuses an artefact; None where it takes it. Anything else is a crash."""
        with self.watched():
            try:
                call()
            except RobustlabError as error:
                return str(error)
        return None

    def run(self, *words: str) -> Ended:
        """The command, in this process; it never ends in a traceback."""
        self._patch.setattr(sys, "argv", ["robustlab", *words])
        with self._patch.context() as patch, self.watched():
            patch.setattr(signal, "signal", lambda number, handler: signal.SIG_DFL)
            with pytest.raises(SystemExit) as ended:
                main()
        captured = self._capture.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    def _may_grow(self, place: str) -> bool:
        path = Path(os.path.abspath(place))
        inside = any(path.is_relative_to(each) for each in (self.runs, self.cache))
        of_imports = "__pycache__" in path.parts or path.name.startswith("torchinductor_")
        return inside or of_imports or str(path) in _HARMLESS

    def _snapshot(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self.path.rglob("*"):
            if not path.is_relative_to(self.runs) and not path.is_relative_to(self.cache):
                status = path.lstat()
                found[str(path)] = (status.st_size if path.is_file() else 0, status.st_mtime_ns)
        return found


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Room:
    """A room for one artefact."""
    return Room(tmp_path, monkeypatch, capsys)


@pytest.fixture
def quick_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second of processor time for a template instead of five, and no memory of those that passed."""
    monkeypatch.setattr(templates, "TRIAL_SECONDS", 1)
    monkeypatch.setattr(templates, "_PASSED", set())
