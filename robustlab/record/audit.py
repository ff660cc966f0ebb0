"""Reads what the two journals of a run say of its artefacts: the ledger, and what was written after the run had ended.

Neither is held, and neither is changed: a run may go on meanwhile. This module looks at no artefact.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.record.custody import KIND
from robustlab.record.journal import Record, read_journal
from robustlab.record.run_folder import RunFolder


@dataclass(frozen=True)
class Audit:
    """What both journals say together.

    Attributes:
        records: All records, oldest first; of either journal in its own order.
        torn_bytes: Length of the unfinished records at their ends, left by a crash or about to be whole.
    """

    records: tuple[Record, ...]
    torn_bytes: int


def read_audit(folder: RunFolder) -> Audit:
    """Read and verify both journals of a run, as far as they are there.

    Args:
        folder: The run's folder.

    Returns:
        No records for a run that has no journal yet.

    Raises:
        RecordError: If a journal cannot be trusted or read.
    """
    paths = (folder.ledger, folder.custody)
    (ledger, torn), (later, torn_later) = (read_journal(path) if path.is_file() else ([], b"") for path in paths)
    return Audit(_merge(ledger, later), len(torn) + len(torn_later))


def _merge(ledger: Sequence[Record], later: Sequence[Record]) -> tuple[Record, ...]:
    """Both journals by their times, as far as that can be what happened: clocks are set back, too.

    A state that was swept after the run had ended may be made anew when the run is gone on with. Whatever the times
    say, though, what is told of an artefact later follows its making and what the ledger says of it until it is made
    again.
    """
    merged: list[Record] = []
    waiting, present = deque(later), set[tuple[str, str]]()
    ahead: defaultdict[tuple[str, str], deque[object]] = defaultdict(deque)
    for record in ledger:
        ahead[_artefact(record)].append(record.get("event"))
    for record in ledger:
        while waiting and str(waiting[0]["time"]) < str(record["time"]) and _fits(waiting[0], present, ahead):
            merged.append(_follow(waiting.popleft(), present))
        ahead[_artefact(record)].popleft()
        merged.append(_follow(record, present))
    return (*merged, *waiting)


def _fits(record: Record, present: set[tuple[str, str]], ahead: dict[tuple[str, str], deque[object]]) -> bool:
    """Whether something may be said here that was said in the other journal, given what the ledger has yet to say."""
    if record.get("kind") != KIND or record.get("event") == "created":
        return True
    key = _artefact(record)
    coming = ahead.get(key)
    return key in present and (not coming or coming[0] == "created")


def _follow(record: Record, present: set[tuple[str, str]]) -> Record:
    if record.get("kind") == KIND and record.get("event") == "created":
        present.add(_artefact(record))
    elif record.get("kind") == KIND and record.get("event") == "deleted":
        present.discard(_artefact(record))
    return record


def _artefact(record: Record) -> tuple[str, str]:
    return str(record.get("artefact")), str(record.get("sha256"))
