"""Who made, deleted or kept which attacked artefact, when and why; in the same chain as the charges.

An artefact is recorded as created *before* its first byte is written and as deleted *after* its file is gone, so that
a crash in between never leaves a file that no record names. This module touches no artefact.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from robustlab.errors import CustodyError

Event = Literal["created", "deleted", "kept"]
KIND = "custody"
"""Value of ``kind`` in every record of this log."""


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

    def created(self, artefact: str, sha256: str, why: str) -> str:
        """Record that an artefact is about to be written.

        Args:
            artefact: Its name, such as ``resume/adapter.safetensors``.
            sha256: Hash of its bytes, 64 hexadecimal digits.
            why: What it is needed for.

        Returns:
            The record's hash.
        """
        return self._record("created", artefact, sha256, why)

    def deleted(self, artefact: str, sha256: str, why: str) -> str:
        """Record that an artefact is gone. Arguments and result as for ``created``."""
        return self._record("deleted", artefact, sha256, why)

    def kept(self, artefact: str, sha256: str, why: str) -> str:
        """Record that an artefact stays, and the reason that was given. Arguments and result as for ``created``."""
        return self._record("kept", artefact, sha256, why)

    def _record(self, event: Event, artefact: str, sha256: str, why: str) -> str:
        record = {"kind": KIND, "event": event, "artefact": artefact, "sha256": sha256, "who": self._who, "why": why}
        return self._append(record)


def balance(records: Iterable[dict[str, Any]]) -> CustodyBalance:
    """Draw the balance of a journal's custody records; records of other kinds are passed over.

    An artefact that is created again while it is live (a step repeated after a crash) is still one artefact.

    Args:
        records: Records in the order in which they were written.

    Returns:
        Counts of artefacts, and the names of those that are still live.

    Raises:
        CustodyError: If something was deleted or kept that had not been created, or was gone already.
    """
    state: dict[tuple[str, str], Event] = {}
    created = deleted = 0
    for record in records:
        if record.get("kind") != KIND:
            continue
        key, event = (record["artefact"], record["sha256"]), record["event"]
        if event == "created":
            created += key not in state
            state.setdefault(key, "created")
            continue
        _require_present(key, event, state)
        state[key] = event
        if event == "deleted":
            deleted += 1
            del state[key]
    live = tuple(name for (name, _), event in state.items() if event == "created")
    return CustodyBalance(created, deleted, len(state) - len(live), live)


def _require_present(key: tuple[str, str], event: str, state: dict[tuple[str, str], Event]) -> None:
    if key not in state:
        problem = f"was {event} without having been there, sha256 {key[1]}"
        raise CustodyError(key[0], problem, "find out where it came from before you go on")
