"""What became of everything degraded: read from both journals, beside whatever the run is doing."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from robustlab.engine import custody
from robustlab.engine.abandon import abandon_run
from robustlab.engine.custody import Departure, describe_fate, examine, examine_runs, to_plain
from robustlab.errors import ConfigError
from robustlab.record.custody import Artefact, CustodyBalance, CustodyLog
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder, write_atomic
from robustlab.record.sending import Consent, allow, record_sending, record_sent

A, B = "a" * 64, "b" * 64
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has ended: a state was made, replaced and deleted."""
    made = RunFolder.create(tmp_path, "run-1")
    with Journal.open(made.ledger) as journal:
        log = CustodyLog(journal.append)
        for step, digest in ((4, A), (8, B)):
            log.created(f"resume/cell1/step-{step:06d}", digest, "to resume after a crash")
        log.deleted("resume/cell1/step-000004", A, "a newer state has taken its place")
        log.deleted("resume/cell1/step-000008", B, "the cell has been measured")
        journal.append({"record": "charge", "account": "attacker", "phase": "train", "node": "cell1"})
        journal.append({"record": "charge", "account": "attacker", "phase": "load", "node": "cell2"})
        journal.append({"record": "charge", "account": "laboratory", "phase": "train", "node": "released-1"})
    made.write_manifest()
    return made


def look(folder: RunFolder) -> custody.RunCustody:
    return examine(folder, NOW, lambda seconds: None)


def test_every_artefact_has_its_fate_and_the_sum_is_drawn(folder: RunFolder) -> None:
    found = look(folder)
    assert [(each.artefact, each.sha256, each.event, each.ended_why) for each in found.artefacts] == [
        ("resume/cell1/step-000004", A, "deleted", "a newer state has taken its place"),
        ("resume/cell1/step-000008", B, "deleted", "the cell has been measured"),
    ]
    assert found.balance == CustodyBalance(created=2, deleted=2, kept=0, live=())
    assert (found.in_memory, found.sent, found.faults, found.state) == (("cell1",), (), (), "finished")
    assert all(each.made is not None and each.ended is not None for each in found.artefacts)
    assert json.loads(json.dumps(to_plain(found)))["balance"]["deleted"] == 2


def test_what_was_removed_after_the_end_counts_too(folder: RunFolder) -> None:
    name = "transcripts/cell1/smoke.final-000010.json"
    folder.manifest.unlink()
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created(name, A, "to label", expires="2026-11-21T12:00:00+00:00")
        CustodyLog(journal.append).kept(name, A, "to label", expires="2026-11-21T12:00:00+00:00")
    folder.write_manifest()
    assert [fault.partition(": ")[2].partition(";")[0] for fault in look(folder).faults] == [
        "should have been removed on 2026-11-21T12:00:00+00:00",
        "is recorded as there, and is not",
    ]
    with Journal.open(folder.custody) as journal:
        CustodyLog(journal.append).deleted(name, A, "expired 2026-11-21T12:00:00+00:00")
    found = look(folder)
    assert found.faults == ()
    assert found.balance == CustodyBalance(created=3, deleted=3, kept=0, live=())


def test_a_state_that_was_swept_and_made_anew_is_another_artefact(folder: RunFolder) -> None:
    """The second making stands in the ledger, before the sweep by its place and after it by its time."""
    folder.manifest.unlink()
    name = "resume/cell1/step-000012"
    with Journal.open(folder.ledger, now=lambda: datetime(2030, 1, 1, tzinfo=UTC)) as journal:
        CustodyLog(journal.append).created(name, A, "to resume after a crash")
        with Journal.open(folder.custody, now=lambda: datetime(2030, 1, 2, tzinfo=UTC)) as beside:
            CustodyLog(beside.append).deleted(name, A, "abandoned")
    with Journal.open(folder.ledger, now=lambda: datetime(2030, 1, 3, tzinfo=UTC)) as journal:
        CustodyLog(journal.append).created(name, A, "to resume after a crash")
        CustodyLog(journal.append).deleted(name, A, "the cell has been measured")
    found = look(folder)
    assert found.balance == CustodyBalance(created=4, deleted=4, kept=0, live=())
    assert found.faults == ()


@pytest.mark.parametrize("place", ["ledger", "custody"])
def test_a_broken_chain_is_a_fault_and_permissions_are_looked_at_all_the_same(folder: RunFolder, place: str) -> None:
    path = getattr(folder, place)
    path.write_bytes(folder.ledger.read_bytes().replace(b"to resume", b"for a talk", 1))
    path.chmod(0o604)
    found = look(folder)
    assert found.artefacts == ()
    assert [fault.partition(": ")[2] for fault in found.faults] == [
        "is not what was written: its hash does not match; do not trust this run; repeat it",
        "is open to others, got mode 0604; close it with `chmod -R go= RUN`, and find out who has read it",
    ]


def test_what_was_deleted_without_having_been_there_is_a_fault(folder: RunFolder) -> None:
    with Journal.open(folder.custody) as journal:
        CustodyLog(journal.append).deleted("adapters/x.sealed", A, "gone")
        journal.append({"kind": "custody", "event": "lost"})
    assert look(folder).faults == (
        f"adapters/x.sealed: was deleted without having been there, sha256 {A}; "
        "find out where it came from before you go on",
        "a record of custody: names no artefact, got event 'lost'; find out where it came from before you go on",
    )


def test_what_left_the_machine_is_shown_with_its_reason(folder: RunFolder) -> None:
    folder.manifest.unlink()
    with Journal.open(folder.ledger) as journal:
        allow(journal.append, Consent(("judge.example", "idle.example"), "for the audit"))
        record_sending(journal.append, "second", "judge.example", completions=24, size=900, why="for the audit")
        record_sent(journal.append, "second", "judge.example", completions=20, size=800, why="for the audit")
    found = look(folder)
    assert found.sent == (
        Departure("judge.example", 20, 800, "for the audit"),
        Departure("idle.example", 0, 0, "for the audit"),
    )
    assert found.faults == ()
    with Journal.open(folder.ledger) as journal:
        record_sending(journal.append, "second", "other.example", completions=1, size=9, why="")
    assert look(folder).faults == ("other.example: was sent completions without leave; do not trust this run",)


def test_records_of_what_was_sent_that_say_nothing_are_a_fault(folder: RunFolder) -> None:
    folder.manifest.unlink()
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "completions", "event": "sent", "host": "h"})
    assert look(folder).faults == (
        "a record of what was sent: does not say to whom, how many or how large; do not trust this run",
    )


def test_a_torn_record_is_left_out(folder: RunFolder) -> None:
    folder.manifest.unlink()
    with folder.ledger.open("ab") as file:
        file.write(b'{"kind": "custody", "ev')
    found = look(folder)
    assert (found.torn_bytes, found.faults) == (23, ())
    assert found.balance.created == 2


def test_a_run_that_goes_on_is_looked_at_twice(folder: RunFolder) -> None:
    """Between the record and the first byte of a state its file is not there; a moment later it is."""
    folder.manifest.unlink()
    waited = []
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("adapters/cell1.sealed", A, "audit")
        CustodyLog(journal.append).created("adapters/cell2.sealed", B, "audit")

        def settle(seconds: float) -> None:
            waited.append(seconds)
            CustodyLog(journal.append).deleted("adapters/cell1.sealed", A, "gone")
            (folder.path / "adapters").mkdir(mode=0o700)
            write_atomic(folder.path / "adapters" / "cell3.sealed", b"x")

        found = examine(folder, NOW, settle)
    assert waited == [custody.SECOND_LOOK_SECONDS]
    # cell1 is settled by now, cell3 is new: what stood both times is cell2.
    assert [Path(fault.partition(": ")[0]).name for fault in found.faults] == ["cell2.sealed"]
    assert found.balance.live == ("adapters/cell2.sealed",)


def test_all_runs_of_a_folder_are_examined_by_name(folder: RunFolder) -> None:
    runs = folder.path.parent
    RunFolder.create(runs, "run-0")
    (runs / "notes").mkdir()
    (runs / "link").symlink_to(folder.path)
    assert [each.run_id for each in examine_runs(runs, None, now=NOW)] == ["run-0", "run-1"]
    assert [each.run_id for each in examine_runs(runs, "run-1", now=NOW)] == ["run-1"]
    assert examine_runs(runs / "none", None, now=NOW) == []
    with pytest.raises(ConfigError, match="is not in"):
        examine_runs(runs, "run-2", now=NOW)


def test_a_fate_is_told_in_words() -> None:
    made = Artefact("x", A, "created", "2026-11-22T12:00:00.123456+00:00", "audit", "2026-12-22T12:00:00+00:00")
    assert describe_fate(made) == "live"
    ended = {"ended": "2026-11-22T12:00:01.123456+00:00", "ended_why": "for the audit"}
    kept = Artefact(**{**vars(made), **ended, "event": "kept"})
    assert describe_fate(kept) == "kept until 2026-12-22T12:00:00: for the audit"
    assert describe_fate(replace(kept, ended_why="audit")) == "kept until 2026-12-22T12:00:00"
    assert describe_fate(replace(kept, ended_why="audit", expires=None)) == "kept"
    gone = Artefact(**{**vars(made), **ended, "event": "deleted"})
    assert describe_fate(gone) == "deleted 2026-11-22T12:00:01: for the audit"


def test_nothing_of_an_abandoned_run_may_be_live(folder: RunFolder) -> None:
    folder.manifest.unlink()
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("resume/cell1/step-000012", A, "to resume after a crash")
    abandon_run(folder.path.parent, "run-1", reason="enough")
    found = look(folder)
    assert (found.state, found.faults, found.balance.live) == ("abandoned", (), ())
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("resume/cell1/step-000012", B, "to resume after a crash")
    assert [fault.partition(": ")[2].partition(";")[0] for fault in look(folder).faults] == [
        "is live by the audit though the run has ended",
        "is recorded as there, and is not",
    ]
