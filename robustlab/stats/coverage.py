"""How often the intervals over seeds hold the truth, by seeded simulation. Knows no measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from robustlab.errors import DataError
from robustlab.stats.seeds import pool_samples, pooling_method

SEEDS = (1, 3, 5)
DEVIATIONS = (0.0, 0.05, 0.15)
ROWS = (12, 30, 159, 400)

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """What one corner of the simulation showed.

    Attributes:
        seeds: Seeds that were pooled.
        deviation: Standard deviation of a seed's rate around the centre, before clipping.
        n: Completions of each seed.
        method: Name of the interval.
        coverage: Share of the draws whose interval held the truth.
        worst_tenth: The same within the tenth of the centres ([0, 0.1), [0.1, 0.2), ...) where it is lowest.
        mean_width: Mean of high - low.
    """

    seeds: int
    deviation: float
    n: int
    method: str
    coverage: float
    worst_tenth: float
    mean_width: float


def simulate_coverage(*, draws: int, seed: int, confidence: float) -> tuple[Coverage, ...]:
    """Measure the coverage of ``pool_seeds`` in every corner of SEEDS x DEVIATIONS x ROWS.

    Each draw takes a centre p, uniform in [0, 1]; each of its seeds has the rate ``clip(p + N(0, deviation), 0, 1)``
    and a binomial count of n completions at that rate. The truth to be covered is the mean rate of the population of
    seeds: the expectation of the *clipped* rate given p (p itself at deviation 0), in closed form. It is not the mean
    rate of the seeds that happened to be drawn, which would be easier to cover.

    Args:
        draws: Draws for each corner, >= 100; the error of a coverage of 0.95 is 0.22 / sqrt(draws).
        seed: Seed of the generator; each corner has its own stream, so one corner does not depend on the others.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        One row for each corner, seeds varying slowest and n fastest.

    Raises:
        DataError: If there are too few draws, or the level is out of range.
    """
    if draws < 100:
        raise DataError("simulate_coverage", f"needs at least 100 draws, got {draws}", "use e.g. 20000")
    corners = product(SEEDS, DEVIATIONS, ROWS)
    streams = np.random.default_rng(seed).spawn(len(SEEDS) * len(DEVIATIONS) * len(ROWS))
    return tuple(
        _simulate_corner(*corner, draws, confidence, stream) for corner, stream in zip(corners, streams, strict=True)
    )


def average_coverage(table: Sequence[Coverage], *, seeds: int, deviation: float) -> float:
    """Average the coverage over n, at one number of seeds and one deviation.

    Args:
        table: What ``simulate_coverage`` gave.
        seeds: One of SEEDS.
        deviation: One of DEVIATIONS.

    Returns:
        The plain mean over ROWS.

    Raises:
        DataError: If the table has no such rows.
    """
    found = [row.coverage for row in table if (row.seeds, row.deviation) == (seeds, deviation)]
    if not found:
        raise DataError(
            "average_coverage", f"no rows with {seeds} seeds at deviation {deviation}", "ask for a simulated corner"
        )
    return sum(found) / len(found)


def mean_clipped_rate(centre_D: _Floats, deviation: float) -> _Floats:
    """Expectation of ``clip(p + N(0, deviation), 0, 1)``.

    With a = -p / s, b = (1 - p) / s, the normal distribution function F and its density f, it is
    ``p (F(b) - F(a)) + s (f(a) - f(b)) + 1 - F(b)``.

    Args:
        centre_D: Centres p in [0, 1].
        deviation: s >= 0, before clipping.

    Returns:
        Expectations in [0, 1], of the same shape.
    """
    if deviation == 0:
        return centre_D
    a_D, b_D = -centre_D / deviation, (1 - centre_D) / deviation
    inside_D = centre_D * (ndtr(b_D) - ndtr(a_D)) + deviation * (_density(a_D) - _density(b_D))
    return np.asarray(inside_D + ndtr(-b_D), dtype=np.float64)


def _simulate_corner(
    seeds: int, deviation: float, n: int, draws: int, confidence: float, stream: np.random.Generator
) -> Coverage:
    centre_D = stream.random(draws)
    rates_D_S = np.clip(centre_D[:, None] + deviation * stream.standard_normal((draws, seeds)), 0, 1)
    counts_D_S = stream.binomial(n, rates_D_S).astype(np.float64)
    _, low_D, high_D = pool_samples(counts_D_S, np.full(seeds, float(n)), confidence=confidence)
    truth_D = mean_clipped_rate(centre_D, deviation)
    held_D = (low_D <= truth_D) & (truth_D <= high_D)
    tenth_D = (centre_D * 10).astype(np.int64)
    drawn, held = np.bincount(tenth_D, minlength=10), np.bincount(tenth_D, weights=held_D, minlength=10)
    return Coverage(
        seeds,
        deviation,
        n,
        pooling_method(seeds),
        coverage=float(held_D.mean()),
        worst_tenth=float((held[drawn > 0] / drawn[drawn > 0]).min()),
        mean_width=float((high_D - low_D).mean()),
    )


def _density(x_D: _Floats) -> _Floats:
    return np.asarray(np.exp(-(x_D**2) / 2) / sqrt(2 * pi), dtype=np.float64)
