"""A folder that another process changes is listed all the same."""

import os
from pathlib import Path

import pytest

from robustlab.record.tree import list_entries


def test_everything_is_listed_and_no_link_followed(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "file").write_text("four")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    found = list_entries(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a", "b", "b/c", "b/c/file"]
    assert found[tmp_path / "b" / "c" / "file"].st_size == 4
    assert list_entries(tmp_path / "none") == {}


@pytest.mark.parametrize("error", [FileNotFoundError, NotADirectoryError])
def test_what_vanishes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    vanish(monkeypatch, "gone", error)
    for name in ("gone", "here"):
        (tmp_path / name).write_text("x")
    assert list(list_entries(tmp_path)) == [tmp_path / "here"]


def test_what_cannot_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vanish(monkeypatch, "shut", PermissionError)
    (tmp_path / "shut").write_text("x")
    with pytest.raises(PermissionError):
        list_entries(tmp_path)


def vanish(monkeypatch: pytest.MonkeyPatch, name: str, error: type[OSError]) -> None:
    real = Path.lstat

    def look(path: Path) -> os.stat_result:
        if path.name == name:
            raise error(path)
        return real(path)

    monkeypatch.setattr(Path, "lstat", look)
