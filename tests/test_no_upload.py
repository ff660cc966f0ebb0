"""There is no way out: no line of the package writes to a hub, and the trainers are told not to."""

import ast
from pathlib import Path

import pytest

import robustlab
from robustlab.spec.attacks import LoraSft

PACKAGE = Path(robustlab.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
WRITES = ("upload_", "create_repo", "create_commit", "create_branch", "create_pull_request", "push_to_hub", "hub_token")
READS = {"StrictDataclassError", "snapshot_download", "hf_hub_download", "HfApi", "constants", "utils"}


def names_of(tree: ast.AST) -> list[tuple[int, str]]:
    """Every name, attribute, keyword and key of a module with its line."""
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            found.append((line, node.id))
        elif isinstance(node, ast.Attribute):
            found.append((line, node.attr))
        elif isinstance(node, ast.keyword) and node.arg:
            found.append((line, node.arg))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((line, node.value))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found += [(line, alias.name) for alias in node.names]
    return found


def test_the_only_word_of_it_is_a_refusal() -> None:
    hits = {
        f"{path.name}:{line}": path.read_text(encoding="utf-8").splitlines()[line - 1].strip()
        for path, tree in TREES.items()
        for line, name in names_of(tree)
        if name.startswith(WRITES)
    }
    assert set(hits.values()) == {'"push_to_hub": False,'}


def test_the_hub_is_read_through_known_functions_only() -> None:
    imported = {
        alias.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "huggingface_hub"
        for alias in node.names
    }
    assert imported <= READS
    whole = [
        path.name
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] == "huggingface_hub"
    ]
    assert whole == []


def test_models_are_saved_by_one_function_only_and_it_knows_no_attack() -> None:
    savers = {
        path.relative_to(PACKAGE).as_posix()
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("save_pretrained", "save_model", "merge_and_unload")
    }
    # A released target and its merged safeguard; an attack is neither merged nor saved.
    assert savers == {"models/load.py", "models/adapter.py"}
    callers = {
        path.relative_to(PACKAGE).as_posix()
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "merge"
    }
    assert {caller.split("/")[0] for caller in callers} <= {"harden", "engine", "record"}
    assert "lab.py" not in callers and not any(caller.startswith("tamper/") for caller in callers)


@pytest.mark.parametrize("config", ["SFTConfig", "DPOConfig"])
def test_trainers_are_told_to_report_save_and_push_nothing(smoke_recipe: LoraSft, tmp_path: Path, config: str) -> None:
    import trl  # only for the tests that need it

    from robustlab.train.trainer import shared_settings

    settings = shared_settings(smoke_recipe.training, steps=1, seed=0, scratch=str(tmp_path))
    arguments = getattr(trl, config)(**settings)
    assert arguments.push_to_hub is False
    assert (arguments.hub_token, arguments.hub_model_id) == (None, None)
    assert arguments.report_to == []
    assert arguments.save_strategy.value == "no"
    assert settings["push_to_hub"] is False and settings["report_to"] == []
