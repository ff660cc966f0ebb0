"""Words and lines of every kind of schema fault, as a newcomer reads them."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from robustlab.errors import InvalidFile
from robustlab.spec.catalog import find, package_root, schema_of
from robustlab.spec.faults import MAX_FAULTS, explain_faults
from robustlab.spec.loader import dump_yaml, load_yaml

BUDGET = """\
kind: budget
stands_for: A stranger
hardware: cpu
attacker:
  max_usd: 0.01
laboratory: null
total_usd: null
"""


def faults_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, document: str) -> list[str]:
    monkeypatch.chdir(tmp_path)
    path = Path("x.yaml")
    path.write_text(document, encoding="utf-8")
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, schema_of(kind))
    return [str(fault).removeprefix("x.yaml:") for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("0.01", "-2", "5: attacker.max_usd: must be greater than 0, got -2"),
        ("0.01", "no", '5: attacker.max_usd: must be a number, got "no"'),
        ("0.01", "12:30", '5: attacker.max_usd: must be a number, got "12:30"'),
        ("0.01", "0x1F", '5: attacker.max_usd: must be a number, got "0x1F"'),
        ("0.01", "1e999", "5: attacker.max_usd: must be a finite number, got 1e999"),
        ("0.01", "[1]", "5: attacker.max_usd: must be a number, got [1]"),
        ("0.01", "{a: 1}", "5: attacker.max_usd: must be a number, got a mapping"),
        ("max_usd: 0.01", "max_steps: 0", "5: attacker.max_steps: must be greater than or equal to 1, got 0"),
        ("max_usd: 0.01", "max_steps: 1e5", "5: attacker.max_steps: must be a whole number, got 1e5; write 100000"),
        ("max_usd: 0.01", "max_steps: 1.5", "5: attacker.max_steps: must be a whole number, got 1.5"),
        ("max_usd: 0.01", "max_steps: true", "5: attacker.max_steps: must be a whole number, got true"),
        ("max_usd", "max_usdd", "5: attacker.max_usdd: is not a known key; did you mean 'max_usd'?"),
        ("max_usd", "zzz", "5: attacker.zzz: is not a known key"),
        ("A stranger", "1.10", "2: stands_for: must be text, got 1.10; put it in quotes"),
        ("A stranger", "true", "2: stands_for: must be text, got true; put it in quotes"),
        ("A stranger", "", "2: stands_for: must be text, got null"),
        ("A stranger", "''", '2: stands_for: must be text that is not empty, got ""'),
        ("A stranger", "[" + "a, " * 60 + "a]", "2: stands_for: must be text, got [" + '"a", ' * 15 + '"a",...'),
        ("kind: budget", "kind: bidget", "1: kind: must be 'budget', got \"bidget\""),
        ("kind: budget\n", "", "1: kind: is missing"),
        ("hardware: cpu\n", "", "1: hardware: is missing"),
        ("\n  max_usd: 0.01", " 3", "4: attacker: must be a mapping of keys to values, got 3"),
        ("\n  max_usd: 0.01", "", "4: attacker: must be a mapping of keys to values, got null"),
    ],
)
def test_one_fault_of_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, fault: str) -> None:
    assert faults_in(tmp_path, monkeypatch, "budgets", BUDGET.replace(old, new)) == [fault]


@pytest.mark.parametrize("document", ["- a\n", "hello\n", "5\n", "---\n"])
def test_a_document_that_is_no_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    (fault,) = faults_in(tmp_path, monkeypatch, "budgets", document)
    assert ": must be a mapping of keys to values, got " in fault


LORA = find("attacks", "lora_sft_benign").path.read_text(encoding="utf-8").split("kind:", 1)[1]
KINDS = "must be one of 'pypi', 'hub', 'jsonl', 'csv', 'builtin'"
SHA = "a7dc3757902cbacb84a21fedcadcfb674747d3d07edec8d62019321bbc60206"
EVAL = find("evals", "harmbench_64").path.read_text(encoding="utf-8").split("kind:", 1)[1]


def line_of(document: str, start: str) -> int:
    return next(i for i, line in enumerate(document.splitlines(), 1) if line.strip().startswith(start))


def test_a_nested_key_is_named_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = "kind:" + LORA.replace("rank:", "rnak:").replace("warmup_steps: 2", "warmup_steps: -1")
    assert faults_in(tmp_path, monkeypatch, "attacks", document) == [
        f"{line_of(document, 'lora:')}: training.lora.rank: is missing",
        f"{line_of(document, 'rnak:')}: training.lora.rnak: is not a known key; did you mean 'rank'?",
        f"{line_of(document, 'warmup_steps:')}: training.optimizer.warmup_steps: "
        "must be greater than or equal to 0, got -1",
    ]


@pytest.mark.parametrize(
    ("modules", "faults"),
    [
        ("some", ["training.lora.modules: must be 'all-linear' or a list, got \"some\""]),
        ("3", ["training.lora.modules: must be 'all-linear' or a list, got 3"]),
        (
            "[q_proj, 3, '']",
            [
                "training.lora.modules.1: must be text, got 3; put it in quotes",
                'training.lora.modules.2: must be text that is not empty, got ""',
            ],
        ),
    ],
)
def test_a_value_with_two_readings_gets_one_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: str, faults: list[str]
) -> None:
    document = "kind:" + LORA.replace("modules: all-linear", f"modules: {modules}")
    line = line_of(document, "modules:")
    assert faults_in(tmp_path, monkeypatch, "attacks", document) == [f"{line}: {fault}" for fault in faults]


def test_the_mode_of_an_attacks_data_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = "kind:" + LORA.replace("mode: benign", "mode: whole")
    (fault,) = faults_in(tmp_path, monkeypatch, "attacks", document)
    assert fault.startswith(f"{line_of(document, 'mode:')}: data.mode: must be ")
    assert "'withheld'" in fault and ', got "whole"' in fault


@pytest.mark.parametrize(
    ("old", "new", "start", "fault"),
    [
        ("kind: pypi", "kind: pipy", "kind: pipy", f"source.kind: {KINDS}, got \"pipy\"; did you mean 'pypi'?"),
        ("kind: pypi", "kind: [pypi]", "kind: [", f"source.kind: {KINDS}, got [\"pypi\"]; did you mean 'pypi'?"),
        ("  kind: pypi\n", "", "source:", "source.kind: is missing"),
        ("version: 0.17.1", "version: 0.17", "version:", "source.version: must be text, got 0.17; put it in quotes"),
        (
            "sha256: 4a",
            "sha256: Za",
            "sha256:",
            f'source.sha256: must be 64 hexadecimal digits (0-9, a-f), got "Z{SHA}"',
        ),
        (
            "[standard]",
            "[standard, strange]",
            "functional:",
            "functional.1: must be 'standard', 'contextual' or 'copyright', got \"strange\"",
        ),
        ("by_category: true", "by_category: yes", "by_cat", 'by_category: must be true or false, got "yes"'),
        ("  break: 0.5\n", "", "criterion:", "criterion.break: is missing"),
    ],
)
def test_one_fault_of_an_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, start: str, fault: str
) -> None:
    document = "kind:" + EVAL.replace(old, new)
    assert faults_in(tmp_path, monkeypatch, "evals", document) == [f"{line_of(document, start)}: {fault}"]


def test_a_key_that_is_called_like_the_union_member_misleads_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = faults_in(tmp_path, monkeypatch, "targets", "kind: tiny\ntiny: 3\nseed: x\n")
    assert '3: seed: must be a whole number, got "x"' in faults
    assert "2: tiny: is not a known key" in faults
    assert "1: dtype: is missing" in faults


def test_a_cell_of_a_resolved_plan_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (
        "kind: resolved_plan\nhardware: cpu\ndata_csv: null\ncells:\n- target_id: tiny\n  evals:\n    a:\n      x: 1\n"
    )
    faults = faults_in(tmp_path, monkeypatch, "plan", document)
    assert "7: cells.0.evals.a.kind: is missing" in faults
    assert "5: cells.0.seed: is missing" in faults
    assert "1: price_card_sha256: is missing" in faults


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("kind: plan\nattacks: []", "2: attacks: must be a list that is not empty, got []"),
        ("kind: plan\nattacks: control", '2: attacks: must be a list, got "control"'),
        ("kind: plan\nattacks: [a, b, a]", "2: attacks: names 'a' twice"),
        ("kind: plan\nseeds: [0, 1, 0]", "2: seeds: names 0 twice"),
        ("kind: plan\nseeds: [-1]", "2: seeds.0: must be greater than or equal to 0, got -1"),
        ("kind: plam", "1: kind: must be one of 'plan', 'resolved_plan', got \"plam\"; did you mean 'plan'?"),
        ("attacks: [a]", "1: kind: is missing"),
    ],
)
def test_one_fault_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, fault: str) -> None:
    assert fault in faults_in(tmp_path, monkeypatch, "plan", line + "\n")


def test_a_rule_over_two_fields_is_told_at_their_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = "kind:" + LORA.replace("micro_batch_rows: 8", "micro_batch_rows: 3")
    line = line_of(document, "training:")
    problem = "batch_rows must be a multiple of micro_batch_rows, got 8 and 3"
    assert faults_in(tmp_path, monkeypatch, "attacks", document) == [f"{line}: training: {problem}"]


def test_a_wrong_file_does_not_flood_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = BUDGET + "".join(f"x{i}: 1\n" for i in range(5000))
    faults = faults_in(tmp_path, monkeypatch, "budgets", document)
    assert len(faults) == MAX_FAULTS + 1
    assert sum("4,900 more faults are not shown; is this the right file?" in fault for fault in faults) == 1


def test_text_that_matches_some_other_pattern_shows_it() -> None:
    schema = TypeAdapter(Annotated[str, Field(pattern=r"^v[0-9]+$")])
    with pytest.raises(ValidationError) as caught:
        schema.validate_python("x")
    (fault,) = explain_faults(caught.value, yaml.compose("x"), "x.yaml", schema)
    assert fault.problem == 'must be text like ^v[0-9]+$, got "x"'


@pytest.mark.parametrize(
    ("old", "new", "where", "fault"),
    [
        (
            "modules: all-linear",
            "modules: []",
            "modules:",
            "training.lora.modules: must be 'all-linear' or a list that is not empty, got []",
        ),
        ("modules: all-linear", "modules: [q_proj, q_proj]", "lora:", "training.lora: names 'q_proj' twice"),
        ("dropout: 0", "dropout: 1", "dropout:", "training.lora.dropout: must be less than 1, got 1"),
        (
            "  batch_rows: 8",
            "  batch_rows: 65537",
            "batch_rows: 65537",
            "training.batch_rows: must be less than or equal to 65536, got 65537",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, where: str, fault: str
) -> None:
    document = "kind:" + LORA.replace(old, new, 1)
    (found,) = faults_in(tmp_path, monkeypatch, "attacks", document)
    assert found.startswith(f"{line_of(document, where)}: {fault}")


@pytest.mark.parametrize("seed", ["4294967296", "-1"])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    safeguard = find("safeguards", "refusal_sft").path.read_text(encoding="utf-8").replace("seed: 0", f"seed: {seed}")
    (fault,) = faults_in(tmp_path, monkeypatch, "safeguards", safeguard)
    assert "seed: must be" in fault and f"got {seed}" in fault
    plan = (package_root() / "docs" / "plans" / "search_smoke.yaml").read_text(encoding="utf-8")
    (fault,) = faults_in(tmp_path, monkeypatch, "plan", plan.replace("  seed: 0", f"  seed: {seed}"))
    assert "search.seed: must be" in fault


def test_seeds_of_all_trials_stay_within_what_generators_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = (package_root() / "docs" / "plans" / "search_smoke.yaml").read_text(encoding="utf-8")
    (fault,) = faults_in(tmp_path, monkeypatch, "plan", plan.replace("  seed: 0", "  seed: 4294967293"))
    assert "seed: must leave room for a seed of each trial below 4294967296, got 4294967293" in fault


def test_a_winner_is_confirmed_once_with_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = (package_root() / "docs" / "plans" / "search_smoke.yaml").read_text(encoding="utf-8")
    (fault,) = faults_in(tmp_path, monkeypatch, "plan", plan.replace("[100, 101]", "[100, 100]"))
    assert fault.endswith("search.confirm_seeds: names 100 twice")


def test_a_safeguard_may_name_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is a list in every union, and also in what a run writes down and reads again."""
    monkeypatch.chdir(tmp_path)
    text = find("safeguards", "refusal_sft").path.read_text(encoding="utf-8")
    Path("x.yaml").write_text(text.replace("modules: all-linear", "modules: [q_proj, v_proj]"), encoding="utf-8")
    found = load_yaml(Path("x.yaml"), schema_of("safeguards"))
    assert found.training.lora.modules == ("q_proj", "v_proj")
    Path("y.yaml").write_text(dump_yaml(found), encoding="utf-8")
    assert load_yaml(Path("y.yaml"), schema_of("safeguards")) == found
