"""One thousand random schedules: stalls, crashes, phases of both accounts, any set of caps."""

from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.errors import BudgetSpent

NS_PER_HOUR = 3600 * 1_000_000_000
RATE = "0.0496"
durations = st.integers(0, 2 * NS_PER_HOUR)
hours = st.floats(0.01, 5)
caps = st.fixed_dictionaries(
    {},
    optional={
        "max_usd": st.floats(0.0001, 0.3), "max_wall_hours": hours, "max_device_hours": hours,
        "max_train_tokens": st.integers(1, 500), "max_steps": st.integers(1, 8),
    },
)  # fmt: skip
units = st.tuples(
    st.sampled_from(["attacker", "attacker", "attacker", "laboratory"]),
    durations,
    st.sampled_from([Fraction(1), Fraction(1), Fraction(1), Fraction(1, 3), Fraction(5)]),
    st.integers(0, 100),
    st.sampled_from(["done", "done", "done", "done", "crash"]),
)


def micro_usd(device_ns: int) -> int:
    """Rounded-up bill, by another road than the package's."""
    exact = Fraction(RATE) * device_ns * 1_000_000 / NS_PER_HOUR
    return exact.numerator // exact.denominator + (exact.denominator != 1)


class Run:
    """Plays one schedule and keeps books of its own."""

    def __init__(self, bench: Any, limits: Any, devices: int) -> None:
        self.bench, self.limits, self.devices = bench, limits, devices
        self.true_ns = {"attacker": 0, "laboratory": 0}
        self.steps = self.tokens = self.overshoots = 0
        self.within = True
        self.meter = self.build()

    def build(self) -> Meter:
        meter: Meter = self.bench.build(self.limits, devices=self.devices, usd_per_hour=float(RATE))
        return meter

    def play(self, account: Any, planned_ns: int, stall: Fraction, tokens: int, end: str) -> None:
        with self.meter.phase(account, "work"):
            self.meter.reserve(Quantities(wall_ns=planned_ns, steps=1, train_tokens=tokens))
            if end == "crash":
                self.crash(account, planned_ns)
                return
            actual_ns = int(planned_ns * stall)
            self.bench.now_ns += actual_ns
            self.bench.wall_ns += actual_ns
            self.true_ns[account] += actual_ns
            self.meter.count(steps=1, train_tokens=tokens)
            before = self.meter.logical("attacker")
            self.settle(account, before, tokens)

    def settle(self, account: Any, before: Quantities, tokens: int) -> None:
        try:
            self.meter.settle()
        except BudgetSpent:
            self.overshoots += 1
            assert self.meter.logical("attacker") == before
            raise
        if account == "attacker":
            self.steps, self.tokens = self.steps + 1, self.tokens + tokens
            self.within &= all(share <= 1 for share in self.meter.caps_used("attacker").values())

    def crash(self, account: str, planned_ns: int) -> None:
        records = list(self.bench.records)
        self.meter.settle()
        del self.bench.records[len(records) :]
        self.true_ns[account] += planned_ns
        self.meter = self.build()
        self.meter.restore(records)


@settings(max_examples=1000, deadline=None)
@given(
    attacker=caps,
    laboratory=st.none() | caps,
    total_usd=st.none() | st.floats(0.0001, 0.6),
    schedule=st.lists(units, max_size=12),
    devices=st.integers(1, 4),
)
def test_any_schedule_keeps_its_promises(
    new_bench: Any, attacker: Any, laboratory: Any, total_usd: Any, schedule: Any, devices: int
) -> None:
    bench = new_bench()
    run = Run(bench, bench.budget(total_usd, laboratory, **attacker), devices)
    largest_ns = 0
    for account, planned_ns, stall, tokens, end in schedule:
        largest_ns = max(largest_ns, int(planned_ns * stall))
        try:
            run.play(account, planned_ns, stall, tokens, end)
        except BudgetSpent:
            if account == "attacker":
                break
    meter = run.meter
    meter.close()
    logical = meter.logical("attacker")
    assert (logical.steps, logical.train_tokens) == (run.steps, run.tokens)
    assert logical.steps <= attacker.get("max_steps", logical.steps)
    assert logical.train_tokens <= attacker.get("max_train_tokens", logical.train_tokens)
    for name in ("attacker", "laboratory"):
        assert meter.total(name).wall_ns == run.true_ns[name]  # type: ignore[arg-type]
        assert meter.total(name).device_ns == run.true_ns[name] * devices  # type: ignore[arg-type]
        assert meter.micro_usd(name) == bench.billed_micro_usd(name) == micro_usd(run.true_ns[name] * devices)  # type: ignore[arg-type]
    assert run.overshoots <= 1
    assert meter.overshoot("attacker") <= micro_usd(largest_ns * devices)
    assert run.within
