"""Reads what the two journals of a run say of its artefacts: the ledger, and what was written after the run had ended.

Neither is held, and neither is changed: a run may go on meanwhile. This module looks at no artefact.
"""

import heapq
from dataclasses import dataclass

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
    told = [read_journal(path) for path in (folder.ledger, folder.custody) if path.is_file()]
    # A state that was swept after the run had ended may be made anew when the run is gone on with.
    merged = heapq.merge(*(records for records, _ in told), key=lambda record: str(record["time"]))
    return Audit(tuple(merged), sum(len(torn) for _, torn in told))
