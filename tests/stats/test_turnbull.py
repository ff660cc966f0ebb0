"""Turnbull's estimate against Kaplan and Meier, against hand-made tables, and its optimality."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.turnbull import Mass, estimate_masses, survival_at

some_intervals = st.lists(
    st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(1, 6))).map(
        lambda each: (each[0], None if each[1] is None else each[0] + each[1])
    ),
    min_size=1,
    max_size=12,
)


def test_exact_times_with_censoring_give_kaplan_meier() -> None:
    # Events at 1, 3 and 4, one censored at 2: after 1 there is 3/4 left; at 3 half of it goes, 3/8; then 3/8.
    masses = estimate_masses([(0, 1), (2, None), (2, 3), (3, 4)])
    assert [(each.low, each.high) for each in masses] == [(0, 1), (2, 3), (3, 4)]
    assert [each.share for each in masses] == pytest.approx([0.25, 0.375, 0.375], abs=1e-4)


def test_overlaps_put_the_mass_where_they_overlap() -> None:
    assert estimate_masses([(0, 2), (1, 3)]) == (Mass(1, 2, 1.0),)
    # (0, 2] and (2, 4] touch but share no point.
    assert estimate_masses([(0, 2), (2, 4)]) == (Mass(0, 2, 0.5), Mass(2, 4, 0.5))


def test_a_wide_interval_is_shared_out() -> None:
    # (0, 10] splits in proportion to the others, 2 to 1: 2/3 and 1/3.
    masses = estimate_masses([(0, 1), (0, 1), (9, 10), (0, 10)])
    assert [each.share for each in masses] == pytest.approx([2 / 3, 1 / 3], abs=1e-4)


def test_all_censored() -> None:
    # The innermost interval is the one above the highest bound.
    assert estimate_masses([(5, None), (7, None)]) == (Mass(7, None, 1.0),)


def test_survival_is_known_at_the_ends_of_masses_only() -> None:
    masses = (Mass(0, 2, 0.5), Mass(4, 6, 0.3), Mass(8, None, 0.2))
    assert [survival_at(masses, amount) for amount in (0, 2, 3, 4, 6, 8)] == pytest.approx([1, 0.5, 0.5, 0.5, 0.2, 0.2])
    for amount in (1, 5, 9):
        with pytest.raises(DataError, match=rf"survival_at: the share above {amount} is not determined; ask at"):
            survival_at(masses, amount)


@settings(deadline=None)
@given(some_intervals, st.randoms())
def test_masses_are_ordered_optimal_and_blind_to_the_order(intervals: list[tuple[int, int | None]], rng) -> None:
    masses = estimate_masses(intervals)
    assert sum(each.share for each in masses) == pytest.approx(1)
    ends = [(each.low, inf if each.high is None else each.high) for each in masses]
    assert ends == sorted(ends) and all(first[1] <= second[0] for first, second in pairwise(ends))

    def held(low: int, high: float) -> list[bool]:
        return [a <= low and high <= (inf if b is None else b) for a, b in intervals]

    likelihood = [
        sum(each.share for each, end in zip(masses, ends, strict=True) if a <= end[0] and end[1] <= (b or inf))
        for a, b in intervals
    ]
    assert min(likelihood) > 0
    # No point of the line could take mass and raise the likelihood: sum of 1 / P over what holds it is at most n.
    for point in range(20):
        gradient = sum(1 / p for p, inside in zip(likelihood, held(point, point + 1), strict=True) if inside)
        assert gradient <= len(intervals) * (1 + 1e-3)
    again = estimate_masses(rng.sample(intervals, len(intervals)))
    assert [(each.low, each.high) for each in again] == [(each.low, each.high) for each in masses]
    assert [each.share for each in again] == pytest.approx([each.share for each in masses], abs=1e-6)


@pytest.mark.parametrize("intervals", [[], [(2, 2)], [(0, 1), (3, 2)]])
def test_empty_intervals(intervals: list[tuple[int, int | None]]) -> None:
    with pytest.raises(DataError, match=r"estimate_masses: needs intervals with low < high, got \[.*\]; pass some"):
        estimate_masses(intervals)
