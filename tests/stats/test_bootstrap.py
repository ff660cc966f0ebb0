"""The bootstrap against arithmetic, its refusals and its speed."""

import time
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats import bootstrap
from robustlab.stats.bootstrap import bootstrap_change, bootstrap_mean

LEVEL = {"draws": 4000, "seed": 7, "confidence": 0.95}
QUARTER = np.repeat([1.0, 0.0], [100, 300])[:, None]


def test_one_seed_has_the_binomial_spread() -> None:
    # 100 of 400: sqrt(0.25 x 0.75 / 400) = 0.02165, times 1.96 = 0.0424; a mean moves in steps of 0.0025.
    estimate = bootstrap_mean(QUARTER, **LEVEL)
    assert (estimate.low, estimate.high) == pytest.approx((0.25 - 0.0424, 0.25 + 0.0424), abs=0.004)
    assert (estimate.value, estimate.method) == (0.25, "bootstrap_behaviors")


def test_seeds_that_repeat_each_other_add_nothing() -> None:
    # A behavior's values stay together: 5 equal seeds are no more evidence than one.
    for seeds, method in ((3, "bootstrap_behaviors"), (5, "bootstrap_behaviors_and_seeds")):
        estimate = bootstrap_mean(np.repeat(QUARTER, seeds, axis=1), **LEVEL)
        half = 1.96 * sqrt(0.25 * 0.75 / 400)
        assert (estimate.low, estimate.high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.004)
        assert estimate.method == method


def test_seeds_are_resampled_from_five_up() -> None:
    # Whole seeds of 0 or 1, three of five: Binomial(5, 0.6) has 0.010 at 0, 0.087 up to 1 and 0.078 at 5, so that its
    # quantiles at 0.025 and 0.975 are 1 / 5 and 5 / 5.
    estimate = bootstrap_mean(np.tile([1.0, 1.0, 1.0, 0.0, 0.0], (40, 1)), **LEVEL)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.2, 0.6, 1.0))
    # With four seeds only the behaviors are resampled, and these all have the same mean.
    fixed = bootstrap_mean(np.tile([1.0, 1.0, 0.0, 0.0], (40, 1)), **LEVEL)
    assert (fixed.low, fixed.high) == (0.5, 0.5)


def test_a_change_is_paired() -> None:
    # Rates 0.75 and 0.70 with 20 behaviors lost and none gained: sqrt((0.05 - 0.05^2) / 400) = 0.0109, much less than
    # the 0.0315 of two independent samples.
    before = np.repeat([1.0, 1.0, 0.0], [280, 20, 100])[:, None]
    after = np.repeat([1.0, 0.0, 0.0], [280, 20, 100])[:, None]
    estimate = bootstrap_change(before, after, **LEVEL)
    assert estimate.value == pytest.approx(-0.05)
    assert (estimate.low, estimate.high) == pytest.approx((-0.05 - 0.0214, -0.05 + 0.0214), abs=0.004)


def test_the_seed_decides_and_the_block_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(2).random((50, 5))
    first = bootstrap_mean(table, **LEVEL)
    assert bootstrap_mean(table, **{**LEVEL, "seed": 8}) != first
    monkeypatch.setattr(bootstrap, "_BLOCK", 50 * 7)
    assert bootstrap_mean(table, **LEVEL) == first


def test_400_behaviors_by_5_seeds_by_10000_draws_in_time() -> None:
    table = (np.random.default_rng(0).random((400, 5)) < 0.3).astype(float)
    start = time.perf_counter()
    bootstrap_mean(table, draws=10_000, seed=1, confidence=0.95)
    assert time.perf_counter() - start < 5


@settings(deadline=None, max_examples=25)
@given(st.lists(st.booleans(), min_size=30, max_size=60).filter(lambda rows: len(set(rows)) == 2))
def test_bounds_are_ordered_in_range_and_mirror(rows: list[bool]) -> None:
    table = np.array(rows, dtype=float)[:, None]
    level = {"draws": 1000, "seed": 7, "confidence": 0.95}
    estimate, mirrored = bootstrap_mean(table, **level), bootstrap_mean(1 - table, **level)
    assert 0 <= estimate.low <= estimate.value + 1e-12 and estimate.value - 1e-12 <= estimate.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - estimate.high, 1 - estimate.low))
    narrow = bootstrap_mean(table, **{**level, "confidence": 0.5})
    assert estimate.low <= narrow.low <= narrow.high <= estimate.high


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_table_without_spread_is_refused(constant: float) -> None:
    with pytest.raises(
        DataError, match=rf"bootstrap: all values equal {constant:g}, so the interval would have no width; use Wilson"
    ):
        bootstrap_mean(np.full((400, 5), constant), **LEVEL)


def test_arguments_out_of_range() -> None:
    for shape in ((29, 5), (400, 0), (400,)):
        with pytest.raises(DataError, match=r"bootstrap: needs a table of at least 30 behaviors .* got shape"):
            bootstrap_mean(np.zeros(shape), **LEVEL)
    with pytest.raises(DataError, match=r"bootstrap: every value must be finite, got nan or inf; decide how unjudged"):
        bootstrap_mean(np.where(QUARTER == 1, np.nan, QUARTER), **LEVEL)
    with pytest.raises(DataError, match=r"bootstrap: needs at least 1000 draws, got 999; use e.g. 10000"):
        bootstrap_mean(QUARTER, draws=999, seed=7, confidence=0.95)
    with pytest.raises(DataError, match=r"confidence: must lie between 0 and 1, got 95"):
        bootstrap_mean(QUARTER, draws=1000, seed=7, confidence=95)
    with pytest.raises(
        DataError, match=r"bootstrap: before and after must hold the same .*, got \(400, 1\) and \(40, 1\); pair"
    ):
        bootstrap_change(QUARTER, QUARTER[:40], **LEVEL)
