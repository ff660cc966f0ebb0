"""The simulation's truth by hand, and the acceptance of the intervals over seeds."""

from math import pi, sqrt

import numpy as np
import pytest

from robustlab.errors import DataError
from robustlab.stats.coverage import (
    DEVIATIONS,
    ROWS,
    SEEDS,
    Coverage,
    average_coverage,
    mean_clipped_rate,
    simulate_coverage,
)

DRAWS = 4000


@pytest.fixture(scope="module")
def table() -> tuple[Coverage, ...]:
    return simulate_coverage(draws=DRAWS, seed=1, confidence=0.95)


def test_the_truth_by_hand() -> None:
    centres = np.array([0.0, 0.5, 1.0])
    # At 0 only the positive half counts: E max(0, N(0, s)) = s / sqrt(2 pi); 0.5 is symmetric; 1 mirrors 0.
    expected = 0.15 / sqrt(2 * pi)
    assert mean_clipped_rate(centres, 0.15) == pytest.approx([expected, 0.5, 1 - expected], abs=1e-9)
    assert mean_clipped_rate(centres, 0.0) == pytest.approx(centres)


def test_the_truth_by_simulation() -> None:
    rng = np.random.default_rng(3)
    for centre in (0.02, 0.3, 0.9):
        drawn = np.clip(centre + 0.15 * rng.standard_normal(100_000), 0, 1).mean()
        # Four standard errors of at most 0.15 / sqrt(100,000) each.
        assert mean_clipped_rate(np.array([centre]), 0.15)[0] == pytest.approx(drawn, abs=0.002)


def test_every_corner_comes_once(table: tuple[Coverage, ...]) -> None:
    corners = [(row.seeds, row.deviation, row.n) for row in table]
    assert corners == [(k, d, n) for k in SEEDS for d in DEVIATIONS for n in ROWS]
    assert {row.method for row in table if row.seeds == 3} == {"range"}
    assert all(0 <= row.worst_tenth <= row.coverage <= 1 for row in table)
    assert all(0 < row.mean_width < 1 for row in table)


@pytest.mark.parametrize(("seeds", "deviation"), [(1, 0.0), *((5, each) for each in DEVIATIONS)])
def test_acceptance(table: tuple[Coverage, ...], seeds: int, deviation: float) -> None:
    # One corner's standard error is 0.22 / sqrt(4000) = 0.0034, that of four averaged 0.0017: 0.93 + 4 of them.
    assert average_coverage(table, seeds=seeds, deviation=deviation) >= 0.937


def test_five_seeds_have_no_weak_tenth(table: tuple[Coverage, ...]) -> None:
    # About 400 draws fall in each tenth: 0.92 less four standard errors of 0.0136, less 0.015 for taking the minimum.
    assert min(row.worst_tenth for row in table if row.seeds == 5) >= 0.85


def test_weak_corners_are_shown_and_not_hidden(table: tuple[Coverage, ...]) -> None:
    # One seed cannot know how seeds differ, and the range of three holds the mean three times in four at best.
    assert average_coverage(table, seeds=1, deviation=0.15) < 0.6
    assert all(average_coverage(table, seeds=3, deviation=each) < 0.78 for each in DEVIATIONS)


def test_the_same_seed_gives_the_same_table() -> None:
    first, second, other = (simulate_coverage(draws=100, seed=seed, confidence=0.95) for seed in (5, 5, 6))
    assert first == second != other


def test_less_confidence_covers_less(table: tuple[Coverage, ...]) -> None:
    narrow = simulate_coverage(draws=500, seed=1, confidence=0.5)
    assert average_coverage(narrow, seeds=1, deviation=0.0) < 0.7 < average_coverage(table, seeds=1, deviation=0.0)


def test_arguments_out_of_range(table: tuple[Coverage, ...]) -> None:
    with pytest.raises(DataError, match=r"simulate_coverage: needs at least 100 draws, got 99; use e.g. 20000"):
        simulate_coverage(draws=99, seed=1, confidence=0.95)
    with pytest.raises(DataError, match=r"average_coverage: no rows with 2 seeds at deviation 0.0; ask for a"):
        average_coverage(table, seeds=2, deviation=0.0)
