"""A value together with its bounds. Knows neither what was estimated nor how."""

from dataclasses import dataclass

from robustlab.stats.intervals import Interval


@dataclass(frozen=True)
class Estimate(Interval):
    """An interval and the value that it surrounds.

    Attributes:
        value: Point estimate, in the unit of the bounds.
    """

    value: float
