"""The README's commands parse, its tree is the real one, and the files that it names are there."""

import re
import shlex

from robustlab.spec.catalog import package_root
from tests.command_line import parse

ROOT = package_root()
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def _commands(program: str) -> list[list[str]]:
    lines = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def test_every_robustlab_command_parses() -> None:
    commands = _commands("robustlab")
    assert len(commands) >= 7
    assert {parse(words[1:])["command"] for words in commands} >= {"list", "plan", "run", "resume", "report", "doctor"}


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = {words[1] for words in _commands("make")} | set(re.findall(r"`make ([a-z]+)`", README))
    assert {"demo", "test", "smoke", "check", "help"} <= named <= there


def test_the_tree_names_what_is_there_and_all_of_it() -> None:
    tree = next(block for block in BLOCKS if "robustlab/" in block and "lab.py" in block)
    named = re.findall(r"^ {4}([a-z]+(?:/|\.py))", tree, flags=re.MULTILINE)
    package = ROOT / "robustlab"
    there = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    there |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert set(named) == there
    top = re.findall(r"^([a-z]+)/", tree, flags=re.MULTILINE)
    assert {"targets", "safeguards", "attacks", "budgets", "evals", "robustlab", "tests"} <= set(top)
    assert all((ROOT / name).is_dir() for name in top)


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert "SECURITY.md" in links
    assert all((ROOT / link).exists() for link in links)
