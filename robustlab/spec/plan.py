"""A plan as a person writes it, and the cells that it resolves into.

A cell is one target, safeguard, attack, budget, seed, schedule and set of evals: the unit that is run, billed and
skipped when it is done. This module does not know how a schedule is chosen; ``robustlab.engine.resolve`` does.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from robustlab.spec.attacks import Attack, TrainedAttack
from robustlab.spec.base import (
    Count,
    Index,
    NonEmpty,
    NonNegative,
    Seed,
    Several,
    Sha256,
    Spec,
    content_hash,
    each_once,
)
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Eval
from robustlab.spec.safeguards import Safeguard
from robustlab.spec.search import Ranges, Search
from robustlab.spec.targets import Target

MOST_SEEDS, MOST_SEED = 1000, 2**32


Ids = Several[NonEmpty]


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
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, max_length=MOST_SEEDS, exclude_if=lambda value: not value),
        AfterValidator(each_once),
    ] = ()
    """Seeds of the attack: data order and adapter initialisation. Left out in a search, which has ``confirm_seeds``."""
    search: Annotated[Search | None, Field(exclude_if=lambda value: value is None)] = None
    """Search over the ranges of the recipes instead of running each as it is; null for none."""

    @model_validator(mode="after")
    def _is_sound(self) -> "Plan":
        missing = None if self.seeds else "seeds: is missing"
        problem = missing if self.search is None else _find_fault(self, self.search)
        if problem is not None:
            raise ValueError(problem)
        return self


def _find_fault(plan: Plan, search: Search) -> str | None:
    """What keeps a plan from being searched; None for nothing."""
    for name in ("targets", "safeguards", "budgets"):
        found = getattr(plan, name)
        if len(found) > 1:
            return f"search: a search has one of the {name}, got {', '.join(found)}"
    if plan.seeds:
        return f"search: has confirm_seeds of its own, got seeds {list(plan.seeds)} beside them; leave seeds out"
    if (search.strategy == "directed") != bool(search.directions):
        needed = "at least one direction" if search.strategy == "directed" else "no directions"
        return f"search: must have {needed} where it is {search.strategy}, got {len(search.directions)}"
    names = [direction.name for direction in search.directions]
    if len(set(names)) < len(names):
        return f"search: directions have names of their own, got {', '.join(names)}"
    if search.seed + search.trials > MOST_SEED:
        return f"search: seed: must leave room for a seed of each trial below {MOST_SEED}, got {search.seed}"
    seen = [seed for seed in search.confirm_seeds if search.seed <= seed < search.seed + search.trials]
    if seen:
        return f"search: confirm_seeds must be new, got {seen[0]}, which is the seed of a trial"
    evals = [("objective", search.objective), ("utility", search.utility)]
    wanted = [(name, found, plan.evals) for name, found in evals if found is not None]
    wanted += [(f"direction {each.name}", each.attack, plan.attacks) for each in search.directions]
    strange = next(((name, found, known) for name, found, known in wanted if found not in known), None)
    if strange is None:
        return None
    name, got, known = strange
    return f"search: {name}: must be one of the plan's {', '.join(known)}, got {got!r}"


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


class ResolvedSearch(Spec):
    """A search with everything that it varies, pinned, so that a resume proposes what the first process would have."""

    spec: Search
    """The search as the plan has it."""
    ranges: dict[str, Ranges]
    """What may be varied of each recipe, by the attack's id."""
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]
    """Each recipe as the catalogue has it; a trial is one of them at another point, and none is run as it is."""


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
    """Every cell, in the order in which they run; those of a search's winner, and none before there is one."""
    search: Annotated[ResolvedSearch | None, Field(exclude_if=lambda value: value is None)] = None
    """The search that chose the recipe of the cells; null for none."""

    @model_validator(mode="after")
    def _has_cells(self) -> "ResolvedPlan":
        if not self.cells and self.search is None:
            raise ValueError("cells: must hold at least one, got none")
        return self

    @property
    def priced_cells(self) -> tuple[Cell, ...]:
        """Every cell that names what the run pays for: those of a search stand even where it has no winner."""
        return self.cells if self.search is None else (*self.search.cells, *self.cells)


PlanFile = Annotated[Plan | ResolvedPlan, Field(discriminator="kind")]
