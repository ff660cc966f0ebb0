"""Temporary files that a crash left in a run's folder, where an atomic write was under way."""

import re

from robustlab.record.run_folder import RunFolder, write_error

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def remove_leftovers(folder: RunFolder) -> int:
    """Remove what ``write_atomic`` and ``write_once`` had not given its name yet. wandb's own files are left alone.

    Args:
        folder: The run's folder; the caller holds the ledger, so that nobody else writes the record.

    Returns:
        How many files are gone.

    Raises:
        RecordError: If the disk does not let one go.
    """
    found = [path for path in folder.path.rglob(".*.tmp") if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    ours = [path for path in found if folder.mirror not in path.parents]
    for path in ours:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(path, error) from None
    return len(ours)
