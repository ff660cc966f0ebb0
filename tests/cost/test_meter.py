from typing import Any

import pytest

from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.errors import BudgetSpent, ConfigError, DataError

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def unit(seconds: float = 0, **counts: int) -> Quantities:
    return Quantities(wall_ns=round(seconds * SECOND), **counts)


def run_step(meter: Meter, bench: Any, seconds: float, *, planned: float | None = None, tokens: int = 10) -> None:
    meter.reserve(unit(seconds if planned is None else planned, steps=1, train_tokens=tokens))
    bench.wait(seconds)
    meter.count(steps=1, train_tokens=tokens)
    meter.settle()


def test_time_is_partitioned_between_accounts_and_phases(bench: Any) -> None:
    meter = bench.build(bench.budget(), started_ns=bench.now_ns - 8 * SECOND)
    with meter.phase("attacker", "train"):
        bench.wait(3)
        with meter.phase("laboratory", "generate", eval="x"):
            bench.wait(5)
        bench.wait(2)
    bench.wait(1)
    meter.close()
    seconds = [(r["account"], r["phase"], r["quantities"]["wall_ns"] // SECOND) for r in bench.records]
    assert seconds == [
        ("laboratory", "start", 8), ("attacker", "train", 3), ("laboratory", "generate", 5), ("attacker", "train", 2),
        ("laboratory", "start", 1),
    ]  # fmt: skip
    assert meter.total("attacker").wall_ns == 5 * SECOND
    assert meter.total("laboratory").wall_ns == 14 * SECOND
    assert meter.explained_ns == 19 * SECOND
    assert bench.records[2]["tags"] == {"eval": "x"}


def test_a_record_says_everything(bench: Any) -> None:
    meter = bench.build(bench.budget())
    with meter.phase("attacker", "train", step=1):
        meter.count(steps=1, train_tokens=605, prompt_tokens=7, generated_tokens=8, trials=1, flops=9)
        bench.wait(36)
        settled = meter.settle()
    used = Quantities(36 * SECOND, 36 * SECOND, 605, 7, 8, 1, 1, 9)
    assert settled == used
    assert bench.records == [
        {
            "record": "settle", "node": "cell-1", "purse": "test", "account": "attacker", "phase": "train",
            "tags": {"step": 1},
            "quantities": used.to_dict(), "micro_usd": 10_000, "price_key": "box",
            "wall_clock": "2026-01-01T00:00:36.000+00:00",
        }
    ]  # fmt: skip


def test_every_device_is_billed(bench: Any) -> None:
    meter = bench.build(bench.budget(), devices=8, usd_per_hour=2.0)
    bench.wait(360)
    meter.close()
    # 8 devices x 0.1 h x 2 USD
    assert meter.total("laboratory").device_ns == 8 * 360 * SECOND
    assert meter.micro_usd("laboratory") == 1_600_000


def test_records_add_up_to_the_rounded_total(bench: Any) -> None:
    meter = bench.build(bench.budget(), usd_per_hour=0.0496)
    for _ in range(100):
        bench.wait(0.01)
        meter.settle()
    # 100 x 10 ms = 1 s = 13.78 micro-USD
    assert meter.micro_usd("laboratory") == bench.billed_micro_usd("laboratory") == 14


def test_an_empty_segment_leaves_no_record(bench: Any) -> None:
    meter = bench.build(bench.budget())
    with meter.phase("attacker", "train"):
        pass
    assert bench.records == []


def test_a_reservation_is_written_before_the_work(bench: Any) -> None:
    meter = bench.build(bench.budget(), devices=2)
    with meter.phase("attacker", "train", step=1):
        meter.reserve(unit(36, steps=1))
        assert bench.kinds() == ["reserve"]
        assert bench.records[0]["micro_usd"] == 20_000
        assert bench.records[0]["quantities"] == unit(36, device_ns=72 * SECOND, steps=1).to_dict()
        assert meter.micro_usd("attacker") == 0


def test_counts_stop_exactly(bench: Any) -> None:
    meter = bench.build(bench.budget(max_steps=3))
    with pytest.raises(BudgetSpent) as caught, meter.phase("attacker", "train"):
        while True:
            run_step(meter, bench, 1)
    assert (caught.value.cap, caught.value.limit, caught.value.needed) == ("max_steps", 3.0, 4.0)
    assert meter.logical("attacker").steps == 3
    assert meter.overshoot("attacker") == 0


def test_a_unit_that_exactly_fits_runs(bench: Any) -> None:
    meter = bench.build(bench.budget(max_usd=0.01))
    with meter.phase("attacker", "train"):
        run_step(meter, bench, 36)
        assert meter.remaining("attacker") == {"max_usd": 0.0}
        with pytest.raises(BudgetSpent, match="^max_usd: the next unit of work needs"):
            meter.reserve(unit(1e-9))


def test_what_the_open_segment_has_used_counts_in_a_reservation(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with meter.phase("attacker", "train"):
        bench.wait(3000)
        meter.reserve(unit(600))
        meter.settle()
        bench.wait(1)
        with pytest.raises(BudgetSpent, match="^max_wall_hours: "):
            meter.reserve(unit(600))


CAPS_OF_ONE_UNIT = {
    "max_usd": 0.5, "max_wall_hours": 0.5, "max_device_hours": 0.5,
    "max_train_tokens": 5, "max_steps": 5, "max_trials": 5,
}  # fmt: skip


@pytest.mark.parametrize("first", range(7))
def test_the_first_cap_in_order_is_named(bench: Any, first: int) -> None:
    names = [*CAPS_OF_ONE_UNIT, "total_usd"]
    later = {name: CAPS_OF_ONE_UNIT[name] for name in names[first:-1]}
    meter = bench.build(bench.budget(total_usd=0.5, **later))
    with meter.phase("attacker", "train"), pytest.raises(BudgetSpent) as caught:
        meter.reserve(unit(3600, steps=6, train_tokens=6, trials=6))
    assert caught.value.cap == names[first]


def test_accounts_have_their_own_caps(bench: Any) -> None:
    meter = bench.build(bench.budget(laboratory={"max_wall_hours": 2}, max_wall_hours=1))
    meter.reserve(unit(7200))
    meter.settle()
    with pytest.raises(BudgetSpent) as caught:
        meter.reserve(unit(7201))
    assert caught.value.cap == "laboratory.max_wall_hours"
    with meter.phase("attacker", "train"):
        meter.reserve(unit(3600))


def test_the_total_cap_sees_both_accounts(bench: Any) -> None:
    meter = bench.build(bench.budget(total_usd=2, max_usd=2))
    bench.wait(3600)
    with meter.phase("attacker", "train"):
        meter.reserve(unit(3600))
        meter.settle()
        with pytest.raises(BudgetSpent) as caught:
            meter.reserve(unit(3601))
    assert (caught.value.cap, caught.value.limit) == ("total_usd", 2.0)


def test_the_final_measurement_is_held_back(bench: Any) -> None:
    meter = bench.build(bench.budget(total_usd=3, laboratory={"max_usd": 2}))
    meter.reserve_for_laboratory(unit(3600))
    with meter.phase("attacker", "train"):
        with pytest.raises(BudgetSpent, match="^total_usd: "):
            meter.reserve(unit(7201))
        meter.reserve(unit(7200))
        meter.settle()
    with pytest.raises(BudgetSpent, match=r"^laboratory\.max_usd: "):
        meter.reserve(unit(3601))
    meter.reserve_for_laboratory(Quantities())
    meter.reserve(unit(3600))


def test_a_stall_into_what_is_held_back_is_within_the_cap(bench: Any) -> None:
    meter = bench.build(bench.budget(total_usd=3))
    meter.reserve_for_laboratory(unit(3600))
    with meter.phase("attacker", "train"):
        run_step(meter, bench, 9000, planned=10)
        assert bench.kinds() == ["reserve", "settle"]
        with pytest.raises(BudgetSpent):
            meter.reserve(unit(1))


def test_a_stall_is_booked_as_overshoot_and_the_caller_must_undo(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with pytest.raises(BudgetSpent) as caught, meter.phase("attacker", "train"):
        run_step(meter, bench, 1800)
        run_step(meter, bench, 5400, planned=1800)
    assert (caught.value.cap, caught.value.needed) == ("max_wall_hours", 2.0)
    assert bench.kinds() == ["reserve", "settle", "reserve", "overshoot"]
    assert meter.logical("attacker").steps == 1
    assert meter.total("attacker").steps == 2
    assert meter.overshoot("attacker") == 1_500_000
    assert meter.micro_usd("attacker") == 2_000_000
    assert meter.caps_used("attacker") == {"max_wall_hours": 2.0}
    assert meter.remaining("attacker") == {"max_wall_hours": 0.0}


def test_after_an_overshoot_nothing_starts(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with pytest.raises(BudgetSpent), meter.phase("attacker", "train"):
        run_step(meter, bench, 7200, planned=1)
    with meter.phase("attacker", "train"), pytest.raises(BudgetSpent):
        meter.reserve(Quantities())


def test_leaving_a_phase_settles_the_unit_and_stops_beyond_a_cap(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with meter.phase("attacker", "train"):
        meter.reserve(unit(10, steps=1))
        bench.wait(10)
        meter.count(steps=1)
    assert bench.kinds() == ["reserve", "settle"]
    with pytest.raises(BudgetSpent), meter.phase("attacker", "train"):
        meter.reserve(unit(10, steps=1))
        bench.wait(7200)
    bench.wait(5)
    meter.close()
    assert bench.records[-1]["phase"] == "start"


def test_overhead_beyond_a_cap_is_overshoot_with_nothing_to_undo(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with meter.phase("attacker", "checkpoint"):
        bench.wait(7200)
    assert bench.kinds() == ["overshoot"]
    assert meter.overshoot("attacker") == 2_000_000


def test_a_unit_of_the_laboratory_beyond_its_cap_stands(bench: Any) -> None:
    meter = bench.build(bench.budget(laboratory={"max_wall_hours": 1}))
    meter.reserve(unit(10))
    bench.wait(7200)
    assert meter.settle().wall_ns == 2 * HOUR
    assert bench.kinds() == ["reserve", "overshoot"]


def test_the_laboratorys_overshoot_never_stops_a_settled_step(bench: Any) -> None:
    meter = bench.build(bench.budget(laboratory={"max_wall_hours": 1}, max_wall_hours=1))
    bench.wait(7200)
    with meter.phase("attacker", "train"):
        run_step(meter, bench, 3600)
    assert meter.logical("attacker").steps == 1


def test_a_unit_that_an_exception_leaves_is_abandoned(bench: Any) -> None:
    meter = bench.build(bench.budget())
    with pytest.raises(KeyboardInterrupt), meter.phase("attacker", "train"):
        meter.reserve(unit(10, steps=1))
        bench.wait(4)
        meter.count(steps=1)
        raise KeyboardInterrupt
    assert bench.kinds() == ["reserve", "abandon"]
    assert (meter.total("attacker").steps, meter.logical("attacker").steps) == (1, 0)
    assert meter.total("attacker").wall_ns == 4 * SECOND
    bench.wait(1)
    meter.close()
    assert bench.records[-1]["account"] == "laboratory"


def test_an_abandoned_unit_beyond_a_cap_keeps_the_exception(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with pytest.raises(KeyboardInterrupt), meter.phase("attacker", "train"):
        meter.reserve(unit(10, steps=1))
        bench.wait(7200)
        raise KeyboardInterrupt
    assert bench.kinds() == ["reserve", "overshoot"]


def test_imputed_work_is_billed_without_explaining_time(bench: Any) -> None:
    meter = bench.build(bench.budget(max_usd=5), devices=2)
    meter.impute("attacker", "load", unit(1800), shared="run")
    assert (meter.micro_usd("attacker"), meter.explained_ns) == (1_000_000, 0)
    assert bench.records[0]["record"] == "impute"
    assert bench.records[0]["tags"] == {"shared": "run"}
    assert meter.caps_used("attacker") == {"max_usd": 0.2}


def test_a_clock_jump_is_logged_and_never_measured(bench: Any) -> None:
    meter = bench.build(bench.budget())
    bench.wait(10)
    bench.wall_ns += 3600 * SECOND
    meter.close()
    assert bench.kinds() == ["settle", "clock_jump"]
    assert bench.records[1]["tags"] == {"jump_ns": 3600 * SECOND}
    assert bench.records[1]["micro_usd"] == 0
    assert meter.total("laboratory").wall_ns == 10 * SECOND


def test_a_phase_cannot_begin_inside_a_unit(bench: Any) -> None:
    meter = bench.build(bench.budget())
    meter.reserve(unit(1))
    with pytest.raises(DataError) as caught, meter.phase("attacker", "load"):
        pass
    assert str(caught.value) == ("meter: phase 'load' begins inside a reserved unit of 'start'; settle the unit first")


def test_two_units_cannot_be_open(bench: Any) -> None:
    meter = bench.build(bench.budget())
    meter.reserve(unit(1))
    with pytest.raises(DataError) as caught:
        meter.reserve(unit(1))
    assert str(caught.value) == "meter: a unit of 'start' is open already; settle it first"


def test_a_closed_meter_bills_nothing(bench: Any) -> None:
    meter = bench.build(bench.budget())
    meter.close()
    with pytest.raises(DataError) as caught:
        meter.settle()
    assert str(caught.value) == "meter: of node 'cell-1' is closed; build a meter for the next node"


def test_no_device_is_refused(bench: Any) -> None:
    with pytest.raises(DataError) as caught:
        bench.build(bench.budget(), devices=0)
    assert str(caught.value) == "meter: must bill at least one device, got 0; pass the number of devices"


def test_no_price_is_refused(bench: Any) -> None:
    with pytest.raises(ConfigError, match=r"^hardware: 'bux' has no price in prices\.yaml; did you mean 'box'\?$"):
        Meter(bench.budget(), bench.card(), "bux", node="n", purse="p", clock=lambda: 0, write=bench.records.append)


def test_processor_time_is_counted_beside_the_clock(bench: Any) -> None:
    cpu_ns = [400]
    meter = bench.build(bench.budget(max_steps=9), cpu_clock=lambda: cpu_ns[0], started_cpu_ns=0)
    with meter.phase("attacker", "train"):
        cpu_ns[0] += 2 * SECOND
        bench.wait(1)
    assert (meter.total("attacker").cpu_ns, meter.total("attacker").device_ns) == (2 * SECOND, SECOND)
    cpu_ns[0] += 5
    assert meter.close() == (bench.now_ns, cpu_ns[0])
    assert meter.total("laboratory").cpu_ns == 405


def test_an_imputed_share_beyond_a_cap_is_refused_and_not_billed(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=0.01))
    with pytest.raises(BudgetSpent, match="max_wall_hours"):
        meter.impute("attacker", "load", Quantities(wall_ns=37 * SECOND))
    assert (meter.micro_usd("attacker"), bench.records) == (0, [])
    meter.impute("attacker", "load", Quantities(wall_ns=36 * SECOND))
    assert meter.caps_used("attacker") == {"max_wall_hours": 1.0}


def test_an_imputed_trial_counts_against_the_cap_on_trials(bench: Any) -> None:
    meter = bench.build(bench.budget(max_trials=1))
    meter.impute("attacker", "load", Quantities(wall_ns=1, trials=1))
    assert meter.caps_used("attacker") == {"max_trials": 1.0}
    with pytest.raises(BudgetSpent, match="max_trials"):
        meter.impute("attacker", "load", Quantities(wall_ns=1, trials=1))


def test_an_attack_stops_where_its_end_could_not_be_paid(bench: Any) -> None:
    meter = bench.build(bench.budget(laboratory={"max_wall_hours": 0.01}))
    with meter.phase("laboratory", "baseline"):
        bench.wait(5)
    meter.reserve_for_laboratory(Quantities(wall_ns=31 * SECOND))
    with meter.phase("attacker", "train"):
        meter.reserve(Quantities(wall_ns=SECOND))
        meter.settle()
        meter.reserve_for_laboratory(Quantities(wall_ns=32 * SECOND))
        with pytest.raises(BudgetSpent) as caught:
            meter.reserve(Quantities(wall_ns=SECOND))
    assert (caught.value.cap, round(3600 * caught.value.needed)) == ("laboratory.max_wall_hours", 37)


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_signal_beside_a_record_bills_it_once(bench: Any, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A signal right before the charge, or right after it: the unwinding books the time once or not at all."""
    meter = bench.build(bench.budget(max_steps=9))
    real = Meter._bill

    def bill(self: Meter, *given: Any) -> None:
        monkeypatch.setattr(Meter, "_bill", real)
        if at == "after":
            real(self, *given)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), meter.phase("attacker", "train"):
        meter.reserve(Quantities(wall_ns=2 * SECOND, steps=1))
        bench.wait(2)
        meter.count(steps=1)
        monkeypatch.setattr(Meter, "_bill", bill)
        meter.settle()
    meter.close()
    kinds = [record["record"] for record in bench.records]
    assert kinds == ["reserve", "settle" if at == "after" else "abandon"]
    assert meter.total("attacker").wall_ns == 2 * SECOND
    resumed = bench.build(bench.budget(max_steps=9))
    resumed.restore(bench.records)
    assert resumed.total("attacker").wall_ns == 2 * SECOND
