import os
from pathlib import Path

import pytest

from robustlab.errors import RecordError
from robustlab.record.leftovers import remove_leftovers
from robustlab.record.run_folder import RunFolder, write_atomic


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


def crash_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(source: Path, target: Path) -> None:
        monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(Crash):
            write_atomic(path, b"whole")
    monkeypatch.undo()


def test_what_a_crash_left_of_an_atomic_write_goes(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "cells").mkdir()
    for path in (folder.results, folder.path / "cells" / "a.items.jsonl"):
        crash_in(path, monkeypatch)
    assert len(list(folder.path.rglob("*.tmp"))) == 2
    assert remove_leftovers(folder) == 2
    assert [path.name for path in sorted(folder.path.rglob("*"))] == ["cells", "resume"]


def test_everything_else_stays(folder: RunFolder) -> None:
    write_atomic(folder.plan, b"plan")
    folder.mirror.mkdir()
    names = ["notes.tmp", ".a.tmp", ".a.0123456g.tmp", "wandb/.a.01234567.tmp"]
    for name in names:
        (folder.path / name).write_bytes(b"")
    (folder.path / ".a.01234567.tmp").mkdir()
    assert remove_leftovers(folder) == 0
    assert all((folder.path / name).exists() for name in [*names, "plan.yaml", ".a.01234567.tmp"])


def test_a_disk_that_lets_nothing_go_is_an_error(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_in(folder.results, monkeypatch)
    (left,) = folder.path.glob("*.tmp")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RecordError) as caught:
        remove_leftovers(folder)
    remedy = "make the folder writable, or choose another one"
    assert str(caught.value) == f"{left}: cannot be written: Read-only file system; {remedy}"
