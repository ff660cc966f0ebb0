"""A resolved cell of the smoke plan."""

from collections.abc import Callable

import pytest

from robustlab.cost.schedule import list_learning_rates
from robustlab.engine.resolve import find_recipe
from robustlab.spec.attacks import Attack
from robustlab.spec.catalog import load
from robustlab.spec.plan import Cell, Schedule
from robustlab.spec.targets import TinyTarget


@pytest.fixture
def new_cell(tiny_spec: TinyTarget) -> Callable[..., Cell]:
    """Builder of cells of the tiny target without evals."""

    def build(attack_id: str, *, steps: int = 3, seed: int = 0) -> Cell:
        attack: Attack = load("attacks", attack_id)
        recipe = find_recipe(attack_id, attack)
        rates = list_learning_rates(recipe.training.optimizer, steps)
        return Cell(
            target_id="tiny",
            target=tiny_spec,
            safeguard_id="none",
            safeguard=load("safeguards", "none"),
            attack_id=attack_id,
            attack=attack,
            recipe=recipe,
            budget_id="smoke",
            budget=load("budgets", "smoke"),
            evals={},
            seed=seed,
            schedule=Schedule(steps=steps, cut_by=None, learning_rates=rates, marks={}),
        )

    return build
