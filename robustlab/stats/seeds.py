"""One rate out of several seeds: an interval from five seeds up, the range below, Wilson's interval for one.

Knows counts per seed. It does not know what a seed varied (the attack, or the safeguard's training too), nor which rows
were counted; the seeds are taken as draws from the population of seeds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robustlab.errors import DataError
from robustlab.stats.estimates import Estimate
from robustlab.stats.levels import normal_critical, student_critical

FEWEST_SEEDS = 5

_Floats = NDArray[np.float64]


def pool_seeds(successes: Sequence[int], n: Sequence[int], *, confidence: float) -> Estimate:
    """Pool one rate over seeds; each seed weighs the same, since the seed is what was drawn.

    Args:
        successes: Count of each seed, in [0, n] of that seed.
        n: All completions of each seed, >= 1, in the same order.
        confidence: Level in (0, 1), e.g. 0.95; the range does not depend on it.

    Returns:
        The mean of the seeds' rates, with bounds in [0, 1]. The method is ``wilson`` for one seed, ``range`` for 2 to
        4 (the lowest and the highest seed, no confidence interval), ``beta_binomial_wilson`` from 5 up.

    Raises:
        DataError: If there is no seed, the lists differ in length, or a count or the level is out of range.

    Source: see ``pool_samples``.
    """
    _check_seeds(successes, n)
    counts_1_S = np.array([successes], dtype=np.float64)
    value, low, high = pool_samples(counts_1_S, np.array(n, dtype=np.float64), confidence=confidence)
    return Estimate(float(low[0]), float(high[0]), pooling_method(len(n)), float(value[0]))


def pooling_method(seeds: int) -> str:
    """Name the method that a number of seeds allows."""
    if seeds == 1:
        return "wilson"
    return "range" if seeds < FEWEST_SEEDS else "beta_binomial_wilson"


def pool_samples(successes_D_S: _Floats, n_S: _Floats, *, confidence: float) -> tuple[_Floats, _Floats, _Floats]:
    """Pool D independent samples of S seeds at once, by the method of ``pooling_method``; counts are not checked.

    From 5 seeds up, with the mean rate m of the k seeds, the variance s^2 of their rates and N = k^2 / sum(1 / n_i)
    (the sum of the rows where all seeds have as many), the bounds are the two roots p of ``(m - p)^2 = c p (1 - p)``,
    ``c = max(z^2 / N, t^2 s^2 / (k m (1 - m)))``. The first term alone is Wilson's interval of the pooled rows; the
    second is the same with the beta-binomial's design effect estimated by moments, and t with k - 1 degrees of freedom
    because it is estimated. The larger one holds: seeds that happen to agree cannot narrow the interval below the
    binomial one, and seeds that all read 0 or n still have a width.

    Args:
        successes_D_S: Count of each seed in each sample.
        n_S: Completions of each seed, >= 1, in every sample.
        confidence: Level in (0, 1).

    Returns:
        The means, the lower and the upper bounds, each of shape (D,).

    Raises:
        DataError: If the level is out of range.

    Source: Wilson 1927, JASA 22(158), with the moment estimate of the beta-binomial of Kleinman 1973, JASA 68(341).
    """
    seeds = len(n_S)
    rates_D_S = successes_D_S / n_S
    mean_D = rates_D_S.mean(axis=1)
    binomial = normal_critical(confidence) ** 2 * float((1 / n_S).sum()) / seeds**2
    if seeds == 1:
        return (mean_D, *_score_roots(mean_D, np.full_like(mean_D, binomial)))
    if seeds < FEWEST_SEEDS:
        return mean_D, rates_D_S.min(axis=1), rates_D_S.max(axis=1)
    between_D = student_critical(confidence, seeds - 1) ** 2 * rates_D_S.var(axis=1, ddof=1) / seeds
    # Where the mean is 0 or 1 all seeds agree, and only the binomial term is left.
    spread_D = np.where((mean_D > 0) & (mean_D < 1), mean_D * (1 - mean_D), 1.0)
    return (mean_D, *_score_roots(mean_D, np.maximum(binomial, between_D / spread_D)))


def _score_roots(mean_D: _Floats, scale_D: _Floats) -> tuple[_Floats, _Floats]:
    """Both roots p of (mean - p)^2 = scale p (1 - p); exactly 0 and 1 at the ends."""
    centre_D = mean_D + scale_D / 2
    half_D = np.sqrt(scale_D * (mean_D * (1 - mean_D) + scale_D / 4))
    low_D = np.where(mean_D > 0, (centre_D - half_D) / (1 + scale_D), 0.0)
    high_D = np.where(mean_D < 1, (centre_D + half_D) / (1 + scale_D), 1.0)
    return low_D, high_D


def _check_seeds(successes: Sequence[int], n: Sequence[int]) -> None:
    if not n or len(successes) != len(n):
        raise DataError(
            "pool_seeds",
            f"needs successes and n of one seed or more, got {len(successes)} and {len(n)}",
            "pass one count of each for every seed",
        )
    if any(rows < 1 or not 0 <= count <= rows for count, rows in zip(successes, n, strict=True)):
        raise DataError(
            "pool_seeds",
            f"needs 0 <= successes <= n and n >= 1 of each seed, got {list(successes)} of {list(n)}",
            "count every completion once",
        )
