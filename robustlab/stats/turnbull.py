"""Turnbull's non-parametric estimate of a distribution that was seen through intervals only.

Knows intervals of whole numbers, open below and closed above. It does not know what the numbers measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from robustlab.errors import DataError

# Each observation's log-likelihood is then within this of the maximum.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Mass:
    """A share of the distribution that lies somewhere within an interval; where in it, the data cannot tell.

    Attributes:
        low: Lower end, exclusive.
        high: Upper end, inclusive; None = unbounded.
        share: In (0, 1].
    """

    low: int
    high: int | None
    share: float


def estimate_masses(intervals: Sequence[tuple[int, int | None]]) -> tuple[Mass, ...]:
    """Estimate by self-consistency (EM) over the innermost intervals, the only ones that can carry mass.

    Each step gives every observation's weight to the innermost intervals within it, in proportion to their shares. It
    stops when no share's gradient exceeds 1 by more than 1e-5, which bounds the distance to the maximum of the mean
    log-likelihood by the same.

    Args:
        intervals: For each observation what it lies above, and what it does not exceed (None = right-censored).

    Returns:
        The masses in ascending order, without those of share 0; the shares add up to 1.

    Raises:
        DataError: If there is no interval, or one is empty.

    Source: Turnbull 1976, Journal of the Royal Statistical Society B 38(3):290.
    """
    if not intervals or any(high is not None and high <= low for low, high in intervals):
        raise DataError("estimate_masses", f"needs intervals with low < high, got {list(intervals)}", "pass some")
    closed = [(low, inf if high is None else high) for low, high in intervals]
    cells = _find_innermost(closed)
    within_I_C = np.array([[low <= start and end <= high for start, end in cells] for low, high in closed], dtype=float)
    shares = _maximise(within_I_C)
    return tuple(
        Mass(start, None if end == inf else int(end), float(share))
        for (start, end), share in zip(cells, shares, strict=True)
        if share > 0
    )


def survival_at(masses: Sequence[Mass], amount: int) -> float:
    """Share above an amount that lies within no mass; only there is it determined.

    Args:
        masses: What ``estimate_masses`` gave.
        amount: A number on the scale of the intervals.

    Returns:
        Share in [0, 1].

    Raises:
        DataError: If the amount lies within a mass.
    """
    if any(mass.low < amount < (inf if mass.high is None else mass.high) for mass in masses):
        raise DataError("survival_at", f"the share above {amount} is not determined", "ask at the end of an interval")
    return sum(mass.share for mass in masses if mass.low >= amount)


def _find_innermost(intervals: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each lower end that is directly followed by an upper one; at a tie (a, b] ends before (b, c] starts."""
    ends: list[tuple[float, bool, int]] = [(low, True, low) for low, _ in intervals]
    ends += [(high, False, 0) for _, high in intervals]
    return [(first[2], second[0]) for first, second in pairwise(sorted(ends)) if first[1] and not second[1]]


def _maximise(within_I_C: NDArray[np.float64]) -> NDArray[np.float64]:
    shares_C = np.full(within_I_C.shape[1], 1 / within_I_C.shape[1])
    while True:
        gradient_C = (within_I_C / (within_I_C @ shares_C)[:, None]).mean(axis=0)
        if gradient_C.max() <= 1 + _TOLERANCE:
            # What is left of a share that only dwindles is an artefact of stopping, far below the tolerance in effect.
            kept_C = np.where(shares_C > _TOLERANCE, shares_C, 0.0)
            return np.asarray(kept_C / kept_C.sum(), dtype=np.float64)
        shares_C = shares_C * gradient_C
