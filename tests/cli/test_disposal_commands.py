"""abandon, --resume-hours and the sweep at a start: what is printed, and how they end."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.record.custody import CustodyLog
from robustlab.record.journal import Journal, read_journal
from robustlab.record.run_folder import RunFolder

Run = Callable[..., Any]
HOUR = 3600


@pytest.fixture
def begun(folder: Path) -> RunFolder:
    """An unfinished run with a state."""
    made = RunFolder.create(folder / "runs", "sweep")
    made.plan.write_text("a plan")
    with Journal.open(made.ledger) as journal:
        CustodyLog(journal.append).created("resume/c0ffee/step-000004", "a" * 64, "to resume after a crash")
    (made.resume / "c0ffee" / "step-000004").mkdir(parents=True)
    return made


def age(folder: RunFolder, hours: float) -> None:
    for path in folder.resume.rglob("*"):
        moment = path.stat().st_mtime - hours * HOUR
        os.utime(path, (moment, moment))


def list_runs(run: Run) -> dict[str, str]:
    return {row["id"]: row["what"] for row in json.loads(run("list", "runs", "--json").out)}


def test_abandon_says_what_is_gone_and_the_run_is_marked(run: Run, begun: RunFolder) -> None:
    assert list_runs(run) == {"sweep": "unfinished"}
    code, out, err = run("abandon", "sweep", "--reason", "the wrong target")
    first, second = out.splitlines()
    assert (code, err) == (0, "")
    assert first.startswith("run sweep: abandoned on 2") and first.endswith(", the wrong target")
    assert second == "1 resumable states and 0 half-written files are removed; the ledger stays"
    assert list_runs(run) == {"sweep": "abandoned"}
    told = json.loads(run("abandon", "sweep", "--json").out)
    assert (told["run_id"], told["reason"], told["states"]) == ("sweep", "the wrong target", 1)


def test_an_abandoned_run_is_not_resumed(run: Run, begun: RunFolder) -> None:
    run("abandon", "sweep", "--reason", "the wrong target")
    code, out, err = run("resume", "sweep")
    assert (code, out) == (2, "")
    assert err.startswith("run 'sweep': was abandoned on 2")
    assert err.endswith(": the wrong target; run the plan again under another name\n")


def test_a_run_that_never_began_is_not_resumed(run: Run, folder: Path) -> None:
    RunFolder.create(folder / "runs", "sweep")
    message = (
        "run 'sweep': never began: it holds no plan.yaml; run the plan again with --as sweep, or take another name\n"
    )
    assert run("resume", "sweep") == (2, "", message)


def test_abandon_refuses_what_is_held_finished_or_unknown(run: Run, begun: RunFolder) -> None:
    with Journal.open(begun.ledger):
        code, out, err = run("abandon", "sweep")
    assert (code, out) == (1, "")
    assert err == "runs/sweep/ledger.jsonl: is held by another process; wait until that run ends, or stop it\n"
    begun.write_manifest()
    message = "run 'sweep': has ended: there is nothing to abandon; `robustlab report sweep` shows it\n"
    assert run("abandon", "sweep") == (2, "", message)
    message = "run 'other': is not in runs; `robustlab list runs` shows what there is\n"
    assert run("abandon", "other") == (2, "", message)


def test_every_start_sweeps_what_is_due(run: Run, begun: RunFolder) -> None:
    command = ["resume", "none"]
    age(begun, 71)
    assert "untouched" not in run(*command).err
    age(begun, 2)
    assert run(*command).err.startswith("run sweep: untouched for 72 hours; its 1 resumable states are removed\n")
    assert list(begun.resume.iterdir()) == []
    assert "untouched" not in run(*command).err


def test_states_may_be_kept_longer_at_the_last_moment(run: Run, begun: RunFolder) -> None:
    age(begun, 100)
    # The plan is none, so the command ends there: what matters is that nothing was removed before.
    code, _, err = run("resume", "sweep", "--resume-hours", "200")
    assert (code, "untouched" in err) == (2, False)
    assert [each["hours"] for each in read_journal(begun.ledger)[0] if each["kind"] == "resume_hours"] == [200]
    assert (begun.resume / "c0ffee" / "step-000004").is_dir()


@pytest.mark.parametrize("hours", ["0", "8761", "x"])
def test_hours_have_bounds(run: Run, begun: RunFolder, hours: str) -> None:
    assert run("resume", "sweep", "--resume-hours", hours).code == 2
    assert len(read_journal(begun.ledger)[0]) == 1


def test_hours_of_no_run(run: Run) -> None:
    message = "run 'none': is not in runs; `robustlab list runs` shows what there is\n"
    assert run("resume", "none", "--resume-hours", "5") == (2, "", message)
