"""The log-rank test of two samples that were seen through intervals only, by permutation.

Knows intervals of whole numbers, open below and closed above. It does not know what they measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, erfc, log, sqrt

import numpy as np
from numpy.typing import NDArray

from robustlab.errors import DataError
from robustlab.stats.seeds import FEWEST_SEEDS
from robustlab.stats.turnbull import Mass, estimate_masses, survival_at

# Ten observations an arm; beyond, the normal distribution is close.
_MOST_ARRANGEMENTS = comb(20, 10)
# Sums that would tie under exact shares differ by up to this; to count them as extreme can only raise p.
_TIE = 1e-3


@dataclass(frozen=True)
class LogRank:
    """Result of the test.

    Attributes:
        score: Sum of the first sample's scores; above 0 where its events come earlier than the second's.
        p: Two-sided, in (0, 1].
        method: ``exact_permutation``, or ``normal_permutation`` where there are too many arrangements to count.
    """

    score: float
    p: float
    method: str


def compare_log_rank(first: Sequence[tuple[int, int | None]], second: Sequence[tuple[int, int | None]]) -> LogRank:
    """Compare two independent samples by their log-rank scores under the pooled Turnbull estimate.

    With the share S above each end, an observation in (l, r] scores
    ``(S(l) log S(l) - S(r) log S(r)) / (S(l) - S(r))``; a right-censored one has S(r) = 0. The scores are then dealt to
    the two samples in every possible way.

    Args:
        first: For each observation what it lies above, and what it does not exceed (None = right-censored); >= 5.
        second: The same for the other sample, >= 5.

    Returns:
        The test; p is 1 where all scores are equal.

    Raises:
        DataError: If a sample has fewer than 5 observations, or an interval is empty.

    Source: Finkelstein 1986, Biometrics 42(4):845; as a permutation test, Fay 1996, Biometrics 52(3):811.
    """
    if min(len(first), len(second)) < FEWEST_SEEDS:
        raise DataError(
            "compare_log_rank",
            f"needs at least {FEWEST_SEEDS} seeds an arm, got {len(first)} and {len(second)}",
            "compare the intervals seed by seed",
        )
    pooled = [*first, *second]
    masses = estimate_masses(pooled)
    scores = np.array([_score(masses, *interval) for interval in pooled])
    score = float(scores[: len(first)].sum())
    # The scores' mean is 0 but for the estimate's tolerance; centred, both tails weigh the same.
    centred = scores - scores.mean()
    exact = comb(len(pooled), len(first)) <= _MOST_ARRANGEMENTS
    p = (_permute if exact else _approximate)(centred, len(first))
    return LogRank(score, p, "exact_permutation" if exact else "normal_permutation")


def _score(masses: Sequence[Mass], low: int, high: int | None) -> float:
    above_low = survival_at(masses, low)
    above_high = 0.0 if high is None else survival_at(masses, high)
    return (_entropy(above_low) - _entropy(above_high)) / (above_low - above_high)


def _entropy(share: float) -> float:
    return share * log(share) if share > 0 else 0.0


def _permute(scores: NDArray[np.float64], size: int) -> float:
    """Share of all arrangements that are at least as far from 0 as the one seen."""
    arrangements = np.array(list(combinations(range(len(scores)), size)))
    sums = scores[arrangements].sum(axis=1)
    return float((np.abs(sums) >= abs(sums[0]) - _TIE).mean())


def _approximate(scores: NDArray[np.float64], size: int) -> float:
    n = len(scores)
    variance = size * (n - size) / (n * (n - 1)) * float(scores @ scores)
    return erfc(abs(float(scores[:size].sum())) / sqrt(2 * variance)) if variance > 1e-18 else 1.0
