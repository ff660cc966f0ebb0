"""A lock on cached work: one process at a time, never left behind, and whoever waits knows for whom."""

import fcntl
import multiprocessing
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from robustlab.errors import RecordError
from robustlab.record.locks import hold_lock

FORK = multiprocessing.get_context("fork")
LATE_SECONDS = 60


class Holder:
    """Another process that takes a lock, and holds it until it is told or killed."""

    def __init__(self, path: Path) -> None:
        self._held, held = os.pipe()
        release, self._release = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._release)
            with hold_lock(path, "the work", say=lambda _: None):
                os.write(held, b"!")
                os.read(release, 1)
            os._exit(0)
        os.close(release)
        os.close(held)

    def is_in(self, seconds: float) -> bool:
        return bool(select.select([self._held], [], [], seconds)[0])

    def let_go(self) -> None:
        os.write(self._release, b"!")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        os.waitpid(self.pid, 0)
        os.close(self._held)
        os.close(self._release)


@contextmanager
def holder(path: Path) -> Iterator[Holder]:
    found = Holder(path)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def held(path: Path) -> Iterator[Holder]:
    with holder(path) as found:
        assert found.is_in(LATE_SECONDS)
        yield found


def test_nobody_waits_for_a_lock_that_is_free(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "cache" / "locks" / "work.lock"
    for _ in range(2):
        with hold_lock(path, "the work", say=said.append):
            assert path.stat().st_mode & 0o777 == 0o600
    assert said == []
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_who_waits_is_told_for_whom_and_only_the_waiting_is_wrapped(tmp_path: Path) -> None:
    path, said, course = tmp_path / "work.lock", list[str](), list[str]()
    with held(path) as other:

        @contextmanager
        def waiting() -> Iterator[None]:
            course.append("waits")
            other.let_go()
            yield
            course.append("waited")

        with hold_lock(path, "the work", say=said.append, waiting=waiting):
            course.append("in")
    assert course == ["waits", "waited", "in"]
    assert said[0].startswith(f"the work: process {other.pid} on {os.uname().nodename}, since 2")
    assert said[0].endswith(", is at it, waiting") and len(said) == 1


def test_a_crash_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "work.lock"
    with held(path) as other:
        other.kill()
        with hold_lock(path, "the work", say=lambda _: None):
            pass


def test_a_cache_that_is_emptied_meanwhile_has_another_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits on a file that is gone would be let in beside whoever made a new one."""
    path, lock = tmp_path / "work.lock", fcntl.flock
    with held(path) as other:

        def emptied_while_waiting(descriptor: int, operation: int) -> None:
            if not operation & fcntl.LOCK_NB:
                path.unlink(missing_ok=True)
                other.let_go()
                monkeypatch.setattr(fcntl, "flock", lock)
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", emptied_while_waiting)
        with hold_lock(path, "the work", say=lambda _: None), holder(path) as third:
            assert not third.is_in(0.3)


@pytest.mark.parametrize("text", [b"", b"\xff\x1b[31m", b"no\nline"])
def test_a_name_that_cannot_be_read_is_another_process(tmp_path: Path, text: bytes) -> None:
    path, said = tmp_path / "work.lock", list[str]()
    with held(path) as other:
        path.write_bytes(text)

        @contextmanager
        def waiting() -> Iterator[None]:
            other.let_go()
            yield

        with hold_lock(path, "the work", say=said.append, waiting=waiting):
            pass
    assert said == ["the work: another process is at it, waiting"]


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(RecordError, match=r"work.lock: cannot be written: File exists; look at the file system"),
        hold_lock(tmp_path / "file" / "work.lock", "the work", say=lambda _: None),
    ):
        pass


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "work.lock").symlink_to(tmp_path / "victim")
    with (
        pytest.raises(RecordError, match="work.lock: cannot be written: Too many levels of symbolic links"),
        hold_lock(tmp_path / "work.lock", "the work", say=lambda _: None),
    ):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def add_one(path: Path, counter: Path, times: int) -> None:
    for _ in range(times):
        with hold_lock(path, "the work", say=lambda _: None):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_eight_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [FORK.Process(target=add_one, args=(tmp_path / "work.lock", counter, 25)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LATE_SECONDS)
    assert counter.read_text() == "200"
