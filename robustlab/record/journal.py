"""An append-only JSONL file that one process holds, that survives a crash at any byte, and that shows every change.

One record is one line and one ``write()``, fsynced before ``append`` returns. It names the hash of the record before
it, so a changed, lost or reordered record breaks the chain. What the chain cannot show is a journal cut short at the
end of a record: the head is printed in the results and the report for that. A journal belongs to one thread.
This module does not know what the records mean.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robustlab.errors import RecordError
from robustlab.failpoints import reach
from robustlab.record.run_folder import read_plain, sync_folder, write_error
from robustlab.spec.base import canonical_json, content_hash

Record = dict[str, Any]
GENESIS = hashlib.sha256(b"robustlab journal").hexdigest()
"""What the first record names as the hash before it, and the head of a journal without records."""
_OWN_KEYS = frozenset({"seq", "time", "prev", "hash"})
HELD = "is held by another process"
"""What is wrong with a journal that another process has open."""
_DISTRUST = "do not trust this run; repeat it"


@dataclass(frozen=True)
class JournalReport:
    """What a sound journal holds.

    Attributes:
        records: How many whole records.
        head: Hash of the last one.
        torn_bytes: Length of an unfinished record at the end, left by a crash; 0 for none.
    """

    records: int
    head: str
    torn_bytes: int


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """A journal that is open for appending. Make one with ``Journal.open``.

    Attributes:
        path: The file.
        head: Hash of the last record whose ``append`` returned, ``GENESIS`` before the first.
    """

    def __init__(self, path: Path, descriptor: int, now: Callable[[], datetime]) -> None:
        """Take over a file that is open; the head stays at ``GENESIS`` until its records are adopted.

        Args:
            path: The file, for messages and for reading it back.
            descriptor: The same file, open for appending and locked; the journal closes it.
            now: Aware present time, for the records.
        """
        self.path = path
        self.head = GENESIS
        self._seq = 0
        self._cut_short = False
        self._failure: tuple[str, str] | None = None
        self._descriptor: int | None = descriptor
        self._now = now

    @classmethod
    def open(cls, path: Path, *, now: Callable[[], datetime] = _utc_now) -> "Journal":
        """Open or create a journal and hold it until it is closed or the process ends.

        A record that a crash left unfinished is dropped, and a record of kind ``torn_tail`` says so.

        Args:
            path: The file; its folder exists.
            now: Aware present time; an argument so that tests can fix it.

        Returns:
            The journal at the end of its chain, ready for the next record.

        Raises:
            RecordError: If another process holds it, its chain is broken, or it cannot be written.
        """
        descriptor = _locked_descriptor(path)
        journal = cls(path, descriptor, now)
        try:
            journal._adopt(descriptor)
        except RecordError:
            journal.close()
            raise
        return journal

    def append(self, payload: Record) -> str:
        """Write one record and wait until it is on the disk.

        A signal may end it at any byte. Whether the record stands is then read from the file before the next one is
        written, so that what an unwinding program appends still follows the last record.

        Args:
            payload: JSON data; the keys ``seq, time, prev, hash`` are the journal's own.

        Returns:
            The record's hash, which is the new head.

        Raises:
            RecordError: If the payload is not JSON or takes a reserved key (nothing is written), or if the write fails
                (the journal is then closed; opening it again drops what was torn). What an unwinding program appends
                after that meets the same error, so that it stays the one that is told.
        """
        if self._descriptor is None:
            raise RecordError(str(self.path), *(self._failure or ("is closed", "open the journal again")))
        if self._cut_short:
            self._adopt(self._descriptor)
        record, line = self._sealed(payload)
        self._cut_short = True
        try:
            reach("journal.record_ready")
            written = os.write(self._descriptor, line)
            reach("journal.record_written")
            os.fsync(self._descriptor)
            reach("journal.record_synced")
        except OSError as error:
            raise self._failed(write_error(self.path, error)) from None
        if written != len(line):
            problem = f"cannot be written: {written} of {len(line)} bytes of a record were taken"
            raise self._failed(RecordError(str(self.path), problem, "free some space and resume the run"))
        self.head, self._seq = record["hash"], self._seq + 1
        self._cut_short = False
        return self.head

    def records(self) -> list[Record]:
        """All records, oldest first, verified.

        Returns:
            Payloads with the journal's own keys (``seq``, ``time``, ``prev``, ``hash``).

        Raises:
            RecordError: If the file has been changed under the journal.
        """
        return read_journal(self.path)[0]

    def close(self) -> None:
        """Let another process hold the journal."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failed(self, error: RecordError) -> RecordError:
        self.close()
        self._failure = (error.problem, error.remedy)
        return error

    def _adopt(self, descriptor: int) -> None:
        records, torn = read_journal(self.path)
        self._seq = len(records)
        self.head = records[-1]["hash"] if records else GENESIS
        if torn:
            _drop_tail(self.path, descriptor, len(torn))
            reach("journal.tail_dropped")
        self._cut_short = False
        if torn:
            self.append({"kind": "torn_tail", "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()})

    def _sealed(self, payload: Record) -> tuple[Record, bytes]:
        taken = sorted(_OWN_KEYS & payload.keys())
        if taken:
            raise RecordError(str(self.path), f"a payload has the reserved key {taken[0]!r}", "rename the key")
        time = self._now().astimezone(UTC).isoformat(timespec="microseconds")
        try:
            # As it will be read back: JSON turns tuples into lists and keys into text, and the hash must not notice.
            plain = json.loads(json.dumps(payload, allow_nan=False))
            record = {"seq": self._seq, "time": time, **plain, "prev": self.head}
            record["hash"] = content_hash(record)
            return record, f"{canonical_json(record)}\n".encode()
        except (TypeError, ValueError) as error:
            raise RecordError(str(self.path), f"a payload is not JSON: {error}", "record finite plain data") from None


def verify_journal(path: Path) -> JournalReport:
    """Check every byte of a journal without holding it.

    Args:
        path: The journal's file; it is read and never changed.

    Returns:
        How many records stand, the hash of the last, and the length of an unfinished one.

    Raises:
        RecordError: At the first record, counted from 1, that is not what was written, or if there is no such file.
    """
    records, torn = read_journal(path)
    return JournalReport(len(records), records[-1]["hash"] if records else GENESIS, len(torn))


def read_journal(path: Path) -> tuple[list[Record], bytes]:
    """Read and verify a journal without holding it.

    Args:
        path: The journal's file; it is read and never changed.

    Returns:
        The whole records, oldest first, and the bytes of an unfinished one after them.

    Raises:
        RecordError: At the first record, counted from 1, that is not what was written, or if there is no such file
            or it is not a plain one.
    """
    *lines, torn = read_plain(path).split(b"\n")
    records: list[Record] = []
    prev = GENESIS
    for number, line in enumerate(lines, start=1):
        record = _read_record(path, number, line, prev)
        prev = record["hash"]
        records.append(record)
    _refuse_changed_end(path, len(records) + 1, torn, prev)
    return records, torn


def _read_record(path: Path, number: int, line: bytes, prev: str) -> Record:
    record = _parsed(line)
    if record is None:
        raise RecordError(f"{path} record {number}", "is not what was written: its hash does not match", _DISTRUST)
    if record["prev"] != prev:
        raise RecordError(f"{path} record {number}", "does not follow the record before it", _DISTRUST)
    if type(record["seq"]) is not int or record["seq"] != number - 1:
        raise RecordError(f"{path} record {number}", f"is out of place, got seq {record['seq']!r}", _DISTRUST)
    return record


def _parsed(line: bytes) -> Record | None:
    """A record whose bytes are exactly those that its content and hash demand, else None."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or not record.keys() >= _OWN_KEYS:
            return None
        body = {key: value for key, value in record.items() if key != "hash"}
        genuine = record["hash"] == content_hash(body) and canonical_json(record).encode() == line
    except (ValueError, RecursionError):
        return None
    return record if genuine else None


def _refuse_changed_end(path: Path, number: int, torn: bytes, prev: str) -> None:
    # A crash leaves part of a record; a whole one with something other than a newline behind it was tampered with.
    record = _parsed(torn[:-1])
    if record is not None and record["prev"] == prev:
        raise RecordError(f"{path} record {number}", "does not end in a newline: its last byte was changed", _DISTRUST)


def _locked_descriptor(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise write_error(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(path.parent)
    except BlockingIOError:
        os.close(descriptor)
        raise RecordError(str(path), HELD, "wait until that run ends, or stop it") from None
    except OSError as error:
        os.close(descriptor)
        raise write_error(path, error) from None
    return descriptor


def _drop_tail(path: Path, descriptor: int, torn_bytes: int) -> None:
    try:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - torn_bytes)
        os.fsync(descriptor)
    except OSError as error:
        raise write_error(path, error) from None
