"""Gives a run up: removes every state that it could be gone on with from, and marks it so that nobody does.

The ledger and the cells that are done stay. States go under custody first and the mark comes last, so a run is marked
only when nothing is left of them; whoever is stopped in between does it again. No torch.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustlab.errors import ConfigError, RecordError
from robustlab.record.journal import Journal
from robustlab.record.kept import AREAS, KeptFiles, read_keeping
from robustlab.record.leftovers import remove_leftovers
from robustlab.record.run_folder import RunFolder, read_plain, sync_folder, write_error, write_json
from robustlab.record.sending import refuse_secret
from robustlab.record.states import remove_states

ABANDONED = "abandoned.json"
NO_REASON = "no reason was given"
_KIND = "abandoned"
_MOST_CHARACTERS = 500


@dataclass(frozen=True)
class Abandoned:
    """A run that was given up.

    Attributes:
        run_id: The run.
        when: Moment in UTC.
        reason: Why.
        states: Resumable states that were removed.
        leftovers: Half-written files that were removed.
    """

    run_id: str
    when: str
    reason: str
    states: int
    leftovers: int


def abandon_run(runs: Path, run_id: str, *, reason: str | None = None) -> Abandoned:
    """Give an unfinished run up; one that was given up before is looked through again and keeps its mark.

    Args:
        runs: Folder of runs.
        run_id: The run.
        reason: Why, for the audit; None where nobody said.

    Returns:
        What was done, now or before.

    Raises:
        ConfigError: If there is no such run, it has ended, or the reason is no line of text.
        RecordError: If another process works on it, its ledger cannot be trusted, or the disk lets nothing go.
    """
    why = _check_reason(reason)
    folder = RunFolder.open(runs, run_id)
    _require_unfinished(folder)
    with Journal.open(folder.ledger) as journal:
        # Asked again: whoever held it before may have ended the run.
        _require_unfinished(folder)
        if folder.resume.is_symlink():
            raise RecordError(str(folder.resume), "is a link", "remove it: a run folder holds plain files")
        states = remove_states(folder.resume, journal.records(), journal.append, f"abandoned: {why}")
        for area in AREAS:
            if (keeping := read_keeping(folder, area)) is not None:
                KeptFiles(folder, area, keeping, journal)
        leftovers = remove_leftovers(folder) + _remove_rest(folder.resume)
        told = _list_told(journal)
        if not told or states:
            journal.append({"kind": _KIND, "reason": why, "states": states, "leftovers": leftovers})
            told = _list_told(journal)
        first = told[0]
        total = sum(record["states"] for record in told)
        done = Abandoned(run_id, first["time"], first["reason"], total, sum(record["leftovers"] for record in told))
        write_json(folder.path / ABANDONED, asdict(done))
    return done


def find_abandoned(folder: RunFolder) -> Abandoned | None:
    """Read the mark of a run that was given up.

    Args:
        folder: The run's folder.

    Returns:
        None for a run that was not.

    Raises:
        RecordError: If what stands there is no such mark.
    """
    path = folder.path / ABANDONED
    if not path.exists():
        return None
    try:
        return TypeAdapter(Abandoned).validate_json(read_plain(path))
    except ValidationError:
        raise RecordError(str(path), "is no mark of an abandoned run", "abandon the run again") from None


def refuse_abandoned(folder: RunFolder) -> None:
    """Refuse to go on with a run that was given up.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: If it was.
        RecordError: If its mark cannot be read.
    """
    found = find_abandoned(folder)
    if found is not None:
        problem = f"was abandoned on {found.when[:10]}: {found.reason}"
        raise ConfigError(f"run {folder.run_id!r}", problem, "run the plan again under another name")


def describe_state(folder: RunFolder) -> str:
    """How far a run is, in a word: ``finished``, ``abandoned`` or ``unfinished``."""
    if folder.is_finished:
        return "finished"
    return "abandoned" if (folder.path / ABANDONED).exists() else "unfinished"


def _list_told(journal: Journal) -> list[dict[str, Any]]:
    """What the ledger says of the run's having been given up; anybody can write a chain."""
    told = [record for record in journal.records() if record.get("kind") == _KIND]
    for record in told:
        counts = record.get("states"), record.get("leftovers")
        is_sound = all(type(count) is int and count >= 0 for count in counts)
        if not (is_sound and isinstance(record.get("reason"), str) and isinstance(record["time"], str)):
            where = f"{journal.path} record {record['seq'] + 1}"
            raise RecordError(where, "is no record of an abandoned run", "do not trust this run")
    return told


def _check_reason(reason: str | None) -> str:
    text = NO_REASON if reason is None else reason.strip()
    if not text or len(text) > _MOST_CHARACTERS or not text.isprintable():
        remedy = f"write one line of at most {_MOST_CHARACTERS} characters"
        raise ConfigError("--reason", f"is no such line, got {len(text)} characters", remedy)
    refuse_secret("--reason", text)
    return text


def _require_unfinished(folder: RunFolder) -> None:
    if folder.is_finished:
        problem = "has ended: there is nothing to abandon"
        raise ConfigError(f"run {folder.run_id!r}", problem, f"`robustlab report {folder.run_id}` shows it")
    if not (folder.ledger.is_file() or folder.plan.is_file() or folder.resume.is_dir()):
        problem = f"is none: {folder.path} holds no ledger, plan or state"
        raise ConfigError(f"run {folder.run_id!r}", problem, "`robustlab list runs` shows what there is")


def _remove_rest(resume: Path) -> int:
    """Remove whatever else lies among the states; how many entries."""
    if not resume.is_dir():
        return 0
    entries = sorted(resume.iterdir())
    try:
        for path in entries:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        sync_folder(resume)
    except OSError as error:
        raise write_error(resume, error) from None
    return len(entries)
