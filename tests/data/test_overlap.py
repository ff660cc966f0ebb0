"""No eval is measured on rows that a safeguard or an attack trains on."""

from typing import Any

import pytest

from robustlab.data.overlap import refuse_overlap
from robustlab.data.rows import EvalRow, load_builtin, load_eval_rows
from robustlab.errors import ConfigError
from robustlab.spec.catalog import load


def _refuse(safeguard: str, rows: dict[str, list[EvalRow]]) -> None:
    recipe: Any = load("attacks", "lora_sft_smoke")
    refuse_overlap(safeguard, load("safeguards", safeguard), "lora_sft_smoke", recipe, rows)


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
    from robustlab.data.harmbench import text_sha256

    prompts = [row.prompt or "" for row in load_builtin("mild_requests_attack")]
    rows = [EvalRow(text, None, text_sha256(text, None), "illegal", None, None, "report") for text in prompts]
    with pytest.raises(ConfigError, match="shares 16 of its 96 rows with the training set of attack lora_sft_smoke"):
        _refuse("none", {"mine": rows})
