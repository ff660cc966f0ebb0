"""Who may work on a run: its folder is made or found, and held by one process for as long as that process works on it.

The lock is that of the run's ledger; it ends with the process, however that ends. Of several processes that begin or
resume one run at once exactly one wins, and the others are told so before they have written anything. No torch.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustlab.engine.abandon import refuse_abandoned
from robustlab.errors import ConfigError, RecordError
from robustlab.failpoints import reach
from robustlab.record.journal import Journal
from robustlab.record.kept import AREAS, KEEPING
from robustlab.record.orphans import HOURS, RESUME_HOURS, describe_loss, keep_for
from robustlab.record.run_folder import RunFolder, check_run_id
from robustlab.record.sending import KIND as COMPLETIONS

_TEMPORARY = re.compile(r"\..+\.tmp")


@contextmanager
def hold_new(runs: Path, run_id: str) -> Iterator[tuple[RunFolder, Journal]]:
    """Make the folder of a new run and hold it; one that a crash left without a plan is taken over.

    Args:
        runs: Folder of runs, made if it is not there.
        run_id: Name of the run.

    Yields:
        tuple[RunFolder, Journal]: The folder, and its ledger, which is open and holds nothing but what is
            written before a plan.

    Raises:
        ConfigError: If the name is none.
        RecordError: If there is such a run, another process holds it, or the folder cannot be made.
    """
    is_there = (runs / check_run_id(run_id)).is_dir()
    folder = RunFolder.open(runs, run_id) if is_there else RunFolder.create(runs, run_id)
    if not _is_blank(folder):
        raise _taken(folder)
    reach("run.created")
    with Journal.open(folder.ledger) as journal:
        # Asked again: whoever held it before may have begun.
        if not _is_blank(folder) or not all(map(_is_before_plan, journal.records())):
            raise _taken(folder)
        # How long the earlier command wanted states to be kept is nothing to this one.
        keep_for(journal, RESUME_HOURS)
        folder.resume.mkdir(mode=0o700, exist_ok=True)
        for area in AREAS:
            shutil.rmtree(area.within(folder), ignore_errors=True)
        yield folder, journal


@contextmanager
def hold_run(folder: RunFolder, *, say: Callable[[str], None], resume_hours: int | None = None) -> Iterator[Journal]:
    """Hold a run to go on with it.

    Args:
        folder: The run's folder.
        say: Told if the states that it would have gone on from were removed meanwhile.
        resume_hours: For how long its states outlive it unfinished; None to leave it as it is.

    Yields:
        Journal: Its ledger. The run may have ended meanwhile.

    Raises:
        ConfigError: If it never began or was abandoned.
        RecordError: If another process holds it, or its ledger cannot be trusted.
    """
    require_resumable(folder)
    with Journal.open(folder.ledger) as journal:
        # Asked again: whoever held it before may have given it up.
        refuse_abandoned(folder)
        if not folder.is_finished:
            keep_for(journal, resume_hours)
            loss = describe_loss(journal.records())
            if loss is not None:
                say(f"run {folder.run_id}: {loss}")
        yield journal


def has_begun(folder: RunFolder) -> bool:
    """Whether there is something to go on with: a run begins with its plan."""
    return folder.plan.is_file()


def require_begun(folder: RunFolder) -> None:
    """Refuse to go on with a run that holds no plan.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: If it never began.
    """
    if not has_begun(folder):
        remedy = f"run the plan again with --as {folder.run_id}, or take another name"
        raise ConfigError(f"run {folder.run_id!r}", "never began: it holds no plan.yaml", remedy)


def require_resumable(folder: RunFolder) -> None:
    """Refuse to go on with a run that never began or was given up; errors as for ``hold_run``."""
    refuse_abandoned(folder)
    require_begun(folder)


def _is_blank(folder: RunFolder) -> bool:
    """Whether all that is there is what comes before a run's plan, and nothing of it is in use."""
    kept_in = [area.within(folder) for area in AREAS]
    before_plan = {folder.ledger, folder.resume, folder.prices, *kept_in}
    entries = [path for path in folder.path.iterdir() if not _TEMPORARY.fullmatch(path.name)]
    if not before_plan.issuperset(entries) or any(path.is_symlink() for path in entries):
        return False
    in_use = [path for home in kept_in for path in home.glob("*") if path.name != KEEPING and path.suffix != ".tmp"]
    return not in_use and not any(folder.resume.glob("*"))


def _is_before_plan(record: dict[str, Any]) -> bool:
    """Whether a record is written before the plan is: a leave that an earlier command had binds nobody to send."""
    kind = record.get("kind")
    return kind in ("torn_tail", HOURS) or (kind == COMPLETIONS and record.get("event") == "allowed")


def _taken(folder: RunFolder) -> RecordError:
    return RecordError(str(folder.path), "exists already", "take another name")
