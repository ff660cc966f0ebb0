"""The purse: exact caps, undone steps, marks that leave no trace."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from robustlab.cost.meter import Meter
from robustlab.errors import BudgetSpent
from robustlab.train import trainer
from robustlab.train.hooks import Mark
from robustlab.train.purse import guarded
from robustlab.train.sft import FlatSFTTrainer


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch, till: Any) -> Callable[..., None]:
    """Lets the clock move by a given number of seconds in each step; the last one goes on for good."""

    def arrange(*seconds: float) -> None:
        left = list(seconds)
        real = FlatSFTTrainer.training_step

        def step(self: FlatSFTTrainer, *args: Any, **kwargs: Any) -> Any:
            loss = real(self, *args, **kwargs)
            till.wait(left.pop(0) if len(left) > 1 else left[0])
            return loss

        monkeypatch.setattr(FlatSFTTrainer, "training_step", step)

    return arrange


@pytest.fixture
def nan_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Makes the loss of the given step another one."""

    def arrange(step: int, value: float) -> None:
        # Call 0 is the laboratory's probe step.
        calls = iter(range(1000))
        real = FlatSFTTrainer.compute_loss

        def compute(self: FlatSFTTrainer, *args: Any, **kwargs: Any) -> Any:
            loss = real(self, *args, **kwargs)
            return loss * value if next(calls) == step else loss

        monkeypatch.setattr(FlatSFTTrainer, "compute_loss", compute)

    return arrange


def end_digest(new_drill: Callable[..., Any], till: Any, steps: int) -> str:
    """Digest of the adapter after some steps of the same schedule."""
    shorter = new_drill()
    shorter.run(till.meter(max_steps=steps))
    return str(shorter.modification.digest())


def test_the_whole_schedule_is_run_where_no_cap_binds(drill: Any, till: Any) -> None:
    outcome = drill.run(till.meter(max_steps=4, max_train_tokens=72))
    assert (outcome.steps, outcome.stopped_by, outcome.diverged) == (4, "schedule", False)
    assert drill.kept == list(zip((1, 2, 3, 4), outcome.losses, strict=True))
    assert all(math.isfinite(loss) and loss > 0 for loss in outcome.losses)


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_a_cap_on_steps_is_exact(drill: Any, till: Any, cap: int) -> None:
    meter = till.meter(max_steps=cap) if cap else till.meter(max_train_tokens=1)
    outcome = drill.run(meter)
    assert outcome.steps == cap == len(outcome.losses) == meter.total("attacker").steps
    assert outcome.stopped_by == ("max_steps" if cap else "max_train_tokens")


@pytest.mark.parametrize(("spare", "steps"), [(-1, 2), (0, 3), (1, 3)])
def test_a_cap_on_tokens_is_exact(drill: Any, till: Any, spare: int, steps: int) -> None:
    tokens = drill.step_tokens
    meter = till.meter(max_train_tokens=sum(tokens[:3]) + spare)
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.stopped_by) == (steps, "max_train_tokens")
    # Prompt tokens count as well: 36 tokens an epoch of two steps.
    assert sum(tokens[:2]) == 36
    assert meter.total("attacker").train_tokens == meter.logical("attacker").train_tokens == sum(tokens[:steps])
    assert meter.total("attacker").flops == 1000 * sum(tokens[:steps])


def test_a_cap_below_the_first_step_runs_none_and_changes_nothing(drill: Any, till: Any) -> None:
    before = drill.modification.digest()
    meter = till.meter(max_train_tokens=drill.step_tokens[0] - 1)
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.losses, outcome.stopped_by) == (0, (), "max_train_tokens")
    assert drill.modification.digest() == before
    assert meter.total("attacker").steps == 0 and drill.kept == []


def test_money_stops_before_the_cap(drill: Any, till: Any, slow_steps: Callable[..., None]) -> None:
    # A dollar a second and a second a step. After two steps $2 are spent; a third is reserved at 1.5 s, and 3.5 > 3.4.
    slow_steps(1)
    meter = till.meter(max_usd=3.4)
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.stopped_by) == (2, "max_usd")
    assert meter.micro_usd("attacker") == 2_000_000
    assert meter.overshoot("attacker") == 0


def test_the_probe_step_prices_the_first_one_and_is_the_laboratorys(
    drill: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FlatSFTTrainer.probe_step

    def probe(self: FlatSFTTrainer) -> None:
        real(self)
        till.wait(2)

    monkeypatch.setattr(FlatSFTTrainer, "probe_step", probe)
    before = drill.modification.digest()
    meter = till.meter(max_usd=2.9)
    outcome = drill.run(meter)
    # A step is expected to take 2 s, so 3 are reserved, and 3 > 2.9.
    assert (outcome.steps, outcome.stopped_by) == (0, "max_usd")
    assert drill.modification.digest() == before
    assert (meter.micro_usd("attacker"), meter.micro_usd("laboratory")) == (0, 2_000_000)


def test_old_steps_no_longer_count_for_the_reservation(
    new_drill: Callable[..., Any], till: Any, slow_steps: Callable[..., None]
) -> None:
    # 8 s for the first step, then 1 s each; after eight more steps the first one is forgotten.
    slow_steps(8, 1)
    drill = new_drill(steps=12)
    # Before step 12, 18 s are used and 1.5 are reserved; were the first step remembered, 18 + 12 would pass 29.
    outcome = drill.run(till.meter(max_wall_hours=29 / 3600))
    assert outcome.steps == 12


def test_the_reservation_is_taken_from_the_longest_step(drill: Any, till: Any, slow_steps: Callable[..., None]) -> None:
    # 0.5 + 2 + 0.5 = 3 s are used after three steps. The next is reserved at 1.5 x 2 = 3 s: 6 s in all, just allowed.
    slow_steps(0.5, 2, 0.5)
    assert drill.run(till.meter(max_wall_hours=6 / 3600)).steps == 4


def test_the_next_step_is_refused_one_millisecond_earlier(
    drill: Any, till: Any, slow_steps: Callable[..., None]
) -> None:
    slow_steps(0.5, 2, 0.5)
    outcome = drill.run(till.meter(max_wall_hours=5.999 / 3600))
    assert (outcome.steps, outcome.stopped_by) == (3, "max_wall_hours")


def test_the_first_cap_that_binds_is_named(drill: Any, till: Any, slow_steps: Callable[..., None]) -> None:
    slow_steps(1)
    outcome = drill.run(till.meter(max_usd=3.4, max_wall_hours=3.4 / 3600, max_steps=2))
    # All three bind before step 3; money stands first in the order of the checks.
    assert (outcome.steps, outcome.stopped_by) == (2, "max_usd")


def test_a_stalled_step_is_undone_and_booked_as_overshoot(
    new_drill: Callable[..., Any], till: Any, slow_steps: Callable[..., None]
) -> None:
    two_steps = end_digest(new_drill, till, 2)
    drill = new_drill()
    slow_steps(1, 1, 60, 1)
    meter = till.meter(max_usd=10)
    outcome = drill.run(meter)
    # Step 3 was let through at 1.5 s (2 + 1.5 <= 10) and took 60: 62 > 10.
    assert (outcome.steps, outcome.stopped_by, outcome.diverged) == (2, "max_usd", False)
    assert drill.modification.digest() == two_steps
    assert meter.overshoot("attacker") == 60_000_000
    assert meter.micro_usd("attacker") == 62_000_000
    assert (meter.total("attacker").steps, meter.logical("attacker").steps) == (3, 2)
    assert len(drill.kept) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_undone_and_ends_the_attack(
    new_drill: Callable[..., Any], till: Any, nan_at: Callable[[int, float], None], value: float
) -> None:
    two_steps = end_digest(new_drill, till, 2)
    drill = new_drill()
    nan_at(3, value)
    meter = till.meter()
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.diverged) == (2, True)
    assert outcome.stopped_by == "schedule"
    assert drill.modification.digest() == two_steps
    assert all(math.isfinite(loss) for loss in outcome.losses) and len(outcome.losses) == 2
    # The undone step is on the bill and no part of the trajectory.
    assert (meter.total("attacker").steps, meter.logical("attacker").steps) == (3, 2)
    assert meter.logical("attacker").train_tokens == sum(drill.step_tokens[:2])


def test_marks_are_called_after_their_steps_with_the_target_in_eval_mode(drill: Any, till: Any) -> None:
    seen: list[tuple[int, bool, int]] = []

    def at_mark(mark: Mark) -> None:
        modules = [module.training for module in drill.modification.model.modules()]
        seen.append((mark.step, any(modules), len(drill.kept)))

    drill.marks, drill.at_mark = frozenset({1, 3, 4}), at_mark
    drill.run(till.meter())
    assert seen == [(1, False, 1), (3, False, 3), (4, False, 4)]


def test_a_mark_comes_before_the_state_and_before_the_next_reservation(drill: Any, till: Any) -> None:
    drill.marks, drill.save_every = frozenset({2}), 2
    order: list[str] = []
    drill.at_mark = lambda mark: order.append(f"mark {mark.step}")
    meter = till.meter(max_steps=2)
    drill.saved = Recorder(order)
    assert drill.run(meter).stopped_by == "max_steps"
    assert order == ["mark 2", "state 2"]


class Recorder(list[Any]):
    """A list that also notes in another one what is put in."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    def append(self, state: Any) -> None:
        self.order.append(f"state {state.step}")


def test_a_mark_s_cost_falls_to_whom_it_is_billed(drill: Any, till: Any, slow_steps: Callable[..., None]) -> None:
    slow_steps(1)
    meter: Meter = till.meter(max_usd=5)

    def at_mark(mark: Mark) -> None:
        with meter.phase("laboratory", "milestone"):
            till.wait(100)

    drill.marks, drill.at_mark = frozenset({1}), at_mark
    # Four steps of a second; the last is let through at 3 + 1.5 <= 5. The 100 s cost the attacker nothing.
    assert drill.run(meter).stopped_by == "schedule"
    assert meter.micro_usd("attacker") == 4_000_000
    assert meter.micro_usd("laboratory") == 100_000_000


def test_a_laboratory_cap_at_a_mark_gets_through_to_the_caller(drill: Any, till: Any) -> None:
    def at_mark(mark: Mark) -> None:
        raise BudgetSpent("laboratory.max_usd", 1.0, 2.0)

    drill.marks, drill.at_mark = frozenset({2}), at_mark
    with pytest.raises(BudgetSpent, match=r"laboratory.max_usd: the next unit of work needs 2 of 1"):
        drill.run(till.meter())
    assert len(drill.kept) == 2
    assert not any(module.training for module in drill.modification.model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_the_guard_puts_generators_and_modes_back(fails: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Dropout(0.5)))
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()

    def measure() -> None:
        with guarded(model):
            assert not any(module.training for module in model.modules())
            torch.rand(3)
            random.random()
            numpy.random.rand()
            if fails:
                raise BudgetSpent("laboratory.max_usd", 1.0, 2.0)

    if fails:
        with pytest.raises(BudgetSpent, match=r"laboratory\.max_usd"):
            measure()
    else:
        measure()
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states[1:]


@pytest.mark.parametrize(
    ("steps", "caps", "saved"), [(6, {}, [2, 4, 6]), (7, {}, [2, 4, 6, 7]), (6, {"max_steps": 5}, [2, 4, 5])]
)
def test_states_are_written_every_so_many_steps_and_at_the_end(
    new_drill: Callable[..., Any], till: Any, steps: int, caps: dict[str, float], saved: list[int]
) -> None:
    drill = new_drill(steps=steps, save_every=2)
    outcome = drill.run(till.meter(**caps))
    assert [state.step for state in drill.saved] == saved
    assert drill.saved[-1].digest == drill.modification.digest()
    second = drill.saved[1]
    assert second.losses == outcome.losses[:4]
    assert second.logical["steps"] == 4 and second.logical["train_tokens"] == sum(drill.step_tokens[:4])
    assert drill.saved[0].digest != second.digest != drill.modification.digest()


def test_what_a_state_takes_is_reserved_beside_the_next_step(
    new_drill: Callable[..., Any], till: Any, slow_steps: Callable[..., None]
) -> None:
    # Steps of 1 s and states of 4 s after steps 2 and 4: 8 s are used after step 3. Step 4 is reserved at 1.5 + 4.
    slow_steps(1)
    for cap, steps in ((12.5, 4), (12.4, 3)):
        drill = new_drill(steps=4, save_every=2)
        drill.on_save = lambda: till.wait(4)
        meter = till.meter(max_usd=cap)
        outcome = drill.run(meter)
        assert outcome.steps == steps
        assert meter.micro_usd("attacker") <= cap * 1_000_000


def test_a_state_of_zeros_tells_what_the_first_one_will_take(
    new_drill: Callable[..., Any], till: Any, slow_steps: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []

    def save(root: Path, state: Any) -> Path:
        written.append(state)
        till.wait(4)
        return root

    monkeypatch.setattr(trainer, "save_state", save)
    slow_steps(1)
    drill = new_drill(steps=4, save_every=2)
    meter = till.meter(max_usd=4.9)
    assert drill.run(meter).steps == 1  # after it 1 s is used, and 1.5 + 4 more would pass
    assert meter.micro_usd("laboratory") == 4_000_000
    (state,) = written
    assert not any(tensor.any() for tensor in [*state.modification.values(), *state.optimizer.values()])
    assert len(state.optimizer) == 2 * len(state.modification) > 0


@pytest.mark.parametrize(("caps", "ended_by"), [({"max_steps": 4}, "max_steps"), ({"max_steps": 3}, "max_steps")])
def test_the_last_state_says_what_ended_the_training_and_a_resume_trains_no_more(
    new_drill: Callable[..., Any], till: Any, caps: dict[str, float], ended_by: str
) -> None:
    drill = new_drill(steps=6, save_every=2)
    first = drill.run(till.meter(**caps))
    state = drill.saved[-1]
    assert (state.step, state.ended_by) == (caps["max_steps"], ended_by)
    assert [earlier.ended_by for earlier in drill.saved[:-1]] == [None] * (len(drill.saved) - 1)
    again = new_drill(steps=6, save_every=2, resume=state)
    meter = till.meter(**caps)
    assert again.run(meter) == first
    assert again.modification.digest() == drill.modification.digest()
    assert meter.total("laboratory").flops == meter.total("attacker").steps == 0
    assert [record["record"] for record in till.records if record["phase"] == "probe"].count("reserve") == 1


@pytest.mark.parametrize("mark", [2, 3, 6])
def test_a_mark_ends_the_training_by_the_name_that_it_returns(
    new_drill: Callable[..., Any], till: Any, mark: int
) -> None:
    drill = new_drill(steps=6, save_every=2, marks=frozenset({1, mark}))
    drill.at_mark = lambda found: "pruned" if found.step == mark else None
    meter = till.meter()
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.stopped_by, outcome.diverged) == (mark, "pruned", False)
    assert meter.total("attacker").steps == mark == len(drill.kept)
    # As with a cap a state is written at the end, and one that goes on from there trains no more.
    assert (drill.saved[-1].step, drill.saved[-1].ended_by) == (mark, "pruned")
    assert drill.saved[-1].digest == drill.modification.digest()
    assert [state.ended_by for state in drill.saved[:-1]] == [None] * ((mark - 1) // 2)
    again = new_drill(steps=6, save_every=2, resume=drill.saved[-1])
    assert again.run(till.meter()) == outcome
    assert again.modification.digest() == drill.modification.digest()


def test_nothing_is_reserved_for_a_step_that_a_mark_has_ruled_out(drill: Any, till: Any) -> None:
    drill.marks, drill.at_mark = frozenset({2}), lambda mark: "pruned"
    drill.run(till.meter())
    reserved = [record for record in till.records if (record["record"], record["phase"]) == ("reserve", "train")]
    assert len(reserved) == 2


def test_an_undone_step_leaves_the_state_before_it(
    new_drill: Callable[..., Any], till: Any, slow_steps: Callable[..., None]
) -> None:
    slow_steps(1, 1, 1, 1, 60)
    drill = new_drill(steps=8, save_every=3)
    outcome = drill.run(till.meter(max_usd=20))
    assert (outcome.steps, outcome.stopped_by) == (4, "max_usd")
    assert [(state.step, state.ended_by) for state in drill.saved] == [(3, None), (4, "max_usd")]
    assert drill.saved[-1].digest == drill.modification.digest()


def test_no_states_where_none_are_asked_for(drill: Any, till: Any) -> None:
    drill.run(till.meter())
    assert drill.saved == []


def test_the_laboratory_can_be_the_one_who_trains(drill: Any, till: Any, slow_steps: Callable[..., None]) -> None:
    slow_steps(1)
    meter = till.meter(max_steps=1)
    assert drill.run(meter, account="laboratory").steps == 4
    assert meter.micro_usd("laboratory") == 4_000_000
    assert meter.total("attacker").steps == 0
