"""Correction for having looked at many properties: Holm's step-down. Knows p-values only."""

from collections.abc import Sequence

from robustlab.errors import DataError


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values; they control the family-wise error under any dependence.

    The i-th smallest of m (from 1) becomes the largest of ``(m - j + 1) p_(j)`` over j <= i, and at most 1. Reject
    those at or below the level.

    Args:
        p_values: One p in [0, 1] for each hypothesis of the family, tested or not worth it alike; may be empty.

    Returns:
        The adjusted values in the order of the argument, none below its own p.

    Raises:
        DataError: If a p is out of range or not a number.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2):65.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise DataError(
            "adjust_holm", f"each p must lie in [0, 1], got {list(p_values)}", "pass the p-values of exact tests"
        )
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)
