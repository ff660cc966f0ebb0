"""Two clocks: a monotonic one that measures, and a wall clock that dates and is never used for a duration.

This module does not know what the time is spent on.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import psutil

from robustlab.units import NS_PER_SECOND, Nanoseconds, to_nanoseconds

Clock = Callable[[], int]
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


def iso_time(wall_ns: int) -> str:
    """Write nanoseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_ns / NS_PER_SECOND, UTC).isoformat(timespec="milliseconds")


def process_started_ns(clock: Clock, wall_clock: Clock) -> Nanoseconds:
    """When this process was created, on the monotonic clock.

    Args:
        clock: Monotonic nanoseconds from any origin.
        wall_clock: Nanoseconds since 1970, UTC.

    Returns:
        Nanoseconds from the origin of ``clock``; never later than now, even if the wall clock was set back since.
    """
    age_ns = wall_clock() - to_nanoseconds(psutil.Process().create_time())
    return Nanoseconds(clock() - max(age_ns, 0))
