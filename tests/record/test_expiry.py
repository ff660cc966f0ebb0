"""What has expired is removed wherever it lies, the audit says so, and the seal of a finished run still holds."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from robustlab.record import expiry
from robustlab.record.custody import balance
from robustlab.record.expiry import sweep, sweep_all
from robustlab.record.journal import Journal, verify_journal
from robustlab.record.kept import TRANSCRIPTS, Keeping, begin_keeping, list_kept
from robustlab.record.run_folder import RunFolder
from robustlab.record.sealing import make_key
from robustlab.record.transcripts import Place, Said, open_store

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
PUBLIC = make_key()[1].decode()


def make_run(root: Path, name: str, *ages: int) -> RunFolder:
    """A finished run with one file of transcripts for each age in days."""
    folder = RunFolder.create(root, name)
    begin_keeping(folder, TRANSCRIPTS, Keeping(reason="to label", public_key=PUBLIC, expire_days=30))
    with Journal.open(folder.ledger) as journal:
        store = open_store(folder, journal)
        assert store is not None
        for step, age in enumerate(ages):
            save(store, step, NOW - timedelta(days=age))
    folder.write_manifest()
    return folder


def save(store: Any, step: int, now: datetime) -> None:
    said = Said(
        behavior="b" * 64, category="x", request="?", completion="!", verdicts={}, tokens=1, completion_hmac="c" * 64
    )
    store.save(Place(cell_id="cell", eval="smoke", phase="milestone", step=step), [said], now=now)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_nothing_is_touched_before_its_time(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run-1", 0, 29)
    assert sweep(folder, now=NOW) == 0
    assert not folder.custody.exists()
    assert len(list_kept(folder, TRANSCRIPTS)) == 2


def test_what_has_expired_goes_and_the_audit_balances(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run-1", 0, 30, 31)
    assert sweep(folder, now=NOW) == 2
    assert [path.name for path in folder.transcripts.glob("cell/*")] == ["smoke.milestone-000000.json"]
    written = records(folder.custody)
    assert [(each["event"], each["why"]) for each in written] == [
        ("deleted", "expired 2026-11-22T12:00:00+00:00"),
        ("deleted", "expired 2026-11-21T12:00:00+00:00"),
    ]
    assert verify_journal(folder.custody).records == 2
    assert stat.S_IMODE(folder.custody.stat().st_mode) == 0o600
    drawn = balance(records(folder.ledger) + written)
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (3, 2, 1, ())
    folder.check_manifest()
    assert sweep(folder, now=NOW) == 0
    assert len(records(folder.custody)) == 2


def test_a_file_that_was_changed_goes_too(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run-1", 30)
    (path,) = folder.transcripts.glob("cell/*")
    path.write_bytes(b"changed")
    assert sweep(folder, now=NOW) == 1
    assert not path.exists()


def test_a_crash_between_file_and_record_is_closed_the_next_time(tmp_path: Path, monkeypatch: Any) -> None:
    folder = make_run(tmp_path, "run-1", 30)

    class Killed(BaseException):
        pass

    def killed(self: object, *words: str) -> str:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(expiry.CustodyLog, "deleted", killed)
        with pytest.raises(Killed):
            sweep(folder, now=NOW)
    assert list(folder.transcripts.glob("cell/*")) == []
    assert sweep(folder, now=NOW) == 0
    assert balance(records(folder.ledger) + records(folder.custody)).kept == 0


def test_a_younger_transcript_of_the_same_name_stays(tmp_path: Path) -> None:
    """A crash cut off the replacing: the ledger names both, and the file is the younger one."""
    folder = make_run(tmp_path, "run-1", 30)
    with Journal.open(folder.ledger) as journal:
        store = open_store(folder, journal)
        assert store is not None
        store._files._known.clear()  # as if the process had ended before it wrote that the older one is gone
        save(store, 0, NOW)
    assert sweep(folder, now=NOW) == 0
    assert len(list(folder.transcripts.glob("cell/*"))) == 1
    assert [found.expires for found in list_kept(folder, TRANSCRIPTS)] == ["2026-12-22T12:00:00+00:00"]


def test_all_runs_of_a_folder_are_swept_and_one_that_cannot_be_hinders_none(tmp_path: Path) -> None:
    broken, held, good = (make_run(tmp_path, name, 31) for name in ("run-1", "run-2", "run-3"))
    RunFolder.create(tmp_path, "run-4")
    broken.ledger.write_bytes(broken.ledger.read_bytes().replace(b"to label", b"to lable"))
    told: list[str] = []
    with Journal.open(held.custody):
        sweep_all(tmp_path, say=told.append, now=NOW)
    cannot = "kept files that have expired could not be removed"
    assert told == [
        f"run run-1: {cannot}: {broken.ledger} record 2: is not what was written: its hash does not match; "
        "do not trust this run; repeat it",
        f"run run-2: {cannot}: {held.custody}: is held by another process; wait until that run ends, or stop it",
        "run run-3: 1 kept files had expired and are removed",
    ]
    assert list(good.transcripts.glob("cell/*")) == []
    told.clear()
    sweep_all(tmp_path / "none", say=told.append, now=NOW)
    assert told == []


def test_a_run_that_goes_on_is_swept_while_another_process_holds_its_ledger(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run-1", 31)
    with Journal.open(folder.ledger) as journal:
        assert sweep(folder, now=NOW) == 1
        store = open_store(folder, journal)
        assert store is not None
        save(store, 0, NOW)
    assert len(list_kept(folder, TRANSCRIPTS)) == 1


def test_an_audit_that_names_a_file_elsewhere_removes_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "run-1", 0)
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    with Journal.open(folder.ledger) as journal:
        artefact = "transcripts/../../victim.json"
        expiry.CustodyLog(journal.append).created(artefact, "a" * 64, "x", expires="2020-01-01T00:00:00+00:00")
    told: list[str] = []
    sweep_all(tmp_path, say=told.append, now=NOW)
    assert victim.read_text() == "mine"
    assert len(told) == 1 and "holds no such file, got 'transcripts/../../victim.json'" in told[0]
