"""Whatever on the disk does not agree with the audit is named, and nothing else is."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustlab.record.custody import CustodyLog, trace_artefacts
from robustlab.record.inventory import find_disagreements
from robustlab.record.journal import Journal, read_journal
from robustlab.record.kept import ADAPTERS, Keeping, KeptFiles, begin_keeping
from robustlab.record.run_folder import RunFolder, write_atomic, write_json
from robustlab.record.states import META, TENSORS, describe_files

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXPIRES = "2026-12-22T12:00:00+00:00"
STATE, ADAPTER = "resume/cell1/step-000010", "adapters/cell1.sealed"
DIGEST = "d" * 64
TRUST = "find out who was there, and do not trust this run"
SETTLE = "if a crash was the cause, `robustlab resume run-1` or `robustlab abandon run-1` settles it"
STRAY = "lies there, and no record says that it should; find out where it came from, and remove it"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """An unfinished run with one live state and one kept adapter; all of it agrees."""
    made = RunFolder.create(tmp_path, "run-1")
    keeping = Keeping(reason="audit", public_key="a key", expire_days=30)
    begin_keeping(made, ADAPTERS, keeping)
    with Journal.open(made.ledger) as journal:
        CustodyLog(journal.append).created(STATE, DIGEST, "to resume after a crash")
        write_state(made.path / STATE)
        files = KeptFiles(made, ADAPTERS, keeping, journal)
        write_atomic(files.announce(ADAPTER, b"sealed", EXPIRES), b"sealed")
        files.keep(ADAPTER, b"sealed", EXPIRES)
    return made


def write_state(path: Path, digest: str = DIGEST) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)
    write_atomic(path / TENSORS, b"tensors")
    write_json(path / META, {"digest": digest})
    write_atomic(path / "manifest.json", describe_files(path, (TENSORS, META)))


def faults(folder: RunFolder, *, now: datetime = NOW) -> list[str]:
    return find_disagreements(
        folder, trace_artefacts(read_journal(folder.ledger)[0])[0], now, has_ended=folder.is_finished
    )


def finish(folder: RunFolder) -> None:
    """End the run as it ends: without states, with a manifest last."""
    for path in sorted((folder.path / STATE).iterdir()):
        path.unlink()
    (folder.path / STATE).rmdir()
    (folder.path / STATE).parent.rmdir()
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).deleted(STATE, DIGEST, "the cell has been measured")
    folder.write_manifest()


def test_what_agrees_has_no_fault(folder: RunFolder) -> None:
    assert faults(folder) == []
    finish(folder)
    assert faults(folder) == []


def test_what_a_step_writes_before_it_has_its_name_belongs_to_it(folder: RunFolder) -> None:
    (folder.path / STATE).rename(folder.path / "resume/cell1/.staged-000010")
    write_atomic(folder.path / "adapters/.cell1.sealed.0123abcd.tmp", b"sea")
    assert faults(folder) == []


def remove_state(folder: RunFolder) -> str:
    for path in (folder.path / STATE).iterdir():
        path.unlink()
    (folder.path / STATE).rmdir()
    return f"{folder.path / STATE}: is recorded as there, and is not; {SETTLE}"


def change_state(folder: RunFolder) -> str:
    (folder.path / STATE / TENSORS).write_bytes(b"another")
    return f"{folder.path / STATE}: does not hold: {TENSORS} has changed; {SETTLE}"


def exchange_state(folder: RunFolder) -> str:
    remove_state(folder)
    write_state(folder.path / STATE, "e" * 64)
    return f"{folder.path / STATE}: is not what was recorded: it is the state of another modification; {SETTLE}"


def empty_state(folder: RunFolder) -> str:
    path = folder.path / STATE
    write_json(path / META, [])
    write_atomic(path / "manifest.json", describe_files(path, (TENSORS, META)))
    return f"{path}: does not hold: {META} is none; {SETTLE}"


def remove_kept(folder: RunFolder) -> str:
    (folder.path / ADAPTER).unlink()
    return f"{folder.path / ADAPTER}: is recorded as there, and is not; {TRUST}"


def change_kept(folder: RunFolder) -> str:
    write_atomic(folder.path / ADAPTER, b"other")
    return f"{folder.path / ADAPTER}: is not what was recorded: it was changed; {TRUST}"


def add_state(folder: RunFolder) -> str:
    (folder.path / "resume/cell1/step-000004").mkdir(mode=0o700)
    write_atomic(folder.path / "resume/cell1/step-000004" / TENSORS, b"tensors")
    return f"{folder.path / 'resume/cell1/step-000004' / TENSORS}: {STRAY}"


def add_kept(folder: RunFolder) -> str:
    write_atomic(folder.path / "adapters/cell2.sealed", b"x")
    return f"{folder.path / 'adapters/cell2.sealed'}: {STRAY}"


def add_weights(folder: RunFolder) -> str:
    write_atomic(folder.path / "merged.safetensors", b"x")
    return f"{folder.path / 'merged.safetensors'}: {STRAY}"


def add_weights_to_the_mirror(folder: RunFolder) -> str:
    folder.mirror.mkdir(mode=0o700)
    write_atomic(folder.mirror / "model.bin", b"x")
    return f"{folder.mirror / 'model.bin'}: {STRAY}"


def open_file(folder: RunFolder) -> str:
    (folder.path / ADAPTER).chmod(0o640)
    close = "close it with `chmod -R go= RUN`, and find out who has read it"
    return f"{folder.path / ADAPTER}: is open to others, got mode 0640; {close}"


def open_folder(folder: RunFolder) -> str:
    folder.path.chmod(0o711)
    close = "close it with `chmod -R go= RUN`, and find out who has read it"
    return f"{folder.path}: is open to others, got mode 0711; {close}"


def expire(folder: RunFolder) -> str:
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("transcripts/a/b.json", DIGEST, "x", expires="2026-11-22T12:00:00+00:00")
    return (
        f"{folder.path / 'transcripts/a/b.json'}: should have been removed on 2026-11-22T12:00:00+00:00; "
        "any `robustlab run`, `resume` or `label` removes it"
    )


def write_no_expiry(folder: RunFolder) -> str:
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("transcripts/a/b.json", DIGEST, "x", expires="soon")
    return f"{folder.path / 'transcripts/a/b.json'}: has an expiry that is none, got 'soon'; {TRUST}"


def record_elsewhere(folder: RunFolder) -> str:
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("../other/x.json", DIGEST, "x")
    return f"{folder.path / '../other/x.json'}: is recorded under a name that no artefact has; {SETTLE}"


def link_kept(folder: RunFolder) -> str:
    (folder.path / ADAPTER).unlink()
    (folder.path / ADAPTER).symlink_to(folder.ledger)
    return f"{folder.path / ADAPTER}: is a link; {TRUST}"


@pytest.mark.parametrize(
    "change",
    [
        remove_state,
        change_state,
        exchange_state,
        empty_state,
        remove_kept,
        change_kept,
        add_state,
        add_kept,
        add_weights,
        add_weights_to_the_mirror,
        open_file,
        open_folder,
        expire,
        write_no_expiry,
        record_elsewhere,
        link_kept,
    ],
)
def test_what_does_not_agree_is_named(folder: RunFolder, change: Callable[[RunFolder], str]) -> None:
    wanted = change(folder)
    found = faults(folder)
    assert wanted in found
    others = {expire: 1, write_no_expiry: 1, link_kept: 1}  # the file is not there either; a link is not compared
    assert len(found) == 1 + others.get(change, 0), found


def test_expiry_is_a_matter_of_time(folder: RunFolder) -> None:
    assert faults(folder, now=NOW + timedelta(days=30, seconds=-1)) == []
    assert len(faults(folder, now=NOW + timedelta(days=30))) == 1


def test_a_run_that_has_ended_has_nothing_live_and_nothing_beside_its_manifest(folder: RunFolder) -> None:
    folder.write_manifest()
    assert faults(folder) == [f"{folder.path / STATE}: is live by the audit though the run has ended; {TRUST}"]
    write_atomic(folder.path / "notes.json", b"{}")
    assert f"{folder.path / 'notes.json'}: {STRAY}" in faults(folder)


def test_what_grows_after_the_end_belongs_there(folder: RunFolder) -> None:
    finish(folder)
    write_atomic(folder.labels, b"")
    write_atomic(folder.custody, b"")
    folder.mirror.mkdir(mode=0o700)
    write_atomic(folder.mirror / "run.wandb", b"x")
    (folder.mirror / "latest-run").symlink_to(folder.mirror / "run.wandb")
    assert faults(folder) == []


@pytest.mark.parametrize("manifest", ["[]", "{", json.dumps({"files": []})])
def test_a_manifest_that_is_none_is_for_the_ledgers_check(folder: RunFolder, manifest: str) -> None:
    finish(folder)
    write_atomic(folder.manifest, manifest.encode())
    assert faults(folder) == []


def test_without_an_audit_the_permissions_are_looked_at_all_the_same(folder: RunFolder) -> None:
    assert find_disagreements(folder, None, NOW, has_ended=False) == []
    assert find_disagreements(folder, None, NOW, has_ended=False) == []
    wanted = open_file(folder)
    assert find_disagreements(folder, None, NOW, has_ended=False) == [wanted]


@pytest.mark.parametrize("name", ["step-000010", TENSORS])
def test_what_vanishes_under_the_look_is_no_fault_of_its_own(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = Path.lstat

    def look(path: Path) -> os.stat_result:
        if path.name == name:
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(Path, "lstat", look)
    assert find_disagreements(folder, None, NOW, has_ended=False) == []


def test_a_state_that_vanishes_under_its_check_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(path: Path) -> None:
        raise FileNotFoundError("made up")

    monkeypatch.setattr("robustlab.record.inventory.find_fault", vanish)
    assert faults(folder) == [f"{folder.path / STATE}: cannot be compared with the audit: made up; {SETTLE}"]
