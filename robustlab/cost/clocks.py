"""Three clocks: a monotonic one that measures, a wall clock that dates and is never used for a duration, and one that
counts processor time.

This module does not know what the time is spent on.
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

    def __init__(self, clock: Clock, wall_clock: Clock) -> None:
        """Take the first look.

        Args:
            clock: Monotonic nanoseconds from any origin.
            wall_clock: Nanoseconds since 1970, UTC.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen = (clock(), wall_clock())

    def jump_ns(self) -> Nanoseconds | None:
        """Look again.

        Returns:
            Nanoseconds by which the wall clock ran ahead (negative: behind) since the last look, None when that is
            within ``JUMP_NS``: a clock was set, or the machine slept.
        """
        before, self._seen = self._seen, (self._clock(), self._wall_clock())
        drift = (self._seen[1] - before[1]) - (self._seen[0] - before[0])
        return Nanoseconds(drift) if abs(drift) > JUMP_NS else None


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


def cpu_clock() -> int:
    """Processor time that this process and its children have used.

    Returns:
        Nanoseconds, user and system, summed over cores, in the steps of the system's own count (10 ms on Linux). A
        child counts once it has ended and was waited for. Never less than before.
    """
    times = psutil.Process().cpu_times()
    return to_nanoseconds(times.user + times.system + times.children_user + times.children_system)
