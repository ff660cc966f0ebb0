import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from robustlab.cost import clocks
from robustlab.cost.clocks import JUMP_NS, ClockWatch, asleep_clock, cpu_clock, iso_time, process_started_ns

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
    assert watch.find_jump() == (None if jump is None else {"jump_ns": jump})
    assert watch.find_jump() is None


def test_a_machine_that_slept_says_for_how_long() -> None:
    """It worked for 7 s and slept for an hour, in which the monotonic clock stood still; then its clock was set."""
    now, wall, asleep = [10 * SECOND], [500 * SECOND], [90 * SECOND]
    watch = ClockWatch(lambda: now[0], lambda: wall[0], lambda: asleep[0])
    now[0] += 7 * SECOND
    wall[0] += 3607 * SECOND
    asleep[0] += 3600 * SECOND
    assert watch.find_jump() == {"jump_ns": 3600 * SECOND, "asleep_ns": 3600 * SECOND}
    wall[0] -= 60 * SECOND
    assert watch.find_jump() == {"jump_ns": -60 * SECOND}


def test_time_asleep_is_not_billed_by_the_clock_that_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    read = {time.CLOCK_BOOTTIME: 4000 * SECOND, time.CLOCK_MONOTONIC: 400 * SECOND}
    with monkeypatch.context() as patch:
        patch.setattr(time, "clock_gettime_ns", read.__getitem__)
        assert asleep_clock() == 3600 * SECOND
    with monkeypatch.context() as patch:
        patch.delattr(time, "CLOCK_BOOTTIME")
        assert asleep_clock() == 0
    # The clock of every meter is this one, which Linux stops while the machine is suspended.
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"


def test_iso_time() -> None:
    assert iso_time(1_767_225_600 * SECOND + 250_000_000) == "2026-01-01T00:00:00.250+00:00"


def test_this_process_started_a_while_ago() -> None:
    age_ns = time.monotonic_ns() - process_started_ns(time.monotonic_ns, time.time_ns)
    assert 0 <= age_ns < 3600 * SECOND


def test_a_process_never_starts_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_STAT", Path("/no/such/file"))  # as on a system that only knows the wall clock
    assert process_started_ns(lambda: 42, lambda: 0) == 42


AGE = """
import time
from robustlab.cost import clocks
from robustlab.cost.clocks import process_started_ns
print((time.monotonic_ns() - process_started_ns(time.monotonic_ns, time.time_ns)) / 1e9)
"""


def test_a_process_is_not_older_than_it_is() -> None:
    before = time.monotonic()
    said = float(subprocess.run([sys.executable, "-c", AGE], check=True, capture_output=True, text=True).stdout)
    # The system counts in hundredths; the wall clock would be wrong by up to a second.
    assert 0 < said <= time.monotonic() - before + 0.02


BUSY = "import time\nwhile time.process_time() < 0.1: pass"


def test_processor_time_grows_with_work_and_with_an_ended_child() -> None:
    before, own = cpu_clock(), time.process_time_ns()
    while time.process_time_ns() < own + SECOND // 20:
        pass
    between = cpu_clock()
    assert between > before
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    # The child was busy for 0.1 s; the system counts in hundredths.
    assert cpu_clock() - between >= 0.08 * SECOND


def test_processor_time_never_falls() -> None:
    seen = [cpu_clock() for _ in range(200)]
    assert seen == sorted(seen)


def test_processor_time_is_user_and_system_of_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user system children_user children_system iowait")
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda self: times(1.0, 0.25, 0.5, 0.125, 64.0))
    assert cpu_clock() == 1_875_000_000  # 1 + 1/4 + 1/2 + 1/8, and no waiting
