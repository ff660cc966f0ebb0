"""How much may be spent, by whom. Limits only: a budget never says what is done with the money."""

from typing import Literal

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


CAP_NAMES: tuple[str, ...] = tuple(Caps.model_fields)
