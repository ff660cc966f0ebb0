"""How much may be spent, by whom. Limits only: a budget never says what is done with the money.

Caps too small to afford anything are valid; the estimate refuses what cannot fit.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from robustlab.spec.base import Count, NonEmpty, Positive, Spec


class Caps(Spec):
    """Limits of one account. A cap that is null does not exist."""

    max_usd: Positive | None = None
    """US dollars, priced by the card."""
    max_wall_hours: Positive | None = None
    """Hours on a wall clock, summed over the account's own segments."""
    max_device_hours: Positive | None = None
    """Hours times devices."""
    max_train_tokens: Count | None = None
    """Non-padding tokens that went through a training step."""
    max_steps: Count | None = None
    """Optimiser steps."""
    max_trials: Count | None = None
    """Trials of a search."""


class Budget(Spec):
    """Caps of both accounts and of the bill."""

    kind: Literal["budget"]
    stands_for: NonEmpty
    """Whose purse this is, in a sentence."""
    hardware: NonEmpty
    """Key of the price card's device rate; it must fit the device that is found."""
    attacker: Caps
    """What the stranger may spend."""
    laboratory: Caps | None
    """What the lab may spend on safeguards and measurements; null for no cap, on a CPU only."""
    total_usd: Positive | None
    """Cap of the whole bill; null for none, on a CPU only."""
    # Left out of the content hash while it is null, so that older runs keep the ids of their cells.
    details: Annotated[Literal["unverified"] | None, Field(exclude_if=lambda details: details is None)] = None
    """``unverified`` when the purse quotes a claim whose method and figures nobody has checked; null otherwise."""

    @field_validator("attacker", "laboratory", mode="after")
    @classmethod
    def _has_a_cap(cls, caps: Caps | None, info: ValidationInfo) -> Caps | None:
        # What is made in Python may be without limits, as a meter on a bench is; a file is a contract.
        if caps is None or info.mode != "json":
            return caps
        given = [name for name in CAP_NAMES if getattr(caps, name) is not None]
        if given in ([], ["max_trials"]):
            ends = "spending" if info.field_name == "laboratory" else "a training"
            remedy = ", or write null for no cap" if info.field_name == "laboratory" else ""
            names = ", ".join(name for name in CAP_NAMES if name != "max_trials")
            got = "only max_trials" if given else "none"
            raise ValueError(f"must hold a cap that ends {ends}, got {got}; set one of {names}{remedy}")
        return caps


CAP_NAMES: tuple[str, ...] = tuple(Caps.model_fields)
