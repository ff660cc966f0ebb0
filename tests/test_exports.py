"""Packages export nothing by themselves, the version stands once, and the package is light to import."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import robustlab

PACKAGE = Path(robustlab.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
INITS = sorted(PACKAGE.rglob("__init__.py"))
NAMES = [str(path.parent.relative_to(PACKAGE.parent)) for path in INITS]
LIGHT = [
    "errors",
    "units",
    "spec.catalog",
    "cost.estimate",
    "record.results",
    "stats.verdicts",
    "report.html",
    "cli.main",
]


@pytest.mark.parametrize("path", INITS, ids=NAMES)
def test_a_package_holds_its_docstring_and_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    rest = [ast.unparse(node) for node in tree.body[1:]]
    assert rest == ([f"__version__ = '{robustlab.__version__}'"] if path.parent == PACKAGE else [])


def test_the_version_is_that_of_the_project() -> None:
    assert robustlab.__version__ == PROJECT["project"]["version"]


def test_every_package_is_built_into_the_wheel() -> None:
    packages = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in INITS}
    named = set(PROJECT["tool"]["setuptools"]["packages"])
    assert {name for name in named if not name.startswith("robustlab.catalog.")} == packages


def test_the_command_is_the_one_that_the_wheel_installs() -> None:
    assert PROJECT["project"]["scripts"] == {"robustlab": "robustlab.__main__:main"}


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=60
    )
    return set(ended.stdout.split())


def test_the_package_by_itself_loads_nothing() -> None:
    assert loaded_by("import robustlab") == {"robustlab"}


def test_light_layers_load_no_model_library() -> None:
    loaded = loaded_by("; ".join(f"import robustlab.{name}" for name in LIGHT))
    heavy = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "wandb", "accelerate"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_errors_and_units_stand_at_the_bottom() -> None:
    assert {name for name in loaded_by("import robustlab.errors, robustlab.units") if name.startswith("robustlab")} == {
        "robustlab",
        "robustlab.errors",
        "robustlab.redaction",
        "robustlab.units",
    }
