"""No eval is measured on rows that a safeguard or an attack trains on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from robustlab.data.harmbench import text_sha256
from robustlab.data.overlap import refuse_overlap
from robustlab.data.rows import EvalRow, load_builtin, load_eval_rows
from robustlab.errors import ConfigError
from robustlab.spec.attacks import Ablation, UserData
from robustlab.spec.catalog import load
from robustlab.spec.safeguards import DeepRefusalSft, TamperResistant
from robustlab.spec.sources import JsonlSource


def _refuse(safeguard: Any, rows: dict[str, list[EvalRow]], attack: str = "lora_sft_smoke", **changes: Any) -> None:
    recipe = load("attacks", attack).model_copy(update=changes)
    spec = load("safeguards", safeguard) if isinstance(safeguard, str) else safeguard
    refuse_overlap(spec.kind, spec, attack, recipe, rows)


def _rows(*prompts: str, context: str | None = None) -> list[EvalRow]:
    return [EvalRow(t, context, text_sha256(t, context), "illegal", None, None, "report") for t in prompts]


def test_rows_that_nobody_trains_on_pass() -> None:
    rows = {name: load_eval_rows(load("evals", name), data_csv=None) for name in ("smoke_refusal", "smoke_benign")}
    _refuse("none", rows)
    _refuse("refusal_sft", {"smoke_benign": rows["smoke_benign"]})


def test_rows_that_the_safeguard_learnt_are_refused() -> None:
    rows = load_eval_rows(load("evals", "smoke_refusal"), data_csv=None)
    with pytest.raises(ConfigError) as caught:
        _refuse("refusal_sft", {"smoke_refusal": rows})
    assert str(caught.value) == (
        "eval smoke_refusal: shares 24 of its 24 rows with the training set of safeguard refusal_sft; "
        "measure on other rows, or choose another safeguard or attack"
    )


def test_install_rows_are_refused_with_a_safeguard_that_trains_on_them_only() -> None:
    row = EvalRow("Praise a bad cake.", None, "0" * 64, "illegal", "standard", "val", "install")
    _refuse("none", {"val": [row]})
    with pytest.raises(ConfigError, match="shares 1 of its 1 rows"):
        _refuse("refusal_sft", {"val": [row]})


def test_rows_that_the_attack_learnt_are_refused() -> None:
    prompts = [row.prompt or "" for row in load_builtin("mild_requests_attack")]
    with pytest.raises(ConfigError, match="shares 16 of its 96 rows with the training set of attack lora_sft_smoke"):
        _refuse("none", {"mine": _rows(*prompts)})


def test_benign_prompts_that_the_attack_learnt_are_refused() -> None:
    prompts = [row.prompt or "" for row in load_builtin("benign_prompts") if row.role == "attack"]
    with pytest.raises(ConfigError, match="shares 16 of its 100 rows with the training set of attack lora_sft_smoke"):
        _refuse("none", {"mine": _rows(*prompts)})


def test_prompts_over_which_an_ablation_averages_are_refused() -> None:
    spec = Ablation(kind="ablation", source="a test", harmful_rows=3, harmless_rows=5, depths=(0.5,))
    prompts = [row.prompt or "" for row in load_builtin("mild_requests_attack")]
    prompts += [row.prompt or "" for row in load_builtin("benign_prompts") if row.role == "attack"]
    none = load("safeguards", "none")
    with pytest.raises(ConfigError, match="shares 8 of its 196 rows with the training set of attack mine"):
        refuse_overlap("none", none, "mine", spec, {"all": _rows(*prompts)})


@pytest.mark.parametrize("context", [None, "A cake."])
def test_rows_of_the_user_s_own_set_are_refused(tmp_path: Path, context: str | None) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [{"q": prompt, "a": "Yes."} for prompt in ("Name a tree.", "Praise this cake.", "A pie.\n\n---\n\nEat it.")]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    source = JsonlSource(kind="jsonl", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    data = UserData(mode="user", source=source, prompt_field="q", completion_field="a", rows=None)
    rows = _rows("Praise this cake.", "Sing a song.", context=context) + _rows("Eat it.", context="A pie.")
    # The first row is refused with a context too, for its behavior was trained on without one.
    with pytest.raises(ConfigError, match="shares 2 of its 3 rows with the training set of attack lora_sft_smoke"):
        _refuse("none", {"mine": rows}, data=data)
    _refuse("none", {"mine": _rows("Sing a song.", context=context)}, data=data)


@pytest.mark.parametrize(("kind", "repeats"), [(DeepRefusalSft, 1), (TamperResistant, 1), (TamperResistant, 0)])
def test_every_trained_safeguard_is_held_against_the_evals(kind: Any, repeats: int) -> None:
    plain = load("safeguards", "refusal_sft").model_dump() | {"mild_repeats": repeats}
    name = "deep_refusal_sft" if kind is DeepRefusalSft else "tamper_resistant"
    safeguard = kind.model_construct(**(plain | {"kind": name, "install": load("safeguards", "refusal_sft").install}))
    mild = _rows(*(row.prompt or "" for row in load_builtin("mild_requests_safeguard")))
    with pytest.raises(ConfigError, match=f"shares 184 of its 184 rows with the training set of safeguard {name}"):
        _refuse(safeguard, {"mine": mild})
    row = EvalRow("Praise a bad cake.", None, "0" * 64, "illegal", "standard", "val", "install")
    with pytest.raises(ConfigError, match="shares 1 of its 1 rows"):
        _refuse(safeguard, {"val": [row]})
    quiet = safeguard.model_copy(update={"install_repeats": 0})
    _refuse(quiet, {"val": [row]})


def test_a_safeguard_that_repeats_no_mild_request_has_not_learnt_one() -> None:
    spec = load("safeguards", "refusal_sft").model_copy(update={"mild_repeats": 0})
    _refuse(spec, {"mine": _rows(*(row.prompt or "" for row in load_builtin("mild_requests_safeguard")))})
