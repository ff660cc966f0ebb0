"""Who made, deleted or kept which attacked artefact, when and why; in the same chain as the charges.

An artefact is recorded as created *before* its first byte is written and as deleted *after* its file is gone, so that
a crash in between never leaves a file that no record names. This module touches no artefact.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from robustlab.errors import CustodyError

Event = Literal["created", "deleted", "kept"]
KIND = "custody"
"""Value of ``kind`` in every record of this log."""
LONGEST_DAYS = 365
"""Longest that anything is kept before it expires."""
_FIND_OUT = "find out where it came from before you go on"


@dataclass(frozen=True)
class CustodyBalance:
    """What became of every attacked artefact: created = deleted + kept + live.

    Attributes:
        created: Artefacts that were ever made; the same name with other content is another artefact.
        deleted: Artefacts that are gone.
        kept: Artefacts that someone kept for a stated reason.
        live: Names of those that are neither, in the order of their making; empty once a run has ended.
    """

    created: int
    deleted: int
    kept: int
    live: tuple[str, ...]


class CustodyLog:
    """Writes custody records through a journal.

    Args:
        append: Writes one record durably and returns its hash, as ``Journal.append`` does.
        who: Who acts; None for the user and process ids.
    """

    def __init__(self, append: Callable[[dict[str, Any]], str], *, who: str | None = None) -> None:
        self._append = append
        self._who = who or f"uid {os.getuid()}, pid {os.getpid()}"

    def created(self, artefact: str, sha256: str, why: str, *, expires: str | None = None) -> str:
        """Record that an artefact is about to be written.

        Args:
            artefact: Its name, such as ``resume/adapter.safetensors``.
            sha256: Hash of its bytes, 64 hexadecimal digits.
            why: What it is needed for.
            expires: Moment in UTC from which it must be gone; None where it has none.

        Returns:
            The record's hash.
        """
        return self._record("created", artefact, sha256, why, expires)

    def deleted(self, artefact: str, sha256: str, why: str) -> str:
        """Record that an artefact is gone. Arguments and result as for ``created``."""
        return self._record("deleted", artefact, sha256, why)

    def kept(self, artefact: str, sha256: str, why: str, *, expires: str | None = None) -> str:
        """Record that an artefact stays, and the reason that was given. Arguments and result as for ``created``."""
        return self._record("kept", artefact, sha256, why, expires)

    def _record(self, event: Event, artefact: str, sha256: str, why: str, expires: str | None = None) -> str:
        record = {"kind": KIND, "event": event, "artefact": artefact, "sha256": sha256, "who": self._who, "why": why}
        return self._append(record if expires is None else record | {"expires": expires})


@dataclass(frozen=True)
class Artefact:
    """One attacked artefact and what became of it.

    Attributes:
        artefact: Its name.
        sha256: Hash of its bytes; of a resumable state, of the tensors of the modification in it.
        event: What was said of it last: ``created`` while it is live, ``kept``, ``deleted``.
        made: When it was made, in UTC; None where the journal does not say.
        why: The reason that was given first.
        expires: Moment in UTC from which it must be gone, as it was written; None where it has none.
        ended: When it was kept or deleted; None while it is live.
        ended_why: Why; None while it is live.
    """

    artefact: str
    sha256: str
    event: Event
    made: str | None
    why: str
    expires: str | None
    ended: str | None = None
    ended_why: str | None = None


def trace_artefacts(records: Iterable[dict[str, Any]]) -> tuple[list[Artefact], list[CustodyError]]:
    """Follow every artefact through a journal; records of other kinds are passed over.

    An artefact that is created again while it is live (a step repeated after a crash) is still one artefact; one that
    is created again after it was deleted is another.

    Args:
        records: Records in the order in which they were written.

    Returns:
        Artefacts in the order of their making, and what is wrong with the records: something was deleted or kept that
        had not been created or was gone already, or a record does not say what it is about.
    """
    made: list[Artefact] = []
    present: dict[tuple[str, str], int] = {}
    faults: list[CustodyError] = []
    for record in (record for record in records if record.get("kind") == KIND):
        name, sha256, event = record.get("artefact"), record.get("sha256"), record.get("event")
        if not (isinstance(name, str) and isinstance(sha256, str) and event in ("created", "deleted", "kept")):
            faults.append(CustodyError("a record of custody", f"names no artefact, got event {event!r}", _FIND_OUT))
        elif event == "created":
            if (name, sha256) not in present:
                present[name, sha256] = len(made)
                made.append(_begin(name, sha256, record))
        elif (name, sha256) not in present:
            problem = f"was {event} without having been there, sha256 {sha256}"
            faults.append(CustodyError(name, problem, _FIND_OUT))
        else:
            place = present.pop((name, sha256)) if event == "deleted" else present[name, sha256]
            made[place] = replace(made[place], event=event, ended=record.get("time"), ended_why=record.get("why"))
    return made, faults


def _begin(name: str, sha256: str, record: dict[str, Any]) -> Artefact:
    return Artefact(name, sha256, "created", record.get("time"), record.get("why", ""), record.get("expires"))


def list_present(records: Iterable[dict[str, Any]]) -> list[Artefact]:
    """Artefacts that are live or kept, in the order of their making.

    Args:
        records: As for ``balance``, and with its errors.

    Returns:
        Each with its last event.

    Raises:
        CustodyError: If something was deleted or kept that had not been created, or was gone already.
    """
    return [found for found in _trace(records) if found.event != "deleted"]


def balance(records: Iterable[dict[str, Any]]) -> CustodyBalance:
    """Draw the balance of a journal's custody records; records of other kinds are passed over.

    Args:
        records: Records in the order in which they were written.

    Returns:
        Counts of artefacts, and the names of those that are still live.

    Raises:
        CustodyError: If something was deleted or kept that had not been created, or was gone already.
    """
    return count_artefacts(_trace(records))


def count_artefacts(artefacts: Iterable[Artefact]) -> CustodyBalance:
    """Draw the balance of artefacts, each of which is deleted, kept or live."""
    found = list(artefacts)
    events = [each.event for each in found]
    live = tuple(each.artefact for each in found if each.event == "created")
    return CustodyBalance(len(found), events.count("deleted"), events.count("kept"), live)


def _trace(records: Iterable[dict[str, Any]]) -> list[Artefact]:
    found, faults = trace_artefacts(records)
    for fault in faults:
        raise fault
    return found
