"""Training against simulated attacks: TAR in first order, a hand loop small enough for a CPU.

One outer step, from weights theta of the adapter:
  1. the gradient of the safeguard's own rows at theta;
  2. a simulated attack: AdamW from a fresh state, some steps on one batch of compliance, gives theta_a;
  3. the gradient of the refusals of the same requests at theta_a, taken as if it were one at theta (first order);
  4. theta is put back byte for byte, and AdamW takes one step along gradient 1 + weight * gradient 3, clipped.
All of it is one unit on the laboratory's bill. Whether it also resists an attack that puts a new adapter on the merged
weights is what the lab measures; this module measures nothing, and never keeps attacked weights.

Source: Tamirisa et al. 2024, arXiv 2408.00761. There, the attacks train all weights for 64 steps and more, and the
resisting loss of refusals is that of DPO; here it is the refusals' negative log-likelihood.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.errors import BudgetSpent
from robustlab.models.modification import Modification
from robustlab.spec.safeguards import TamperResistant
from robustlab.train.hooks import Outcome, StepPrice
from robustlab.train.order import Example, Pair
from robustlab.train.trainer import check_example, label_log_probs
from robustlab.units import to_nanoseconds


@dataclass(frozen=True)
class OuterStep:
    """Rows of one outer step.

    Attributes:
        rows: The safeguard's own: refusals and benign answers.
        attacked: Requests of the simulated attack; it trains on the rejected side, and the chosen one resists it.
    """

    rows: Sequence[Example]
    attacked: Sequence[Pair]

    def lengths(self, inner_steps: int) -> tuple[int, ...]:
        """Tokens of every sequence that goes forward and backward, one entry for each time that it does."""
        compliant = [len(pair.rejected.ids) for pair in self.attacked] * inner_steps
        refused = [len(pair.chosen.ids) for pair in self.attacked]
        return (*(len(row.ids) for row in self.rows), *compliant, *refused)


def run_tar(
    modification: Modification,
    steps: Sequence[OuterStep],
    prices: Sequence[StepPrice],
    spec: TamperResistant,
    *,
    learning_rates: Sequence[float],
    meter: Meter,
    on_step: Callable[[int, float], None],
    expected_step_seconds: float,
) -> Outcome:
    """Train a modification against simulated attacks, under a meter whose current account is the laboratory's.

    Args:
        modification: What is trained, on a frozen target; it is changed in place.
        steps: Rows of every outer step.
        prices: Tokens and FLOPs of every outer step, its simulated attack included.
        spec: Knobs of both loops and the seed of dropout.
        learning_rates: Learning rate of every outer step.
        meter: Each outer step is reserved at 1.5 times the longest one so far, then settled.
        on_step: Told of every kept step and its loss: that of its rows + weight * that of the refusals under attack.
        expected_step_seconds: What an outer step should take; the first one is reserved by it.

    Returns:
        How it ended. A reached cap is a result; a loss or a gradient that is not finite undoes its step.

    Raises:
        DataError: If an example is longer than the spec allows or has no completion token.
    """
    _check(steps, spec.training.max_tokens)
    loop = _Loop(modification, spec, meter, to_nanoseconds(expected_step_seconds))
    try:
        with _training(modification, spec.seed):
            return loop.run(zip(steps, prices, learning_rates, strict=True), on_step)
    except BudgetSpent as spent:
        return loop.outcome(stopped_by=spent.cap)


def completion_loss(model: PreTrainedModel, examples: Sequence[Example], items: int) -> Tensor:
    """Negative log-likelihood of the completion tokens of a flat batch, in which examples do not see each other.

    Args:
        model: A causal LM of Llama's make, without peft's wrapper.
        examples: At least one; their tokens are concatenated and their positions begin anew.
        items: What the sum is divided by: completion tokens of the whole step, over all micro-batches.

    Returns:
        A scalar, in nats.
    """
    flat = {
        "input_ids": [token for row in examples for token in row.ids],
        # The first token of an example would be predicted from the last one of its neighbour.
        "labels": [label for row in examples for label in (-100, *row.labels[1:])],
        "position_ids": [place for row in examples for place in range(len(row.ids))],
    }
    batch = {name: torch.tensor([values], device=model.device) for name, values in flat.items()}
    log_probs_N, _ = label_log_probs(model, batch)
    return -log_probs_N.sum() / items


class _Loop:
    """The outer optimiser, and what one outer step does with it."""

    def __init__(self, modification: Modification, spec: TamperResistant, meter: Meter, expected_ns: int) -> None:
        self._modification, self._spec, self._meter = modification, spec, meter
        self._parameters = [weight for weight in modification.model.parameters() if weight.requires_grad]
        decay = spec.training.optimizer.weight_decay
        self._optimizer = torch.optim.AdamW(self._parameters, weight_decay=decay)
        self._expected_ns, self._longest_ns = expected_ns, 0
        self._losses: list[float] = []

    def run(
        self, schedule: Iterable[tuple[OuterStep, StepPrice, float]], on_step: Callable[[int, float], None]
    ) -> Outcome:
        """Take every step of the schedule, up to one that is not finite."""
        for step, price, rate in schedule:
            loss = self._take_metered(step, price, rate)
            if not math.isfinite(loss):
                return self.outcome(diverged=True)
            self._losses.append(loss)
            on_step(len(self._losses), loss)
        return self.outcome()

    def outcome(self, *, stopped_by: str = "schedule", diverged: bool = False) -> Outcome:
        """How it stands: what is done is kept."""
        return Outcome(len(self._losses), tuple(self._losses), stopped_by, diverged)

    def _take_metered(self, step: OuterStep, price: StepPrice, rate: float) -> float:
        before = self._meter.logical("laboratory")
        time_ns = math.ceil((self._longest_ns or self._expected_ns) * RESERVE_FACTOR)
        counts = Quantities(train_tokens=price.train_tokens, steps=1, flops=price.flops)
        self._meter.reserve(replace(counts, wall_ns=time_ns))
        loss = self.take(step, rate)
        self._meter.count(train_tokens=price.train_tokens, steps=1, flops=price.flops)
        self._longest_ns = max(self._longest_ns, self._meter.settle().wall_ns)
        if not math.isfinite(loss):
            self._meter.rewind("laboratory", before)
        return loss

    def take(self, step: OuterStep, learning_rate: float) -> float:
        """Take one outer step; its loss, or NaN, with the weights untouched, where anything in it was not finite."""
        weight = self._spec.resistance_weight
        start = self._modification.state()
        own, own_gradient = self._differentiate(step.rows)
        attack = self._attack([pair.rejected for pair in step.attacked])
        resisting, pull = self._differentiate([pair.chosen for pair in step.attacked])
        self._modification.load_state(start)
        for parameter, straight, pulled in zip(self._parameters, own_gradient, pull, strict=True):
            parameter.grad = straight + weight * pulled
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._spec.training.optimizer.max_grad_norm)
        if not all(map(math.isfinite, (own, attack, resisting, float(norm)))):
            return math.nan
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return own + weight * resisting

    def _attack(self, examples: Sequence[Example]) -> float:
        """Move the weights as an attacker would; the sum of its losses."""
        attacker = torch.optim.AdamW(self._parameters, lr=self._spec.inner_learning_rate, weight_decay=0.0)
        total = 0.0
        for _ in range(self._spec.inner_steps):
            loss, _ = self._differentiate(examples)
            attacker.step()
            total += loss
        return total

    def _differentiate(self, examples: Sequence[Example]) -> tuple[float, list[Tensor]]:
        """Mean loss over the completion tokens of all examples, and its gradient, which is left in place too."""
        size = self._spec.training.micro_batch_rows
        items = sum(label != -100 for row in examples for label in row.labels[1:])
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        total = 0.0
        for start in range(0, len(examples), size):
            loss = completion_loss(self._modification.base, examples[start : start + size], items)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total, [cast(Tensor, parameter.grad) for parameter in self._parameters]


@contextmanager
def _training(modification: Modification, seed: int) -> Iterator[None]:
    """Dropout on, from a generator of its own; the resident target's is left alone."""
    modification.model.train()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            torch.manual_seed(seed)
            yield
    finally:
        modification.model.eval()


def _check(steps: Sequence[OuterStep], max_tokens: int) -> None:
    sides = ((*step.rows, *(side for pair in step.attacked for side in (pair.chosen, pair.rejected))) for step in steps)
    for number, row in enumerate(chain.from_iterable(sides)):
        check_example(f"training row {number}", row, max_tokens)
