"""Pooling over seeds: which method holds when, and its arithmetic."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.intervals import wilson_interval
from robustlab.stats.seeds import pool_samples, pool_seeds, pooling_method

Z2, T4 = 3.841459, 2.776445
some_seeds = st.lists(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=8
)


def pool(pairs: list[tuple[int, int]], confidence: float = 0.95):
    return pool_seeds([count for count, _ in pairs], [n for _, n in pairs], confidence=confidence)


@pytest.mark.parametrize(
    ("successes", "low", "high"),
    [(20, 0.0326, 0.0760), (0, 0.0, 0.0095)],  # the protocol's reference points
)
def test_one_seed_has_wilsons_interval(successes: int, low: float, high: float) -> None:
    pooled = pool([(successes, 400)])
    assert (pooled.low, pooled.high) == pytest.approx((low, high), abs=5e-5)
    assert (pooled.method, pooled.value) == ("wilson", successes / 400)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_few_seeds_have_the_range(seeds: int) -> None:
    pooled = pool([(1, 10), (4, 10), (2, 10), (3, 10)][:seeds])
    assert (pooled.low, pooled.high, pooled.method) == (0.1, 0.4, "range")


def test_each_seed_weighs_the_same() -> None:
    assert pool([(1, 10), (50, 100)]).value == pytest.approx(0.3)  # (0.1 + 0.5) / 2, not 51 / 110


def test_five_seeds_that_agree_have_wilsons_interval_of_all_rows() -> None:
    for count in (0, 4, 80):
        pooled, whole = pool([(count, 80)] * 5), wilson_interval(5 * count, 400, confidence=0.95)
        assert (pooled.low, pooled.high) == pytest.approx((whole.low, whole.high))
        assert pooled.method == "beta_binomial_wilson"
    assert pool([(0, 80)] * 5).high == pytest.approx(Z2 / (400 + Z2))
    assert pool([(0, 80)] * 5).low == 0
    assert pool([(80, 80)] * 5).high == 1


def test_five_seeds_that_differ_by_hand() -> None:
    # Rates 0.3 to 0.7: m = 0.5, s^2 = 0.1 / 4 = 0.025, c = t^2 0.025 / (5 x 0.25) = 7.70865 x 0.02 = 0.154173, above
    # z^2 / 500 = 0.0077. At m = 0.5 the half-width is sqrt(c / (1 + c)) / 2 = sqrt(0.154173 / 1.154173) / 2 = 0.18274.
    pooled = pool([(30, 100), (40, 100), (50, 100), (60, 100), (70, 100)])
    assert pooled.low == pytest.approx(0.5 - 0.18274, abs=1e-5)
    assert pooled.high == pytest.approx(0.5 + 0.18274, abs=1e-5)
    c = T4**2 * 0.02
    assert pooled.high == pytest.approx(0.5 + sqrt(c / (1 + c)) / 2, abs=1e-6)


def test_rows_of_unequal_seeds_add_up_harmonically() -> None:
    # N = 25 / (4 / 10 + 1 / 40) = 25 / 0.425 = 58.82, so that the bound is 3.8415 / 62.665 = 0.0613.
    assert pool([(0, 10)] * 4 + [(0, 40)]).high == pytest.approx(0.0613, abs=5e-5)


def test_names_of_the_methods() -> None:
    names = [pooling_method(seeds) for seeds in (1, 2, 4, 5, 9)]
    assert names == ["wilson", "range", "range", "beta_binomial_wilson", "beta_binomial_wilson"]


@settings(deadline=None)
@given(some_seeds, st.randoms())
def test_pooling_is_ordered_mirrored_and_blind_to_the_order(pairs: list[tuple[int, int]], rng) -> None:
    pooled = pool(pairs)
    assert 0 <= pooled.low <= pooled.value + 1e-12
    assert pooled.value - 1e-12 <= pooled.high <= 1
    mirrored = pool([(n - count, n) for count, n in pairs])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - pooled.high, 1 - pooled.low))
    shuffled = rng.sample(pairs, len(pairs))
    again = pool(shuffled)
    assert (again.low, again.high, again.value) == pytest.approx((pooled.low, pooled.high, pooled.value))


@settings(deadline=None)
@given(some_seeds)
def test_more_confidence_and_more_spread_never_narrow(pairs: list[tuple[int, int]]) -> None:
    pooled, wider = pool(pairs, 0.8), pool(pairs, 0.95)
    assert wider.low <= pooled.low + 1e-12 and pooled.high <= wider.high + 1e-12
    if len(pairs) >= 5 and len({n for _, n in pairs}) == 1:
        whole = wilson_interval(sum(c for c, _ in pairs), sum(n for _, n in pairs), confidence=0.95)
        assert wider.low <= whole.low + 1e-12 and whole.high <= wider.high + 1e-12


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_more_success_raises_the_bounds(pair: tuple[int, int]) -> None:
    count, n = pair
    fewer, more = pool([(count, n)]), pool([(count + 1, n)])
    assert fewer.low < more.low and fewer.high < more.high


def test_samples_are_pooled_independently() -> None:
    counts = np.array([[1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [9, 9, 9, 9, 9]], dtype=float)
    value, low, high = pool_samples(counts, np.full(5, 9.0), confidence=0.95)
    for row, counted in enumerate(counts.astype(int)):
        alone = pool([(int(count), 9) for count in counted])
        assert (value[row], low[row], high[row]) == pytest.approx((alone.value, alone.low, alone.high))


def test_counts_out_of_range() -> None:
    with pytest.raises(DataError, match=r"pool_seeds: needs successes and n of one seed or more, got 0 and 0; pass"):
        pool_seeds([], [], confidence=0.95)
    with pytest.raises(DataError, match=r"pool_seeds: needs successes and n of one seed or more, got 1 and 2; pass"):
        pool_seeds([1], [2, 2], confidence=0.95)
    for pair in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(DataError, match=r"pool_seeds: needs 0 <= successes <= n .* each seed, got .*; count"):
            pool([(1, 2), pair])
    with pytest.raises(DataError, match=r"confidence: must lie between 0 and 1, got 95"):
        pool([(1, 2)], 95)
