"""A plan as a person writes it, and the cells that it resolves into.

A cell is one target, safeguard, attack, budget, seed, schedule and set of evals: the unit that is run, billed and
skipped when it is done. This module does not know how a schedule is chosen; ``robustlab.engine.resolve`` does.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from robustlab.spec.attacks import Attack, TrainedAttack
from robustlab.spec.base import Count, Index, NonEmpty, NonNegative, Sha256, Spec, content_hash
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Eval
from robustlab.spec.safeguards import Safeguard
from robustlab.spec.targets import Target

T = TypeVar("T")
MOST_SEEDS = 1000


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f"names {twice!r} twice")
    return values


Ids = Annotated[tuple[NonEmpty, ...], Field(min_length=1), AfterValidator(_each_once)]


class Plan(Spec):
    """What to run: ids of the catalogue. Every combination of target, safeguard, attack, budget and seed is a cell."""

    kind: Literal["plan"]
    targets: Ids
    """Models under test."""
    safeguards: Ids
    """What is installed before release."""
    attacks: Ids
    """Recipes; ``control`` recipes count as attacks."""
    budgets: Ids
    """Purses."""
    evals: Ids
    """Measurements, made before, during and after."""
    seeds: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MOST_SEEDS), AfterValidator(_each_once)]
    """Seeds of the attack: data order and adapter initialisation."""


class Schedule(Spec):
    """What an attack will do, fixed before step 1 and only ever cut short."""

    steps: Index
    """Optimiser steps."""
    cut_by: str | None
    """Cap that made the schedule shorter than the recipe; null when none did."""
    learning_rates: tuple[NonNegative, ...]
    """Learning rate of each step."""
    marks: dict[str, tuple[Count, ...]]
    """For each eval, the steps after which it is measured, the last step excluded."""


class Cell(Spec):
    """One unit of work with everything that its result depends on, pinned."""

    target_id: NonEmpty
    """Id of the target."""
    target: Target
    """Its pinned spec."""
    safeguard_id: NonEmpty
    """Id of the safeguard."""
    safeguard: Safeguard
    """Its pinned spec."""
    attack_id: NonEmpty
    """Id of the attack."""
    attack: Attack
    """Its pinned spec."""
    recipe: TrainedAttack
    """The training that is run: the attack itself, or for ``control`` the recipe that it names, at learning rate 0."""
    budget_id: NonEmpty
    """Id of the budget."""
    budget: Budget
    """Its caps."""
    evals: dict[str, Eval]
    """Pinned specs of the evals by id."""
    seed: Index
    """Seed of the attack."""
    schedule: Schedule
    """Steps, learning rates and marks."""

    @property
    def cell_id(self) -> str:
        """First 12 hexadecimal digits of the content hash of everything above."""
        return content_hash(self)[:12]

    @property
    def label(self) -> str:
        """How people name the cell: target, safeguard, attack, seed."""
        return f"{self.target_id} / {self.safeguard_id} / {self.attack_id} / seed {self.seed}"


class ResolvedPlan(Spec):
    """What a run writes as ``plan.yaml`` before it starts, and what ``resume`` reads back."""

    kind: Literal["resolved_plan"]
    hardware: NonEmpty
    """Key of the price card by which the run is billed."""
    devices: Count = 1
    """Devices that are paid for while the clock runs."""
    price_card_sha256: Sha256
    """Hash of that card."""
    shadow_price: str | None
    """Item that the user wanted to be billed by; null when the budget's own is used."""
    data_csv: str | None
    """File that ``--data`` named; null for none."""
    cells: tuple[Cell, ...]
    """Every cell, in the order in which they run."""


PlanFile = Annotated[Plan | ResolvedPlan, Field(discriminator="kind")]
