"""The order of examples: laid out before step 1, a pure function of examples, seed and schedule."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.train.order import Example, Pair, batch_lengths, lay_out, pair_lengths

FIVE = [Example((index, 9, 9), (-100, 9, 9)) for index in range(5)]


def names(batches: list[list[Example]]) -> list[int]:
    return [example.ids[0] for example in chain.from_iterable(batches)]


def test_labels_stand_where_the_mask_is_one() -> None:
    assert Example.from_mask([5, 6, 7], [0, 1, 1]) == Example((5, 6, 7), (-100, 6, 7))


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Example.from_mask([5, 6, 7], [0, 1])


def test_every_epoch_is_a_permutation_whose_end_may_lie_inside_a_step() -> None:
    batches = lay_out(FIVE, steps=5, batch_rows=3, seed=0)
    assert [len(batch) for batch in batches] == [3] * 5
    order = names(batches)
    # 15 places are three epochs of five.
    assert [sorted(order[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert order[:5] != order[5:10]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.integers(0, 5))
@hypothesis_settings(deadline=None, max_examples=40)
def test_a_shorter_schedule_is_the_beginning_of_a_longer_one(steps: int, more: int, rows: int, seed: int) -> None:
    short = lay_out(FIVE, steps=steps, batch_rows=rows, seed=seed)
    assert lay_out(FIVE, steps=steps + more, batch_rows=rows, seed=seed)[:steps] == short


def test_the_seed_alone_decides() -> None:
    orders = [names(lay_out(FIVE, steps=4, batch_rows=5, seed=seed)) for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders))) == 3


def test_the_order_is_pinned() -> None:
    # A function of names alone: equal on every machine and version of Python since 3.2.
    assert names(lay_out(FIVE, steps=2, batch_rows=5, seed=0)) == [4, 2, 3, 1, 0, 3, 1, 4, 2, 0]


def test_lengths_of_a_batch_count_prompts_too() -> None:
    assert batch_lengths([Example((1, 2, 3), (-100, -100, 3)), Example((1,), (1,))]) == (3, 1)


def test_pairs_are_laid_out_as_examples_are() -> None:
    pairs = [Pair(example, Example((7, 8), (-100, 8))) for example in FIVE]
    laid_out = lay_out(pairs, steps=4, batch_rows=3, seed=1)
    assert [[pair.chosen for pair in batch] for batch in laid_out] == lay_out(FIVE, steps=4, batch_rows=3, seed=1)
    assert pair_lengths(laid_out[0]) == ((3, 2),) * 3


def test_no_steps_need_no_order() -> None:
    assert lay_out(FIVE, steps=0, batch_rows=3, seed=0) == []


def test_a_set_without_rows_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        lay_out([], steps=1, batch_rows=1, seed=0)
    assert str(caught.value) == "training set: has no rows, got 0; give the recipe at least one row of data"
