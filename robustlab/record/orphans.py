"""Removes the resumable states of unfinished runs that nobody went on with in time, whichever run they are of.

How long that is stands in the run's ledger where somebody chose it. A run that a process holds is never touched. What
was removed is told in that run's ledger; a later resume begins the cells under way at step 0, and what they had cost
stays on the bill. This module does not know what a state says.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from robustlab.errors import CustodyError, RecordError
from robustlab.record.journal import HELD, Journal, read_journal
from robustlab.record.run_folder import RunFolder
from robustlab.record.states import remove_states
from robustlab.record.tree import list_entries

RESUME_HOURS = 72
"""Hours after its last write for which an unfinished run keeps its states, unless it was told otherwise."""
LONGEST_HOURS = 8760
HOURS = "resume_hours"
"""Kind of the record that says for how long."""
_REMOVED = "states_removed"


def keep_for(journal: Journal, hours: int | None) -> None:
    """Write into a run's ledger for how long its states outlive it unfinished.

    Args:
        journal: The run's ledger, held by this process.
        hours: How long, >= 1; None to leave it as it is.

    Raises:
        RecordError: If the ledger cannot be written, or holds no number of hours where it should.
    """
    if hours is not None and hours != read_hours(journal.records()):
        journal.append({"kind": HOURS, "hours": hours})


def read_hours(records: Iterable[dict[str, Any]]) -> int:
    """For how long the states of a run outlive it unfinished, by its ledger.

    Args:
        records: The ledger, oldest first.

    Returns:
        Hours, >= 1.

    Raises:
        RecordError: If a record of it is none; a run folder may come from anywhere, and so may its chain.
    """
    told = [_read_count(record, "hours", 1, LONGEST_HOURS) for record in records if record.get("kind") == HOURS]
    return told[-1] if told else RESUME_HOURS


def _read_count(record: dict[str, Any], key: str, least: int, most: int | None = None) -> int:
    value = record.get(key)
    if type(value) is int and least <= value and (most is None or value <= most):
        return value
    limits = f">= {least}" if most is None else f"in {least}..{most}"
    where = f"the ledger's record of kind {record['kind']} at seq {record.get('seq')}"
    raise RecordError(where, f"must have a whole number {limits} as {key}, got {value!r:.60}", "do not trust this run")


def describe_loss(records: Iterable[dict[str, Any]]) -> str | None:
    """Say that the states of a run were removed since a process last worked on it.

    Args:
        records: The run's ledger, oldest first.

    Returns:
        What it means for going on; None where nothing was removed.

    Raises:
        RecordError: If the record of it does not say how many, or after how long.
    """
    last = next((each for each in reversed(list(records)) if each.get("kind") in (_REMOVED, "session")), None)
    if last is None or last["kind"] != _REMOVED:
        return None
    states, hours = _read_count(last, "states", 0), _read_count(last, "hours", 1, LONGEST_HOURS)
    return (
        f"its {states} resumable states were removed on {str(last['time'])[:10]}, {hours} hours after the "
        "last write: cells that were under way begin again at step 0, and what they had cost stays on the bill"
    )


def last_write(folder: RunFolder) -> datetime | None:
    """When something of the resumable states of a run was last written; what vanishes meanwhile is passed over.

    Args:
        folder: The run's folder.

    Returns:
        The moment in UTC; None where there are none.

    Raises:
        OSError: If a file cannot be looked at, or has a time that no calendar holds.
    """
    times = [facts.st_mtime for facts in list_entries(folder.resume).values()]
    try:
        return datetime.fromtimestamp(max(times), UTC) if times else None
    except (OverflowError, ValueError):
        problem = f"holds a file that was written at no moment, got {max(times):.6g} s"
        raise RecordError(str(folder.resume), problem, "`touch` what lies there") from None


def sweep_states(runs: Path, *, say: Callable[[str], None], now: datetime | None = None) -> None:
    """Remove what is due in every unfinished run of a folder; one that cannot be swept does not keep others from it.

    Args:
        runs: Folder of runs; there may be none.
        say: Told of what was removed, and of every run that could not be swept.
        now: Aware present time; None for the clock's.
    """
    moment = now or datetime.now(UTC)
    for place in sorted(runs.glob("*/resume/")):
        folder = RunFolder(place.parent)
        if place.is_symlink() or place.parent.is_symlink():
            continue
        try:
            removed = _sweep(folder, moment)
        except (OSError, CustodyError) as error:
            if isinstance(error, RecordError) and error.problem == HELD:
                continue
            say(f"run {folder.run_id}: resumable states that are due could not be removed: {error}")
            continue
        if removed is not None:
            hours, states = removed
            say(f"run {folder.run_id}: untouched for {hours} hours; its {states} resumable states are removed")


def _sweep(folder: RunFolder, moment: datetime) -> tuple[int, int] | None:
    """Remove the states of one run if they are due: after how many hours, and how many; None where nothing was due."""
    if (
        last_write(folder) is None
        or not folder.ledger.is_file()
        or not _is_due(folder, read_journal(folder.ledger)[0], moment)
    ):
        return None
    with Journal.open(folder.ledger) as journal:
        records = journal.records()
        # Asked again: whoever held it before may have gone on.
        if not _is_due(folder, records, moment):
            return None
        hours = read_hours(records)
        states = remove_states(folder.resume, records, journal.append, f"nothing was written for {hours} hours")
        journal.append({"kind": _REMOVED, "hours": hours, "states": states})
    return hours, states


def _is_due(folder: RunFolder, records: Iterable[dict[str, Any]], moment: datetime) -> bool:
    written = last_write(folder)
    if folder.is_finished or written is None:
        return False
    return moment - written > timedelta(hours=read_hours(records))
