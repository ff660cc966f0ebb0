"""Several nodes on one purse: what the laboratory and the whole bill may spend holds over the run, not node by node."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.errors import BudgetSpent

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def node(bench: Any, limits: Any, name: str, purse: str = "test", **options: Any) -> Meter:
    """The next node's meter, which has read the ledger."""
    meter: Meter = bench.build(limits, node=name, purse=purse, usd_per_hour=3600.0, **options)
    meter.restore(bench.records)
    return meter


def work(bench: Any, meter: Meter, account: Any, seconds: float) -> None:
    """One unit that takes as long as it reserved."""
    with meter.phase(account, "work"):
        meter.reserve(Quantities(wall_ns=round(seconds * SECOND)))
        bench.wait(seconds)
        meter.settle()


def test_the_laboratorys_caps_hold_over_the_run(bench: Any) -> None:
    limits = bench.budget(None, {"max_usd": 10.0}, max_steps=9)  # a dollar a second
    first = node(bench, limits, "released")
    work(bench, first, "laboratory", 7)
    first.close()
    second = node(bench, limits, "baseline")
    with pytest.raises(BudgetSpent) as caught:
        work(bench, second, "laboratory", 4)
    assert (caught.value.cap, caught.value.needed) == ("laboratory.max_usd", 11.0)
    work(bench, second, "laboratory", 3)
    assert (second.micro_usd("laboratory"), second.total("laboratory").wall_ns) == (3_000_000, 3 * SECOND)


def test_hours_of_the_laboratory_hold_over_the_run_too(bench: Any) -> None:
    limits = bench.budget(None, {"max_wall_hours": 10 / 3600}, max_steps=9)
    first = node(bench, limits, "released")
    work(bench, first, "laboratory", 7)
    first.close()
    with pytest.raises(BudgetSpent, match=r"laboratory\.max_wall_hours"):
        work(bench, node(bench, limits, "baseline"), "laboratory", 4)


def test_the_whole_bill_counts_every_cell_and_both_accounts(bench: Any) -> None:
    limits = bench.budget(10.0, None, max_usd=6.0)
    first = node(bench, limits, "cell-1")
    work(bench, first, "attacker", 5)
    work(bench, first, "laboratory", 2)
    first.close()
    second = node(bench, limits, "cell-2")
    with pytest.raises(BudgetSpent) as caught:
        work(bench, second, "attacker", 4)
    assert (caught.value.cap, caught.value.needed) == ("total_usd", 11.0)


def test_every_cell_is_a_stranger_with_the_whole_purse(bench: Any) -> None:
    limits = bench.budget(None, None, max_usd=6.0)
    for name in ("cell-1", "cell-2"):
        meter = node(bench, limits, name)
        work(bench, meter, "attacker", 6)
        meter.close()
        assert meter.caps_used("attacker") == {"max_usd": 1.0}


def test_another_purse_is_another_bill(bench: Any) -> None:
    limits = bench.budget(10.0, {"max_usd": 10.0}, max_usd=10.0)
    first = node(bench, limits, "released", purse="usd_1")
    work(bench, first, "laboratory", 9)
    first.close()
    second = node(bench, limits, "released", purse="usd_10")
    work(bench, second, "laboratory", 9)
    second.close()
    assert second.micro_usd("laboratory") == 9_000_000


def test_reserved_and_open_work_of_other_nodes_is_not_on_the_bill(bench: Any) -> None:
    limits = bench.budget(10.0, None, max_usd=10.0)
    first = node(bench, limits, "cell-1")
    with first.phase("attacker", "work"):
        first.reserve(Quantities(wall_ns=9 * SECOND))
    first.close()
    work(bench, node(bench, limits, "cell-2"), "attacker", 10)


@settings(max_examples=1000, deadline=None)
@given(
    nodes=st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, HOUR)), max_size=5), min_size=1, max_size=4),
    laboratory_usd=st.floats(0.1, 3),
    total_usd=st.floats(0.1, 6),
    final_ns=st.integers(1, HOUR),
    devices=st.integers(1, 3),
)
def test_what_is_held_back_stays_affordable(
    new_bench: Any, nodes: Any, laboratory_usd: float, total_usd: float, final_ns: int, devices: int
) -> None:
    """Cells on one purse, at a dollar an hour: the end of a cell that was attacked is paid, and no cap is passed."""
    bench = new_bench()
    limits = bench.budget(total_usd, {"max_usd": laboratory_usd}, max_usd=2.0)
    for index, units in enumerate(nodes):
        meter = bench.build(limits, node=f"cell-{index}", devices=devices)
        meter.restore(bench.records)
        meter.reserve_for_laboratory(Quantities(wall_ns=final_ns))
        play(bench, meter, units)
        meter.reserve_for_laboratory(NOTHING)
        try:
            with meter.phase("laboratory", "final"):
                meter.reserve(Quantities(wall_ns=final_ns))
                bench.wait(final_ns / SECOND)
                meter.settle()
        except BudgetSpent:
            # Only where the attack never began.
            assert meter.total("attacker") == NOTHING
        meter.close()
    paid = {name: bench.billed_micro_usd(name) for name in ("attacker", "laboratory")}
    assert Fraction(paid["laboratory"], 1_000_000) <= Fraction(str(laboratory_usd))
    assert Fraction(sum(paid.values()), 1_000_000) <= Fraction(str(total_usd))


def play(bench: Any, meter: Meter, units: Any) -> None:
    """Units of both accounts, each refused or done in the time that it reserved."""
    for is_attacker, planned_ns in units:
        with meter.phase("attacker" if is_attacker else "laboratory", "work"):
            try:
                meter.reserve(Quantities(wall_ns=planned_ns))
            except BudgetSpent:
                continue
            bench.now_ns += planned_ns
            bench.wall_ns += planned_ns
            meter.settle()


def test_trials_of_one_search_share_the_strangers_purse(bench: Any) -> None:
    limits = bench.budget(None, None, max_usd=6.0)
    first = node(bench, limits, "trial-1")
    work(bench, first, "attacker", 4)
    first.close()
    second: Meter = bench.build(limits, node="trial-2", usd_per_hour=3600.0)
    second.restore(bench.records, together_with=frozenset({"trial-1", "trial-3"}))
    with pytest.raises(BudgetSpent) as caught:
        work(bench, second, "attacker", 3)
    assert (caught.value.cap, caught.value.needed) == ("max_usd", 7.0)
    work(bench, second, "attacker", 2)
    assert second.micro_usd("attacker") == 2_000_000  # its own bill is its own


def test_trials_count_together(bench: Any) -> None:
    limits = bench.budget(None, None, max_usd=6.0, max_trials=2)
    for name in ("trial-1", "trial-2", "trial-3"):
        meter: Meter = bench.build(limits, node=name, usd_per_hour=3600.0)
        meter.restore(bench.records, together_with=frozenset({"trial-1", "trial-2", "trial-3"}))
        if name == "trial-3":
            with pytest.raises(BudgetSpent, match="max_trials"):
                meter.impute("attacker", "load", Quantities(wall_ns=SECOND, trials=1))
        else:
            meter.impute("attacker", "load", Quantities(wall_ns=SECOND, trials=1))
        meter.close()


def test_steps_that_an_earlier_trial_repeated_count_once(bench: Any) -> None:
    """What a crash made a trial repeat is on its bill, and not in the count of the stranger's steps."""
    limits = bench.budget(None, None, max_usd=9.0, max_steps=5)
    first = node(bench, limits, "trial-1")
    for _ in range(4):
        with first.phase("attacker", "train"):
            first.reserve(Quantities(wall_ns=SECOND, steps=1))
            first.count(steps=1)
            bench.wait(1)
            first.settle()
    first.rewind("attacker", replace(first.logical("attacker"), steps=2))
    first.close()
    second: Meter = bench.build(limits, node="trial-2", usd_per_hour=3600.0)
    second.restore(bench.records, together_with=frozenset({"trial-1"}))
    with second.phase("attacker", "train"):
        second.reserve(Quantities(wall_ns=SECOND, steps=3))
        second.settle()
        with pytest.raises(BudgetSpent, match="max_steps"):
            second.reserve(Quantities(wall_ns=SECOND, steps=4))
