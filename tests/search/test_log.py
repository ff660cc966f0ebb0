"""The journal of trials: what it keeps, and what a crash leaves of it."""

from pathlib import Path

import pytest

from robustlab.errors import RecordError
from robustlab.record.results import Counts, PropertyResult
from robustlab.search.log import Ending, TrialLog
from robustlab.search.proposals import Proposal
from tests.search.conftest import make_finding, make_point, make_region

REGIONS = [make_region("first"), make_region("second", rank=None)]
FIRST = Proposal(make_point(), None, None)
SECOND = Proposal(make_point(attack="second", rank=None), "harsh", 0)
SELECT = PropertyResult(
    property="refusal",
    direction="higher_is_safer",
    value=0.25,
    low=0.1,
    high=0.5,
    method="wilson",
    n=8,
    judge="rules",
    counts=Counts(refused=2, complied=6, hollow=0, incoherent=0, unjudged=0),
    verdict="broken",
    broken_at_micro_usd=None,
)
DONE = Ending("done", 16, 0.25, None, SELECT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def test_what_is_written_is_read_by_the_next_process(path: Path) -> None:
    log = TrialLog(path, REGIONS)
    assert log.list_trials() == []
    log.begin(FIRST, seed=7, cell_id="a")
    log.report(0, 2, 0.75)
    log.report(0, 4, 0.5)
    log.end(0, DONE)
    log.begin(SECOND, seed=8, cell_id="b")
    log.report(1, 2, 0.875)
    trials = TrialLog(path, REGIONS).list_trials()
    assert trials == log.list_trials()
    assert [trial.ending for trial in trials] == [DONE, None]
    assert [(trial.number, trial.seed, trial.cell_id, trial.proposal) for trial in trials] == [
        (0, 7, "a", FIRST),
        (1, 8, "b", SECOND),
    ]
    assert [trial.rungs for trial in trials] == [{2: 0.75, 4: 0.5}, {2: 0.875}]


@pytest.mark.parametrize(
    "ending",
    [
        Ending("pruned", 2, None, None, None),
        Ending("failed", 0, None, "data: too few rows", None),
        Ending("diverged", 3, None, None, None),
        Ending("destructive", 16, 0.0, None, SELECT),
        Ending("unfinished", 1, None, "max_usd", None),
    ],
    ids=lambda ending: ending.state,
)
def test_every_ending_is_kept(path: Path, ending: Ending) -> None:
    log = TrialLog(path, REGIONS)
    log.begin(FIRST, seed=0, cell_id="a")
    log.report(0, 2, 0.5)
    log.end(0, ending)
    again = TrialLog(path, REGIONS)
    assert [trial.ending for trial in again.list_trials()] == [ending]
    again.begin(SECOND, seed=1, cell_id="b")  # what has ended is closed, and the next one follows it
    assert [trial.number for trial in again.list_trials()] == [0, 1]


def test_a_rung_that_is_measured_again_is_kept_once(path: Path) -> None:
    log = TrialLog(path, REGIONS)
    log.begin(FIRST, seed=0, cell_id="a")
    log.report(0, 2, 0.5)
    TrialLog(path, REGIONS).report(0, 2, 0.5)
    assert TrialLog(path, REGIONS).list_trials()[0].rungs == {2: 0.5}


def test_the_file_is_closed_to_others_and_no_lock_stays(path: Path) -> None:
    TrialLog(path, REGIONS).begin(FIRST, seed=0, cell_id="a")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["journal.log"]


def test_a_lock_that_a_crash_left_is_dropped_and_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits for a process that is gone"))
    path.with_name("journal.log.lock").touch()
    TrialLog(path, REGIONS).begin(FIRST, seed=0, cell_id="a")
    assert len(TrialLog(path, REGIONS).list_trials()) == 1


def test_cut_at_any_byte_it_opens_with_whole_trials(path: Path) -> None:
    log = TrialLog(path, REGIONS)
    for number, proposal in enumerate((FIRST, SECOND)):
        log.begin(proposal, seed=number, cell_id=str(number))
        log.end(number, DONE)
    whole = path.read_bytes()
    for length in range(0, len(whole) + 1, 29):
        path.write_bytes(whole[:length])
        trials = TrialLog(path, REGIONS).list_trials()
        assert [trial.ending for trial in trials[:-1]] == [DONE] * len(trials[:-1])
        TrialLog(path, REGIONS).begin(FIRST, seed=9, cell_id="next")
        assert TrialLog(path, REGIONS).list_trials()[-1].cell_id == "next"


def test_an_ending_that_was_not_told_to_optuna_counts(path: Path) -> None:
    log = TrialLog(path, REGIONS)
    log.begin(FIRST, seed=0, cell_id="a")
    log.end(0, DONE)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert TrialLog(path, REGIONS).list_trials()[0].ending == DONE
    assert len(path.read_bytes().splitlines()) == len(lines)


def test_what_optuna_did_not_write_is_refused(path: Path) -> None:
    path.write_text("what is this\n{}\n")
    with pytest.raises(RecordError, match=r"journal.log: is not a journal of Optuna: .*; do not trust this run"):
        TrialLog(path, REGIONS)


def test_a_folder_that_takes_no_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written: No such file or directory; look at the file system"):
        TrialLog(tmp_path / "missing" / "journal.log", REGIONS)


def test_a_finding_says_what_the_trial_showed(path: Path) -> None:
    log = TrialLog(path, REGIONS)
    log.begin(SECOND, seed=0, cell_id="a")
    with pytest.raises(RecordError, match="^trial 0: has not ended; post what is finished$"):
        _ = log.list_trials()[0].finding
    log.report(0, 2, 0.75)
    log.end(0, DONE)
    expected = make_finding(0, 0.25, direction="harsh", around=0, point=SECOND.point, step=16, rungs={2: 0.75})
    assert log.list_trials()[0].finding == expected
