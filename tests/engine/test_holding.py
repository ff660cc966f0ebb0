"""Who may work on a run: of eight processes at once exactly one, a hundred times over, and the others write nothing."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine.abandon import abandon_run
from robustlab.engine.holding import has_begun, hold_new, hold_run, require_resumable
from robustlab.engine.judges import record_consent
from robustlab.errors import ConfigError, RecordError
from robustlab.record.journal import Journal
from robustlab.record.kept import TRANSCRIPTS, Keeping, begin_keeping
from robustlab.record.orphans import keep_for, read_hours
from robustlab.record.run_folder import RunFolder
from robustlab.record.sending import Consent, list_allowed

CONTENDERS, ROUNDS = 8, 100
LATE_SECONDS = 60
Say = list[str]


def begin(runs: Path, name: str) -> AbstractContextManager[Any]:
    return hold_new(runs, name)


def go_on(runs: Path, name: str) -> AbstractContextManager[Any]:
    return hold_run(RunFolder.open(runs, name), say=lambda _: None)


def contend(enter: Callable[..., Any], runs: Path, start: Any, end: Any, told: Any) -> None:
    """One process: tries at the same moment as the others, and holds what it won until all have tried."""
    for number in range(ROUNDS):
        start.wait(LATE_SECONDS)
        name, won, error = f"r{number}", False, ""
        try:
            with enter(runs, name):
                won = True
                (runs / name / "plan.yaml").write_text("begun")
                end.wait(LATE_SECONDS)
        except RecordError as refused:
            error = str(refused)
        if not won:
            end.wait(LATE_SECONDS)
        told.put((number, os.getpid(), won, error))


def play(enter: Callable[..., Any], runs: Path) -> dict[int, list[tuple[int, int, bool, str]]]:
    context = multiprocessing.get_context("fork")
    start, end, told = context.Barrier(CONTENDERS), context.Barrier(CONTENDERS), context.Queue()
    players = [context.Process(target=contend, args=(enter, runs, start, end, told)) for _ in range(CONTENDERS)]
    for player in players:
        player.start()
    found = [told.get(timeout=2 * LATE_SECONDS) for _ in range(CONTENDERS * ROUNDS)]
    for player in players:
        player.join(LATE_SECONDS)
    return {number: [each for each in found if each[0] == number] for number in range(ROUNDS)}


@pytest.mark.parametrize("is_new", [True, False], ids=["a new name", "a run that goes on"])
def test_of_eight_processes_exactly_one_wins(tmp_path: Path, is_new: bool) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    if not is_new:
        for number in range(ROUNDS):
            folder = RunFolder.create(runs, f"r{number}")
            folder.plan.write_text("begun")
            with Journal.open(folder.ledger) as journal:
                journal.append({"kind": "session", "pid": 1})
    games = play(begin if is_new else go_on, runs)
    assert {number: sum(won for _, _, won, _ in game) for number, game in games.items()} == dict.fromkeys(games, 1)
    held = "is held by another process; wait until that run ends, or stop it"
    taken = "exists already; take another name"
    for number, game in games.items():
        errors = {error for _, _, won, error in game if not won}
        places = {f"{runs}/r{number}/ledger.jsonl: {held}"}
        # Whoever comes between the making of the folder and its first file is told that there is such a run.
        places |= {f"{runs}/r{number}: {taken}", f"{runs}/r{number}/resume: {taken}"} if is_new else set()
        assert errors <= places and all(errors)
        # The losers wrote nothing.
        entries = sorted(path.name for path in (runs / f"r{number}").iterdir())
        assert entries == ["ledger.jsonl", "plan.yaml", "resume"]
        assert len((runs / f"r{number}" / "ledger.jsonl").read_bytes().splitlines()) == (0 if is_new else 1)


def test_a_folder_in_which_a_crash_came_first_is_begun(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    folder.resume.rmdir()
    begin_keeping(folder, TRANSCRIPTS, Keeping(reason="to label", public_key="a key", expire_days=30))
    folder.prices.write_text("made up")
    (folder.path / ".plan.yaml.0badcafe.tmp").write_text("half")
    assert not has_begun(folder)
    with hold_new(tmp_path, "sweep") as (held, journal):
        assert held == folder and journal.records() == []
        # How the earlier command wanted to keep is nothing to this one.
        assert not TRANSCRIPTS.within(folder).exists() and folder.resume.is_dir()


@pytest.mark.parametrize("what", ["plan.yaml", "notes.txt", "resume/c0ffee", "transcripts/cell/1.json"])
def test_a_folder_that_holds_something_is_never_taken_over(tmp_path: Path, what: str) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    path = folder.path / what
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(RecordError) as caught, hold_new(tmp_path, "sweep"):
        pass
    assert str(caught.value) == f"{folder.path}: exists already; take another name"
    assert path.read_text() == "mine"
    assert not folder.ledger.exists()


def test_a_ledger_that_says_something_is_never_taken_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "sending", "hosts": ["judge.example"]})
    with pytest.raises(RecordError, match="sweep: exists already; take another name"), hold_new(tmp_path, "sweep"):
        pass


def test_a_torn_record_is_no_beginning(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    folder.ledger.write_bytes(b'{"kind": "cons')
    with hold_new(tmp_path, "sweep") as (_, journal):
        assert [record["kind"] for record in journal.records()] == ["torn_tail"]


def test_a_link_is_no_folder_to_begin_in(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "other")
    (tmp_path / "sweep").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="run 'sweep': is not in "), hold_new(tmp_path, "sweep"):
        pass


def begun(runs: Path) -> RunFolder:
    folder = RunFolder.create(runs, "sweep")
    folder.plan.write_text("begun")
    return folder


def test_a_run_that_never_began_cannot_go_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    message = (
        "run 'sweep': never began: it holds no plan.yaml; run the plan again with --as sweep, or take another name"
    )
    with pytest.raises(ConfigError) as caught:
        require_resumable(folder)
    assert str(caught.value) == message
    with pytest.raises(ConfigError, match="never began"), hold_run(folder, say=lambda _: None):
        pass
    assert not folder.ledger.exists()


def test_a_run_that_was_given_up_cannot_go_on(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    done = abandon_run(tmp_path, "sweep", reason="the wrong target")
    with pytest.raises(ConfigError) as caught, hold_run(folder, say=lambda _: None):
        pass
    assert str(caught.value) == (
        f"run 'sweep': was abandoned on {done.when[:10]}: the wrong target; run the plan again under another name"
    )


def test_who_goes_on_is_told_what_was_removed_and_may_keep_states_longer(tmp_path: Path) -> None:
    folder, said = begun(tmp_path), Say()
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "session", "pid": 1})
        journal.append({"kind": "states_removed", "hours": 72, "states": 2})
    with hold_run(folder, say=said.append, resume_hours=200) as journal:
        assert read_hours(journal.records()) == 200
    day = journal.records()[1]["time"][:10]
    assert said == [
        f"run sweep: its 2 resumable states were removed on {day}, 72 hours after the last write: cells that were "
        "under way begin again at step 0, and what they had cost stays on the bill"
    ]
    with Journal.open(folder.ledger) as journal:
        journal.append({"kind": "session", "pid": 2})
    with hold_run(folder, say=said.append) as journal:
        assert read_hours(journal.records()) == 200
    assert len(said) == 1


def test_a_run_that_ended_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    with Journal.open(folder.ledger):
        pass
    folder.write_manifest()
    with hold_run(folder, say=lambda _: None, resume_hours=5) as journal:
        assert journal.records() == []
    assert folder.check_manifest() == 2


def test_a_run_that_was_killed_before_its_plan_is_begun_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    consent = Consent(("judge.example",), "an audit")
    with Journal.open(folder.ledger) as journal:
        record_consent(journal, consent)
        keep_for(journal, 200)
    with pytest.raises(ConfigError, match="run the plan again with --as sweep"):
        require_resumable(folder)
    with hold_new(tmp_path, "sweep") as (_, journal):
        # Nobody asked for 200 hours this time.
        assert read_hours(journal.records()) == 72
        record_consent(journal, consent)
        assert list_allowed(journal.records()) == {"judge.example": "an audit"}
    with hold_new(tmp_path, "sweep") as (_, journal):
        kinds = [record["kind"] for record in journal.records()]
    assert kinds == ["completions", "resume_hours", "resume_hours", "completions"]


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "session", "pid": 1},
        {"kind": "completions", "event": "sending", "host": "judge.example"},
        {"kind": "abandoned", "states": 0},
    ],
)
def test_a_run_that_did_anything_is_not_begun_again(tmp_path: Path, told: dict[str, Any]) -> None:
    folder = RunFolder.create(tmp_path, "sweep")
    with Journal.open(folder.ledger) as journal:
        keep_for(journal, 200)
        journal.append(told)
    with pytest.raises(RecordError, match="sweep: exists already; take another name"), hold_new(tmp_path, "sweep"):
        pass
