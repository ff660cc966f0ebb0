"""Schemas are closed, strict, frozen and documented; equal content has an equal hash."""

import hashlib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import robustlab.spec.attacks
import robustlab.spec.budgets
import robustlab.spec.evals
import robustlab.spec.judges
import robustlab.spec.plan
import robustlab.spec.safeguards
import robustlab.spec.sources
import robustlab.spec.targets
import robustlab.spec.training
from robustlab.spec.attacks import Ablation, FullSft, LoraDpo, LoraSft
from robustlab.spec.base import Spec, canonical_json, content_hash
from robustlab.spec.budgets import CAP_NAMES, Budget, Caps
from robustlab.spec.catalog import load, schema_of
from robustlab.spec.endpoints import EndpointSpec
from robustlab.spec.evals import RefusalEval
from robustlab.spec.judges import ClassifierJudge
from robustlab.spec.loader import dump_yaml, load_yaml
from robustlab.spec.plan import Cell, Plan, ResolvedPlan, Schedule
from robustlab.spec.sources import Source
from robustlab.spec.targets import (
    ChatTarget,
    FolderTarget,
    GgufTarget,
    HubTarget,
    OpenAiTarget,
    Target,
    TargetBase,
    TinyTarget,
)

MODULES = [
    robustlab.spec.attacks,
    robustlab.spec.budgets,
    robustlab.spec.evals,
    robustlab.spec.judges,
    robustlab.spec.plan,
    robustlab.spec.safeguards,
    robustlab.spec.sources,
    robustlab.spec.targets,
    robustlab.spec.training,
]
SPECS = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Spec) and value is not Spec
    },
    key=lambda spec: spec.__name__,
)
# Older records lack what came later and must still load.
DEFAULTS: dict[type[Spec], list[str]] = {
    Caps: [*CAP_NAMES],
    Budget: ["details"],
    Plan: ["seeds", "search"],
    ResolvedPlan: ["devices", "search"],
    LoraSft: ["quantization", "ranges"],
    LoraDpo: ["quantization", "ranges"],
    FullSft: ["ranges"],
    Ablation: ["max_harmless_kl"],
    **{
        target: ["answer_after"]
        for target in (ChatTarget, TargetBase, FolderTarget, GgufTarget, HubTarget, TinyTarget, OpenAiTarget)
    },
    EndpointSpec: ["limit_parameter", "concurrency"],
    ClassifierJudge: ["parameters"],
    RefusalEval: ["wrapper", "prefill", "second_judges"],
}
SHA = "a" * 64


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_a_schema_is_closed_frozen_and_strict(spec: type[Spec]) -> None:
    config = spec.model_config
    assert config["extra"] == "forbid" and config["frozen"] and config["strict"] and not config["allow_inf_nan"]
    assert spec.__doc__


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_field_says_what_it_is(spec: type[Spec]) -> None:
    undocumented = [
        name for name, field in spec.model_fields.items() if not field.description and name not in ("kind", "mode")
    ]
    assert undocumented == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_only_caps_and_what_came_later_have_defaults(spec: type[Spec]) -> None:
    with_defaults = [name for name, field in spec.model_fields.items() if not field.is_required()]
    assert with_defaults == DEFAULTS.get(spec, [])


def make_budget(**changes: Any) -> Budget:
    fields = {"kind": "budget", "stands_for": "A stranger", "hardware": "cpu", "attacker": {}, "laboratory": None}
    return Budget.model_validate({**fields, "total_usd": None, **changes})


def test_a_cap_that_is_not_named_does_not_exist() -> None:
    assert make_budget().attacker == Caps()
    assert CAP_NAMES == (
        "max_usd",
        "max_wall_hours",
        "max_device_hours",
        "max_train_tokens",
        "max_steps",
        "max_trials",
    )


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_budget().hardware = "gpu"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (
            {"kind": "pypi", "package": "a", "version": "1", "member": "a/b.txt", "sha256": SHA, "licence": "MIT"},
            "PypiSource",
        ),
        (
            {
                "kind": "hub",
                "dataset": "a/b",
                "config": None,
                "split": "test",
                "revision": "b" * 40,
                "sha256": SHA,
                "licence": "unknown",
            },
            "HubSource",
        ),
        ({"kind": "jsonl", "path": "a.jsonl", "sha256": SHA}, "JsonlSource"),
        ({"kind": "csv", "path": None, "sha256": SHA}, "CsvSource"),
        ({"kind": "builtin", "name": "refusals"}, "BuiltinSource"),
    ],
)
def test_each_kind_of_source_is_pinned_and_closed(source: dict[str, Any], kind: str) -> None:
    schema: TypeAdapter[Any] = TypeAdapter(Source)
    assert type(schema.validate_python(source)).__name__ == kind
    for missing in source.keys() - {"kind"}:
        with pytest.raises(ValidationError, match="Field required"):
            schema.validate_python({key: value for key, value in source.items() if key != missing})
    with pytest.raises(ValidationError, match="Extra inputs"):
        schema.validate_python({**source, "branch": "main"})


@pytest.mark.parametrize("revision", ["main", "b" * 39, "B" * 40, "b" * 41, ""])
def test_a_revision_is_a_whole_commit_hash(revision: str) -> None:
    shape = load("targets", "tiny").shape.model_dump()
    fields = {"kind": "hub", "model": "a/b", "revision": revision, "licence": "MIT", "system_prompt": None}
    with pytest.raises(ValidationError, match="revision"):
        TypeAdapter(Target).validate_python({**fields, "reasoning": "off", "dtype": "float32", "shape": shape})


def test_every_kind_of_target_has_a_shape() -> None:
    members = get_args(get_args(Target)[0])
    assert {member.model_fields["kind"].annotation.__args__[0] for member in members} == {
        "gguf",
        "hub",
        "folder",
        "tiny",
        "openai",
    }
    # Only the server knows the sizes of what is behind it.
    assert all(("shape" in member.model_fields) == (member is not OpenAiTarget) for member in members)
    assert isinstance(OpenAiTarget.shape, property)


def test_canonical_json_sorts_keys_and_keeps_letters() -> None:
    assert canonical_json({"b": 1, "a": ["é", None, 0.1]}) == '{"a":["é",null,0.1],"b":1}'
    assert content_hash({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


@settings(deadline=None)
@given(st.permutations(["x", "y", "z"]))
def test_the_order_of_keys_does_not_change_a_hash(keys: list[str]) -> None:
    assert content_hash(dict.fromkeys(keys, 1)) == content_hash({"x": 1, "y": 1, "z": 1})


def make_cell(seed: int) -> Cell:
    attack = load("attacks", "lora_sft_smoke")
    return Cell(
        target_id="tiny",
        target=load("targets", "tiny"),
        safeguard_id="none",
        safeguard=load("safeguards", "none"),
        attack_id="lora_sft_smoke",
        attack=attack,
        recipe=attack,
        budget_id="smoke",
        budget=load("budgets", "smoke"),
        evals={"smoke_refusal": load("evals", "smoke_refusal")},
        seed=seed,
        schedule=Schedule(steps=2, cut_by="max_usd", learning_rates=(1e-5, 3.3333333333333335e-06), marks={}),
    )


def test_a_cell_is_named_by_everything_that_it_depends_on() -> None:
    cell = make_cell(0)
    assert cell.cell_id == content_hash(cell)[:12] == make_cell(0).cell_id
    assert cell.cell_id != make_cell(1).cell_id
    assert cell.label == "tiny / none / lora_sft_smoke / seed 0"


def test_a_resolved_plan_comes_back_from_its_yaml_bit_for_bit(tmp_path: Path) -> None:
    plan = ResolvedPlan(
        kind="resolved_plan",
        hardware="cpu_2vcpu_8gb",
        price_card_sha256="1" * 30 + "e" + "2" * 33,
        shadow_price=None,
        data_csv="12:30",
        cells=(make_cell(0), make_cell(1)),
    )
    path = tmp_path / "plan.yaml"
    path.write_text(dump_yaml(plan), encoding="utf-8")
    assert load_yaml(path, schema_of("plan")) == plan
    assert load_yaml(path, schema_of("plan")).cells[1].cell_id == plan.cells[1].cell_id


def test_a_plan_names_each_id_once() -> None:
    ids = {"targets": ("tiny",), "safeguards": ("none",), "budgets": ("smoke",), "evals": ("smoke_refusal",)}
    with pytest.raises(ValidationError, match=r"names 'control' twice"):
        Plan.model_validate({"kind": "plan", "attacks": ("control", "control"), "seeds": (0,), **ids})


def test_micro_batches_divide_the_batch() -> None:
    training = load("attacks", "lora_sft_smoke").training
    with pytest.raises(ValidationError, match=r"batch_rows must be a multiple of micro_batch_rows, got 4 and 3"):
        type(training).model_validate({**training.model_dump(), "micro_batch_rows": 3})


def test_a_recipe_keeps_its_hash_when_it_uses_nothing_new() -> None:
    """Cells of older runs keep their ids: knobs that came later are left out while they are null."""
    recipe = load("attacks", "lora_sft_withheld").model_copy(update={"ranges": None})
    assert {"quantization", "ranges"} & set(recipe.model_dump(mode="json")) == set()
    assert content_hash(recipe) == "659a876ef5fd7dc1c3e68ce55a3ed91a3398f263bcc28c6aaabce1b99930e370"
