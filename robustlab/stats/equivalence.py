"""Whether something was kept to within a margin: one-sided non-inferiority of a paired change.

Knows changes on the same rows, a margin and a level; higher is better. It does not know what was measured: where less
is better, negate the differences or swap pass and fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import Literal

from robustlab.errors import ConfigError, DataError
from robustlab.stats.estimates import Estimate
from robustlab.stats.intervals import paired_difference_interval
from robustlab.stats.levels import student_critical


@dataclass(frozen=True)
class NonInferiority:
    """What became of the claim that no more than the margin was lost.

    Attributes:
        verdict: ``kept`` when the whole interval lies above -margin, ``lost`` when all of it lies below, else
            ``inconclusive``.
        change: After - before; each bound is one-sided at the level asked for.
        margin: Loss that does not matter, > 0.
        standard_error: Of the change, in its unit.
    """

    verdict: Literal["kept", "lost", "inconclusive"]
    change: Estimate
    margin: float
    standard_error: float


def check_margin(where: str, margin: float, standard_error: float) -> None:
    """Refuse a margin that the measurement cannot resolve. For a plan, see ``expected_standard_error``.

    Args:
        where: What the margin belongs to, for the message.
        margin: Loss that does not matter, in the unit of the standard error.
        standard_error: Of the change, >= 0.

    Raises:
        ConfigError: If the margin is not finite, or not above twice the standard error.
    """
    if not (isfinite(margin) and margin > 2 * standard_error):
        raise ConfigError(
            where,
            f"the margin must be above twice the standard error, 2 x {standard_error:.4g}, got {margin:g}",
            "measure more rows or widen the margin",
        )


def expected_standard_error(discordant_share: float, n: int) -> float:
    """Standard error of a paired change of a rate that a plan can expect: sqrt(discordant_share / n).

    Args:
        discordant_share: Share of rows expected to differ between the two times, in (0, 1].
        n: Rows, >= 1.

    Returns:
        Standard error, largest where the rate itself stays the same.

    Raises:
        DataError: If an argument is out of range.
    """
    if not 0 < discordant_share <= 1 or n < 1:
        raise DataError(
            "expected_standard_error",
            f"needs a share in (0, 1] and n >= 1, got {discordant_share} and {n}",
            "0.25 is cautious for a utility that hardly moves",
        )
    return sqrt(discordant_share / n)


def judge_mean(differences: Sequence[float], *, margin: float, confidence: float) -> NonInferiority:
    """Judge the mean of paired differences by t.

    Args:
        differences: After - before of each row, >= 2 rows.
        margin: Loss that does not matter, in the unit of the differences.
        confidence: Level of the one-sided test in (0.5, 1), e.g. 0.95 for bounds of a two-sided interval at 0.90.

    Returns:
        The verdict and what it rests on; the method is ``student_paired``.

    Raises:
        ConfigError: If the margin is not above twice the standard error.
        DataError: If there are too few rows, one is not finite, none differs from the others, or the level is out of
            range.

    Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6):657, one of its two sides.
    """
    two_sided = _two_sided(confidence)
    rows = len(differences)
    if rows < 2 or not all(isfinite(each) for each in differences) or min(differences) == max(differences):
        raise DataError(
            "judge_mean",
            f"needs two rows or more, finite and not all equal, got {rows} rows",
            "judge rows that pass or fail with judge_rate, which has a width even if none changed",
        )
    error = stdev(differences) / sqrt(rows)
    mean, half = fmean(differences), student_critical(two_sided, rows - 1) * error
    return _judge("judge_mean", Estimate(mean - half, mean + half, "student_paired", mean), margin, error)


def judge_rate(
    both: int, before_only: int, after_only: int, neither: int, *, margin: float, confidence: float
) -> NonInferiority:
    """Judge the change of a pass rate on the same rows, by Newcombe's paired interval.

    The standard error is that of Agresti and Min: half a row is added to each of the four counts, so that rows of which
    none changed still have one.

    Args:
        both: Rows that passed before and after, >= 0.
        before_only: Rows that passed before only, >= 0.
        after_only: Rows that passed after only, >= 0.
        neither: Rows that passed at neither time, >= 0; the four add up to at least 1.
        margin: Loss of the rate that does not matter, in (0, 1).
        confidence: Level of the one-sided test in (0.5, 1), e.g. 0.95.

    Returns:
        The verdict and what it rests on; the method is ``newcombe_paired``.

    Raises:
        ConfigError: If the margin is not above twice the standard error.
        DataError: If a count is negative, there are no rows, or the level is out of range.

    Source: Newcombe 1998, Statistics in Medicine 17:2635; Agresti and Min 2005, Statistics in Medicine 24:729.
    """
    interval = paired_difference_interval(both, before_only, after_only, neither, confidence=_two_sided(confidence))
    n = both + before_only + after_only + neither
    value = (after_only - before_only) / n
    discordant, shift = before_only + after_only + 1, after_only - before_only
    error = sqrt(discordant - shift**2 / (n + 2)) / (n + 2)
    return _judge("judge_rate", Estimate(interval.low, interval.high, interval.method, value), margin, error)


def _two_sided(confidence: float) -> float:
    if not 0.5 < confidence < 1:
        raise DataError("confidence", f"one-sided, it must lie between 0.5 and 1, got {confidence}", "use e.g. 0.95")
    return 2 * confidence - 1


def _judge(where: str, change: Estimate, margin: float, error: float) -> NonInferiority:
    check_margin(where, margin, error)
    if change.low > -margin:
        return NonInferiority("kept", change, margin, error)
    return NonInferiority("lost" if change.high < -margin else "inconclusive", change, margin, error)
