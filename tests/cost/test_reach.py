from fractions import Fraction
from typing import Any

import pytest

from robustlab.cost.pace import Range
from robustlab.cost.reach import (
    WORK,
    CapUse,
    Ceiling,
    attacker_ceilings,
    judge_count,
    judge_timed,
    judge_total,
    list_attacker_caps,
    most_usd,
    show_usd,
)
from robustlab.cost.schedule import plan_schedule

USE = Range(1, 2, 3)


def judge(job: Any, name: str, *, work_hours: float = 1000, held_usd: float = 0, binds: bool = False) -> CapUse:
    """Hold one cap of the attacker's against the others and a schedule that takes ``work_hours``."""
    schedule = plan_schedule(job).model_copy(update={"steps": 7})
    ceilings = attacker_ceilings(job, schedule, slowest_seconds=work_hours * 3600, held_usd=held_usd)
    limit = Fraction(str(getattr(job.budget.attacker, name)))
    return judge_timed(job, name, limit, USE, ceilings, binds=binds)


@pytest.fixture
def h100(bench: Any, build_job: Any) -> Any:
    def build(devices: int = 1, **caps: Any) -> Any:
        return build_job(limits=bench.budget(**caps), usd_per_device_hour=Fraction("2.95"), devices=devices)

    return build


def test_ten_hours_of_one_h100_are_29_50(h100: Any) -> None:
    found = judge(h100(max_usd=500, max_wall_hours=10), "max_usd")
    assert found == CapUse(500, USE, 29.5, "cannot bind", "10 h at $2.95 are $29.50")


def test_sixteen_for_ten_hours_are_472(h100: Any) -> None:
    found = judge(h100(16, max_usd=500, max_wall_hours=10), "max_usd")
    assert found == CapUse(500, USE, 472, "cannot bind", "10 h on 16 devices at $2.95 are $472.00")


def test_64_for_ten_hours_may_reach_500(h100: Any) -> None:
    # 64 x 2.95 x 10 = 1888
    found = judge(h100(64, max_usd=500, max_wall_hours=10), "max_usd")
    assert found == CapUse(500, USE, 1888, "can bind", None)
    # 500 / (64 x 2.95) = 2.65 h
    hours = judge(h100(64, max_usd=500, max_wall_hours=10), "max_wall_hours")
    assert hours.reason == "$500.00 on 64 devices at $2.95 are 2.65 h"


@pytest.mark.parametrize(
    ("caps", "name", "reason"),
    [
        ({"max_usd": 500, "max_device_hours": 10}, "max_usd", "10 device hours at $2.95 are $29.50"),
        ({"max_wall_hours": 10, "max_device_hours": 10}, "max_wall_hours", "10 device hours on 2 devices are 5 h"),
        ({"max_wall_hours": 10, "max_device_hours": 30}, "max_device_hours", "10 h on 2 devices are 20 device hours"),
        ({"max_usd": 29.5, "max_device_hours": 30}, "max_device_hours", "$29.50 at $2.95 are 10 device hours"),
        ({"max_usd": 500, "total_usd": 30}, "max_usd", "total_usd leaves at most $29.00"),
    ],
)
def test_why_a_cap_is_out_of_reach(h100: Any, caps: dict[str, float], name: str, reason: str) -> None:
    found = judge(h100(2, **caps), name, held_usd=1)
    assert (found.status, found.reason) == ("cannot bind", reason)


def test_work_that_ends_before_is_told_too(h100: Any) -> None:
    found = judge(h100(max_usd=500, max_wall_hours=10), "max_usd", work_hours=2)
    assert (found.status, found.reach) == ("cannot bind", pytest.approx(5.9))
    assert found.reason == "10 h at $2.95 are $29.50, its 7 steps are expected to use at most $5.90"
    alone = judge(h100(max_usd=500), "max_usd", work_hours=2)
    assert (alone.status, alone.reason) == ("not expected", "its 7 steps are expected to use at most $5.90")
    hours = judge(h100(max_wall_hours=10), "max_wall_hours", work_hours=2)
    assert hours.reason == "its 7 steps are expected to use at most 2 h"


def test_of_two_equal_caps_the_one_that_is_checked_first_binds(h100: Any) -> None:
    job = h100(max_wall_hours=0.1, max_device_hours=0.1)
    assert judge(job, "max_wall_hours").status == "can bind"
    assert judge(job, "max_device_hours").reason == "0.1 h are 0.1 device hours"
    both = h100(max_usd=29.5, total_usd=29.5)
    assert judge(both, "max_usd").status == "can bind"


def test_a_total_that_the_laboratory_uses_up_leaves_nothing(h100: Any) -> None:
    found = judge(h100(max_usd=5, total_usd=1), "max_usd", held_usd=3)
    assert (found.reach, found.reason) == (0, "total_usd leaves at most $0")


def test_what_binds_needs_no_reason(h100: Any) -> None:
    found = judge(h100(max_usd=500, max_wall_hours=10), "max_usd", binds=True)
    assert (found.status, found.reason) == ("binds", None)


def test_counts() -> None:
    assert judge_count(9, USE, (10, "ten"), binds=False) == CapUse(9, USE, 10, "can bind", None)
    assert judge_count(10, USE, (10, "ten"), binds=False) == CapUse(10, USE, 10, "cannot bind", "ten")
    assert judge_count(10, USE, (10, "ten"), binds=True).status == "binds"


def test_every_cap_of_the_attacker_is_listed(bench: Any, build_job: Any) -> None:
    caps = {"max_train_tokens": 900, "max_steps": 10, "max_trials": 3}
    job = build_job(limits=bench.budget(**caps, total_usd=10**9))
    schedule = plan_schedule(job)
    ceilings = attacker_ceilings(job, schedule, slowest_seconds=3600, held_usd=0)
    found = list_attacker_caps(job, schedule, dict.fromkeys(caps, USE), "max_steps", ceilings)
    # 10 steps x 8 rows are 20 epochs of 40 tokens
    assert list(found) == ["max_train_tokens", "max_steps", "max_trials"]
    assert found["max_train_tokens"].reason == "its 10 steps read at most 800 tokens"
    assert (found["max_steps"].status, found["max_steps"].reach) == ("binds", 10)
    assert found["max_trials"].reason == "a cell is one trial; only a search counts several"
    told = list_attacker_caps(job, schedule, dict.fromkeys(caps, USE), None, ceilings)
    assert told["max_steps"].reason == "max_steps cuts its schedule to 10 steps"
    free = build_job(limits=bench.budget(max_steps=50))
    whole = plan_schedule(free)
    assert list_attacker_caps(free, whole, {"max_steps": USE}, None, ceilings)["max_steps"].reason == (
        "its schedule has 32 steps"
    )


def test_the_most_that_an_account_is_billed_leaves_the_total_out(h100: Any) -> None:
    ceilings = [
        Ceiling(WORK, Fraction(9), ""),
        Ceiling("max_usd", Fraction(4), ""),
        Ceiling("total_usd", Fraction(1), ""),
    ]
    assert most_usd(h100(2), ceilings) == (Fraction("23.6"), True)
    assert most_usd(h100(2), [Ceiling(WORK, Fraction(3), ""), *ceilings[1:]]) == (Fraction("17.7"), False)


def test_the_total_cannot_bind_only_where_caps_say_so() -> None:
    bounds = [(Fraction(20), True), (Fraction(3), True)]
    assert judge_total(23, USE, bounds, binds=False).status == "cannot bind"
    assert judge_total(22.9, USE, bounds, binds=False).status == "can bind"
    found = judge_total(30, USE, [*bounds, (Fraction(1, 2), False)], binds=False)
    assert (found.status, found.reach) == ("not expected", 23.5)
    assert found.reason == "attacker and laboratory together are expected to use at most $23.50"


@pytest.mark.parametrize(
    ("usd", "shown"), [(29.5, "$29.50"), (1234.5, "$1,234.50"), (0.0496, "$0.0496"), (0.5, "$0.5"), (0, "$0")]
)
def test_dollars(usd: float, shown: str) -> None:
    assert show_usd(usd) == shown
