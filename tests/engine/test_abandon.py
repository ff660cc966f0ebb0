"""A run that is given up: nothing is left that it could be gone on with from, and its ledger balances and stays."""

import json
from pathlib import Path

import pytest

from robustlab.engine.abandon import Abandoned, abandon_run, describe_state, find_abandoned, refuse_abandoned
from robustlab.errors import ConfigError, RecordError
from robustlab.record.custody import CustodyLog, balance
from robustlab.record.journal import Journal, read_journal
from robustlab.record.kept import TRANSCRIPTS, Keeping, KeptFiles, begin_keeping
from robustlab.record.run_folder import RunFolder

DIGESTS = "a" * 64, "b" * 64
REMEDY = "`robustlab list runs` shows what there is"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with two states, of which one was never finished, and one cell that is done."""
    made = RunFolder.create(tmp_path, "run1")
    made.plan.write_text("a plan")
    with Journal.open(made.ledger) as journal:
        journal.append({"kind": "session", "pid": 1})
        for step, digest in zip((4, 8), DIGESTS, strict=True):
            CustodyLog(journal.append).created(f"resume/c0ffee/step-{step:06d}", digest, "to resume after a crash")
    for name in ("step-000004", ".staged-000008"):
        (made.resume / "c0ffee" / name).mkdir(parents=True)
        (made.resume / "c0ffee" / name / "state.safetensors").write_bytes(b"weights")
    (made.resume / "stray.bin").write_bytes(b"weights")
    (made.path / "cells").mkdir()
    (made.path / "cells" / "0badcafe.json").write_text("{}")
    (made.path / "cells" / ".c0ffee.json.0123abcd.tmp").write_text("{")
    return made


def test_everything_it_could_go_on_from_is_gone_and_the_audit_balances(folder: RunFolder, tmp_path: Path) -> None:
    done = abandon_run(tmp_path, "run1", reason=" the wrong target ")
    assert done == Abandoned("run1", done.when, "the wrong target", states=2, leftovers=2)
    assert list(folder.resume.iterdir()) == []
    assert sorted(path.name for path in (folder.path / "cells").iterdir()) == ["0badcafe.json"]
    records = read_journal(folder.ledger)[0]
    found = balance(records)
    assert (found.created, found.deleted, found.kept, found.live) == (2, 2, 0, ())
    assert {record["why"] for record in records if record.get("event") == "deleted"} == {"abandoned: the wrong target"}
    assert records[-1]["kind"] == "abandoned" and records[-1]["time"] == done.when
    assert (records[-1]["reason"], records[-1]["states"], records[-1]["leftovers"]) == ("the wrong target", 2, 2)
    assert json.loads((folder.path / "abandoned.json").read_text()) == {
        "run_id": "run1",
        "when": done.when,
        "reason": "the wrong target",
        "states": 2,
        "leftovers": 2,
    }
    assert find_abandoned(folder) == done
    assert describe_state(folder) == "abandoned"


def test_again_it_changes_nothing(folder: RunFolder, tmp_path: Path) -> None:
    done = abandon_run(tmp_path, "run1")
    ledger = folder.ledger.read_bytes()
    assert done.reason == "no reason was given"
    assert abandon_run(tmp_path, "run1", reason="another") == done
    assert folder.ledger.read_bytes() == ledger


def test_who_was_stopped_before_the_mark_does_it_again(folder: RunFolder, tmp_path: Path) -> None:
    done = abandon_run(tmp_path, "run1", reason="once")
    (folder.path / "abandoned.json").unlink()
    refuse_abandoned(folder)
    assert describe_state(folder) == "unfinished"
    assert abandon_run(tmp_path, "run1", reason="twice") == done
    assert find_abandoned(folder) == done


def test_a_state_that_appears_later_goes_too(folder: RunFolder, tmp_path: Path) -> None:
    first = abandon_run(tmp_path, "run1", reason="once")
    with Journal.open(folder.ledger) as journal:
        CustodyLog(journal.append).created("resume/c0ffee/step-000012", "c" * 64, "put back by hand")
    (folder.resume / "c0ffee" / "step-000012").mkdir(parents=True)
    again = abandon_run(tmp_path, "run1", reason="twice")
    assert (again.when, again.reason, again.states) == (first.when, "once", 3)
    assert balance(read_journal(folder.ledger)[0]).live == ()


def test_it_cannot_be_gone_on_with(folder: RunFolder, tmp_path: Path) -> None:
    refuse_abandoned(folder)
    done = abandon_run(tmp_path, "run1", reason="the wrong target")
    with pytest.raises(ConfigError) as caught:
        refuse_abandoned(folder)
    assert str(caught.value) == (
        f"run 'run1': was abandoned on {done.when[:10]}: the wrong target; run the plan again under another name"
    )


def test_a_run_that_a_process_holds_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with Journal.open(folder.ledger), pytest.raises(RecordError) as caught:
        abandon_run(tmp_path, "run1")
    assert str(caught.value) == (f"{folder.ledger}: is held by another process; wait until that run ends, or stop it")
    assert (folder.resume / "c0ffee" / "step-000004").is_dir()
    assert describe_state(folder) == "unfinished"


def test_a_finished_run_has_nothing_to_abandon(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run1")
    folder.write_manifest()
    with pytest.raises(ConfigError) as caught:
        abandon_run(tmp_path, "run1")
    assert str(caught.value) == ("run 'run1': has ended: there is nothing to abandon; `robustlab report run1` shows it")
    assert not folder.ledger.exists()
    assert describe_state(folder) == "finished"


def test_what_is_no_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"run 'none': is not in .*; {REMEDY}"):
        abandon_run(tmp_path, "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(ConfigError) as caught:
        abandon_run(tmp_path, "mine")
    assert str(caught.value) == f"run 'mine': is none: {tmp_path / 'mine'} holds no ledger, plan or state; {REMEDY}"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_run_that_never_began_may_be_given_up(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run1")
    assert abandon_run(tmp_path, "run1").states == 0
    assert describe_state(folder) == "abandoned"


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501, "\x1b[31m"])
def test_a_reason_is_one_line(folder: RunFolder, tmp_path: Path, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        abandon_run(tmp_path, "run1", reason=reason)
    assert str(caught.value) == (
        f"--reason: is no such line, got {len(reason.strip())} characters; write one line of at most 500 characters"
    )
    assert describe_state(folder) == "unfinished"


@pytest.mark.parametrize("text", ["", "{}", '{"run_id": 7}'])
def test_a_mark_that_cannot_be_read(folder: RunFolder, text: str) -> None:
    (folder.path / "abandoned.json").write_text(text)
    with pytest.raises(RecordError) as caught:
        refuse_abandoned(folder)
    assert str(caught.value) == (
        f"{folder.path / 'abandoned.json'}: is no mark of an abandoned run; abandon the run again"
    )


def test_a_link_among_the_states_is_removed_and_not_followed(folder: RunFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    (folder.resume / "link").symlink_to(victim)
    (folder.resume / "c0ffee" / "link").symlink_to(victim)
    abandon_run(tmp_path, "run1")
    assert list(folder.resume.iterdir()) == [] and (victim / "file").read_text() == "precious"


def test_states_that_lie_elsewhere_are_not_touched(folder: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    folder.resume.rename(moved)
    folder.resume.symlink_to(moved)
    with pytest.raises(RecordError) as caught:
        abandon_run(tmp_path, "run1")
    assert str(caught.value) == f"{folder.resume}: is a link; remove it: a run folder holds plain files"
    assert (moved / "c0ffee" / "step-000004").is_dir()


def test_what_was_kept_for_a_reason_stays_until_it_expires(folder: RunFolder, tmp_path: Path) -> None:
    keeping = Keeping(reason="to label", public_key="a key", expire_days=30)
    begin_keeping(folder, TRANSCRIPTS, keeping)
    expires = "2099-01-01T00:00:00Z"
    with Journal.open(folder.ledger) as journal:
        kept = KeptFiles(folder, TRANSCRIPTS, keeping, journal)
        path = kept.announce("transcripts/cell/1.json", b"sealed", expires)
        path.write_bytes(b"sealed")
        kept.announce("transcripts/cell/2.json", b"never written", expires)
    abandon_run(tmp_path, "run1")
    found = balance(read_journal(folder.ledger)[0])
    assert (found.created, found.deleted, found.kept, found.live) == (4, 3, 1, ())
    assert path.is_file()


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"states": "1", "leftovers": 0, "reason": "x"},
        {"states": 1, "leftovers": -1, "reason": "x"},
        {"states": 1, "leftovers": 0, "reason": 5},
    ],
)
def test_a_record_of_giving_up_that_says_nothing_is_refused(
    folder: RunFolder, tmp_path: Path, told: dict[str, object]
) -> None:
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "abandoned", **told})
    with pytest.raises(RecordError) as caught:
        abandon_run(tmp_path, "run1")
    where = f"{folder.ledger} record 4"
    assert str(caught.value) == f"{where}: is no record of an abandoned run; do not trust this run"
