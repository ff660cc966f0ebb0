"""Percentile bootstrap of a mean over behaviors and seeds. Knows a table of numbers, not what they measure."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustlab.errors import DataError
from robustlab.stats.estimates import Estimate
from robustlab.stats.levels import check_confidence
from robustlab.stats.seeds import FEWEST_SEEDS

FEWEST_ROWS = 30
FEWEST_DRAWS = 1000
# Numbers in one block of resampled rows: 8 MiB each for its indices and its counts.
_BLOCK = 1 << 20

_Floats = NDArray[np.float64]


def bootstrap_mean(values_B_S: ArrayLike, *, draws: int, seed: int, confidence: float) -> Estimate:
    """Bootstrap the mean of a table of behaviors by seeds; a rate is the mean of 0 and 1.

    Behaviors are resampled whole, so that the values of one behavior at all seeds stay together. From 5 seeds up, seeds
    are resampled too, independently, each for all behaviors; with fewer the result holds for just these seeds, and the
    method says so. Where seeds differ more than behaviors do, resampling 5 of them covers 84 % at a nominal 95 % (3:
    74 %), which is why a rate over seeds is pooled by ``stats.seeds`` instead.

    Args:
        values_B_S: One finite value for each behavior and seed; >= 30 behaviors, not all values equal.
        draws: Resamples, >= 1000.
        seed: Seed of the generator.
        confidence: Level in (0, 1).

    Returns:
        The mean and its bounds; the method is ``bootstrap_behaviors_and_seeds``, or ``bootstrap_behaviors``.

    Raises:
        DataError: If there are too few behaviors or draws, the table has no seeds or is not finite, all values are
            equal (0 or n of n among them), or the level is out of range.

    Source: Efron 1979, Annals of Statistics 7(1):1; for rows and columns, Owen 2007, Annals of Applied Statistics
        1(2):386.
    """
    check_confidence(confidence)
    if draws < FEWEST_DRAWS:
        raise DataError("bootstrap", f"needs at least {FEWEST_DRAWS} draws, got {draws}", "use e.g. 10000")
    table_B_S = _check_table(np.asarray(values_B_S, dtype=np.float64))
    seeds = table_B_S.shape[1]
    of_rows, of_seeds = np.random.default_rng(seed).spawn(2)
    means_D_S = _resample_rows(table_B_S, draws, of_rows)
    over_seeds = seeds >= FEWEST_SEEDS
    means_D = (means_D_S * _shares(seeds, draws, of_seeds)).sum(axis=1) if over_seeds else means_D_S.mean(axis=1)
    low, high = np.quantile(means_D, [(1 - confidence) / 2, (1 + confidence) / 2])
    method = "bootstrap_behaviors_and_seeds" if over_seeds else "bootstrap_behaviors"
    return Estimate(float(low), float(high), method, float(table_B_S.mean()))


def bootstrap_change(
    before_B_S: ArrayLike, after_B_S: ArrayLike, *, draws: int, seed: int, confidence: float
) -> Estimate:
    """Bootstrap the mean of after - before, paired by behavior and seed.

    Args:
        before_B_S: As ``values_B_S`` of ``bootstrap_mean``; a baseline without seeds is repeated for each.
        after_B_S: The same behaviors and seeds in the same order.
        draws: Resamples, >= 1000.
        seed: Seed of the generator.
        confidence: Level in (0, 1).

    Returns:
        As ``bootstrap_mean``, for the differences.

    Raises:
        DataError: As ``bootstrap_mean``, for the differences; or if the two tables differ in shape.
    """
    before, after = np.asarray(before_B_S, dtype=np.float64), np.asarray(after_B_S, dtype=np.float64)
    if before.shape != after.shape:
        raise DataError(
            "bootstrap",
            f"before and after must hold the same behaviors and seeds, got {before.shape} and {after.shape}",
            "pair the items by behavior and seed",
        )
    return bootstrap_mean(after - before, draws=draws, seed=seed, confidence=confidence)


def _resample_rows(table_B_S: _Floats, draws: int, stream: np.random.Generator) -> _Floats:
    """Mean of every column in each resample, block by block to bound the memory."""
    size = max(1, _BLOCK // len(table_B_S))
    blocks = [min(size, draws - start) for start in range(0, draws, size)]
    return np.concatenate([_shares(len(table_B_S), block, stream) @ table_B_S for block in blocks])


def _shares(items: int, draws: int, stream: np.random.Generator) -> _Floats:
    """How much each item weighs in each resample of as many items; every row adds up to 1."""
    chosen_D_I = stream.integers(items, size=(draws, items)) + items * np.arange(draws)[:, None]
    counts = np.bincount(chosen_D_I.ravel(), minlength=draws * items)
    return counts.reshape(draws, items) / items


def _check_table(table_B_S: _Floats) -> _Floats:
    if table_B_S.ndim != 2 or table_B_S.shape[0] < FEWEST_ROWS or table_B_S.shape[1] < 1:
        raise DataError(
            "bootstrap",
            f"needs a table of at least {FEWEST_ROWS} behaviors by one seed or more, got shape {table_B_S.shape}",
            "use an exact interval for few rows",
        )
    if not np.isfinite(table_B_S).all():
        raise DataError("bootstrap", "every value must be finite, got nan or inf", "decide how unjudged rows count")
    if table_B_S.min() == table_B_S.max():
        raise DataError(
            "bootstrap",
            f"all values equal {table_B_S.flat[0]:g}, so the interval would have no width",
            "use Wilson's interval",
        )
    return table_B_S
