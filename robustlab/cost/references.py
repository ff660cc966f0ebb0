"""What others published about the cost of undoing safeguards, to compare a run with and to draw beside it.

Every figure is quoted. This module does not know what was measured here, nor what anything costs today.
"""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from robustlab.cost.hardware import Band
from robustlab.errors import ConfigError
from robustlab.spec.base import Count, NonEmpty, Positive, Share, Spec
from robustlab.spec.loader import load_yaml

_PACKAGED = Path(__file__).with_name("references.yaml")


class PublishedCost(Spec):
    """What an attack is said to have cost."""

    usd: Positive
    """US dollars."""
    bound: Literal["upper", "value"]
    """``upper`` where the source says "under", ``value`` where it states the cost itself."""
    hours: Positive | None
    """Hours that the source names, as it counts them; null when it names none."""

    @property
    def text(self) -> str:
        """The dollars for people, such as ``< $0.20`` or ``$500``."""
        amount = f"${self.usd:,.0f}" if self.usd == int(self.usd) else f"${self.usd:,.2f}"
        return f"< {amount}" if self.bound == "upper" else amount


class PublishedEffect(Spec):
    """What an attack is said to have left of a target's refusals."""

    refusal_before: Share | None
    """Refusal rate before; null when the source gives none."""
    refusal_after: Share
    """Refusal rate after."""
    benchmark: NonEmpty
    """What the rates were measured on."""


class Fleet(Spec):
    """Some devices of one kind."""

    device: NonEmpty
    """Item of the price card and key of the hardware list."""
    devices: Count
    """How many."""


class ProjectedTarget(Spec):
    """The target of a published attack, and the assumptions that turn tokens into dollars there."""

    target: NonEmpty
    """How people name it."""
    parameters: Count
    """All parameters."""
    active_parameters: Count
    """Parameters that are active in a matrix product for one token."""
    tokens_short: NonEmpty
    """Item of the price card by the token, at the short context; the centre and the low end."""
    tokens_long: NonEmpty
    """Item of the price card by the token, at the long context; the high end."""
    device: NonEmpty
    """Item of the price card by the hour, and key of the hardware list."""
    utilisation: Band
    """Share of that device's dense peak that training is assumed to reach, in (0, 1]."""
    fleets: Annotated[tuple[Fleet, ...], Field(min_length=1)]
    """Devices whose price for the published hours is worth showing."""


class Reference(Spec):
    """One published attack."""

    label: NonEmpty
    """Short name, for figures."""
    claim: NonEmpty
    """What is said to have been reached, in one sentence."""
    source: NonEmpty
    """Who says so."""
    details: Literal["unverified", "verified"]
    """Whether somebody here has checked how it was done."""
    unverified: NonEmpty | None
    """What has not been checked; null when everything has."""
    cost: PublishedCost
    """What it is said to have cost."""
    effect: PublishedEffect | None
    """What it is said to have left of refusals; null when no rate is published."""
    projection: ProjectedTarget | None
    """What a run's tokens are projected to; null for a point that is only drawn."""

    @model_validator(mode="after")
    def _says_what_is_needed(self) -> "Reference":
        if (self.unverified is None) != (self.details == "verified"):
            raise ValueError(f"unverified must say what was not checked, got {self.unverified!r} with {self.details}")
        if self.projection is not None and self.cost.hours is None:
            raise ValueError("a projection needs cost.hours, got null")
        return self


class ReferenceList(Spec):
    """The file ``references.yaml``."""

    kind: Literal["references"]
    references: dict[NonEmpty, Reference]
    """Published attacks by id."""


@cache
def load_references() -> dict[str, Reference]:
    """Every published attack that the package quotes, by id.

    Returns:
        In the order of the file.

    Raises:
        ConfigError: If the file is not as it was shipped.
    """
    return load_yaml(_PACKAGED, TypeAdapter(ReferenceList)).references


def find_reference(reference_id: str) -> Reference:
    """Look one published attack up.

    Args:
        reference_id: Its id, as ``--reference`` names it.

    Returns:
        What the file says of it.

    Raises:
        ConfigError: If there is none of that id; the nearest one is suggested.
    """
    references = load_references()
    if reference_id in references:
        return references[reference_id]
    close = difflib.get_close_matches(reference_id, sorted(references), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(references)}"
    raise ConfigError("--reference", f"there is no reference {reference_id!r}", hint)


def find_projection(reference_id: str) -> ProjectedTarget:
    """The target that a run's tokens can be projected to.

    Args:
        reference_id: Id of the published attack, as ``--reference`` names it.

    Returns:
        The target and what is assumed of it.

    Raises:
        ConfigError: If there is no such reference, or it is only a point to be drawn.
    """
    found = find_reference(reference_id).projection
    if found is None:
        ready = [name for name, reference in load_references().items() if reference.projection is not None]
        problem = f"{reference_id!r} is a published point without a target to project to"
        raise ConfigError("--reference", problem, f"use {', '.join(ready)}")
    return found
