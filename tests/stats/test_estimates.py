"""An estimate serves wherever an interval does."""

from robustlab.stats.estimates import Estimate
from robustlab.stats.intervals import Interval


def test_an_estimate_is_an_interval_with_a_value() -> None:
    estimate = Estimate(0.1, 0.3, "wilson", 0.2)
    assert isinstance(estimate, Interval)
    assert (estimate.low, estimate.high, estimate.method, estimate.value) == (0.1, 0.3, "wilson", 0.2)
