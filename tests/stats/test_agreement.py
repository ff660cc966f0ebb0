"""Confusion counts, kappa against the delta method, and the Rogan-Gladen band at its corners."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.agreement import (
    Confusion,
    correct_rate,
    count_confusion,
    estimate_accuracy,
    estimate_kappa,
    estimate_recall,
)
from robustlab.stats.estimates import Estimate
from robustlab.stats.intervals import rate_interval, wilson_interval

LEVEL = {"confidence": 0.95}
pairs_of_labels = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40)


def confusion_of(*cells: tuple[str | None, str, int]) -> Confusion:
    rows = [(judged, reference) for judged, reference, count in cells for _ in range(count)]
    return count_confusion([judged for judged, _ in rows], [reference for _, reference in rows])


# The judge refused 25 of 50, the person 30: 20 + 15 agree.
FIFTY = confusion_of(("yes", "yes", 20), ("yes", "no", 5), ("no", "yes", 10), ("no", "no", 15))


def test_counts_by_hand() -> None:
    assert FIFTY.labels == ("no", "yes")
    assert FIFTY.counts == ((15, 10), (5, 20))
    assert (FIFTY.n, FIFTY.agreed, FIFTY.unjudged) == (50, 35, 0)
    assert (FIFTY.count("yes", "no"), FIFTY.count("no", "yes"), FIFTY.count("maybe", "yes")) == (5, 10, 0)


def test_accuracy_and_recall_by_hand() -> None:
    accuracy = estimate_accuracy(FIFTY, **LEVEL)
    whole = wilson_interval(35, 50, **LEVEL)
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.7, whole.low, whole.high)
    assert accuracy.method == "wilson"
    sensitivity, specificity = (estimate_recall(FIFTY, label, **LEVEL) for label in ("yes", "no"))
    assert sensitivity is not None and specificity is not None
    assert (sensitivity.value, specificity.value) == (20 / 30, 15 / 20)
    assert sensitivity.low == wilson_interval(20, 30, **LEVEL).low
    assert estimate_recall(FIFTY, "maybe", **LEVEL) is None


def test_unjudged_rows_stay_and_count_both_ways() -> None:
    table = confusion_of(("yes", "yes", 6), (None, "yes", 2), ("no", "no", 1), (None, "no", 1))
    assert (table.n, table.agreed, table.unjudged) == (10, 7, 3)
    accuracy, bounds = estimate_accuracy(table, **LEVEL), rate_interval(7, 3, 10, **LEVEL)
    assert (accuracy.low, accuracy.high, accuracy.value) == (bounds.low, bounds.high, 0.7)
    assert accuracy.method == "wilson_unjudged_both_ways"
    sensitivity = estimate_recall(table, "yes", **LEVEL)
    assert sensitivity is not None
    assert (sensitivity.value, sensitivity.high) == (0.75, 1.0)
    # An unjudged row is a disagreement: p_e = 0.6 x 0.8 + 0.1 x 0.2 = 0.5, kappa = (0.7 - 0.5) / 0.5.
    kappa = estimate_kappa(table, **LEVEL)
    assert kappa is not None
    assert kappa.value == pytest.approx(0.4)


def test_kappa_by_hand() -> None:
    # p_o = 0.7, p_e = 0.5 x 0.6 + 0.5 x 0.4 = 0.5, kappa = 0.2 / 0.5.
    # A = 0.4 (1 - 1.1 x 0.6)^2 + 0.3 (1 - 0.9 x 0.6)^2 = 0.04624 + 0.06348 = 0.10972
    # B = 0.6^2 (0.1 (c_yes + r_no)^2 + 0.2 (c_no + r_yes)^2) = 0.36 (0.121 + 0.162) = 0.10188
    # C = (0.4 - 0.5 x 0.6)^2 = 0.01; variance = (0.10972 + 0.10188 - 0.01) / (50 x 0.25) = 0.016128, root 0.126996.
    kappa = estimate_kappa(FIFTY, **LEVEL)
    assert kappa is not None
    assert kappa.value == pytest.approx(0.4)
    assert (kappa.low, kappa.high) == pytest.approx((0.4 - 1.959964 * 0.126996, 0.4 + 1.959964 * 0.126996), abs=1e-5)
    assert kappa.method == "fleiss_cohen_everitt"


def kappa_of(shares: np.ndarray) -> float:
    expected = float(shares.sum(axis=1) @ shares.sum(axis=0))
    return (float(np.trace(shares)) - expected) / (1 - expected)


def delta_method_error(shares: np.ndarray, n: int, of: Callable[[np.ndarray], float]) -> float:
    """Multinomial delta method with a numerical gradient: independent of any published formula."""
    step, gradient = 1e-6, np.zeros(shares.size)
    for cell in range(shares.size):
        nudge = np.zeros(shares.size)
        nudge[cell] = step
        up, down = (of(shares + sign * nudge.reshape(shares.shape)) for sign in (1, -1))
        gradient[cell] = (up - down) / (2 * step)
    flat = shares.ravel()
    return float(np.sqrt((gradient**2 @ flat - (gradient @ flat) ** 2) / n))


def test_kappa_of_three_labels_matches_the_delta_method() -> None:
    counts = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    cells = [("abc"[i], "abc"[j], int(counts[i, j])) for i in range(3) for j in range(3)]
    kappa = estimate_kappa(confusion_of(*cells), **LEVEL)
    assert kappa is not None
    # p_o = 0.89, p_e = 0.8 x 0.8 + 0.1 x 0.05 + 0.1 x 0.15 = 0.66, kappa = 0.23 / 0.34.
    assert kappa.value == pytest.approx(0.23 / 0.34)
    error = delta_method_error(counts / 100, 100, kappa_of)
    assert (kappa.high - kappa.low) / 2 == pytest.approx(1.959964 * error, rel=1e-4)


def test_kappa_has_a_width_when_all_rows_agree() -> None:
    # p_e = 0.5, so that the lower bound is 2 l - 1 with Wilson's l = 40 / 43.8415 = 0.91238.
    kappa = estimate_kappa(confusion_of(("yes", "yes", 20), ("no", "no", 20)), **LEVEL)
    assert kappa is not None
    assert (kappa.value, kappa.high, kappa.method) == (1.0, 1.0, "wilson_at_chance")
    assert kappa.low == pytest.approx(2 * 40 / 43.841459 - 1, abs=1e-6)
    opposed = estimate_kappa(confusion_of(("yes", "no", 20), ("no", "yes", 20)), **LEVEL)
    assert opposed is not None
    assert (opposed.value, opposed.low) == (-1.0, -1.0)
    assert opposed.high == pytest.approx(2 * 3.841459 / 43.841459 - 1, abs=1e-6)


def test_kappa_of_a_single_label_is_undefined() -> None:
    assert estimate_kappa(confusion_of(("yes", "yes", 9)), **LEVEL) is None
    one_sided = estimate_kappa(confusion_of(("yes", "no", 9)), **LEVEL)
    assert one_sided is not None and one_sided.value == 0.0


@settings(deadline=None)
@given(pairs_of_labels, st.permutations("abc"), st.randoms())
def test_kappa_is_blind_to_names_sides_and_order(pairs: list[tuple[str, str]], names: list[str], rng) -> None:
    renamed = dict(zip("abc", names, strict=True))
    readings = [
        pairs,
        [(renamed[a], renamed[b]) for a, b in pairs],
        [(b, a) for a, b in pairs],
        rng.sample(pairs, len(pairs)),
    ]
    kappas = [estimate_kappa(count_confusion(*map(list, zip(*each, strict=True))), **LEVEL) for each in readings]
    if kappas[0] is None:
        assert kappas == [None] * 4
        return
    assert -1 <= kappas[0].low <= kappas[0].value + 1e-12 and kappas[0].value - 1e-12 <= kappas[0].high <= 1
    for each in kappas[1:]:
        assert each is not None
        assert (each.low, each.value, each.high) == pytest.approx((kappas[0].low, kappas[0].value, kappas[0].high))


def share(low: float, value: float, high: float) -> Estimate:
    return Estimate(low, high, "wilson", value)


def test_rogan_gladen_by_hand() -> None:
    # (0.3 + 0.9 - 1) / (0.8 + 0.9 - 1) = 0.2 / 0.7. The corners: low (0.2 + 0.8 - 1) / ... = 0;
    # high at rate 0.4, specificity 1.0, sensitivity 0.7: 0.4 / 0.7.
    band = correct_rate(share(0.2, 0.3, 0.4), share(0.7, 0.8, 0.9), share(0.8, 0.9, 1.0))
    assert band is not None
    assert band.value == pytest.approx(0.2 / 0.7)
    assert (band.low, band.high) == pytest.approx((0.0, 0.4 / 0.7))
    assert band.method == "rogan_gladen_band"


def test_rogan_gladen_of_a_perfect_judge_changes_nothing() -> None:
    perfect = share(1.0, 1.0, 1.0)
    band = correct_rate(share(0.2, 0.3, 0.4), perfect, perfect)
    assert band == Estimate(pytest.approx(0.2), pytest.approx(0.4), "rogan_gladen_band", pytest.approx(0.3))


@pytest.mark.parametrize(
    ("sensitivity", "specificity"),
    [
        (share(0.5, 0.9, 1.0), share(0.5, 0.9, 1.0)),  # 0.5 + 0.5 - 1 = 0: the bounds touch chance
        (share(0.3, 0.9, 1.0), share(0.6, 0.9, 1.0)),
        (share(0.4, 0.5, 0.6), share(0.3, 0.4, 0.5)),  # no better than chance at all
    ],
)
def test_rogan_gladen_is_not_identifiable_at_chance(sensitivity: Estimate, specificity: Estimate) -> None:
    assert correct_rate(share(0.2, 0.3, 0.4), sensitivity, specificity) is None


shares = st.tuples(*[st.integers(0, 100)] * 3).map(lambda each: share(*(x / 100 for x in sorted(each))))
good_shares = st.tuples(*[st.integers(51, 100)] * 3).map(lambda each: share(*(x / 100 for x in sorted(each))))


@settings(deadline=None)
@given(shares, good_shares, good_shares, st.tuples(*[st.floats(0, 1)] * 3))
def test_the_band_holds_every_point_of_the_box(
    rate: Estimate, sensitivity: Estimate, specificity: Estimate, at: tuple[float, float, float]
) -> None:
    band = correct_rate(rate, sensitivity, specificity)
    assert band is not None
    assert 0 <= band.low <= band.value + 1e-12 and band.value - 1e-12 <= band.high <= 1
    r, se, sp = (e.low + f * (e.high - e.low) for e, f in zip((rate, sensitivity, specificity), at, strict=True))
    assert band.low - 1e-9 <= min(max((r + sp - 1) / (se + sp - 1), 0), 1) <= band.high + 1e-9


def test_arguments_out_of_range() -> None:
    with pytest.raises(DataError, match=r"count_confusion: needs labels of the same rows .* one, got 0 and 0;"):
        count_confusion([], [])
    with pytest.raises(DataError, match=r"count_confusion: needs labels of the same rows .* got 2 and 1; pair"):
        count_confusion(["a", "b"], ["a"])
    with pytest.raises(
        DataError, match=r"count_confusion: the reference must have a label .* got 'unjudged' for 1; leave"
    ):
        count_confusion(["a", "b"], ["a", "unjudged"])
    good = share(0.8, 0.9, 1.0)
    for bad in (share(0.3, 0.2, 0.4), share(-0.1, 0.2, 0.4), share(0.1, 0.2, 1.4)):
        with pytest.raises(DataError, match=r"correct_rate: sensitivity needs 0 <= low <= value .*, got .*; pass"):
            correct_rate(good, bad, good)
    with pytest.raises(DataError, match=r"confidence: must lie between 0 and 1, got 95"):
        estimate_kappa(FIFTY, confidence=95)
