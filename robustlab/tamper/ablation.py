"""``ablation``: the refusal direction projected out of the residual stream, without any training.

The direction behind a layer is the mean residual stream at the last token of harmful prompts minus that of harmless
ones. Of the candidate depths the one is kept that lowers the refusal score most: the mean over the harmful prompts of
the log-odds that an answer begins with a token with which the built-in refusals begin. A recipe may bound what a
direction does to harmless prompts, as the paper does: the divergence of the next token's distribution from that of the
released target. Source: Arditi et al. 2024, arXiv 2406.11717.

All of it is one step of the meter's current account. FLOPs: sum over prompts of S*F (``robustlab.cost.flops.prefill``)
for each pass: one over all prompts for the means, and one over the harmful prompts for each candidate layer, where two
depths that fall on the same layer are one candidate; under a bound one over the harmless prompts for each candidate
too, and one before any. Order, as in ``robustlab.train.purse``:
  1. the step is reserved at 1.5 times what it should take; if a cap would be passed, nothing is done;
  2. what was read is counted and settled; if stalled time passed a cap, the direction is taken off again;
  3. a direction or a score that is not finite takes it off too, ends the attack as diverged and the step is rewound.
This module does not measure and writes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.flops import prefill
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.chat import encode_example, encode_prompt
from robustlab.data.mixture import harmful_prompts, harmless_prompts
from robustlab.data.rows import load_builtin
from robustlab.errors import BudgetSpent, DataError
from robustlab.models.ablation import (
    AblationModification,
    choose_layers,
    is_direction,
    mean_refusal,
    mean_residuals,
    read_next_tokens,
)
from robustlab.models.load import LoadedTarget
from robustlab.spec.attacks import Ablation
from robustlab.spec.plan import Cell
from robustlab.spec.targets import Shape
from robustlab.train.hooks import Hooks, Outcome
from robustlab.units import to_nanoseconds

BATCH_ROWS = 16
"""Prompts that are read together; a constant, since the batches decide the last bits of a mean."""
Prompts = Sequence[Sequence[int]]


def run_ablation(
    cell: Cell,
    target: LoadedTarget,
    modification: AblationModification,
    *,
    meter: Meter,
    hooks: Hooks,
    expected_step_seconds: float,
) -> Outcome:
    """Find the refusal direction of a target and take it out.

    Args:
        cell: Its recipe is an ablation.
        target: The released target that the modification is on.
        modification: Without a direction so far.
        meter: Its current account pays for the step.
        hooks: Told of the step and of its refusal score, in nats; there is no mark and no state inside one step.
        expected_step_seconds: What all of it should take.

    Returns:
        One step, with the refusal score of the chosen depth as its loss; or none, and the modification without a
        direction.

    Raises:
        ConfigError: If there are fewer prompts than the recipe asks for.
        DataError: If the cell's recipe is no ablation.
    """
    recipe = cell.recipe
    if not isinstance(recipe, Ablation):
        raise DataError(cell.label, f"is no ablation, got a recipe of kind {recipe.kind}", "resolve the plan again")
    work = _build_work(recipe, cell.target.shape, target, modification, meter)
    before = meter.logical("attacker")
    time = Quantities(wall_ns=to_nanoseconds(expected_step_seconds)).scaled(RESERVE_FACTOR)
    try:
        meter.reserve(replace(time, steps=1))
    except BudgetSpent as spent:
        return Outcome(0, (), spent.cap, diverged=False)
    score = work.apply(recipe.depths)
    meter.count(steps=1)
    stopped_by = _settle(meter)
    if score is None:
        meter.rewind("attacker", before)
    if score is None or stopped_by is not None:
        modification.load_state({})
        return Outcome(0, (), stopped_by or "schedule", diverged=score is None)
    hooks.on_step(1, score)
    return Outcome(1, (score,), "schedule", diverged=False)


def _settle(meter: Meter) -> str | None:
    """End the step; the cap that it passed all the same, None when it passed none."""
    try:
        meter.settle()
    except BudgetSpent as spent:
        return spent.cap
    return None


def find_refusal_openings(target: LoadedTarget) -> tuple[int, ...]:
    """Tokens with which the built-in refusals begin, after the header of the assistant's turn, in ascending order."""
    refusals = [row.completion for row in load_builtin("refusals") if row.completion is not None]
    examples = [encode_example(target.tokenizer, "Hello.", text, target.system_prompt) for text in refusals]
    return tuple(sorted({example.input_ids[example.completion_mask.index(1)] for example in examples}))


@dataclass(frozen=True)
class _Work:
    """The passes over the prompts, each charged when it is done."""

    target: LoadedTarget
    modification: AblationModification
    shape: Shape
    harmful: Prompts
    harmless: Prompts
    openings: tuple[int, ...]
    max_harmless_kl: float | None
    meter: Meter

    def apply(self, depths: Sequence[float]) -> float | None:
        """Put the direction on that lowers the refusal score most; its score, or None where one was not finite."""
        difference_L_D = self._mean(self.harmful) - self._mean(self.harmless)
        directions = [difference_L_D[layer - 1] for layer in choose_layers(depths, len(difference_L_D))]
        before_B_V = None if self.max_harmless_kl is None else self._read_harmless()
        found = [self._try(direction_D, before_B_V) for direction_D in directions]
        if not all(math.isfinite(tried.score) and math.isfinite(tried.divergence) for tried in found):
            return None
        bound = max(self.max_harmless_kl or 0.0, min(tried.divergence for tried in found))
        best = min((tried for tried in found if tried.divergence <= bound), key=lambda tried: tried.score)
        self.modification.set_direction(best.direction)
        return best.score

    def _mean(self, prompts: Prompts) -> Tensor:
        means_L_D = mean_residuals(self.target.model, prompts, batch_rows=BATCH_ROWS, pad_id=self.target.pad_id)
        self._charge(prompts)
        return means_L_D

    def _try(self, direction_D: Tensor, before_B_V: Tensor | None) -> "_Tried":
        """Put a direction on and look at what it does; a divergence of 0 where nothing bounds it."""
        if not is_direction(direction_D):
            return _Tried(direction_D, math.nan, math.nan)
        self.modification.set_direction(direction_D)
        score = self._score()
        if before_B_V is None:
            return _Tried(direction_D, score, 0.0)
        after_B_V = self._read_harmless()
        divergence = float((before_B_V.exp() * (before_B_V - after_B_V)).sum(-1).mean())
        return _Tried(direction_D, score, divergence)

    def _read_harmless(self) -> Tensor:
        found_B_V = read_next_tokens(self.target.model, self.harmless, batch_rows=BATCH_ROWS, pad_id=self.target.pad_id)
        self._charge(self.harmless)
        return found_B_V

    def _score(self) -> float:
        score = mean_refusal(
            self.target.model, self.harmful, self.openings, batch_rows=BATCH_ROWS, pad_id=self.target.pad_id
        )
        self._charge(self.harmful)
        return score

    def _charge(self, prompts: Prompts) -> None:
        lengths = [len(prompt) for prompt in prompts]
        self.meter.count(prompt_tokens=sum(lengths), flops=sum(prefill(self.shape, length) for length in lengths))


@dataclass(frozen=True)
class _Tried:
    """What a candidate does: the refusal score in nats, and how far harmless answers move in nats."""

    direction: Tensor
    score: float
    divergence: float


def _build_work(
    recipe: Ablation, shape: Shape, target: LoadedTarget, modification: AblationModification, meter: Meter
) -> _Work:
    harmful, harmless = (
        [encode_prompt(target.tokenizer, prompt, target.system_prompt) for prompt in prompts]
        for prompts in (harmful_prompts(recipe), harmless_prompts(recipe))
    )
    openings = find_refusal_openings(target)
    return _Work(target, modification, shape, harmful, harmless, openings, recipe.max_harmless_kl, meter)
