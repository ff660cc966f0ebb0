"""Lists what lies in a folder that another process may be changing: what vanishes meanwhile is left out."""

import os
from pathlib import Path


def list_entries(top: Path) -> dict[Path, os.stat_result]:
    """Everything under a folder, without following a link below it.

    Args:
        top: The folder; there may be none.

    Returns:
        By path, in order, what each entry itself is; a folder that cannot be read is listed without what it holds.

    Raises:
        OSError: If an entry cannot be looked at for another reason than that it is gone.
    """
    paths = (Path(place, name) for place, folders, files in os.walk(top) for name in (*folders, *files))
    found = {path: _look(path) for path in sorted(paths)}
    return {path: facts for path, facts in found.items() if facts is not None}


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
