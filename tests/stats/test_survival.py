"""Cost-to-break: what is certain of the minimum and the median, the envelope, and two safeguards seed by seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.survival import CostBounds, compare_safeguards, find_envelope, summarize_attack
from robustlab.stats.turnbull import Mass

# True costs with a mark at or below and one above each; None = the budget ended first.
seeds_with_truth = st.lists(
    st.tuples(st.integers(1, 100), st.integers(0, 20), st.one_of(st.none(), st.integers(0, 20))), min_size=1, max_size=9
)


def bounds(held: int, broken: int | None) -> CostBounds:
    return CostBounds(held, broken)


THREE = [bounds(30, 60), bounds(10, 40), bounds(100, None)]


def test_three_seeds_by_hand() -> None:
    costs = summarize_attack(THREE)
    assert (costs.seeds, costs.broken) == (3, 2)
    assert costs.minimum == bounds(10, 40)
    # The middle of 10, 30, 100 and of 40, 60, unbounded.
    assert costs.median == bounds(30, 60)
    assert costs.masses is None


def test_an_even_number_of_seeds_holds_both_middle_ones() -> None:
    # Held 10, 30 | 50, 100; broken 40, 60 | 90, unbounded: above the second, at or below the third.
    assert summarize_attack([*THREE, bounds(50, 90)]).median == bounds(30, 90)
    assert summarize_attack([bounds(1, 2), bounds(5, None)]).median == bounds(1, None)


def test_the_minimum_may_end_at_another_seed_than_it_begins() -> None:
    assert summarize_attack([bounds(10, 90), bounds(30, 40)]).minimum == bounds(10, 40)


def test_unbroken_seeds_are_censored_at_the_budget() -> None:
    costs = summarize_attack([bounds(500, None)] * 3)
    assert (costs.broken, costs.minimum, costs.median) == (0, bounds(500, None), bounds(500, None))


def test_turnbull_from_five_seeds_up() -> None:
    four = [bounds(0, 1), bounds(0, 1), bounds(9, 10), bounds(9, 10)]
    assert summarize_attack(four).masses is None
    assert summarize_attack([*four, bounds(9, 10)]).masses == (Mass(0, 1, 0.4), Mass(9, 10, 0.6))


@settings(deadline=None)
@given(seeds_with_truth, st.randoms())
def test_the_bounds_hold_the_truth(drawn: list[tuple[int, int, int | None]], rng) -> None:
    truth = sorted(cost for cost, _, _ in drawn)
    seeds = [bounds(max(cost - 1 - below, 0), None if above is None else cost + above) for cost, below, above in drawn]
    costs = summarize_attack(seeds)
    middle = (truth[(len(truth) - 1) // 2], truth[len(truth) // 2])
    for bound, low, high in ((costs.minimum, truth[0], truth[0]), (costs.median, *middle)):
        assert bound.held_micro_usd < low
        assert bound.broken_micro_usd is None or high <= bound.broken_micro_usd
    shuffled = summarize_attack(rng.sample(seeds, len(seeds)))
    assert (shuffled.minimum, shuffled.median) == (costs.minimum, costs.median)


def test_the_envelope_is_the_minimum_over_attacks() -> None:
    envelope = find_envelope({"weak": bounds(500, None), "strong": bounds(20, 50), "other": bounds(40, 90)})
    # The other one may have cost 41 to 50, the strong one too: both may be the cheapest.
    assert (envelope.cost, envelope.candidates, envelope.attacks) == (bounds(20, 50), ("other", "strong"), 3)
    assert find_envelope({"a": bounds(20, 50), "b": bounds(50, 90)}).candidates == ("a",)


def test_an_unbroken_envelope_rests_on_the_least_budget() -> None:
    envelope = find_envelope({"b": bounds(500, None), "a": bounds(300, None)})
    assert (envelope.cost, envelope.candidates) == (bounds(300, None), ("a", "b"))


@settings(deadline=None)
@given(seeds_with_truth)
def test_one_more_attack_never_raises_the_envelope(drawn: list[tuple[int, int, int | None]]) -> None:
    costs = {
        str(i): bounds(max(cost - 1 - below, 0), None if above is None else cost + above)
        for i, (cost, below, above) in enumerate(drawn)
    }
    with_weak = find_envelope({**costs, "weak": bounds(10_000, None)})
    assert with_weak.cost == find_envelope(costs).cost
    stronger = find_envelope({**costs, "strong": bounds(0, 1)}).cost
    assert stronger == bounds(0, 1)


def test_later_earlier_and_not_comparable() -> None:
    first = [bounds(50, 90), bounds(10, 20), bounds(10, 40), bounds(500, None), bounds(500, None)]
    second = [bounds(10, 50), bounds(20, 30), bounds(30, 60), bounds(100, 200), bounds(400, None)]
    # 50 or more against 50 or less; 20 or less against above 20; an overlap; unbroken against broken; both unbroken.
    compared = compare_safeguards(first, second)
    assert (compared.later, compared.earlier, compared.not_comparable) == (2, 1, 2)
    assert compared.p == 1.0  # 2 of 3 or 1 of 3, both tails: all of the coin's outcomes


def test_the_sign_test_by_hand_and_refused_below_five_pairs() -> None:
    later, earlier = bounds(500, None), bounds(1, 2)
    assert compare_safeguards([later] * 5, [earlier] * 5).p == 2 / 32
    assert compare_safeguards([earlier] * 6, [later] * 6).p == 2 / 64
    four = compare_safeguards([later] * 4, [earlier] * 4)
    assert (four.later, four.p) == (4, None)
    assert compare_safeguards([later] * 5, [later] * 5).p == 1.0


@settings(deadline=None)
@given(seeds_with_truth, st.randoms())
def test_a_comparison_mirrors(drawn: list[tuple[int, int, int | None]], rng) -> None:
    first = [bounds(max(c - 1 - below, 0), None if above is None else c + above) for c, below, above in drawn]
    second = rng.sample(first, len(first))
    there, back = compare_safeguards(first, second), compare_safeguards(second, first)
    assert (there.later, there.earlier, there.not_comparable) == (back.earlier, back.later, back.not_comparable)
    assert there.p == back.p
    assert there.later + there.earlier + there.not_comparable == len(first)


def test_arguments_out_of_range() -> None:
    for held, broken in ((-1, 5), (5, 5), (5, 3)):
        with pytest.raises(
            DataError, match=rf"cost-to-break: needs 0 <= held < broken, got {held} and {broken}; pass the last mark"
        ):
            CostBounds(held, broken)
    with pytest.raises(DataError, match=r"cost-to-break: needs 0 <= held < broken, got -1 and None"):
        CostBounds(-1, None)
    with pytest.raises(DataError, match=r"summarize_attack: needs the cost of one seed or more, got none; measure"):
        summarize_attack([])
    with pytest.raises(DataError, match=r"find_envelope: needs one attack or more, got none; leave the envelope out"):
        find_envelope({})
    for first, second in (([], []), (THREE, THREE[:2])):
        with pytest.raises(DataError, match=r"compare_safeguards: needs the same seeds of both .*, got .*; pair"):
            compare_safeguards(first, second)
