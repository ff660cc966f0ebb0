from typing import Any

import pytest

from robustlab.cost.job import Completions, Prompts, TokenCounts


def test_sizes_by_hand(build_job: Any) -> None:
    job = build_job()
    assert job.weight_bytes == 120 * 4
    assert job.trainable_parameters == 132 * 4 * 2


def test_bfloat16_halves_the_weights(build_job: Any) -> None:
    job = build_job()
    half = job.target.model_copy(update={"dtype": "bfloat16"})
    assert build_job(target=half).weight_bytes == 240


def test_what_is_generated(build_job: Any) -> None:
    assert build_job().final_completions("mild") == Completions(Prompts(6, 5), 8, 4)
    assert build_job().mark_completions("mild") == Completions(Prompts(4, 5), 8, 4)


def test_a_subset_is_never_larger_than_its_set(build_job: Any) -> None:
    job = build_job()
    few = build_job(counts=job.counts.__class__((5,), (20,), None, {"mild": Prompts(3, 5)}))
    assert few.mark_completions("mild").prompts.rows == 3


def test_no_milestones_no_marks(build_job: Any) -> None:
    assert build_job(milestones=False).mark_completions("mild") is None


def test_lengths_of_training_rows() -> None:
    counts = TokenCounts(short_rows=(5, 8, 12), long_rows=(5, 15, 20), distilled=None, evals={})
    # 25 / 3 and 40 / 3, rounded up
    assert (counts.shortest_row, counts.least_mean_row, counts.mean_row, counts.longest_row) == (5, 9, 14, 20)


@pytest.mark.parametrize(
    ("examples", "bounds"),
    [
        (0, (0, 0)),
        (3, (25, 40)),
        # two epochs, then the shortest and the longest two of another
        (8, (2 * 25 + 5 + 8, 2 * 40 + 20 + 15)),
    ],
)
def test_tokens_of_any_order_lie_between(examples: int, bounds: tuple[int, int]) -> None:
    counts = TokenCounts(short_rows=(5, 8, 12), long_rows=(5, 15, 20), distilled=None, evals={})
    assert counts.tokens_of(examples) == bounds
