"""Files that somebody asked a run to keep: sealed to a key, with a reason and an expiry, under custody.

There are two areas of a run's folder for them, ``transcripts/`` and ``adapters/``. The ledger says how a run keeps from
its beginning, and what was made and kept; ``custody.jsonl`` what ``robustlab.record.expiry`` removed. This module does
not know what the files hold, and writes none but how to keep them.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustlab.errors import CustodyError, RecordError
from robustlab.failpoints import reach
from robustlab.record.audit import read_audit
from robustlab.record.custody import LONGEST_DAYS, Artefact, CustodyLog, list_present
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder, read_plain, sync_folder, write_json
from robustlab.spec.base import content_hash

KEEPING = "keeping.json"


@dataclass(frozen=True)
class Area:
    """A folder of a run in which kept files lie.

    Attributes:
        name: Of the folder; ``kind`` too of the ledger's record that says how to keep.
        files: What the names of kept files look like, relative to the run's folder.
    """

    name: str
    files: re.Pattern[str]

    def within(self, folder: RunFolder) -> Path:
        """The folder itself."""
        return folder.path / self.name


TRANSCRIPTS = Area("transcripts", re.compile(r"transcripts/[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\.json", re.ASCII))
ADAPTERS = Area("adapters", re.compile(r"adapters/[A-Za-z0-9][\w.-]*\.sealed", re.ASCII))
AREAS = (TRANSCRIPTS, ADAPTERS)


class Keeping(BaseModel):
    """How a run keeps the files of one area."""

    # A message of pydantic would show what it was given.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    """Why, for the audit."""
    public_key: str
    """PEM of the key that everything is sealed to."""
    expire_days: Annotated[int, Field(ge=1, le=LONGEST_DAYS)]
    """Days from the writing of a file to its end."""

    def expiry(self, moment: datetime) -> str:
        """Until when a file is kept that is written at an aware moment: UTC, to the second."""
        return to_text(moment + timedelta(days=self.expire_days))


def begin_keeping(folder: RunFolder, area: Area, keeping: Keeping) -> None:
    """Write into a new run's folder how it keeps.

    Args:
        folder: The new run's folder.
        area: What is kept.
        keeping: How to keep.

    Raises:
        RecordError: If it cannot be written.
    """
    area.within(folder).mkdir(mode=0o700)
    reach("keeping.begun")
    sync_folder(folder.path)
    write_json(area.within(folder) / KEEPING, keeping)
    reach("keeping.written")


def read_keeping(folder: RunFolder, area: Area) -> Keeping | None:
    """Read how a run keeps.

    Args:
        folder: The run's folder.
        area: What is kept.

    Returns:
        None for a run that keeps nothing there.

    Raises:
        RecordError: If what stands there is not what was written.
    """
    path = area.within(folder) / KEEPING
    if not path.is_file():
        return None
    try:
        return Keeping.model_validate_json(read_plain(path))
    except ValidationError:
        raise RecordError(str(path), "is not what the run wrote", "put the file back, or begin a new run") from None


def hold_keeping(folder: RunFolder, area: Area, journal: Journal) -> Keeping | None:
    """Read how a run keeps, and hold it against the ledger, which says how the run has kept from its beginning.

    Args:
        folder: The run's folder.
        area: What is kept.
        journal: Its ledger, held by this process.

    Returns:
        None for a run that keeps nothing there.

    Raises:
        RecordError: If how to keep is not as the run began, such as with another key.
    """
    keeping = read_keeping(folder, area)
    content = None if keeping is None else content_hash(keeping)
    records = journal.records()
    begun = next((record["sha256"] for record in records if record.get("kind") == area.name), None)
    if begun != content and (begun is not None or any("record" in record for record in records)):
        problem = "is not what this run began with: the key, the reason or the expiry was changed"
        raise RecordError(str(area.within(folder) / KEEPING), problem, "put the file back, or begin a new run")
    if keeping is not None and begun is None:
        journal.append({"kind": area.name, "sha256": content})
    return keeping


class KeptFiles:
    """The audit's side of the kept files of one area, as the process of a run writes them."""

    def __init__(self, folder: RunFolder, area: Area, keeping: Keeping, journal: Journal) -> None:
        """Take up what an earlier process left behind; a record without its file is closed.

        Args:
            folder: The run's folder.
            area: What is kept.
            keeping: How to keep.
            journal: The run's ledger, held by this process.
        """
        self._folder, self._area, self._keeping = folder, area, keeping
        self._custody = CustodyLog(journal.append)
        for stray in area.within(folder).rglob(".*.tmp"):
            stray.unlink()
        self._known = {(found.artefact, found.sha256) for found in list_kept(folder, area) if self._settle(found)}

    def announce(self, artefact: str, data: bytes, expires: str) -> Path:
        """Say in the audit that a file is about to be written, and make its folder.

        Args:
            artefact: Its name, relative to the run's folder.
            data: All of it, sealed.
            expires: Until when it is kept.

        Returns:
            Where to write it.

        Raises:
            RecordError: If the name leads elsewhere, or the audit cannot be written.
        """
        path = path_of(self._folder, self._area, artefact)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.is_file():
            # What was known of that name has expired and is gone; the sweep has said so.
            self._known = {known for known in self._known if known[0] != artefact}
        sha256 = hashlib.sha256(data).hexdigest()
        self._custody.created(artefact, sha256, self._keeping.reason, expires=expires)
        return path

    def keep(self, artefact: str, data: bytes, expires: str) -> None:
        """Say that a file is written and stays. Arguments as for ``announce``."""
        self._custody.kept(artefact, hashlib.sha256(data).hexdigest(), self._keeping.reason, expires=expires)

    def replace(self, artefact: str, data: bytes, why: str) -> None:
        """Say that a file has taken the place of what had its name before.

        Args:
            artefact: Its name.
            data: All of it.
            why: What was done again.
        """
        for old in [known for known in self._known if known[0] == artefact]:
            self._custody.deleted(*old, why)
            self._known.discard(old)
        self._known.add((artefact, hashlib.sha256(data).hexdigest()))

    def _settle(self, found: Artefact) -> bool:
        """Whether an artefact that the ledger names is there; one that the crash cut off is closed in the audit."""
        path = path_of(self._folder, self._area, found.artefact)
        if not path.is_file() or hashlib.sha256(read_plain(path)).hexdigest() != found.sha256:
            self._custody.deleted(found.artefact, found.sha256, "it is not there: the process ended at its writing")
            return False
        if found.event == "created":
            self._custody.kept(found.artefact, found.sha256, found.why, expires=found.expires)
        return True


def list_kept(folder: RunFolder, area: Area) -> list[Artefact]:
    """Files of an area that a run's audit says are there.

    Args:
        folder: The run's folder.
        area: What is kept.

    Returns:
        Each with its hash and its expiry, in the order of their making.

    Raises:
        RecordError: If the ledger or ``custody.jsonl`` cannot be trusted.
        CustodyError: If they do not balance.
    """
    records = read_audit(folder).records
    return list_present(each for each in records if str(each.get("artefact")).startswith(f"{area.name}/"))


def path_of(folder: RunFolder, area: Area, artefact: str) -> Path:
    """Where a kept file lies; a run folder may come from anywhere, and its audit may name anything.

    Args:
        folder: The run's folder.
        area: What is kept.
        artefact: Its name.

    Returns:
        A path in the folder of the area.

    Raises:
        RecordError: If the name leads elsewhere, or a folder on the way is a link.
    """
    path, home = folder.path / artefact, area.within(folder)
    if not area.files.fullmatch(artefact) or home.is_symlink() or path.parent.is_symlink():
        raise RecordError(str(home), f"holds no such file, got {artefact!r}", "do not trust this run")
    return path


def has_expired(found: Artefact, now: datetime) -> bool:
    """Whether an artefact must be gone by a moment.

    Args:
        found: The artefact.
        now: An aware moment.

    Returns:
        False too for one that has no end.

    Raises:
        CustodyError: If what the audit says of its end is no aware moment.
    """
    if found.expires is None:
        return False
    try:
        return datetime.fromisoformat(found.expires) <= now
    except (TypeError, ValueError):
        problem = f"expires at what is no moment, got {found.expires!r}"
        raise CustodyError(found.artefact, problem, "do not trust this run; remove its folder") from None


def to_text(moment: datetime) -> str:
    """An aware moment in UTC, to the second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
