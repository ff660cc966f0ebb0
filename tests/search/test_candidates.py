"""A plan with a search, read as the plain plan of its recipes."""

from pathlib import Path
from typing import Any

import pytest

from robustlab.errors import ConfigError
from robustlab.record.run_folder import RunFolder
from robustlab.search.candidates import describe_search, holds_search, list_candidates, list_regions, pin_search
from robustlab.spec.catalog import load
from robustlab.spec.loader import dump_yaml
from robustlab.spec.plan import Cell, Plan, ResolvedPlan, ResolvedSearch
from robustlab.spec.search import Search
from tests.search.conftest import make_direction, make_search

SMOKE: dict[str, Any] = {"objective": "smoke_refusal", "utility": "smoke_benign"}


def make_plan(search: Search | None, **changes: Any) -> Plan:
    plain: dict[str, Any] = {"targets": ("tiny",), "safeguards": ("none",), "attacks": ("lora_sft_smoke",)}
    plain |= {"budgets": ("smoke",), "evals": ("smoke_refusal", "smoke_benign"), "search": search}
    return Plan(kind="plan", **{**plain, **changes})


def resolved(cell: Cell, search: ResolvedSearch | None) -> ResolvedPlan:
    return ResolvedPlan(
        kind="resolved_plan",
        hardware="cpu_2vcpu_8gb",
        price_card_sha256="0" * 64,
        shadow_price=None,
        data_csv=None,
        cells=(cell,) if search is None else (),
        search=search,
    )


def test_the_candidates_are_the_recipes_with_the_searchs_seed(smoke_cell: Cell) -> None:
    plain = make_plan(None, seeds=(0,))
    assert list_candidates(plain) is plain
    assert list_candidates(make_plan(make_search(**SMOKE, seed=9))) == make_plan(None, seeds=(9,))
    search = ResolvedSearch(spec=make_search(**SMOKE), ranges={}, cells=(smoke_cell,))
    assert list_candidates(resolved(smoke_cell, search)) == resolved(smoke_cell, None)
    assert list_candidates(resolved(smoke_cell, None)) == resolved(smoke_cell, None)


def test_a_search_is_pinned_with_the_ranges_of_the_catalogue(smoke_cell: Cell) -> None:
    search = pin_search(make_plan(make_search(**SMOKE)), (smoke_cell,))
    assert search is not None and search.cells == (smoke_cell,)
    assert search.ranges == {"lora_sft_smoke": load("attacks", "lora_sft_smoke").ranges}
    assert list_regions(search)["lora_sft_smoke"].ranges == search.ranges["lora_sft_smoke"]
    assert pin_search(resolved(smoke_cell, search), (smoke_cell,)) == search
    assert pin_search(make_plan(None, seeds=(0,)), (smoke_cell,)) is None


def test_what_is_pinned_round_trips(smoke_cell: Cell, tmp_path: Path) -> None:
    search = pin_search(make_plan(make_search(**SMOKE)), (smoke_cell,))
    folder = RunFolder.create(tmp_path, "20261122T021733Z-a1b2c3")
    assert not holds_search(folder)
    folder.plan.write_text(dump_yaml(resolved(smoke_cell, search)), encoding="utf-8")
    assert holds_search(folder)
    folder.plan.write_text(dump_yaml(resolved(smoke_cell, None)), encoding="utf-8")
    assert not holds_search(folder)


def test_evals_of_the_wrong_kind_are_refused(smoke_cell: Cell) -> None:
    wrong = make_search(objective="smoke_benign", utility=None)
    with pytest.raises(ConfigError, match="^search: objective: must be an eval of kind refusal, got 'smoke_benign' of"):
        pin_search(make_plan(wrong), (smoke_cell,))
    wrong = make_search(objective="smoke_refusal", utility="smoke_refusal")
    with pytest.raises(ConfigError, match="^search: utility: must be an eval of kind benign_answers, got 'smoke_refus"):
        pin_search(make_plan(wrong), (smoke_cell,))


def test_a_direction_that_does_not_fit_is_refused_before_anything_is_spent(smoke_cell: Cell) -> None:
    far = make_direction("far", attack="lora_sft_smoke", rank=(3,))
    search = make_search(**SMOKE, strategy="directed", directions=(far,))
    with pytest.raises(ConfigError, match="^direction 'far': rank: must be among the recipe's"):
        pin_search(make_plan(search), (smoke_cell,))


def test_a_search_is_told_in_words(smoke_cell: Cell) -> None:
    low = make_direction("low", attack="lora_sft_smoke", rank=(2,), learning_rate=(1e-2, 2e-2))
    search = make_search(**SMOKE, strategy="directed", directions=(low,))
    pinned = pin_search(make_plan(search), (smoke_cell,))
    assert pinned is not None
    text = "\n".join(describe_search(pinned))
    assert "a search, directed: at most 8 trials over lora_sft_smoke" in text
    assert "direction low: lora_sft_smoke, learning rate 0.01 to 0.02, rank 2, benign share 0.25 to 0.75" in text
    assert "from step 2 on, at every 2-fold of it, one trial in 2 goes on; judged by smoke_refusal" in text
    assert "one purse for all trials and their measurements, smoke: max_usd 0.002, max_wall_hours 0.02" in text
    assert "trained again with the seeds 100, 101" in text


def test_a_rank_that_no_adapter_can_have_is_refused_before_anything_is_spent(smoke_cell: Cell) -> None:
    known = load("attacks", "lora_sft_smoke").ranges
    search = ResolvedSearch(
        spec=make_search(**SMOKE),
        ranges={"lora_sft_smoke": known.model_copy(update={"rank": (4, 33)})},
        cells=(smoke_cell,),
    )
    message = (
        "attacks/lora_sft_smoke.yaml: ranges.rank: is more than the 32 that k_proj can have, got 33; choose lower ranks"
    )
    with pytest.raises(ConfigError) as caught:
        pin_search(resolved(smoke_cell, search), (smoke_cell,))
    assert str(caught.value) == message
