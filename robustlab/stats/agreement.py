"""How far a judge agrees with a reference, and what its errors would do to a rate.

Knows pairs of labels. It does not know who judged, and nothing here ever enters a verdict: the judge's error on
reference rows need not transfer to the outputs of an attacked model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt

import numpy as np

from robustlab.errors import DataError
from robustlab.stats.estimates import Estimate
from robustlab.stats.intervals import rate_interval, wilson_interval
from robustlab.stats.levels import normal_critical

UNJUDGED = "unjudged"


@dataclass(frozen=True)
class Confusion:
    """Counts of pairs of labels.

    Attributes:
        labels: Every label of either side, sorted; ``unjudged`` among them where the judge had no verdict.
        counts: ``counts[i][j]`` rows that the judge gave ``labels[i]`` and the reference ``labels[j]``.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def n(self) -> int:
        """All rows, unjudged ones too."""
        return sum(map(sum, self.counts))

    @property
    def agreed(self) -> int:
        """Rows to which both gave the same label."""
        return sum(self.counts[i][i] for i in range(len(self.labels)))

    @property
    def unjudged(self) -> int:
        """Rows to which the judge gave no verdict."""
        return sum(self.counts[self.labels.index(UNJUDGED)]) if UNJUDGED in self.labels else 0

    def count(self, judged: str, reference: str) -> int:
        """Rows with this pair of labels; 0 for a label that never occurred."""
        if not {judged, reference} <= set(self.labels):
            return 0
        return self.counts[self.labels.index(judged)][self.labels.index(reference)]


def count_confusion(judged: Sequence[str | None], reference: Sequence[str]) -> Confusion:
    """Count the pairs of labels. A missing verdict is kept as the judge's label ``unjudged``, never dropped.

    Args:
        judged: The judge's label of each row; None where it had no verdict.
        reference: The reference's label of the same rows in the same order, such as a person's or another judge's.

    Returns:
        The counts.

    Raises:
        DataError: If there are no rows, the lists differ in length, or the reference itself holds ``unjudged``.
    """
    if not judged or len(judged) != len(reference):
        raise DataError(
            "count_confusion",
            f"needs labels of the same rows and at least one, got {len(judged)} and {len(reference)}",
            "pair the labels by row",
        )
    if UNJUDGED in reference:
        raise DataError(
            "count_confusion",
            f"the reference must have a label for each row, got {UNJUDGED!r} for {list(reference).count(UNJUDGED)}",
            "leave those rows out and report how many",
        )
    pairs = Counter(zip((each or UNJUDGED for each in judged), reference, strict=True))
    labels = tuple(sorted({label for pair in pairs for label in pair}))
    return Confusion(labels, tuple(tuple(pairs[row, column] for column in labels) for row in labels))


def estimate_accuracy(confusion: Confusion, *, confidence: float) -> Estimate:
    """Share of all rows on which both agree; unjudged rows lower the lower bound and raise the upper one.

    Args:
        confusion: Counts of pairs.
        confidence: Level in (0, 1).

    Returns:
        The share and its Wilson bounds.

    Raises:
        DataError: If the level is out of range.
    """
    interval = rate_interval(confusion.agreed, confusion.unjudged, confusion.n, confidence=confidence)
    return Estimate(interval.low, interval.high, interval.method, confusion.agreed / confusion.n)


def estimate_recall(confusion: Confusion, label: str, *, confidence: float) -> Estimate | None:
    """Share of the reference's rows of one label to which the judge gave it too: its sensitivity for the label.

    The specificity of a yes-or-no judge is its recall of the other label.

    Args:
        confusion: Counts of pairs.
        label: The reference's label.
        confidence: Level in (0, 1).

    Returns:
        The share with Wilson bounds, in which unjudged rows count both ways; None where the reference never gave the
        label.

    Raises:
        DataError: If the level is out of range.
    """
    n = sum(confusion.count(judged, label) for judged in confusion.labels)
    if n == 0:
        return None
    right = confusion.count(label, label)
    interval = rate_interval(right, confusion.count(UNJUDGED, label), n, confidence=confidence)
    return Estimate(interval.low, interval.high, interval.method, right / n)


def estimate_kappa(confusion: Confusion, *, confidence: float) -> Estimate | None:
    """Cohen's kappa, with the large-sample standard error that does not assume that the truth is 0.

    ``kappa = (p_o - p_e) / (1 - p_e)`` with the observed and the expected agreement; its variance is
    ``(A + B - C) / (n (1 - p_e)^2)``, where ``A = sum p_ii (1 - (r_i + c_i)(1 - kappa))^2``,
    ``B = (1 - kappa)^2 sum over i != j of p_ij (c_i + r_j)^2``, ``C = (kappa - p_e (1 - kappa))^2`` and r, c are the
    shares of the judge's and the reference's labels. An unjudged row is a disagreement. Where all rows agree, or none
    does, that variance would leave no width: there the bounds are those of Wilson for p_o, with p_e held.

    Args:
        confusion: Counts of pairs.
        confidence: Level in (0, 1).

    Returns:
        Kappa with bounds in [-1, 1] and the method ``fleiss_cohen_everitt`` or ``wilson_at_chance``; None where both
        sides gave one and the same label throughout, so that chance alone explains it.

    Raises:
        DataError: If the level is out of range.

    Source: Cohen 1960, Educational and Psychological Measurement 20(1):37; Fleiss, Cohen and Everitt 1969,
        Psychological Bulletin 72(5):323.
    """
    z = normal_critical(confidence)
    shares = np.array(confusion.counts, dtype=np.float64) / confusion.n
    judged, reference = shares.sum(axis=1), shares.sum(axis=0)
    if np.count_nonzero(shares) == 1 and confusion.agreed == confusion.n:
        return None
    observed, expected = confusion.agreed / confusion.n, float(judged @ reference)
    kappa = (observed - expected) / (1 - expected)
    if confusion.agreed in {0, confusion.n}:
        bounds = wilson_interval(confusion.agreed, confusion.n, confidence=confidence)
        low, high = ((bound - expected) / (1 - expected) for bound in (bounds.low, bounds.high))
        return Estimate(max(low, -1.0), min(high, 1.0), "wilson_at_chance", kappa)
    off_diagonal = shares * (1 - np.eye(len(shares)))
    a = float(np.diag(shares) @ (1 - (judged + reference) * (1 - kappa)) ** 2)
    b = (1 - kappa) ** 2 * float((off_diagonal * (reference[:, None] + judged[None, :]) ** 2).sum())
    c = (kappa - expected * (1 - kappa)) ** 2
    half = z * sqrt(max(a + b - c, 0.0) / confusion.n) / (1 - expected)
    return Estimate(max(kappa - half, -1.0), min(kappa + half, 1.0), "fleiss_cohen_everitt", kappa)


def correct_rate(rate: Estimate, sensitivity: Estimate, specificity: Estimate) -> Estimate | None:
    """Correct a rate for the judge's errors, as a sensitivity band.

    The corrected rate is ``(rate + specificity - 1) / (sensitivity + specificity - 1)``, and the band is the widest
    over the box of the three intervals. Along each of them the corrected rate moves one way only, so that its extremes
    are at the corners. It is no confidence interval.

    Args:
        rate: What the judge saw, in [0, 1].
        sensitivity: The judge's recall of the event, with bounds in [0, 1].
        specificity: Its recall of the absence of the event, with bounds in [0, 1].

    Returns:
        The corrected rate, cut to [0, 1], with the method ``rogan_gladen_band``; None, "not identifiable", where
        sensitivity + specificity - 1 is 0 or less anywhere within the bounds: the judge may be no better than chance.

    Raises:
        DataError: If bounds are out of order or outside [0, 1].

    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107(1):71.
    """
    for name, each in (("rate", rate), ("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 <= each.low <= each.value <= each.high <= 1:
            raise DataError(
                "correct_rate",
                f"{name} needs 0 <= low <= value <= high <= 1, got {each.low}, {each.value}, {each.high}",
                "pass shares",
            )
    if sensitivity.low + specificity.low <= 1:
        return None
    corners = product(*((each.low, each.high) for each in (rate, sensitivity, specificity)))
    corrected = [_correct(*corner) for corner in corners]
    value = _correct(rate.value, sensitivity.value, specificity.value)
    return Estimate(min(corrected), max(corrected), "rogan_gladen_band", value)


def _correct(rate: float, sensitivity: float, specificity: float) -> float:
    return min(max((rate + specificity - 1) / (sensitivity + specificity - 1), 0.0), 1.0)
