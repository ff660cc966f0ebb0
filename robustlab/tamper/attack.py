"""Executes an attack of any kind on a resident target, under a meter."""

from collections.abc import Sequence
from typing import Any, assert_never, cast

from robustlab.cost.flops import count_adapter_parameters, dpo_step, full_step, lora_step
from robustlab.cost.meter import Meter
from robustlab.errors import DataError
from robustlab.models.ablation import AblationModification
from robustlab.models.adapter import LoraModification
from robustlab.models.full import FullModification
from robustlab.models.load import LoadedTarget
from robustlab.models.modification import Modification
from robustlab.spec.attacks import Ablation, FullSft, LoraDpo, LoraSft, TrainedAttack, Untouched
from robustlab.spec.plan import Cell
from robustlab.spec.targets import Shape
from robustlab.tamper.ablation import run_ablation
from robustlab.tamper.control import check_control
from robustlab.train.dpo import run_dpo
from robustlab.train.hooks import Hooks, Outcome, StepPrice
from robustlab.train.order import Example, Pair, Row, batch_lengths, lay_out, pair_lengths
from robustlab.train.sft import run_sft
from robustlab.train.state import TrainState


def build_modification(recipe: TrainedAttack, target: LoadedTarget, *, seed: int) -> Modification:
    """Put what a recipe changes on a target, without changing it yet.

    Args:
        recipe: The attack.
        target: The released target, or its 4-bit copy.
        seed: Seed of what is drawn, such as an adapter's first factor.

    Returns:
        A modification that leaves every output as it was, byte for byte.

    Raises:
        ConfigError: If the target has none of the modules that the recipe names.
        DataError: If it is to stay untouched.
    """
    match recipe:
        case LoraSft() | LoraDpo():
            return LoraModification(target.model, recipe.training.lora, seed=seed)
        case FullSft():
            return FullModification(target.model)
        case Ablation():
            return AblationModification(target.model)
        case Untouched():
            raise _nothing_to_run()
        case _:
            assert_never(recipe)


def run_attack(
    cell: Cell,
    target: LoadedTarget,
    modification: Modification,
    rows: Sequence[Row],
    *,
    meter: Meter,
    hooks: Hooks,
    resume: TrainState | None,
    expected_step_seconds: float,
) -> Outcome:
    """Run the cell's schedule.

    Args:
        cell: Attack, recipe, schedule and seed.
        target: The released target, or its 4-bit copy.
        modification: What ``build_modification`` put on it.
        rows: The training set: examples, or pairs for a preference; none for an ablation.
        meter: Its current account pays.
        hooks: Marks, states and progress.
        resume: State to go on from; None to begin.
        expected_step_seconds: What a step should take.

    Returns:
        Steps, losses and what ended the training; the modification holds the last settled step.

    Raises:
        DataError: If a row cannot be trained on, the cell is a control that would learn, or it is to stay untouched.
    """
    check_control(cell)
    recipe, schedule = cell.recipe, cell.schedule
    if isinstance(recipe, Ablation):
        hooked = cast(AblationModification, modification)
        return run_ablation(cell, target, hooked, meter=meter, hooks=hooks, expected_step_seconds=expected_step_seconds)
    if isinstance(recipe, Untouched):
        raise _nothing_to_run()
    shape, batch_rows = cell.target.shape, recipe.training.batch_rows
    common: dict[str, Any] = {
        "learning_rates": schedule.learning_rates,
        "seed": cell.seed,
        "meter": meter,
        "hooks": hooks,
        "resume": resume,
        "expected_step_seconds": expected_step_seconds,
    }
    if isinstance(recipe, LoraDpo):
        found = [row for row in rows if isinstance(row, Pair)]
        pairs = lay_out(found, steps=schedule.steps, batch_rows=batch_rows, seed=cell.seed)
        prices = [_price_pairs(shape, recipe, batch) for batch in pairs]
        return run_dpo(modification, target.tokenizer, pairs, prices, recipe.training, beta=recipe.beta, **common)
    examples = [row for row in rows if isinstance(row, Example)]
    batches = lay_out(examples, steps=schedule.steps, batch_rows=batch_rows, seed=cell.seed)
    prices = [_price_examples(shape, recipe, batch) for batch in batches]
    return run_sft(modification, target.tokenizer, batches, prices, recipe.training, **common)


def _nothing_to_run() -> DataError:
    return DataError("attack", "of kind untouched changes nothing", "measure its target and leave it at that")


def _price_examples(shape: Shape, recipe: LoraSft | FullSft, batch: Sequence[Example]) -> StepPrice:
    lengths = batch_lengths(batch)
    if isinstance(recipe, FullSft):
        return StepPrice(sum(lengths), full_step(shape, lengths))
    adapter = count_adapter_parameters(shape, recipe.training.lora)
    return StepPrice(sum(lengths), lora_step(shape, lengths, adapter_parameters=adapter))


def _price_pairs(shape: Shape, recipe: LoraDpo, batch: Sequence[Pair]) -> StepPrice:
    lengths = pair_lengths(batch)
    adapter = count_adapter_parameters(shape, recipe.training.lora)
    return StepPrice(sum(map(sum, lengths)), dpo_step(shape, lengths, adapter_parameters=adapter))
