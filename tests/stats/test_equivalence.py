"""Non-inferiority by hand, and the margins that are refused."""

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import ConfigError, DataError
from robustlab.stats.equivalence import check_margin, expected_standard_error, judge_mean, judge_rate
from robustlab.stats.intervals import paired_difference_interval

# Mean 0, s^2 = 2 / 3, standard error sqrt(2 / 3) / 2 = 0.40825; t(3) at 0.95 one-sided is 2.35336, low = -0.96075.
FOUR = [-1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("shift", "margin", "verdict"),
    [
        (0.0, 1.0, "kept"),  # -0.961 > -1
        (0.0, 0.9, "inconclusive"),  # -0.961 < -0.9 < 0.961
        (-2.0, 1.0, "lost"),  # high = -2 + 0.961 = -1.039 < -1
        (-1.9, 1.0, "inconclusive"),  # high = -0.939
        (5.0, 1.0, "kept"),  # better is not worse: one side only
    ],
)
def test_judge_mean_by_hand(shift: float, margin: float, verdict: str) -> None:
    judged = judge_mean([each + shift for each in FOUR], margin=margin, confidence=0.95)
    assert judged.verdict == verdict
    assert judged.standard_error == pytest.approx(0.40825, abs=1e-5)
    assert judged.change.value == pytest.approx(shift)
    assert (judged.change.low - shift, judged.change.high - shift) == pytest.approx((-0.96075, 0.96075), abs=1e-5)
    assert (judged.change.method, judged.margin) == ("student_paired", margin)


def test_a_margin_within_its_noise_is_refused() -> None:
    # The protocol's example: 4 points at 560 items. sqrt(0.25 / 560) = 0.02113, and twice that is 0.0423.
    error = expected_standard_error(0.25, 560)
    assert error == pytest.approx(0.02113, abs=1e-5)
    with pytest.raises(
        ConfigError,
        match=r"utility: the margin must be above twice the standard error, 2 x 0.02113, got 0.04; measure more rows",
    ):
        check_margin("utility", 0.04, error)
    check_margin("utility", 0.043, error)
    for margin in (2 * error, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"the margin must be above"):
            check_margin("utility", margin, error)
    with pytest.raises(ConfigError, match=r"utility: the margin must be above .* 2 x 0, got 0"):
        check_margin("utility", 0.0, 0.0)


def test_both_judges_refuse_such_a_margin() -> None:
    with pytest.raises(ConfigError, match=r"judge_mean: the margin must be above .* 2 x 0.4082, got 0.8; measure"):
        judge_mean(FOUR, margin=0.8, confidence=0.95)
    with pytest.raises(ConfigError, match=r"judge_rate: the margin must be above .*, got 0.02; measure"):
        judge_rate(60, 0, 0, 20, margin=0.02, confidence=0.95)


def test_judge_rate_has_a_width_when_nothing_changed() -> None:
    # Half a row in each cell: sqrt(1) / 82.
    judged = judge_rate(60, 0, 0, 20, margin=0.05, confidence=0.95)
    assert (judged.verdict, judged.change.value) == ("kept", 0.0)
    assert judged.standard_error == pytest.approx(1 / 82)
    assert judged.change.low < 0 < judged.change.high


def test_judge_rate_by_hand() -> None:
    # 10 lost, 2 gained of 98: sqrt(13 - 8^2 / 100) / 100 = 0.035157; both sides at 0.95 are the interval at 0.90.
    judged = judge_rate(60, 10, 2, 26, margin=0.2, confidence=0.95)
    interval = paired_difference_interval(60, 10, 2, 26, confidence=0.90)
    assert judged.standard_error == pytest.approx(sqrt(12.36) / 100)
    assert (judged.change.low, judged.change.high) == pytest.approx((interval.low, interval.high))
    assert (judged.change.value, judged.change.method) == (-8 / 98, "newcombe_paired")
    assert judged.verdict == "kept"
    assert judge_rate(60, 10, 2, 26, margin=0.1, confidence=0.95).verdict == "inconclusive"
    assert judge_rate(20, 60, 0, 18, margin=0.2, confidence=0.95).verdict == "lost"


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=30).filter(lambda each: len(set(each)) > 1), st.randoms())
def test_judge_mean_mirrors_and_is_blind_to_the_order(differences: list[int], rng) -> None:
    judged = judge_mean(differences, margin=1e6, confidence=0.95)
    mirrored = judge_mean([-each for each in differences], margin=1e6, confidence=0.95)
    shuffled = judge_mean(rng.sample(differences, len(differences)), margin=1e6, confidence=0.95)
    assert judged.change.low < judged.change.value < judged.change.high
    assert (mirrored.change.low, mirrored.change.high) == pytest.approx((-judged.change.high, -judged.change.low))
    assert (shuffled.change.low, shuffled.change.high) == pytest.approx((judged.change.low, judged.change.high))
    stricter = judge_mean(differences, margin=1e6, confidence=0.99)
    assert stricter.change.low < judged.change.low


@pytest.mark.parametrize("rows", [[], [1.0], [2.0, 2.0, 2.0], [0.0, float("nan")], [0.0, float("inf")]])
def test_rows_that_have_no_standard_error(rows: list[float]) -> None:
    with pytest.raises(DataError, match=r"judge_mean: needs two rows or more, finite and not all equal, got \d rows;"):
        judge_mean(rows, margin=1.0, confidence=0.95)


def test_arguments_out_of_range() -> None:
    for confidence in (0.5, 1.0, 95):
        with pytest.raises(DataError, match=r"confidence: one-sided, it must lie between 0.5 and 1, got .*; use"):
            judge_mean(FOUR, margin=1.0, confidence=confidence)
    with pytest.raises(DataError, match=r"paired_difference_interval: needs four counts >= 0"):
        judge_rate(0, 0, 0, 0, margin=0.5, confidence=0.95)
    for share, n in ((0.0, 5), (1.1, 5), (0.5, 0)):
        with pytest.raises(DataError, match=r"expected_standard_error: needs a share .* and n >= 1, got .*; 0.25"):
            expected_standard_error(share, n)
