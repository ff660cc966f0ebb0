"""Which time a ledger's records explain, and whether their dates follow from one another."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from robustlab.cost.audit import number_entries
from robustlab.cost.quantities import Quantities
from robustlab.cost.timeline import Stray, explain_time, find_leaps, find_resets, find_setbacks, read_period
from robustlab.errors import RecordError

MADE = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000
YEAR = 365 * 86_400


class Diary:
    """A journal's own keys around the records of a bench, with the wall clock of that bench."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.records: list[dict[str, Any]] = []

    def open(self) -> Any:
        self.append({"kind": "session", "started": self.now(), "pid": 1})
        return self.bench.build(self.bench.budget(), write=lambda record: self.append(json.loads(json.dumps(record))))

    def append(self, record: dict[str, Any]) -> None:
        self.records.append({"time": self.now(), **record})

    def now(self) -> str:
        return (MADE + timedelta(microseconds=self.bench.wall_ns // 1000)).isoformat(timespec="microseconds")


@pytest.fixture
def diary(bench: Any) -> Diary:
    bench.wall_ns = 0
    return Diary(bench)


def spend(diary: Diary, seconds: float, unexplained: float = 0.0) -> None:
    """One process that settles what it does, but for some time before its last record."""
    meter = diary.open()
    diary.bench.wait(seconds)
    meter.close()
    diary.bench.wait(unexplained)
    diary.append({"kind": "custody"})


@pytest.mark.parametrize(("lost", "share"), [(20, Fraction(980, 1000)), (21, Fraction(979, 1000)), (0, Fraction(1))])
def test_the_share_is_exact(diary: Diary, lost: int, share: Fraction) -> None:
    spend(diary, 1000 - lost, unexplained=lost)
    assert explain_time(diary.records).share == share


@pytest.mark.parametrize("years", [40, -40])
def test_a_clock_that_jumps_by_years_is_no_time(diary: Diary, years: int) -> None:
    meter = diary.open()
    diary.bench.wait(100)
    meter.settle()
    diary.bench.wall_ns += years * 365 * 86_400 * SECOND
    diary.bench.wait(100)
    meter.settle()
    diary.bench.wait(100)
    meter.close()
    explained = explain_time(diary.records)
    assert "clock_jump" in [record.get("record") for record in diary.records]
    assert (explained.wall_ns, explained.explained_ns) == (300 * SECOND, 300 * SECOND)


def test_a_stopped_process_explains_the_time_that_it_stood(diary: Diary) -> None:
    # Both clocks run on while a process is stopped, and it goes on being billed.
    meter = diary.open()
    diary.bench.wait(5 * 3600)
    meter.close()
    assert explain_time(diary.records).share == 1
    assert [record.get("record") for record in diary.records] == [None, "settle"]


def test_a_sleeping_machine_is_a_jump(diary: Diary) -> None:
    # The monotonic clock stands while the machine sleeps.
    meter = diary.open()
    diary.bench.wait(60)
    diary.bench.wall_ns += 8 * 3600 * SECOND
    meter.close()
    explained = explain_time(diary.records)
    assert (explained.wall_ns, explained.share) == (60 * SECOND, 1)


def test_the_day_between_two_sessions_is_no_time(diary: Diary) -> None:
    spend(diary, 100, unexplained=1)
    diary.bench.wait(86_400)
    diary.append({"kind": "torn_tail", "bytes": 7})
    spend(diary, 50)
    explained = explain_time(diary.records)
    assert [(s.wall_ns, s.explained_ns) for s in explained.sessions] == [
        (101 * SECOND, 100 * SECOND),
        (50 * SECOND, 50 * SECOND),
    ]
    assert explained.share == Fraction(150, 151)


def test_what_is_no_measured_time_explains_nothing(diary: Diary) -> None:
    meter = diary.open()
    meter.impute("attacker", "load", Quantities(wall_ns=10 * SECOND))
    diary.bench.wait(10)
    with meter.phase("attacker", "train"):
        meter.reserve(Quantities(wall_ns=10 * SECOND))
        before = list(diary.records)
    again = diary.open()
    again.restore([record for record in before if "record" in record])
    kinds = [record.get("record") for record in diary.records]
    assert {"impute", "reserve", "crash"} <= set(kinds)
    # The crash's 10 s were never measured: they are charged and explain nothing.
    assert explain_time(diary.records).explained_ns == 10 * SECOND


def test_a_session_with_none_of_its_time(diary: Diary) -> None:
    spend(diary, 98)
    diary.open()
    diary.bench.wait(2)
    diary.append({"kind": "custody"})
    explained = explain_time(diary.records)
    assert (explained.sessions[1].explained_ns, explained.share) == (0, Fraction(98, 100))


def test_what_one_session_explains_twice_is_not_lent_to_another(diary: Diary) -> None:
    spend(diary, 100)
    diary.records[1]["quantities"]["wall_ns"] *= 2
    diary.open()
    diary.bench.wait(100)
    diary.append({"kind": "custody"})
    explained = explain_time(diary.records)
    assert explained.sessions[0].explained_ns == 200 * SECOND
    assert explained.share == Fraction(1, 2)


def test_no_time_has_no_share(diary: Diary) -> None:
    assert explain_time([]).sessions == ()
    assert explain_time([]).share is None
    diary.open()
    assert (len(explain_time(diary.records).sessions), explain_time(diary.records).share) == (1, None)


def test_a_clock_that_was_set_back_unseen_leaves_no_negative_time(diary: Diary) -> None:
    spend(diary, 1)
    diary.records[-1]["time"] = "2025-12-31T00:00:00+00:00"
    assert explain_time(diary.records).wall_ns == 0


def test_a_record_before_any_session_is_damage(diary: Diary) -> None:
    spend(diary, 1)
    with pytest.raises(RecordError) as caught:
        explain_time(diary.records[1:])
    assert str(caught.value) == "ledger record 1: stands before any session; do not trust this run; repeat it"


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-01T00:00:00", 5, None])
@pytest.mark.parametrize(("place", "key"), [(0, "started"), (1, "time")])
def test_a_time_that_is_none_is_damage(diary: Diary, place: int, key: str, moment: object) -> None:
    spend(diary, 1)
    diary.records[place][key] = moment
    with pytest.raises(RecordError) as caught:
        explain_time(diary.records)
    assert str(caught.value) == (
        f"ledger record {place + 1}: {key} is no moment in UTC, got {moment!r}; do not trust this run; repeat it"
    )


def test_a_jump_without_a_distance_is_damage(diary: Diary) -> None:
    spend(diary, 1)
    diary.records[1] |= {"record": "clock_jump", "tags": {}}
    with pytest.raises(RecordError) as caught:
        explain_time(diary.records)
    assert str(caught.value) == (
        "ledger record 2: does not say how far the clock jumped, got None; do not trust this run; repeat it"
    )


def later(diary: Diary, place: int, seconds: float) -> None:
    """Date a record otherwise."""
    moment = datetime.fromisoformat(diary.records[place]["time"]) + timedelta(seconds=seconds)
    diary.records[place]["time"] = moment.isoformat(timespec="microseconds")


def steps(diary: Diary, *seconds: float) -> Any:
    """A session at place 0 and a settled segment of so many seconds at each place after it."""
    meter = diary.open()
    for each in seconds:
        diary.bench.wait(each)
        meter.settle()
    return meter


def strays(diary: Diary) -> tuple[list[Stray], list[Stray]]:
    return find_setbacks(diary.records), find_leaps(diary.records)


@pytest.mark.parametrize(("place", "back", "found"), [
    (2, 12, []), (2, 12.1, [Stray(3, round(2.1 * SECOND))]), (3, 20, [Stray(4, 10 * SECOND)]),
    (0, 3, [Stray(1, 3 * SECOND)]), (3, YEAR, [Stray(4, (YEAR - 10) * SECOND)]),
])  # fmt: skip
def test_a_record_does_not_come_before_the_one_before_it(
    diary: Diary, place: int, back: float, found: list[Stray]
) -> None:
    # Segments of 10 s: a record dated 12 s earlier lies 2 s before the one before it, as far as a clock may be slewed.
    steps(diary, 10, 10, 10)
    later(diary, place, -back)
    assert find_setbacks(diary.records) == found


def test_a_record_in_the_future_puts_the_next_one_before_it(diary: Diary) -> None:
    steps(diary, 10, 10, 10)
    later(diary, 2, YEAR)
    assert strays(diary) == ([Stray(4, (YEAR - 10) * SECOND)], [Stray(3, YEAR * SECOND)])


@pytest.mark.parametrize("seconds", [YEAR, -YEAR])
def test_a_jump_that_is_told_explains_every_record_of_its_segment(diary: Diary, seconds: int) -> None:
    meter = steps(diary, 10)
    with meter.phase("attacker", "train"):
        diary.append({"kind": "custody"})
        diary.bench.wall_ns += seconds * SECOND
        meter.reserve(Quantities(wall_ns=SECOND))
        diary.bench.wait(10)
        meter.settle()
        diary.append({"kind": "custody"})
    meter.close()
    assert strays(diary) == ([], [])
    jump = next(record for record in diary.records if record.get("record") == "clock_jump")
    diary.records.remove(jump)
    backward, forward = strays(diary)
    assert [stray.by_ns for stray in (backward if seconds < 0 else forward)] == [YEAR * SECOND]


def test_a_jump_explains_nothing_outside_of_its_segment(diary: Diary) -> None:
    meter = steps(diary, 10)
    diary.bench.wall_ns -= YEAR * SECOND
    diary.bench.wait(10)
    meter.settle()
    diary.bench.wait(10)
    meter.settle()
    assert [record.get("record") for record in diary.records] == [None, "settle", "settle", "clock_jump", "settle"]
    later(diary, 4, -YEAR)
    assert find_setbacks(diary.records) == [Stray(5, (YEAR - 10) * SECOND)]


def test_other_processes_have_other_clocks(diary: Diary) -> None:
    steps(diary, 10)
    diary.bench.wall_ns -= 5 * SECOND
    diary.append({"kind": "torn_tail", "bytes": 7})
    steps(diary, 10)
    assert strays(diary) == ([], [])
    # Who writes of a torn tail opens the session too.
    later(diary, 2, 9)
    assert find_setbacks(diary.records) == [Stray(4, 9 * SECOND)]


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(("back", "found"), [(3600, 3600), (3, 3), (2, 0), (-60, 0)])
def test_a_clock_that_was_set_back_between_two_processes_is_told_and_costs_nothing(
    diary: Diary, torn: bool, back: int, found: int
) -> None:
    spend(diary, 10)
    diary.bench.wall_ns -= back * SECOND
    if torn:
        diary.append({"kind": "torn_tail", "bytes": 7})
    spend(diary, 10)
    # The first process leaves a session, a settled segment and a custody record.
    assert find_resets(diary.records) == ([Stray(5 if torn else 4, found * SECOND)] if found else [])
    assert strays(diary) == ([], [])
    assert explain_time(diary.records).share == 1


def test_a_clock_that_was_set_back_within_a_process_is_no_reset(diary: Diary) -> None:
    spend(diary, 10, unexplained=-5)
    assert find_resets(diary.records) == []


@pytest.mark.parametrize(("seconds", "found"), [(3599, []), (3601, [Stray(3, 3601 * SECOND)])])
def test_an_hour_after_the_last_segment_is_no_other_work(diary: Diary, seconds: int, found: list[Stray]) -> None:
    spend(diary, 10, unexplained=seconds)
    assert strays(diary) == ([], found)


def test_a_period_is_in_utc(diary: Diary) -> None:
    steps(diary, 10)
    [(number, entry)] = number_entries(diary.records)
    moved = replace(entry, wall_clock="2026-01-01T02:00:10+02:00")
    assert read_period(number, moved) == (MADE, MADE + timedelta(seconds=10))


@pytest.mark.parametrize("moment", ["soon", "2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00"])
def test_a_period_that_is_none_is_damage(diary: Diary, moment: str) -> None:
    steps(diary, 10)
    [(number, entry)] = number_entries(diary.records)
    with pytest.raises(RecordError) as caught:
        read_period(number, replace(entry, wall_clock=moment))
    assert str(caught.value) == (
        f"ledger record 2: is not of a moment in UTC, got {moment!r} after 10000000000 ns; "
        "do not trust this run; repeat it"
    )
