"""Reads a ledger's dates: how much of the time of each process is explained, and whether its records lie in order.

A process runs from the creation that its ``session`` record names to its last record, without the jumps of the wall
clock. A ``torn_tail`` is written by the process that opens the ledger next and belongs to no session. The meter looks
at the clock whenever a segment ends: a ``clock_jump`` tells of a jump since the segment before. This module does not
know where records are kept or what they cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from robustlab.cost.audit import number_entries
from robustlab.cost.clocks import JUMP_NS
from robustlab.cost.entries import TIMED, Entry
from robustlab.errors import RecordError
from robustlab.units import NS_PER_SECOND

Record = Mapping[str, Any]
_DISTRUST = "do not trust this run; repeat it"
_LONG_TAIL_NS = 3600 * NS_PER_SECOND
_SLACK = Fraction(1, 50)


@dataclass(frozen=True)
class ProcessTime:
    """What the ledger says of the time of one process.

    Attributes:
        wall_ns: From its creation to its last record, without jumps of the clock, >= 0.
        explained_ns: Time in its timed records.
    """

    wall_ns: int
    explained_ns: int


@dataclass(frozen=True)
class Explained:
    """How much of the wall time of a run its ledger explains.

    Attributes:
        sessions: One for each process that opened the ledger, in order.
    """

    sessions: tuple[ProcessTime, ...]

    @property
    def wall_ns(self) -> int:
        """Time of all processes; what lies between two of them is no part of it."""
        return sum(session.wall_ns for session in self.sessions)

    @property
    def explained_ns(self) -> int:
        """Part of it in timed records. What one process explains twice explains nothing of another's time."""
        return sum(min(session.explained_ns, session.wall_ns) for session in self.sessions)

    @property
    def share(self) -> Fraction | None:
        """Exact share in [0, 1]; None when no time has passed."""
        return Fraction(self.explained_ns, self.wall_ns) if self.wall_ns else None


@dataclass(frozen=True)
class Stray:
    """A record that is dated otherwise than the records before it allow, and by how much."""

    record: int
    by_ns: int


@dataclass(frozen=True)
class _Dated:
    """One record of a process.

    Attributes:
        number: Its number in the ledger.
        moment: When it was made.
        entry: What it bills; None for a record of another kind.
        jump_ns: How far the wall clock had jumped, or was about to, when it was made; 0 for not at all.
    """

    number: int
    moment: datetime
    entry: Entry | None
    jump_ns: int


@dataclass(frozen=True)
class _Process:
    """When a process was created, what stands before its session if it wrote that too, and its records in order."""

    started: datetime
    tail: datetime | None
    records: tuple[_Dated, ...]


def explain_time(records: Sequence[Record]) -> Explained:
    """Hold the time in the timed records of each process against the time that it ran.

    Args:
        records: The whole ledger in order.

    Returns:
        One session for each process, none for an empty ledger.

    Raises:
        RecordError: If a record stands before the first session, or a time is none.
    """
    return Explained(tuple(_explain(process) for process in _read_processes(records)))


def find_setbacks(records: Sequence[Record]) -> list[Stray]:
    """Records that are dated before the one before them in the same process, further than a jump of the clock tells.

    Args:
        records: All records of the ledger, oldest first.

    Returns:
        Each such record with the distance to the one before it, > 0.
    """
    found = []
    for process in _read_processes(records):
        before = max(process.started, process.tail or process.started)
        for dated in process.records:
            back_ns = _ns_between(dated.moment, before)
            if back_ns + min(dated.jump_ns, 0) > JUMP_NS:
                found.append(Stray(dated.number, back_ns))
            before = dated.moment
    return found


def find_resets(records: Sequence[Record]) -> list[Stray]:
    """Sessions that are dated before the record before them: between two processes the clock was set back.

    No duration depends on it, for a process counts its own time, and what lies between two is nobody's.

    Args:
        records: All records of the ledger, oldest first.

    Returns:
        Each such ``session`` record with the distance to the one before it, beyond a jump of the clock.
    """
    found: list[Stray] = []
    before: datetime | None = None
    for number, record in enumerate(records, start=1):
        # The process that opens the ledger next writes it, before its session.
        if record.get("kind") == "torn_tail":
            continue
        moment = _moment(number, record, "time")
        back_ns = 0 if before is None or record.get("kind") != "session" else _ns_between(moment, before)
        if back_ns > JUMP_NS:
            found.append(Stray(number, back_ns))
        before = moment
    return found


def find_leaps(records: Sequence[Record]) -> list[Stray]:
    """Records that are dated later than the time of their segment explains, as a clock leaves them that was set.

    A meter's segments follow each other without a gap: other work on the machine lengthens a segment and cannot lie
    between two of them.

    Args:
        records: All records of the ledger, oldest first.

    Returns:
        Each such record with the time that is too much, > 0. After the last segment only an hour or more counts.
    """
    found = []
    for process in _read_processes(records):
        before = process.started
        for dated in process.records:
            if dated.entry is None or dated.entry.record not in TIMED:
                continue
            used_ns = dated.entry.quantities.wall_ns
            ahead_ns = _ns_between(before, dated.moment) - dated.jump_ns - used_ns
            if ahead_ns > JUMP_NS + used_ns * _SLACK:
                found.append(Stray(dated.number, ahead_ns))
            before = dated.moment
        last = process.records[-1]
        tail_ns = _ns_between(before, last.moment)
        if tail_ns > _LONG_TAIL_NS:
            found.append(Stray(last.number, tail_ns))
    return found


def read_period(number: int, entry: Entry) -> tuple[datetime, datetime]:
    """When the time that a record bills began and ended, by the wall clock at its end.

    Args:
        number: Its number in the ledger, for the message.
        entry: The record.

    Returns:
        Both moments in UTC, to the microsecond.

    Raises:
        RecordError: If one of them is none.
    """
    try:
        end = datetime.fromisoformat(entry.wall_clock)
        if end.utcoffset() is not None:
            end = end.astimezone(UTC)
            return end - timedelta(microseconds=entry.quantities.wall_ns // 1000), end
    except (ValueError, OverflowError):
        pass
    problem = f"is not of a moment in UTC, got {entry.wall_clock!r} after {entry.quantities.wall_ns} ns"
    raise RecordError(f"ledger record {number}", problem, _DISTRUST)


def _explain(process: _Process) -> ProcessTime:
    entries = [dated.entry for dated in process.records if dated.entry is not None]
    jumped_ns = sum(_jump_ns(dated) or 0 for dated in process.records)
    explained_ns = sum(entry.quantities.wall_ns for entry in entries if entry.record in TIMED)
    passed_ns = _ns_between(process.started, process.records[-1].moment)
    return ProcessTime(max(passed_ns - jumped_ns, 0), explained_ns)


def _read_processes(records: Sequence[Record]) -> list[_Process]:
    entries = dict(number_entries(records))
    found: list[tuple[datetime, datetime | None, list[_Dated]]] = []
    tail: datetime | None = None
    for number, record in enumerate(records, start=1):
        kind, moment = record.get("kind"), _moment(number, record, "time")
        if kind == "torn_tail":
            tail = moment
            continue
        if kind == "session":
            found.append((_moment(number, record, "started"), tail, []))
        if not found:
            raise RecordError(f"ledger record {number}", "stands before any session", _DISTRUST)
        found[-1][2].append(_Dated(number, moment, entries.get(number), 0))
        tail = None
    return [_Process(started, tail, _with_jumps(dated)) for started, tail, dated in found]


def _with_jumps(records: Sequence[_Dated]) -> tuple[_Dated, ...]:
    """A jump is told after the segment in which it happened: any record since the segment before may lie beyond it."""
    found = []
    jump_ns, is_told = 0, False
    for dated in reversed(records):
        told_ns = _jump_ns(dated)
        if told_ns is not None:
            jump_ns, is_told = told_ns, True
        elif dated.entry is not None and dated.entry.record in TIMED:
            jump_ns, is_told = jump_ns if is_told else 0, False
        found.append(replace(dated, jump_ns=jump_ns))
    return tuple(reversed(found))


def _jump_ns(dated: _Dated) -> int | None:
    if dated.entry is None or dated.entry.record != "clock_jump":
        return None
    jump_ns = dated.entry.tags.get("jump_ns")
    if not isinstance(jump_ns, int):
        problem = f"does not say how far the clock jumped, got {jump_ns!r}"
        raise RecordError(f"ledger record {dated.number}", problem, _DISTRUST)
    return jump_ns


def _moment(number: int, record: Record, key: str) -> datetime:
    try:
        moment = datetime.fromisoformat(record[key])
        if moment.utcoffset() is not None:
            return moment
    except (KeyError, TypeError, ValueError):
        pass
    problem = f"{key} is no moment in UTC, got {record.get(key)!r}"
    raise RecordError(f"ledger record {number}", problem, _DISTRUST)


def _ns_between(first: datetime, second: datetime) -> int:
    return (second - first) // timedelta(microseconds=1) * 1000
