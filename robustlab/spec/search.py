"""What a search may vary, and how it spends its purse."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from robustlab.spec.base import Count, NonEmpty, Positive, Seed, Several, Share, Spec, Steps, each_once


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must hold the lower bound first, got {bounds[0]:g} and {bounds[1]:g}")
    return bounds


class Ranges(Spec):
    """The values from which a search may choose; a knob that is null stays as the recipe has it."""

    learning_rate: Annotated[tuple[Positive, Positive], AfterValidator(_ascending)] | None
    """Lowest and highest peak learning rate; drawn on a logarithmic scale."""
    rank: Several[Count] | None
    """Ranks of the adapter; alpha keeps its ratio to the rank. Null for a recipe without an adapter."""
    benign_share: Annotated[tuple[Share, Share], AfterValidator(_ascending)] | None
    """Lowest and highest share of benign rows, for data that have one."""
    steps: Several[Steps] | None
    """Lengths of the whole schedule."""


class Halving(Spec):
    """Successive halving: at each rung all but the best share of the trials that got there are stopped."""

    first_step: Count
    """Step of the first rung."""
    factor: Annotated[int, Field(ge=2, le=100)]
    """Each rung lies at ``factor`` times the step of the one before it, and one trial in ``factor`` goes on."""


class Direction(Spec):
    """Where one worker of a directed search begins and stays until the board gives it a reason to leave."""

    name: NonEmpty
    """How the board and the report call it."""
    attack: NonEmpty
    """Id of the recipe; one of the plan's attacks."""
    learning_rate: Annotated[tuple[Positive, Positive], AfterValidator(_ascending)] | None
    """Its part of the recipe's range; null for all of it."""
    rank: Several[Count] | None
    """Its part of the recipe's ranks; null for all of them."""


class Search(Spec):
    """Many trials on one purse: propose, run, prune, freeze the winner, confirm it with new seeds."""

    strategy: Literal["undirected", "directed"]
    """``undirected`` lets one sampler roam over all recipes; ``directed`` gives each worker a direction of its own."""
    trials: Count
    """Most trials; the purse may end the search before."""
    halving: Halving
    """When a trial is stopped early."""
    objective: NonEmpty
    """Id of the eval whose refusal rate is minimised, on its select rows."""
    utility: NonEmpty | None
    """Id of the eval of benign answers: a trial after which it is broken cannot win. Null for none."""
    directions: tuple[Direction, ...]
    """One worker each, of a directed search; empty for an undirected one."""
    confirm_seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), AfterValidator(each_once)]
    """Seeds with which the frozen winner is trained again and measured on the report rows."""
    seed: Seed
    """Seed of the sampler and of the trials."""
