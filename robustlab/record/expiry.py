"""Removes kept files that have expired, whichever run they are of, and says so in that run's ``custody.jsonl``.

That journal lies beside the ledger, since the ledger of a run that has ended is sealed. No kept file is opened here.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from robustlab.errors import CustodyError
from robustlab.record.custody import CustodyLog
from robustlab.record.journal import Journal
from robustlab.record.kept import AREAS, Area, has_expired, list_kept, path_of
from robustlab.record.run_folder import RunFolder, sync_folder


def sweep(folder: RunFolder, *, now: datetime | None = None) -> int:
    """Remove what has expired in a run, whoever works on it, and say so in its ``custody.jsonl``.

    Args:
        folder: The run's folder.
        now: Aware present time; None for the clock's.

    Returns:
        How many files were removed.

    Raises:
        RecordError: If the audit cannot be read or written, or another process sweeps the same run.
        CustodyError: If the audit does not balance.
    """
    moment = now or datetime.now(UTC)
    if not any(has_expired(found, moment) for area in AREAS for found in list_kept(folder, area)):
        return 0
    with Journal.open(folder.custody) as journal:
        # Read again: whoever held the journal before may have done it.
        return sum(_sweep_area(folder, area, CustodyLog(journal.append), moment) for area in AREAS)


def _sweep_area(folder: RunFolder, area: Area, custody: CustodyLog, moment: datetime) -> int:
    kept, removed = list_kept(folder, area), 0
    due = [found for found in kept if has_expired(found, moment)]
    lasting = {found.artefact for found in kept if not has_expired(found, moment)}
    for found in due:
        removed += found.artefact not in lasting and _remove(path_of(folder, area, found.artefact))
        custody.deleted(found.artefact, found.sha256, f"expired {found.expires}")
    return removed


def sweep_all(runs: Path, *, say: Callable[[str], None], now: datetime | None = None) -> None:
    """Remove what has expired in every run of a folder; a run that cannot be swept does not keep others from it.

    Args:
        runs: Folder of runs; there may be none.
        say: Told of what was removed, and of every run that could not be swept.
        now: Aware present time; None for the clock's.
    """
    for path in sorted({place.parent for area in AREAS for place in runs.glob(f"*/{area.name}/")}):
        folder = RunFolder(path)
        try:
            removed = sweep(folder, now=now)
        except (OSError, CustodyError) as error:
            say(f"run {folder.run_id}: kept files that have expired could not be removed: {error}")
            continue
        if removed:
            say(f"run {folder.run_id}: {removed} kept files had expired and are removed")


def _remove(path: Path) -> bool:
    is_there = path.is_file()
    path.unlink(missing_ok=True)
    if is_there:
        sync_folder(path.parent)
    return is_there
