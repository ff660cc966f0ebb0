from typing import Any

from robustlab.cost.job import Completions, Prompts


def test_sizes_by_hand(build_job: Any) -> None:
    job = build_job()
    assert job.weight_bytes == 120 * 4
    assert job.adapter_parameters == 132 * 4 * 2


def test_bfloat16_halves_the_weights(build_job: Any) -> None:
    job = build_job()
    half = job.target.model_copy(update={"dtype": "bfloat16"})
    assert build_job(target=half).weight_bytes == 240


def test_what_is_generated(build_job: Any) -> None:
    assert build_job().final_completions("mild") == Completions(Prompts(6, 5), 8, 4)
    assert build_job().mark_completions("mild") == Completions(Prompts(4, 5), 8, 4)


def test_a_subset_is_never_larger_than_its_set(build_job: Any) -> None:
    job = build_job()
    few = build_job(counts=job.counts.__class__(5, 10, 20, None, {"mild": Prompts(3, 5)}))
    assert few.mark_completions("mild").prompts.rows == 3


def test_no_milestones_no_marks(build_job: Any) -> None:
    assert build_job(milestones=False).mark_completions("mild") is None
