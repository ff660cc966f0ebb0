"""Three clocks: a monotonic one that measures, a wall clock that dates and is never used for a duration, and one that
counts processor time.

The monotonic clock stands still while the machine is suspended, and so nothing is billed for that time: no device works
and none is rented. The wall clock goes on, and the jump is told, with the part of it that the machine slept. Nothing is
known of what lies between two processes. This module does not know what the time is spent on.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from robustlab.units import NS_PER_SECOND, Nanoseconds, to_nanoseconds

Clock = Callable[[], int]
_STAT, _STARTTIME = Path("/proc/self/stat"), 19
JUMP_NS = 2 * NS_PER_SECOND


class ClockWatch:
    """Compares the wall clock with the monotonic one from one look to the next."""

    def __init__(self, clock: Clock, wall_clock: Clock, sleep_clock: Clock | None = None) -> None:
        """Take the first look.

        Args:
            clock: Monotonic nanoseconds from any origin, without those that the machine slept.
            wall_clock: Nanoseconds since 1970, UTC.
            sleep_clock: Nanoseconds that the machine has slept; None for this machine's own count.
        """
        self._clocks = (clock, wall_clock, sleep_clock or asleep_clock)
        self._seen = self._look()

    def find_jump(self) -> dict[str, int] | None:
        """Look again.

        Returns:
            ``jump_ns``, by which the wall clock ran ahead (negative: behind) since the last look, and ``asleep_ns``,
            the part of it that the machine slept, where it did; None when the jump is within ``JUMP_NS``.
        """
        before, self._seen = self._seen, self._look()
        passed, dated, asleep = (now - then for now, then in zip(self._seen, before, strict=True))
        if abs(dated - passed) <= JUMP_NS:
            return None
        return {"jump_ns": dated - passed} | ({"asleep_ns": asleep} if asleep > JUMP_NS else {})

    def _look(self) -> tuple[int, ...]:
        return tuple(clock() for clock in self._clocks)


def iso_time(wall_ns: int, timespec: str = "milliseconds") -> str:
    """Write nanoseconds since 1970 as ISO 8601 in UTC, to the millisecond or as ``timespec`` says."""
    return datetime.fromtimestamp(wall_ns / NS_PER_SECOND, UTC).isoformat(timespec=timespec)


def process_started_ns(clock: Clock, wall_clock: Clock) -> Nanoseconds:
    """When this process was created, on the monotonic clock.

    Args:
        clock: Monotonic nanoseconds from any origin.
        wall_clock: Nanoseconds since 1970, UTC.

    Returns:
        Nanoseconds from the origin of ``clock``; never later than now, even if the wall clock was set back since.
    """
    return Nanoseconds(clock() - max(_age_ns(wall_clock), 0))


def _age_ns(wall_clock: Clock) -> int:
    """Age of this process. Linux says when it started on a clock that nobody sets, in hundredths of a second."""
    if not _STAT.is_file():
        return wall_clock() - to_nanoseconds(psutil.Process().create_time())
    fields = _STAT.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    started_s = int(fields[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - to_nanoseconds(started_s)


def asleep_clock() -> int:
    """Time that this machine was suspended since it was booted.

    Returns:
        Nanoseconds, to some microseconds; 0 on a system that does not say.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def cpu_clock() -> int:
    """Processor time that this process and its children have used.

    Returns:
        Nanoseconds, user and system, summed over cores, in the steps of the system's own count (10 ms on Linux). A
        child counts once it has ended and was waited for. Never less than before.
    """
    times = psutil.Process().cpu_times()
    return to_nanoseconds(times.user + times.system + times.children_user + times.children_system)
