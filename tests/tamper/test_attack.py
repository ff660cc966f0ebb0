"""Attacks of any kind: the cell's schedule, prices by the formulas, and a control that learns nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from robustlab.cost.flops import count_adapter_parameters, lora_step
from robustlab.errors import DataError
from robustlab.models.adapter import LoraModification
from robustlab.spec.plan import Cell
from robustlab.tamper.attack import run_attack
from robustlab.tamper.control import silence
from robustlab.train.hooks import Hooks
from robustlab.train.order import Example, batch_lengths, lay_out
from robustlab.train.sft import Outcome

ROWS = [Example.from_mask([1, *range(20 + n, 19 + 2 * n)], [0] * 4 + [1] * (n - 4)) for n in (6, 8, 10, 12, 14)]


def attack(cell: Cell, tiny: Any, meter: Any) -> tuple[Outcome, str, str]:
    """Run an attack; the outcome and the adapter's digest before and after."""
    modification = LoraModification(tiny.model, cell.recipe.training.lora, seed=cell.seed)
    before = modification.digest()
    hooks = Hooks(frozenset(), lambda mark: None, lambda step, loss: None, lambda state: None, None)
    with meter.phase("attacker", "train"):
        outcome = run_attack(
            cell, tiny, modification, ROWS, meter=meter, hooks=hooks, resume=None, expected_step_seconds=0.0
        )
    after = modification.digest()
    modification.dispose()
    return outcome, before, after


def test_an_attack_runs_the_schedule_of_its_cell(new_cell: Callable[..., Cell], tiny: Any, till: Any) -> None:
    cell, meter = new_cell("lora_sft_smoke"), till.meter()
    outcome, before, after = attack(cell, tiny, meter)
    assert (outcome.steps, outcome.stopped_by) == (3, "schedule")
    assert before != after
    batches = lay_out(ROWS, steps=3, batch_rows=4, seed=0)
    lengths = [batch_lengths(batch) for batch in batches]
    adapter = count_adapter_parameters(cell.target.shape, cell.recipe.training.lora)
    assert meter.total("attacker").train_tokens == sum(map(sum, lengths))
    flops = sum(lora_step(cell.target.shape, row, adapter_parameters=adapter) for row in lengths)
    assert meter.total("attacker").flops == flops


def test_a_control_runs_the_same_steps_and_changes_nothing(
    new_cell: Callable[..., Cell], new_tiny: Any, till: Any
) -> None:
    plain, control = till.meter(), till.meter()
    attack(new_cell("lora_sft_smoke"), new_tiny(), plain)
    outcome, before, after = attack(new_cell("control_smoke"), new_tiny(), control)
    assert outcome.steps == 3
    assert before == after
    assert control.total("attacker") == plain.total("attacker")


def test_equal_seeds_give_equal_attacks_and_others_do_not(
    new_cell: Callable[..., Cell], new_tiny: Any, till: Any
) -> None:
    found = [attack(new_cell("lora_sft_smoke", seed=seed), new_tiny(), till.meter()) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_a_control_with_a_learning_rate_is_refused(new_cell: Callable[..., Cell], tiny: Any, till: Any) -> None:
    cell = new_cell("control_smoke")
    loud = cell.model_copy(update={"schedule": new_cell("lora_sft_smoke").schedule})
    with pytest.raises(DataError) as caught:
        attack(loud, tiny, till.meter())
    assert str(caught.value) == (
        "tiny / none / control_smoke / seed 0: is a control with a learning rate above 0; resolve the plan again"
    )


def test_silence_takes_the_learning_rate_and_the_decay_and_nothing_else(smoke_recipe: Any) -> None:
    optimizer = smoke_recipe.training.optimizer.model_copy(update={"weight_decay": 0.1})
    recipe = smoke_recipe.model_copy(
        update={"training": smoke_recipe.training.model_copy(update={"optimizer": optimizer})}
    )
    quiet = silence(recipe)
    assert (quiet.training.optimizer.learning_rate, quiet.training.optimizer.weight_decay) == (0.0, 0.0)
    kept = {"learning_rate": optimizer.learning_rate, "weight_decay": 0.1}
    loud = quiet.training.model_copy(update={"optimizer": quiet.training.optimizer.model_copy(update=kept)})
    assert quiet.model_copy(update={"training": loud}) == recipe
