"""Training against simulated attacks: the gradients by hand, weights put back byte for byte, every step on the bill."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab.cost.meter import Meter
from robustlab.cost.prices import DevicePrice, PriceCard, PriceList
from robustlab.errors import DataError
from robustlab.models.adapter import LoraModification
from robustlab.spec.budgets import Budget
from robustlab.spec.catalog import load
from robustlab.spec.safeguards import TamperResistant
from robustlab.train import tar
from robustlab.train.hooks import Hooks, Outcome, StepPrice
from robustlab.train.order import Example, Pair
from robustlab.train.sft import run_sft
from robustlab.train.tar import OuterStep, completion_loss, run_tar


def example(size: int, start: int = 20) -> Example:
    """An example of ``size`` tokens, the first four of them without a label."""
    return Example.from_mask([1, *range(start + size, start - 1 + 2 * size)], [0] * 4 + [1] * (size - 4))


ROWS = [example(size) for size in (6, 8, 10, 12)]
PAIRS = [Pair(chosen=example(7, 60), rejected=example(9, 90)), Pair(chosen=example(8, 120), rejected=example(11, 150))]
STEP = OuterStep(ROWS, PAIRS)
# 36 tokens of rows, twice 20 of compliance, 15 of refusals.
STEP_TOKENS = 36 + 2 * 20 + 15


@pytest.fixture
def spec() -> TamperResistant:
    found: TamperResistant = load("safeguards", "tamper_resistant_smoke")
    training = found.training.model_copy(update={"max_tokens": 16})
    return found.model_copy(update={"training": training})


@dataclass
class Drill:
    """A training of the tiny target against simulated attacks, and what it told its caller."""

    target: Any
    spec: TamperResistant
    rates: Sequence[float] = (1e-2, 5e-3)
    steps: Sequence[OuterStep] = (STEP, STEP)
    expected_seconds: float = 0.0
    kept: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modification = LoraModification(self.target.model, self.spec.training.lora, seed=self.spec.seed)
        generator = torch.Generator().manual_seed(2)
        state = {name: weight + 0.05 * torch.randn(weight.shape, generator=generator) for name, weight in self.state()}
        self.modification.load_state(state)

    def state(self) -> list[tuple[str, Tensor]]:
        return list(self.modification.state().items())

    def run(self, meter: Meter) -> Outcome:
        with meter.phase("laboratory", "safeguard"):
            return run_tar(
                self.modification,
                self.steps,
                [StepPrice(sum(step.lengths(self.spec.inner_steps)), 1000) for step in self.steps],
                self.spec,
                learning_rates=self.rates,
                meter=meter,
                on_step=lambda step, loss: self.kept.append((step, loss)),
                expected_step_seconds=self.expected_seconds,
            )


@pytest.fixture
def new_drill(new_tiny: Callable[[], Any], spec: TamperResistant) -> Callable[..., Drill]:
    return lambda changes=None, **options: Drill(new_tiny(), spec.model_copy(update=changes or {}), **options)


@pytest.fixture
def drill(new_drill: Callable[..., Drill]) -> Drill:
    return new_drill()


def capped(till: Any, **laboratory: float) -> Meter:
    """A meter with caps of the laboratory, on the till's clock."""
    price = DevicePrice(label="box", usd_per_device_hour=3600.0, low=None, high=None, source="hand-made")
    prices = PriceList(kind="prices", as_of=date(2026, 1, 1), devices={"box": price}, tokens={})
    plain = {"kind": "budget", "stands_for": "a test", "hardware": "box", "attacker": {}, "total_usd": None}
    return Meter(
        Budget.model_validate({**plain, "laboratory": laboratory}),
        PriceCard(prices, Path("prices.yaml"), "0" * 64),
        "box",
        node="released-1",
        purse="test",
        clock=lambda: till.now_ns,
        wall_clock=lambda: till.now_ns,
        write=till.records.append,
    )


def parameters(drill: Drill) -> list[Tensor]:
    return [weight for weight in drill.modification.model.parameters() if weight.requires_grad]


def gradient(drill: Drill, rows: Sequence[Example]) -> tuple[float, list[Tensor]]:
    """Mean loss over completion tokens and its gradient, one example at a time and by another formula."""
    items = sum(label != -100 for row in rows for label in row.labels)
    total = torch.zeros(())
    for row in rows:
        logits = drill.modification.base(input_ids=torch.tensor([row.ids])).logits[0]
        log_probs = torch.log_softmax(logits.double(), dim=-1)
        total = total - sum(log_probs[t - 1, row.ids[t]] for t in range(4, len(row.ids)))  # type: ignore[assignment]
    loss = total / items
    return loss.item(), list(torch.autograd.grad(loss, parameters(drill)))


def first_adam_step(gradient: Tensor, rate: float) -> Tensor:
    """A first AdamW step without decay: both moments are unbiased at once, so that it is rate * g / (|g| + 1e-8)."""
    return rate * gradient / (gradient.abs() + 1e-8)


def test_a_loss_is_that_of_log_softmax_over_single_examples(drill: Drill) -> None:
    expected, gradients = gradient(drill, ROWS)
    # 2 + 4 + 6 + 8 = 20 completion tokens.
    loss = completion_loss(drill.modification.base, ROWS, 20)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    for found, wanted in zip(torch.autograd.grad(loss, parameters(drill)), gradients, strict=True):
        assert (found - wanted).abs().max() <= 2e-6 * max(float(wanted.abs().max()), 1e-3)
    assert completion_loss(drill.modification.base, ROWS, 40).item() == pytest.approx(expected / 2, rel=1e-6)


def test_examples_do_not_see_each_other(drill: Drill) -> None:
    other = replace(ROWS[0], ids=(1, 99, 98, 97, 96, 95), labels=(-100,) * 6)
    muted = replace(ROWS[0], labels=(-100,) * 6)
    losses = [completion_loss(drill.modification.base, [first, *ROWS[1:]], 18) for first in (muted, other)]
    assert torch.equal(*losses)


def test_the_first_token_of_an_example_is_not_predicted_from_its_neighbour(drill: Drill) -> None:
    labelled = [replace(row, labels=(row.ids[0], *row.labels[1:])) for row in ROWS]
    losses = [completion_loss(drill.modification.base, rows, 20) for rows in (ROWS, labelled)]
    assert torch.equal(*losses)


def test_a_step_is_the_one_of_the_paper_by_hand(new_drill: Callable[..., Drill], till: Any) -> None:
    """One inner step from a fresh optimiser, the refusals' gradient there, and one clipped outer step at the start."""
    changes = {"inner_steps": 1, "inner_learning_rate": 0.02, "resistance_weight": 0.5}
    mine, theirs = new_drill(changes), new_drill(changes, rates=(1e-2,), steps=(STEP,))
    start = [weight.detach().clone() for weight in parameters(mine)]
    own, own_gradient = gradient(mine, ROWS)
    _, attack_gradient = gradient(mine, [pair.rejected for pair in PAIRS])
    with torch.no_grad():
        for weight, slope in zip(parameters(mine), attack_gradient, strict=True):
            weight -= first_adam_step(slope, 0.02)
    resisting, pull = gradient(mine, [pair.chosen for pair in PAIRS])
    wanted = [straight + 0.5 * pulled for straight, pulled in zip(own_gradient, pull, strict=True)]
    norm = math.sqrt(sum(float(slope.square().sum()) for slope in wanted))
    clipped = [slope * min(1.0, 1.0 / (norm + 1e-6)) for slope in wanted]
    outcome = theirs.run(till.meter())
    assert outcome.losses == pytest.approx([own + 0.5 * resisting], rel=1e-5)
    for before, slope, after in zip(start, clipped, parameters(theirs), strict=True):
        moved, expected = before - after.detach(), first_adam_step(slope, 1e-2)
        # AdamW's first step has the size of the rate wherever there is a gradient, so that its sign decides.
        clear = slope.abs() > 1e-5
        assert clear.any()
        assert torch.allclose(moved[clear], expected[clear], rtol=1e-2, atol=1e-6)


def test_the_pull_is_taken_where_the_attack_led(new_drill: Callable[..., Drill], till: Any) -> None:
    """Without the attack the refusals' gradient would be another one: longer and faster attacks change the step."""
    ends = set()
    for changes in ({"inner_steps": 1}, {"inner_steps": 2}, {"inner_learning_rate": 1e-1}, {"resistance_weight": 2.0}):
        drill = new_drill(changes)
        drill.run(till.meter())
        ends.add(drill.modification.digest())
    assert len(ends) == 4


def test_a_simulated_attack_does_lower_its_loss(drill: Drill, till: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real = tar._Loop._differentiate

    def differentiate(self: Any, rows: Sequence[Example]) -> Any:
        found = real(self, rows)
        if rows == [pair.rejected for pair in PAIRS]:
            seen.append(found[0])
        return found

    monkeypatch.setattr(tar._Loop, "_differentiate", differentiate)
    drill.run(till.meter())
    # Two attacks of two steps; each begins anew at the outer weights and gets lower.
    assert len(seen) == 4
    assert seen[1] < seen[0] and seen[3] < seen[2]


def test_attacked_weights_are_taken_back_byte_for_byte(new_drill: Callable[..., Drill], till: Any) -> None:
    drill = new_drill(rates=(0.0, 0.0))
    before = drill.modification.digest()
    outcome = drill.run(till.meter())
    assert outcome.steps == 2
    assert drill.modification.digest() == before


def test_the_sum_of_both_gradients_is_clipped(
    new_drill: Callable[..., Drill], spec: TamperResistant, till: Any
) -> None:
    optimizer = spec.training.optimizer.model_copy(update={"max_grad_norm": 1e-12})
    drill = new_drill(
        {"training": spec.training.model_copy(update={"optimizer": optimizer})}, steps=(STEP,), rates=(1e-2,)
    )
    before = dict(drill.state())
    drill.run(till.meter())
    # No gradient is larger than 1e-12 then, and rate * g / (|g| + 1e-8) no larger than 1e-2 * 1e-4.
    assert max(float((weight - before[name]).abs().max()) for name, weight in drill.state()) <= 1.1e-6


def test_without_resistance_it_is_plain_fine_tuning(new_drill: Callable[..., Drill], till: Any) -> None:
    """The trainer of refusal_sft, on the same rows and at the same rates, gives the same losses and weights."""
    mine, theirs = new_drill({"resistance_weight": 0.0}), new_drill({"resistance_weight": 0.0})
    losses = mine.run(till.meter()).losses
    meter = till.meter()
    with meter.phase("laboratory", "safeguard"):
        outcome = run_sft(
            theirs.modification,
            theirs.target.tokenizer,
            [ROWS, ROWS],
            [StepPrice(36, 1000)] * 2,
            theirs.spec.training,
            learning_rates=theirs.rates,
            seed=0,
            meter=meter,
            hooks=Hooks(frozenset(), lambda mark: None, lambda step, loss: None, lambda state: None, None),
            resume=None,
            expected_step_seconds=0.0,
            account="laboratory",
        )
    assert losses == pytest.approx(outcome.losses, rel=1e-6)
    for (name, mine_weight), (_, their_weight) in zip(mine.state(), theirs.state(), strict=True):
        assert torch.allclose(mine_weight, their_weight, rtol=1e-4, atol=1e-6), name


def test_micro_batches_give_the_trajectory_of_one_batch(
    new_drill: Callable[..., Drill], spec: TamperResistant, till: Any
) -> None:
    whole = new_drill()
    split = new_drill({"training": spec.training.model_copy(update={"micro_batch_rows": 1})})
    assert whole.run(till.meter()).losses == pytest.approx(split.run(till.meter()).losses, rel=1e-5)


def test_it_is_the_same_every_time_and_leaves_the_generator_alone(
    new_drill: Callable[..., Drill], spec: TamperResistant, till: Any
) -> None:
    lora = spec.training.lora.model_copy(update={"dropout": 0.5})
    changes = {"training": spec.training.model_copy(update={"lora": lora})}
    ends = []
    for seed in (0, 0, 1):
        drill = new_drill({**changes, "seed": seed})
        torch.rand(1)
        before = torch.get_rng_state()
        drill.run(till.meter())
        ends.append(drill.modification.digest())
        assert torch.equal(torch.get_rng_state(), before)
        assert not drill.modification.model.training
    assert ends[0] == ends[1] != ends[2]


def test_every_sequence_counts_each_time_that_it_goes_through() -> None:
    assert STEP.lengths(2) == (6, 8, 10, 12, 9, 11, 9, 11, 7, 8)
    assert sum(STEP.lengths(2)) == STEP_TOKENS == 91


def test_the_laboratory_pays_for_every_step(drill: Drill, till: Any) -> None:
    meter = till.meter()
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.stopped_by, outcome.diverged) == (2, "schedule", False)
    assert drill.kept == list(enumerate(outcome.losses, start=1))
    used = meter.total("laboratory")
    assert (used.train_tokens, used.steps, used.flops) == (2 * STEP_TOKENS, 2, 2000)
    assert meter.total("attacker").train_tokens == 0


def test_a_step_is_reserved_by_half_more_than_the_longest_so_far(
    new_drill: Callable[..., Drill], till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = new_drill(rates=(0.0,) * 4, steps=(STEP,) * 4, expected_seconds=10.0)
    seconds = iter((2.0, 5.0, 3.0, 1.0))
    real = tar._Loop.take

    def take(self: Any, step: OuterStep, rate: float) -> float:
        till.wait(next(seconds))
        return real(self, step, rate)

    monkeypatch.setattr(tar._Loop, "take", take)
    drill.run(till.meter())
    reserved: list[Any] = [record["quantities"] for record in till.records if record["record"] == "reserve"]
    # 1.5 times 10 expected seconds, then 1.5 times the longest of 2, of 2 and 5, of 2, 5 and 3.
    assert [need["wall_ns"] / 1e9 for need in reserved] == [15.0, 3.0, 7.5, 7.5]
    assert {(need["train_tokens"], need["steps"], need["flops"]) for need in reserved} == {(91, 1, 1000)}


@pytest.mark.parametrize(
    ("caps", "steps", "name"),
    [
        ({"max_steps": 1}, 1, "laboratory.max_steps"),
        ({"max_train_tokens": 90}, 0, "laboratory.max_train_tokens"),
        ({"max_train_tokens": 182}, 2, "schedule"),
    ],
)
def test_a_cap_ends_it_before_the_step_that_would_pass_it(
    caps: dict[str, float], steps: int, name: str, drill: Drill, till: Any
) -> None:
    meter = capped(till, **caps)
    outcome = drill.run(meter)
    assert (outcome.steps, outcome.stopped_by, outcome.diverged) == (steps, name, False)
    assert meter.total("laboratory").steps == steps
    assert not drill.modification.model.training


@pytest.mark.parametrize("where", ["attack", "rows", "gradient"])
def test_what_is_not_finite_undoes_its_step(
    where: str, new_drill: Callable[..., Drill], till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = new_drill(rates=(0.0, 0.0, 0.0), steps=(STEP,) * 3)
    before, calls = drill.modification.digest(), 0
    real = tar._Loop._differentiate

    def differentiate(self: Any, rows: Sequence[Example]) -> Any:
        nonlocal calls
        calls += 1
        loss, slopes = real(self, rows)
        # A step differentiates its rows, its attack twice and its refusals: calls 5 to 8 are the second step's.
        if (where, calls) in (("rows", 5), ("attack", 7)):
            return math.inf, slopes
        if (where, calls) == ("gradient", 8):
            return loss, [slope * math.nan for slope in slopes]
        return loss, slopes

    monkeypatch.setattr(tar._Loop, "_differentiate", differentiate)
    meter = till.meter()
    outcome = drill.run(meter)
    assert (outcome.steps, len(outcome.losses), outcome.diverged) == (1, 1, True)
    assert drill.modification.digest() == before
    # The step is paid for, and no part of the trajectory.
    assert meter.total("laboratory").steps == 2
    assert meter.logical("laboratory").steps == 1


def test_an_attack_that_blows_up_is_seen(new_drill: Callable[..., Drill], till: Any) -> None:
    drill = new_drill({"inner_learning_rate": 1e18})
    before = drill.modification.digest()
    assert drill.run(till.meter()).diverged
    assert drill.modification.digest() == before


def test_rows_that_are_too_long_or_say_nothing_are_refused(new_drill: Callable[..., Drill], till: Any) -> None:
    long = OuterStep(ROWS, [replace(PAIRS[0], rejected=example(17, 90))])
    with pytest.raises(DataError) as caught:
        new_drill(steps=(long, long)).run(till.meter())
    assert str(caught.value) == (
        "training row 5: is longer than max_tokens 16, got 17 tokens; raise max_tokens in the recipe or shorten the row"
    )
    silent = replace(ROWS[1], labels=(-100,) * 8)
    with pytest.raises(DataError) as caught:
        new_drill(steps=(OuterStep([ROWS[0], silent], PAIRS),), rates=(0.0,)).run(till.meter())
    assert str(caught.value) == "training row 1: has no completion token, got 0; give every row a completion"
