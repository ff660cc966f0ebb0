"""States of unfinished runs that nobody went on with: removed in time, and never under a live process."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustlab.errors import RecordError
from robustlab.record.custody import CustodyLog, balance
from robustlab.record.journal import Journal, read_journal
from robustlab.record.orphans import (
    LONGEST_HOURS,
    RESUME_HOURS,
    describe_loss,
    keep_for,
    last_write,
    read_hours,
    sweep_states,
)
from robustlab.record.run_folder import RunFolder

WRITTEN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DIGEST = "d" * 64
TOLD_BADLY: list[dict[str, object]] = [
    {},
    *[dict[str, object](hours=hours) for hours in (0, -1, 8761, 10**10, "72", 1.5, True, None)],
]


def make_run(runs: Path, name: str = "run1", *, hours: int | None = None) -> RunFolder:
    """An unfinished run with one state of one cell, last written at ``WRITTEN``."""
    folder = RunFolder.create(runs, name)
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "session", "pid": 1})
        keep_for(journal, hours)
        CustodyLog(journal.append).created("resume/c0ffee/step-000004", DIGEST, "to resume after a crash")
    state = folder.resume / "c0ffee" / "step-000004"
    state.mkdir(parents=True)
    (state / "state.safetensors").write_bytes(b"weights")
    for path in (state / "state.safetensors", state, state.parent):
        os.utime(path, (WRITTEN.timestamp(), WRITTEN.timestamp()))
    return folder


def sweep(runs: Path, hours: float) -> list[str]:
    said: list[str] = []
    sweep_states(runs, say=said.append, now=WRITTEN + timedelta(hours=hours))
    return said


def test_states_go_after_72_hours_and_the_ledger_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert sweep(tmp_path, RESUME_HOURS) == []
    assert last_write(folder) == WRITTEN
    assert sweep(tmp_path, RESUME_HOURS + 0.01) == [
        "run run1: untouched for 72 hours; its 1 resumable states are removed"
    ]
    assert last_write(folder) is None and list(folder.resume.iterdir()) == []
    records = read_journal(folder.ledger)[0]
    assert [record["kind"] for record in records] == ["session", "custody", "custody", "states_removed"]
    assert (records[2]["event"], records[2]["why"]) == ("deleted", "nothing was written for 72 hours")
    assert (records[3]["hours"], records[3]["states"]) == (72, 1)
    found = balance(records)
    assert (found.created, found.deleted, found.kept, found.live) == (1, 1, 0, ())
    assert sweep(tmp_path, 1000) == []


def test_the_newest_write_of_any_file_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    later = folder.resume / "c0ffee" / ".staged-000008"
    later.mkdir()
    moment = (WRITTEN + timedelta(hours=10)).timestamp()
    os.utime(later, (moment, moment))
    os.utime(later.parent, (moment, moment))
    assert sweep(tmp_path, 81) == []
    assert len(sweep(tmp_path, 83)) == 1


@pytest.mark.parametrize(("hours", "later"), [(1, 1.5), (200, 201)])
def test_a_run_may_keep_its_states_for_another_time(tmp_path: Path, hours: int, later: float) -> None:
    make_run(tmp_path, hours=hours)
    assert sweep(tmp_path, hours - 0.5) == []
    assert sweep(tmp_path, later) == [f"run run1: untouched for {hours} hours; its 1 resumable states are removed"]


def test_the_time_is_written_once_and_may_be_changed(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "ledger.jsonl") as journal:
        for hours in (None, 72, 5, 5, None, LONGEST_HOURS):
            keep_for(journal, hours)
        assert [record["hours"] for record in journal.records()] == [5, LONGEST_HOURS]
        assert read_hours(journal.records()) == LONGEST_HOURS
    assert read_hours([]) == RESUME_HOURS == 72


def test_a_run_that_a_process_holds_is_never_touched(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    with Journal.open(folder.ledger):
        assert sweep(tmp_path, 1000) == []
        assert last_write(folder) == WRITTEN
    assert len(sweep(tmp_path, 1000)) == 1


def test_a_finished_run_and_one_without_states_are_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path, "done").write_manifest()
    RunFolder.create(tmp_path, "begun")
    other = RunFolder.create(tmp_path, "no_ledger")
    (other.resume / "c0ffee").mkdir()
    assert sweep(tmp_path, 10_000) == []
    assert (tmp_path / "done" / "resume" / "c0ffee" / "step-000004").is_dir()
    assert (other.resume / "c0ffee").is_dir()


def test_one_that_cannot_be_swept_does_not_keep_others_from_it(tmp_path: Path) -> None:
    broken = make_run(tmp_path, "broken")
    broken.ledger.write_bytes(b"{}\n")
    make_run(tmp_path, "sound")
    first, second = sweep(tmp_path, 100)
    assert first == (
        f"run broken: resumable states that are due could not be removed: {broken.ledger} record 1: is not what was "
        "written: its hash does not match; do not trust this run; repeat it"
    )
    assert second == "run sound: untouched for 72 hours; its 1 resumable states are removed"
    assert last_write(broken) == WRITTEN


@pytest.mark.parametrize("linked", ["run", "resume"])
def test_a_link_is_not_followed(tmp_path: Path, linked: str) -> None:
    victim = make_run(tmp_path / "elsewhere", "victim")
    runs = tmp_path / "runs"
    runs.mkdir()
    if linked == "run":
        (runs / "run1").symlink_to(victim.path)
    else:
        folder = make_run(runs)
        moved = folder.path / "states"
        folder.resume.rename(moved)
        folder.resume.symlink_to(victim.resume)
    assert sweep(runs, 1000) == []
    assert last_write(victim) == WRITTEN


def test_no_folder_of_runs_is_no_fault(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", 1000) == []


def test_what_was_removed_is_told_until_the_run_goes_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    sweep(tmp_path, 100)
    records = read_journal(folder.ledger)[0]
    assert describe_loss(records) == (
        f"its 1 resumable states were removed on {records[-1]['time'][:10]}, 72 hours after the last write: cells that "
        "were under way begin again at step 0, and what they had cost stays on the bill"
    )
    assert describe_loss([*records, {"kind": "session"}]) is None
    assert describe_loss(records[:2]) is None
    assert describe_loss([]) is None


def test_a_state_that_another_run_renames_meanwhile_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path)
    real = Path.lstat

    def look(path: Path) -> os.stat_result:
        if path.name == "state.safetensors":
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(Path, "lstat", look)
    assert last_write(folder) == WRITTEN
    assert sweep(tmp_path, RESUME_HOURS) == []


def test_a_run_whose_states_cannot_be_read_does_not_keep_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = make_run(tmp_path, "a_shut")
    make_run(tmp_path, "sound")
    real = Path.lstat

    def look(path: Path) -> os.stat_result:
        if shut.resume in path.parents:
            raise PermissionError("made up")
        return real(path)

    monkeypatch.setattr(Path, "lstat", look)
    assert sweep(tmp_path, 100) == [
        "run a_shut: resumable states that are due could not be removed: made up",
        "run sound: untouched for 72 hours; its 1 resumable states are removed",
    ]


@pytest.mark.parametrize("told", TOLD_BADLY)
def test_hours_that_are_none_are_refused_and_stop_no_other_run(tmp_path: Path, told: dict[str, object]) -> None:
    crafted = make_run(tmp_path, "crafted")
    with Journal.open(crafted.ledger) as journal:
        journal.append({"kind": "resume_hours", **told})
        problem = (
            "the ledger's record of kind resume_hours at seq 2: must have a whole number in 1..8760 as hours, "
            f"got {told.get('hours')!r}; do not trust this run"
        )
        with pytest.raises(RecordError) as caught:
            read_hours(journal.records())
        assert str(caught.value) == problem
    make_run(tmp_path, "sound")
    assert sweep(tmp_path, 100) == [
        f"run crafted: resumable states that are due could not be removed: {problem}",
        "run sound: untouched for 72 hours; its 1 resumable states are removed",
    ]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"states": "two", "hours": 72}, "must have a whole number >= 0 as states, got 'two'"),
        ({"hours": 72}, "must have a whole number >= 0 as states, got None"),
        ({"states": 2, "hours": 0}, "must have a whole number in 1..8760 as hours, got 0"),
    ],
)
def test_a_loss_that_says_nothing_is_refused(told: dict[str, object], problem: str) -> None:
    with pytest.raises(RecordError, match=f"kind states_removed at seq 7: {problem}; do not trust this run"):
        describe_loss([{"kind": "states_removed", "seq": 7, "time": "2026-11-22", **told}])


def test_a_file_of_no_moment_stops_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path)
    facts = os.stat_result((0o600, 1, 1, 1, 0, 0, 0, 0, 10**15, 0))
    monkeypatch.setattr("robustlab.record.orphans.list_entries", lambda _: {folder.resume / "x": facts})
    assert sweep(tmp_path, 100) == [
        f"run run1: resumable states that are due could not be removed: {folder.resume}: holds a file that was written "
        "at no moment, got 1e+15 s; `touch` what lies there"
    ]
