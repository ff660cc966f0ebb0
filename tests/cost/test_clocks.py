import time

import pytest

from robustlab.cost.clocks import JUMP_NS, ClockWatch, iso_time, process_started_ns

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("drift", "jump"),
    [
        (0, None),
        (JUMP_NS, None),
        (-JUMP_NS, None),
        (JUMP_NS + 1, JUMP_NS + 1),
        (-3600 * SECOND, -3600 * SECOND),
    ],
)
def test_a_jump_is_a_disagreement_beyond_the_threshold(drift: int, jump: int | None) -> None:
    now, wall = [10 * SECOND], [500 * SECOND]
    watch = ClockWatch(lambda: now[0], lambda: wall[0])
    now[0] += 7 * SECOND
    wall[0] += 7 * SECOND + drift
    assert watch.jump_ns() == jump
    assert watch.jump_ns() is None


def test_iso_time() -> None:
    assert iso_time(1_767_225_600 * SECOND + 250_000_000) == "2026-01-01T00:00:00.250+00:00"


def test_this_process_started_a_while_ago() -> None:
    age_ns = time.monotonic_ns() - process_started_ns(time.monotonic_ns, time.time_ns)
    assert 0 <= age_ns < 3600 * SECOND


def test_a_process_never_starts_in_the_future() -> None:
    assert process_started_ns(lambda: 42, lambda: 0) == 42
