"""The command `abandon`, and how long an unfinished run keeps what it could be gone on with from."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from robustlab.cli.options import JsonFlag, RunArgument, Runs
from robustlab.record.orphans import LONGEST_HOURS, RESUME_HOURS

ResumeHours = Annotated[
    int | None,
    typer.Option(
        "--resume-hours",
        min=1,
        max=LONGEST_HOURS,
        help=f"Hours after its last write for which an unfinished run keeps its states; {RESUME_HOURS}.",
    ),
]


def abandon(
    run_id: RunArgument,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the audit.", metavar="TEXT")] = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Give an unfinished run up: remove the states it could be gone on with from; ledger and finished cells stay."""
    from robustlab.engine.abandon import abandon_run

    done = abandon_run(runs, run_id, reason=reason)
    if as_json:
        print(json.dumps(asdict(done), indent=2))
        return
    print(f"run {done.run_id}: abandoned on {done.when[:10]}, {done.reason}")
    print(f"{done.states} resumable states and {done.leftovers} half-written files are removed; the ledger stays")


def keep_states_for(runs: Path, run_id: str, hours: int | None) -> None:
    """Write into an unfinished run's ledger for how long its states are kept, before anything is swept.

    Args:
        runs: Folder of runs.
        run_id: The run.
        hours: How long; None to leave it as it is.

    Raises:
        ConfigError: If there is no such run.
        RecordError: If another process works on it, or its ledger cannot be trusted or written.
    """
    from robustlab.record.journal import Journal
    from robustlab.record.orphans import keep_for
    from robustlab.record.run_folder import RunFolder

    if hours is None:
        return
    folder = RunFolder.open(runs, run_id)
    if folder.is_finished or not folder.ledger.is_file():
        return
    with Journal.open(folder.ledger) as journal:
        keep_for(journal, hours)


def sweep_due_states(runs: Path) -> None:
    """Remove states of unfinished runs that nobody went on with in time, and say so on the standard error."""
    from robustlab.record.orphans import sweep_states

    sweep_states(runs, say=_say)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
