"""A run folder is closed to others, a file in it is whole or absent, and the manifest knows every byte."""

import errno
import json
import os
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel

from robustlab.errors import ConfigError, RecordError
from robustlab.record.run_folder import (
    RunFolder,
    check_run_id,
    file_sha256,
    new_run_id,
    read_plain,
    write_atomic,
    write_json,
    write_once,
)

RUN_ID = "20261122T021733Z-a1b2c3"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failing(number: int) -> Any:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def test_run_ids_sort_by_time_and_are_in_utc() -> None:
    moment = datetime(2026, 11, 22, 3, 17, 33, tzinfo=timezone(timedelta(hours=1)))
    assert new_run_id(moment).startswith("20261122T021733Z-")
    assert new_run_id(moment) < new_run_id(moment + timedelta(seconds=1))
    assert new_run_id(moment) != new_run_id(moment)


def test_a_new_name_is_a_run_id(tmp_path: Path) -> None:
    before = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    run_id = new_run_id()
    assert RunFolder.create(tmp_path, run_id).run_id == run_id
    assert run_id[:16] >= before


def test_create_makes_closed_folders(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", RUN_ID)
    assert [mode(path) for path in (tmp_path / "runs", folder.path, folder.resume)] == [0o700] * 3
    assert not folder.is_finished
    assert RunFolder.open(tmp_path / "runs", RUN_ID) == folder


def test_paths(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / RUN_ID)
    paths = (folder.plan, folder.ledger, folder.items, folder.results, folder.report, folder.resume, folder.manifest)
    names = ["plan.yaml", "ledger.jsonl", "items.jsonl", "results.json", "report.html", "resume", "manifest.json"]
    assert [path.relative_to(folder.path).as_posix() for path in paths] == names


def test_create_refuses_what_is_there(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, RUN_ID)
    with pytest.raises(RecordError, match=f"{RUN_ID}: exists already; take another name"):
        RunFolder.create(tmp_path, RUN_ID)


def test_create_on_a_closed_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.EROFS))
    with pytest.raises(RecordError, match="cannot be written: Read-only file system; make the folder writable"):
        RunFolder.create(tmp_path, RUN_ID)


@pytest.mark.parametrize("run_id", ["sweep", "2", "A.b_c-d", "x" * 64])
def test_a_run_may_have_a_name(tmp_path: Path, run_id: str) -> None:
    assert RunFolder.create(tmp_path, run_id) == RunFolder.open(tmp_path, check_run_id(run_id))


@pytest.mark.parametrize("run_id", ["..", "../20261122T021733Z-a1b2c3", "", "-l", ".x", "a b", "x" * 65, RUN_ID + "\n"])
def test_what_is_no_run_id_is_no_path(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a run id; ids look like 20261122T021733Z-a1b2c3"):
        RunFolder.open(tmp_path, run_id)
    with pytest.raises(ConfigError, match="is not a run id"):
        RunFolder.create(tmp_path, run_id)


def test_open_names_the_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"run '{RUN_ID}': is not in .*; `robustlab list runs` shows"):
        RunFolder.open(tmp_path, RUN_ID)
    (tmp_path / RUN_ID).symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is not in"):
        RunFolder.open(tmp_path, RUN_ID)


def test_write_atomic_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"longer than the next")
    write_atomic(path, b"short")
    assert path.read_bytes() == b"short"
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["a.bin"]


def test_write_atomic_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("step", ["fsync", "rename", "open"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free some space and resume the run"),
        (errno.EROFS, "Read-only file system; make the folder writable, or choose another one"),
        (errno.EIO, "Input/output error; look at the file system"),
        (errno.EDQUOT, "Disk quota exceeded; free some space and resume the run"),
        (errno.EFBIG, r"File too large; raise the limit on the size of files \(`ulimit -f`\) and resume the run"),
    ],
)
def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, remedy: str
) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"earlier")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing(number))
        with pytest.raises(RecordError, match=f"a.bin: cannot be written: {remedy}"):
            write_atomic(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written: No such file or directory"):
        write_atomic(tmp_path / "no" / "a", b"")


class Small(BaseModel):
    value: float


def test_write_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, Small(value=0.5))
    assert json.loads(path.read_bytes()) == {"value": 0.5}
    write_json(path, {"é": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes"])
def test_write_json_refuses_what_is_not_json(tmp_path: Path, value: object) -> None:
    with pytest.raises(RecordError, match="a.json: holds what JSON cannot: .*; record finite numbers and plain data"):
        write_json(tmp_path / "a.json", {"value": value})
    assert os.listdir(tmp_path) == []


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(RecordError, match="none: cannot be read: No such file or directory; restore the file"):
        file_sha256(tmp_path / "none")


def finished(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path, RUN_ID)
    write_atomic(folder.plan, b"kind: resolved_plan\n")
    write_atomic(folder.resume / "state.json", b"{}")
    folder.write_manifest()
    return folder


def test_the_manifest_lists_every_other_file(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    document = json.loads(folder.manifest.read_bytes())
    assert document["run_id"] == RUN_ID
    assert document["files"]["resume/state.json"] == {
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # of {}
    }
    assert sorted(document["files"]) == ["plan.yaml", "resume/state.json"]
    assert folder.is_finished
    assert folder.check_manifest() == 2
    folder.write_manifest()
    assert folder.check_manifest() == 2


def test_every_difference_from_the_manifest_comes_at_once(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.plan.write_bytes(b"kind: resolved_plaN\n")
    (folder.resume / "state.json").unlink()
    folder.report.write_bytes(b"")
    expected = "plan.yaml has changed, report.html is not listed, resume/state.json is missing; do not trust this run"
    with pytest.raises(RecordError, match=expected):
        folder.check_manifest()


def test_a_file_that_is_made_again_may_differ_and_no_other(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    besides = frozenset({"report.html"})
    assert folder.check_manifest(besides=besides) == 2
    folder.report.write_bytes(b"new")
    assert folder.check_manifest(besides=besides) == 2
    folder.write_manifest()
    folder.report.unlink()
    assert folder.check_manifest(besides=besides) == 2
    folder.plan.write_bytes(b"other\n")
    with pytest.raises(RecordError, match=r"manifest.json: plan.yaml has changed; do not trust"):
        folder.check_manifest(besides=besides)


def test_what_comes_and_goes_after_the_end_is_no_part_of_the_manifest(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.transcripts.mkdir()
    for path in (folder.transcripts / "x.json", folder.custody, folder.labels):
        path.write_bytes(b"later")
    assert folder.check_manifest() == 2
    folder.write_manifest()
    folder.labels.unlink()
    assert folder.check_manifest() == 2
    assert [path.name for path in (folder.transcripts, folder.custody, folder.labels)] == [
        "transcripts",
        "custody.jsonl",
        "labels.jsonl",
    ]


def test_write_once_keeps_what_the_first_wrote(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_once(path, b"first")
    write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    with pytest.raises(RecordError, match="none/key: cannot be written: No such file or directory"):
        write_once(tmp_path / "none" / "key", b"first")


def test_a_run_without_a_manifest_has_not_ended(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RUN_ID)
    with pytest.raises(RecordError, match="manifest.json: is missing: the run has not ended; resume the run"):
        folder.check_manifest()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": []}', b"\xff", b"[" * 200_000])
def test_what_is_not_a_manifest(tmp_path: Path, content: bytes) -> None:
    folder = finished(tmp_path)
    folder.manifest.write_bytes(content)
    with pytest.raises(RecordError, match="manifest.json: is not a manifest; do not trust this run"):
        folder.check_manifest()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["pipe", "link", "folder"])
def test_what_stands_in_the_place_of_a_manifest_is_none(tmp_path: Path, make: str) -> None:
    folder = RunFolder.create(tmp_path, RUN_ID)
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("nowhere"), "folder": os.mkdir}[make](folder.manifest)
    assert folder.is_finished
    with pytest.raises(RecordError, match="manifest.json: is not a manifest; do not trust this run"):
        folder.check_manifest()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["pipe", "link", "folder"])
def test_only_plain_files_are_read(tmp_path: Path, make: str) -> None:
    (tmp_path / "plain").write_bytes(b"data")
    assert read_plain(tmp_path / "plain") == b"data"
    path = tmp_path / "other"
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("plain"), "folder": os.mkdir}[make](path)
    with pytest.raises(RecordError) as caught:
        read_plain(path)
    assert str(caught.value) == f"{path}: is not a plain file; do not trust this run; repeat it"


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_bytes(b"data")
    with pytest.raises(RecordError, match="none: cannot be read: No such file or directory; name a run that exists"):
        read_plain(tmp_path / "none")

    def closed(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("robustlab.record.run_folder.os.open", closed)
    with pytest.raises(RecordError, match="plain: cannot be read: Permission denied; make the file readable"):
        read_plain(tmp_path / "plain")


def test_a_link_in_a_run_folder_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RUN_ID)
    folder.report.symlink_to(tmp_path)
    with pytest.raises(RecordError, match="report.html: is a link or a device; remove it"):
        folder.write_manifest()
