"""list and check: what there is, and every fault of every file at once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.spec.catalog import KINDS, package_root

Run = Callable[..., Any]

SMOKE = (package_root() / "budgets" / "smoke.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_list_shows_one_kind(run: Run, kind: str) -> None:
    code, out, _ = run("list", kind, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["id"] for row in rows] == sorted(path.stem for path in (package_root() / kind).glob("*.yaml"))
    assert all(row["kind"] == kind and row["from"] == "package" and row["what"] for row in rows)
    assert rows[0]["id"] in run("list", kind).out


def test_list_shows_everything_but_runs(run: Run) -> None:
    rows = json.loads(run("list", "--json").out)
    assert list(dict.fromkeys(row["kind"] for row in rows)) == list(KINDS)


def test_list_shows_the_working_folders_own_file(run: Run, folder: Path) -> None:
    (folder / "budgets").mkdir()
    (folder / "budgets" / "mine.yaml").write_text("# Pocket money.\n")
    rows = json.loads(run("list", "budgets", "--json").out)
    assert {"kind": "budgets", "id": "mine", "from": "folder", "what": "Pocket money."} in rows


def test_list_shows_runs(run: Run, folder: Path) -> None:
    assert run("list", "runs").out == "0 entries\n"
    (folder / "runs" / "20261122T021733Z-a1b2c3").mkdir(parents=True)
    (folder / "runs" / "notes").mkdir()
    assert json.loads(run("list", "runs", "--json").out) == [
        {"kind": "runs", "id": "20261122T021733Z-a1b2c3", "from": "runs", "what": "unfinished"}
    ]


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("budgts", "did you mean 'budgets'?"),
        ("attack", "did you mean 'attacks'?"),
        ("zzzzzz", "use one of targets, safeguards, attacks, budgets, evals, runs"),
    ],
)
def test_list_knows_no_such_kind(run: Run, kind: str, hint: str) -> None:
    assert run("list", kind) == (2, "", f"list: there is no kind {kind!r}; {hint}\n")


def test_check_passes_what_is_right(run: Run) -> None:
    assert run("check", str(package_root() / "safeguards")) == (0, "6 files checked, 0 faults\n", "")


def test_check_tells_every_fault_at_once(run: Run, folder: Path) -> None:
    (folder / "budgets").mkdir()
    (folder / "budgets" / "x.yaml").write_text(SMOKE.replace("max_usd: 0.002", "max_usd: -2").replace("kind:", "knd:"))
    (folder / "budgets" / "y.yaml").write_text("")
    assert run("check", "budgets") == (
        2,
        "2 files checked, 4 faults\n",
        "budgets/x.yaml:4: kind: is missing\n"
        "budgets/x.yaml:4: knd: is not a known key; did you mean 'kind'?\n"
        "budgets/x.yaml:8: attacker.max_usd: must be greater than 0, got -2\n"
        "budgets/y.yaml:1: is empty\n",
    )
    code, out, err = run("check", "budgets", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["checked"] == 2
    assert json.loads(out)["faults"][2] == {
        "path": "budgets/x.yaml",
        "line": 8,
        "field": "attacker.max_usd",
        "problem": "must be greater than 0, got -2",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.yaml"], "absent.yaml: does not exist; name a YAML file or a folder of them\n"),
        (["empty"], "empty: holds no *.yaml file; name a YAML file or a folder of them\n"),
    ],
)
def test_check_needs_something_to_check(run: Run, folder: Path, words: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    assert run("check", *words) == (2, "", message)
