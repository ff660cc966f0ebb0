"""Every YAML of the catalogue loads, round-trips, and opens with what it stands for, its command and its cost."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from robustlab.spec.catalog import KINDS, Kind, find, load, package_root, schema_of
from robustlab.spec.loader import dump_yaml, load_yaml
from tests.command_line import parse

COUNTS = {"targets": 2, "safeguards": 6, "attacks": 21, "budgets": 9, "evals": 23}
FILES = [(kind, path) for kind in KINDS for path in sorted((package_root() / kind).iterdir())]
IDS = [f"{kind}/{path.stem}" for kind, path in FILES]
FLAGS: dict[str, Kind] = {
    "target": "targets",
    "safeguard": "safeguards",
    "attack": "attacks",
    "budget": "budgets",
    "eval_": "evals",
}


def test_this_test_saw_every_file() -> None:
    assert {kind: sum(found == kind for found, _ in FILES) for kind in KINDS} == COUNTS
    assert {path.suffix for _, path in FILES} == {".yaml"}


@pytest.mark.parametrize(("kind", "path"), FILES, ids=IDS)
def test_a_file_loads_and_round_trips(kind: Kind, path: Path, tmp_path: Path) -> None:
    spec = load_yaml(path, schema_of(kind))
    assert spec.model_dump() == load(kind, path.stem).model_dump()
    assert schema_of(kind).validate_json(spec.model_dump_json()) == spec
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_yaml(spec), encoding="utf-8")
    assert load_yaml(copy, schema_of(kind)) == spec


@pytest.mark.parametrize(("kind", "path"), FILES, ids=IDS)
def test_a_file_opens_with_its_meaning_its_command_and_its_cost(kind: Kind, path: Path) -> None:
    meaning, command, cost = path.read_text(encoding="utf-8").splitlines()[:3]
    assert meaning.startswith("# ") and meaning.endswith(".") and len(meaning) > 10
    assert command.startswith("# Command: robustlab ")
    assert cost.startswith("# Cost: ") and cost.endswith(".")
    assert all(len(line) <= 200 for line in (meaning, command, cost))


@pytest.mark.parametrize(("kind", "path"), FILES, ids=IDS)
def test_the_command_of_a_file_parses_and_names_the_file(kind: Kind, path: Path) -> None:
    words = shlex.split(path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# Command: "))
    assert words[0] == "robustlab"
    parsed = parse(words[1:])
    if parsed["command"] == "fetch":
        assert path.stem in parsed["ids"]
        return
    assert parsed["command"] in ("plan", "run")
    named = {(kind, name) for flag, kind in FLAGS.items() for name in parsed[flag] or ()}
    assert (kind, path.stem) in named
    for other, name in named:
        find(other, name)
    assert all(parsed[flag] for flag in ("target", "attack", "budget", "eval_"))


@pytest.mark.parametrize("words", [["plan", "--targt", "tiny"], ["pln"], ["fetch", "--some"], ["list", "a", "b"]])
def test_a_wrong_command_would_not_parse(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"No such|unexpected") as caught:
        parse(words)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_a_control_runs_a_recipe_that_exists() -> None:
    for name in ("control", "control_smoke"):
        assert load("attacks", load("attacks", name).recipe).kind == "lora_sft"


def test_a_variant_is_one_protocol() -> None:
    """Two evals may share a variant only if they generate and judge in the same way."""
    protocol = ("kind", "split", "max_new_tokens", "judge", "coherence", "confidence", "criterion")
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for _, path in [pair for pair in FILES if pair[0] == "evals"]:
        spec = load("evals", path.stem).model_dump()
        kept = {key: spec[key] for key in protocol if key in spec}
        assert seen.setdefault((spec["kind"], spec["variant"]), kept) == kept
