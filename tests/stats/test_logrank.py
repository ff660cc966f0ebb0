"""The log-rank test by hand, its exact p and its refusal below five seeds an arm."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.logrank import compare_log_rank

arms = st.lists(
    st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(1, 6))).map(
        lambda each: (each[0], None if each[1] is None else each[0] + each[1])
    ),
    min_size=5,
    max_size=6,
)


def test_two_arms_that_never_meet() -> None:
    # Half of the mass is at (0, 1], half above 9. The first arm scores (1 log 1 - 0.5 log 0.5) / 0.5 = log 2 each, the
    # second 0.5 log 0.5 / 0.5 = -log 2. Two of the C(10, 5) = 252 arrangements are as extreme.
    test = compare_log_rank([(0, 1)] * 5, [(9, None)] * 5)
    assert test.score == pytest.approx(5 * log(2), abs=1e-3)
    assert test.p == pytest.approx(2 / 252)
    assert test.method == "exact_permutation"


def test_two_equal_arms() -> None:
    arm = [(0, 1), (2, 5), (3, 8), (9, 10), (20, None)]
    test = compare_log_rank(arm, arm)
    assert (test.score, test.p) == (pytest.approx(0, abs=1e-3), 1.0)


def test_nothing_broke() -> None:
    for size in (5, 11):
        test = compare_log_rank([(500, None)] * size, [(500, None)] * size)
        assert (test.score, test.p) == (0.0, 1.0)


def test_many_seeds_use_the_normal_distribution() -> None:
    # 11 against 11: scores of log 2 and -log 2, sum 11 log 2, variance 11 x 11 / (22 x 21) x 22 log(2)^2; so
    # z = 11 / sqrt(121 / 21) = sqrt(21) = 4.583 and p = 4.6e-6.
    test = compare_log_rank([(0, 1)] * 11, [(9, None)] * 11)
    assert test.method == "normal_permutation"
    assert test.p == pytest.approx(4.6e-6, rel=0.02)


@settings(deadline=None, max_examples=50)
@given(arms, arms, st.randoms())
def test_the_test_mirrors_and_is_blind_to_the_order(first: list, second: list, rng) -> None:
    there, back = compare_log_rank(first, second), compare_log_rank(second, first)
    assert 0 < there.p <= 1
    assert there.p == pytest.approx(back.p)
    assert there.score == pytest.approx(-back.score, abs=1e-2)
    assert compare_log_rank(rng.sample(first, len(first)), second).p == pytest.approx(there.p)


def test_fewer_than_five_seeds_an_arm_are_refused() -> None:
    for sizes in ((4, 5), (5, 4), (0, 0)):
        first, second = ([(0, 1)] * size for size in sizes)
        with pytest.raises(
            DataError, match=rf"compare_log_rank: needs at least 5 seeds an arm, got {sizes[0]} and {sizes[1]}; compare"
        ):
            compare_log_rank(first, second)
    with pytest.raises(DataError, match=r"estimate_masses: needs intervals with low < high"):
        compare_log_rank([(0, 1)] * 5, [(3, 3)] * 5)
