"""Confidence levels and the critical values that belong to them. Knows no data and no interval."""

from statistics import NormalDist

from scipy.special import stdtrit

from robustlab.errors import DataError


def check_confidence(confidence: float) -> None:
    """Refuse a level that is no probability strictly between 0 and 1, such as 95.

    Args:
        confidence: Level to check.

    Raises:
        DataError: If the level is out of range.
    """
    if not 0 < confidence < 1:
        raise DataError("confidence", f"must lie between 0 and 1, got {confidence}", "use e.g. 0.95")


def normal_critical(confidence: float) -> float:
    """Two-sided critical value of the normal distribution: 1.96 at 0.95.

    Args:
        confidence: Level in (0, 1).

    Returns:
        The critical value, > 0.

    Raises:
        DataError: If the level is out of range.
    """
    check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student_critical(confidence: float, degrees: int) -> float:
    """Two-sided critical value of Student's t: 2.776 at 0.95 with 4 degrees of freedom.

    Args:
        confidence: Level in (0, 1).
        degrees: Degrees of freedom, >= 1.

    Returns:
        The critical value, > 0.

    Raises:
        DataError: If the level is out of range.
    """
    check_confidence(confidence)
    return float(stdtrit(degrees, (1 + confidence) / 2))
