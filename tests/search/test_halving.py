"""The halving rule with hand-made numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.search.halving import goes_on, list_rungs
from robustlab.spec.search import Halving


@pytest.mark.parametrize(
    ("first", "factor", "steps", "rungs"),
    [(4, 2, 24, (4, 8, 16)), (4, 2, 16, (4, 8)), (3, 3, 30, (3, 9, 27)), (8, 2, 8, ()), (1, 100, 100, (1,))],
)
def test_rungs_are_powers_below_the_last_step(first: int, factor: int, steps: int, rungs: tuple[int, ...]) -> None:
    assert list_rungs(Halving(first_step=first, factor=factor), steps) == rungs


def test_the_first_trial_of_a_rung_goes_on_and_the_second_must_be_as_good() -> None:
    assert goes_on(0.9, [], 2)
    assert not goes_on(0.95, [0.9], 2)  # one of two goes on
    assert goes_on(0.9, [0.9], 2)


def test_one_in_three_goes_on() -> None:
    # Of the six values 0.1, 0.2, 0.3, 0.4, 0.5 and the new one two go on.
    earlier = [0.5, 0.1, 0.4, 0.2, 0.3]
    assert goes_on(0.15, earlier, 3)
    assert goes_on(0.2, earlier, 3)
    assert not goes_on(0.25, earlier, 3)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1), st.integers(2, 5))
def test_what_goes_on_is_among_the_best_share(earlier: list[float], value: float, factor: int) -> None:
    better = sum(other < value for other in earlier)
    assert goes_on(value, earlier, factor) == (better < max(1, (len(earlier) + 1) // factor))
