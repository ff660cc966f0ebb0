"""Executes an attack of any kind on a resident target, under a meter."""

from collections.abc import Sequence
from typing import assert_never

from robustlab.cost.flops import count_adapter_parameters, lora_step
from robustlab.cost.meter import Meter
from robustlab.models.load import LoadedTarget
from robustlab.models.modification import Modification
from robustlab.spec.attacks import Control, LoraSft
from robustlab.spec.plan import Cell
from robustlab.tamper.control import check_control
from robustlab.train.order import Example, batch_lengths, lay_out
from robustlab.train.purse import Hooks, StepPrice
from robustlab.train.sft import Outcome, run_sft
from robustlab.train.state import TrainState


def run_attack(
    cell: Cell,
    target: LoadedTarget,
    modification: Modification,
    examples: Sequence[Example],
    *,
    meter: Meter,
    hooks: Hooks,
    resume: TrainState | None,
    expected_step_seconds: float,
) -> Outcome:
    """Run the cell's schedule.

    Args:
        cell: Attack, recipe, schedule and seed.
        target: The released target.
        modification: What the attack changes.
        examples: Its training set.
        meter: Its current account pays.
        hooks: Marks, states and progress.
        resume: State to go on from; None to begin.
        expected_step_seconds: What a step should take.

    Returns:
        Steps, losses and what ended the training; the modification holds the last settled step.
    """
    match cell.attack:
        case LoraSft():
            pass
        case Control():
            check_control(cell)
        case _:
            assert_never(cell.attack)
    training = cell.recipe.training
    batches = lay_out(examples, steps=cell.schedule.steps, batch_rows=training.batch_rows, seed=cell.seed)
    shape = cell.target.shape
    adapter = count_adapter_parameters(shape, training.lora)
    lengths = [batch_lengths(batch) for batch in batches]
    prices = [StepPrice(sum(row), lora_step(shape, row, adapter_parameters=adapter)) for row in lengths]
    return run_sft(
        modification,
        target.tokenizer,
        batches,
        prices,
        training,
        learning_rates=cell.schedule.learning_rates,
        seed=cell.seed,
        meter=meter,
        hooks=hooks,
        resume=resume,
        expected_step_seconds=expected_step_seconds,
    )
