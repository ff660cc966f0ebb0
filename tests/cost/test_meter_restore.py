from datetime import date
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.entries import BILLED
from robustlab.cost.meter import Meter, Write
from robustlab.cost.prices import DevicePrice, PriceCard, PriceList
from robustlab.cost.quantities import Quantities
from robustlab.errors import BudgetSpent, DataError, RecordError
from robustlab.spec.budgets import Budget, Caps

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def unit(seconds: float = 0, **counts: int) -> Quantities:
    return Quantities(wall_ns=round(seconds * SECOND), **counts)


def run_step(meter: Meter, bench: Any, seconds: float, *, planned: float | None = None, tokens: int = 10) -> None:
    meter.reserve(unit(seconds if planned is None else planned, steps=1, train_tokens=tokens))
    bench.wait(seconds)
    meter.count(steps=1, train_tokens=tokens)
    meter.settle()


def crash_in_a_unit(bench: Any) -> None:
    meter = bench.build(bench.budget(max_steps=4))
    context = meter.phase("attacker", "train", step=2)
    context.__enter__()
    run_step(meter, bench, 10)
    meter.reserve(unit(20, steps=1, train_tokens=10))
    bench.wait(1)
    bench.context = context


def test_an_open_reservation_is_charged_in_full(bench: Any) -> None:
    crash_in_a_unit(bench)
    records = list(bench.records)
    resumed = bench.build(bench.budget(max_steps=4))
    resumed.restore(records)
    assert bench.kinds() == ["reserve", "settle", "reserve", "crash"]
    assert bench.records[-1]["tags"] == {"step": 2}
    assert resumed.total("attacker") == Quantities(30 * SECOND, 30 * SECOND, train_tokens=20, steps=2)
    assert resumed.logical("attacker").steps == 1
    assert resumed.micro_usd("attacker") == bench.billed_micro_usd("attacker") == 8334
    assert resumed.explained_ns == 0


def test_a_crash_is_charged_once(bench: Any) -> None:
    crash_in_a_unit(bench)
    bench.build(bench.budget()).restore(list(bench.records))
    again = bench.build(bench.budget())
    again.restore(list(bench.records))
    assert bench.kinds().count("crash") == 1
    assert again.total("attacker").wall_ns == 30 * SECOND


def test_restoring_keeps_the_rounding_and_the_overshoot(bench: Any) -> None:
    first = bench.build(bench.budget(max_wall_hours=1), usd_per_hour=0.0496)
    bench.wait(0.01)
    with pytest.raises(BudgetSpent), first.phase("attacker", "train"):
        run_step(first, bench, 4000, planned=1)
    second = bench.build(bench.budget(max_wall_hours=1), usd_per_hour=0.0496)
    second.restore(list(bench.records))
    bench.wait(0.01)
    second.close()
    assert second.overshoot("attacker") == first.overshoot("attacker") > 0
    # 2 x 10 ms = 0.28 micro-USD, on the bill as 1
    assert second.micro_usd("laboratory") == bench.billed_micro_usd("laboratory") == 1


def test_other_nodes_are_passed_over(bench: Any) -> None:
    crash_in_a_unit(bench)
    other = bench.build(bench.budget(), node="cell-2")
    other.restore(list(bench.records))
    assert other.total("attacker") == Quantities()
    assert bench.kinds().count("crash") == 0


def test_a_resume_takes_the_trajectory_back_to_its_checkpoint(bench: Any) -> None:
    meter = bench.build(bench.budget(max_steps=3))
    with meter.phase("attacker", "train"):
        run_step(meter, bench, 10)
        checkpoint = meter.logical("attacker")
        run_step(meter, bench, 10)
    for steps_before in (2, 1):
        resumed = bench.build(bench.budget(max_steps=3))
        resumed.restore(list(bench.records))
        assert resumed.logical("attacker").steps == steps_before
        resumed.rewind("attacker", checkpoint)
        assert (resumed.logical("attacker").steps, resumed.total("attacker").steps) == (1, 2)
    with resumed.phase("attacker", "train"):
        run_step(resumed, bench, 10)
        run_step(resumed, bench, 10)
    assert resumed.total("attacker").steps == 4
    assert resumed.micro_usd("attacker") == bench.billed_micro_usd("attacker")


def test_a_checkpoint_ahead_of_the_ledger_is_refused(bench: Any) -> None:
    meter = bench.build(bench.budget())
    with pytest.raises(RecordError) as caught:
        meter.rewind("attacker", Quantities(steps=5))
    assert str(caught.value) == (
        "checkpoint: is ahead of the ledger, got 5 steps after 0; resume the run that wrote it"
    )


def test_another_price_is_refused_at_a_resume(bench: Any) -> None:
    crash_in_a_unit(bench)
    with pytest.raises(RecordError) as caught:
        bench.build(bench.budget(), usd_per_hour=2.0).restore(list(bench.records))
    assert str(caught.value) == (
        "ledger: the attacker's records add up to 2778 micro-USD, got 5556 at this card's rates; "
        "resume with the price card and the hardware of the run"
    )


def test_restoring_late_is_refused(bench: Any) -> None:
    meter = bench.build(bench.budget())
    bench.wait(1)
    meter.settle()
    with pytest.raises(DataError) as caught:
        meter.restore([])
    assert str(caught.value) == (
        "meter: was told to restore after it had billed something; restore right after building it"
    )


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("at", range(1, 25))
def test_a_signal_in_the_middle_of_a_record_leaves_a_ledger_that_restores(at: int, kept: bool) -> None:
    """At any record, whether or not it reached the disk: nothing that is in doubt is followed by another record."""
    records: list[dict[str, object]] = []
    now = [0]
    calls = [0]

    def write(record: dict[str, object]) -> None:
        calls[0] += 1
        if calls[0] == at:
            if kept:
                records.append(record)
            raise KeyboardInterrupt
        records.append(record)

    def clock() -> int:
        # Fractions of a micro-dollar: each record's difference depends on all the ones before it.
        now[0] += 333
        return now[0]

    def meter(write: Write) -> Meter:
        card = PriceCard(_PRICES, Path("prices.yaml"), "0" * 64)
        return Meter(_BUDGET, card, "box", node="n", purse="p", clock=clock, wall_clock=lambda: now[0], write=write)

    with pytest.raises(KeyboardInterrupt):
        first = meter(write)
        try:
            for _ in range(6):
                with first.phase("attacker", "train"):
                    first.reserve(Quantities(steps=1))
                    now[0] += 100
                    first.count(steps=1)
                    first.settle()
        finally:
            first.close()
    again = meter(records.append)
    again.restore(list(records))
    assert again.micro_usd("attacker") == sum(
        int(str(record["micro_usd"]))
        for record in records
        if record["account"] == "attacker" and record["record"] in BILLED
    )


_PRICES = PriceList(
    kind="prices",
    as_of=date(2026, 1, 1),
    devices={"box": DevicePrice(label="box", usd_per_device_hour=3600.0, low=None, high=None, source="hand-made")},
    tokens={},
)
_BUDGET = Budget(kind="budget", stands_for="a test", hardware="box", attacker=Caps(), laboratory=None, total_usd=None)
