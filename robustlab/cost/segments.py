"""Stretches of time as the meter keeps them: what one is booked as, and the one that runs now. It bills nothing."""

from dataclasses import dataclass, field

from robustlab.cost.entries import Account, Tags
from robustlab.cost.quantities import NOTHING, Quantities


@dataclass(frozen=True)
class Label:
    """What a stretch of time is booked as."""

    account: Account
    phase: str
    tags: Tags = field(default_factory=dict)


@dataclass
class Segment:
    """The stretch of time that runs now."""

    label: Label
    started_ns: int
    started_cpu_ns: int
    counts: Quantities = NOTHING
    reserved: Quantities | None = None
