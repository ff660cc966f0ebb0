"""The sizes and habits that keep the code readable, held for every file of the package."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import robustlab

PACKAGE = Path(robustlab.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
Function = ast.FunctionDef | ast.AsyncFunctionDef
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"}
FORBIDDEN_TEXTS = {
    "trust_remote_code=True": r"trust_remote_code\s*=\s*True",
    "push_to_hub(": r"push_to_hub\(",
    "pickle.load": r"pickle\.loads?\(",
    "torch.load(": r"torch\.load\(",
    "shell=True": r"shell\s*=\s*True",
    "TODO": r"\b(TODO|FIXME|XXX)\b",
}
# Homes, temporary folders and checkouts of a person's or a session's machine; written so that this file passes too.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home/\w+|Users/\w+|tmp/dev|work/(?:main|shared))\b")
MAX_FILE_BYTES = 500_000


def functions_of(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def length(node: Function) -> int:
    """Lines from the signature to the end, docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def tracked_files() -> list[Path]:
    """Files that belong to the project: git's, or everything beside hidden and built folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_has_400_lines_at_most(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_half_of_the_files_have_150_lines_at_most() -> None:
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 150


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_function_has_60_lines_at_most(path: Path) -> None:
    long = {node.name: length(node) for node in functions_of(TREES[path]) if length(node) > 60}
    assert long == {}


def test_half_of_the_functions_have_12_lines_at_most() -> None:
    lengths = [length(node) for tree in TREES.values() for node in functions_of(tree)]
    assert len(lengths) > 300
    assert statistics.median(lengths) <= 12


def test_a_module_is_named_after_what_it_holds() -> None:
    words = {word: path for path in FILES for word in path.relative_to(PACKAGE).with_suffix("").parts}
    assert FORBIDDEN_NAMES & words.keys() == set()


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Public functions and classes of a module, and the public methods of its public classes."""
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, *Function.__args__)) or node.name.startswith("_"):
            continue
        yield node.name, node
        methods = node.body if isinstance(node, ast.ClassDef) else []
        for method in methods:
            if isinstance(method, Function) and not method.name.startswith("_"):
                yield f"{node.name}.{method.name}", method


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(TREES[path]), "the module has none"
    assert [name for name, node in public_definitions(TREES[path]) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_everything_is_annotated(path: Path) -> None:
    bare = []
    for node in functions_of(TREES[path]):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        named = [argument for argument in arguments if argument and argument.arg not in ("self", "cls")]
        if node.returns is None or any(argument.annotation is None for argument in named):
            bare.append(node.name)
    assert bare == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_handler_catches_everything(path: Path) -> None:
    broad = [
        node.lineno
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or _names(node.type) & {"Exception", "BaseException"})
    ]
    suppressed = [
        node.lineno
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call)
        and "suppress" in _names(node.func)
        and any("Exception" in _names(a) for a in node.args)
    ]
    assert broad + suppressed == []


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)} | {
        child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_input_is_checked_by_an_assertion(path: Path) -> None:
    assert [node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_the_package_never_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [name for name, pattern in FORBIDDEN_TEXTS.items() if re.search(pattern, text)] == []


def test_no_file_is_large() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in large.items() if size > MAX_FILE_BYTES} == {}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = {}
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        if path != Path(__file__) and (hit := MACHINE_PATHS.search(text)):
            found[str(path.relative_to(ROOT))] = hit.group()
    assert found == {}


def test_the_catalogue_holds_yaml_only() -> None:
    for folder in ("targets", "safeguards", "attacks", "budgets", "evals"):
        assert {path.suffix for path in tracked_files() if path.parent == ROOT / folder} == {".yaml"}
