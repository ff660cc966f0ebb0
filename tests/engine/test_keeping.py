"""Which attacks leave an adapter that may be kept."""

from typing import Any

import pytest

from robustlab.engine.keeping import check_keeping
from robustlab.errors import ConfigError
from robustlab.record.kept import ADAPTERS, TRANSCRIPTS, Keeping
from robustlab.spec.catalog import list_entries, load
from robustlab.spec.plan import Cell

KEEPING = Keeping(reason="audit", public_key="a key", expire_days=30)


def cell(attack: str, attack_id: str | None = None) -> Cell:
    recipe = load("attacks", attack)
    return Cell.model_construct(
        target_id="tiny", safeguard_id="none", attack_id=attack_id or attack, seed=0, attack=recipe, recipe=recipe
    )


def of_kind(kind: str) -> str:
    return next(entry.id for entry in list_entries("attacks") if load("attacks", entry.id).kind == kind)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("full_sft", "is refused where all weights are trained: full attacked weights are never written"),
        ("ablation", "is refused for an attack of kind ablation, which makes no adapter"),
        ("untouched", "is refused for an attack of kind untouched, which makes no adapter"),
    ],
)
def test_what_makes_no_adapter_is_refused(kind: str, problem: str) -> None:
    name = of_kind(kind)
    with pytest.raises(ConfigError) as caught:
        check_keeping([cell("lora_sft_smoke"), cell(name)], {ADAPTERS: KEEPING})
    label = f"tiny / none / {name} / seed 0"
    assert str(caught.value) == f"--keep-adapter: {problem}, got {label}; leave the flag, or that attack, out"


def test_the_winner_of_a_search_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        check_keeping([cell("lora_sft_smoke", "lora_sft_smoke@search")], {ADAPTERS: KEEPING})
    assert str(caught.value) == (
        "--keep-adapter: is refused for the winner of a search, whose adapter is never kept, got "
        "tiny / none / lora_sft_smoke@search / seed 0; leave the flag, or that attack, out"
    )


@pytest.mark.parametrize("keeping", [None, {TRANSCRIPTS: KEEPING}, {}])
def test_who_keeps_no_adapter_may_run_anything(keeping: Any) -> None:
    check_keeping([cell(of_kind("full_sft")), cell(of_kind("ablation"))], keeping)


def test_adapters_of_both_kinds_may_be_kept() -> None:
    check_keeping([cell(of_kind("lora_sft")), cell(of_kind("lora_dpo"))], {ADAPTERS: KEEPING})
