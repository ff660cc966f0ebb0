"""Kinds of safeguards: what a file may hold, and that one which needs the attacker's job is refused with its reason."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from robustlab.errors import InvalidFile
from robustlab.spec.base import content_hash
from robustlab.spec.catalog import load, schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.safeguards import JOB_BOUND_KINDS, DeepRefusalSft, NoSafeguard, RefusalSft, TamperResistant

KINDS: dict[str, type[Any]] = {
    "none": NoSafeguard,
    "refusal_sft": RefusalSft,
    "deep_refusal_sft": DeepRefusalSft,
    "deep_refusal_smoke": DeepRefusalSft,
    "tamper_resistant": TamperResistant,
    "tamper_resistant_smoke": TamperResistant,
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_file_of_the_catalogue_is_of_its_kind(name: str) -> None:
    assert type(load("safeguards", name)) is KINDS[name]


def test_new_kinds_change_no_hash_of_the_old_one() -> None:
    """The hash of the file as it was before there were others: cells of older runs keep their ids."""
    spec = load("safeguards", "refusal_sft")
    assert content_hash(spec) == "47ecd980376a4572cc534bbd9fc1a4e1de6bf506af78cccbc9e0cca860f99603"
    assert next(iter(spec.model_dump())) == "kind"


@pytest.mark.parametrize("kind", ["none", "refusal_sft"])
def test_knobs_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"kind: {kind}\ndeep_share: 0.5\n", encoding="utf-8")
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, schema_of("safeguards"))
    assert f"{path}:2: deep_share: is not a known key" in str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("deep_refusal_sft", "deep_share", 1.01),
        ("deep_refusal_sft", "deep_share", -0.01),
        ("deep_refusal_sft", "deepest_tokens", 0),
        ("tamper_resistant", "inner_steps", 0),
        ("tamper_resistant", "inner_rows", 0),
        ("tamper_resistant", "inner_learning_rate", 0.0),
        ("tamper_resistant", "inner_learning_rate", float("inf")),
        ("tamper_resistant", "resistance_weight", -1.0),
        ("tamper_resistant", "resistance_weight", float("nan")),
    ],
)
def test_impossible_knobs_are_refused(name: str, field: str, value: float) -> None:
    spec = load("safeguards", name)
    with pytest.raises(ValidationError, match=field):
        type(spec).model_validate({**spec.model_dump(), field: value})


@pytest.mark.parametrize("kind", sorted(JOB_BOUND_KINDS))
def test_a_safeguard_that_needs_the_attackers_job_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bound.yaml"
    path.write_text(f"# It has knobs of its own.\n\nrho: 1\nkind: {kind}\nsource: x\n", encoding="utf-8")
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, schema_of("safeguards"))
    assert str(caught.value) == (
        f"{path}:4: kind: names a safeguard that needs control of the attacker's training job "
        f"({JOB_BOUND_KINDS[kind]}), got {kind!r}; who holds the weights runs the job, so choose one that is installed "
        "before release"
    )


def test_such_a_safeguard_ends_the_check_with_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustlab.cli.main import main  # the rest of this file is about files alone

    (tmp_path / "safeguards").mkdir()
    (tmp_path / "safeguards" / "lisa.yaml").write_text("kind: lisa\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["robustlab", "check", "safeguards"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "safeguards/lisa.yaml:1: kind: names a safeguard that needs control" in line]


@pytest.mark.parametrize(("text", "got"), [("kind: [1]", "[1]"), ("kind: {a: 1}", "a mapping"), ("kind: lis", '"lis"')])
def test_other_unknown_kinds_are_told_which_ones_there_are(text: str, got: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, schema_of("safeguards"))
    names = "'none', 'refusal_sft', 'deep_refusal_sft', 'tamper_resistant'"
    assert str(caught.value) == f"{path}:1: kind: must be one of {names}, got {got}"


def test_a_document_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text("[lisa]\n", encoding="utf-8")
    with pytest.raises(InvalidFile, match="must be a mapping of keys to values"):
        load_yaml(path, schema_of("safeguards"))
