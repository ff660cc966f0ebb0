"""report of several runs and of stored results: one grid, in three formats, and the page that `make results` makes."""

import gzip
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine.report import read_stored
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder
from robustlab.report.grid import build_grid
from robustlab.report.layout import to_markdown
from robustlab.spec.catalog import find, package_root, schema_of
from robustlab.spec.loader import load_yaml
from tests.report.conftest import control_cell, results
from tests.report.grids import control_of, copy_of, never_began, seed_cell

Run = Callable[..., Any]
ROOT = package_root()


def page(intro: Path, stored: list[Path]) -> str:
    """What `make results` writes: the introduction, an empty line and the grid of the stored results."""
    grid = build_grid([read_stored(path) for path in stored])
    return f"{intro.read_text(encoding='utf-8')}\n{to_markdown(grid)}"


def stored_results(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")], key=str)


def documents() -> list[Results]:
    """Two runs: three seeds of an attack with a copy in 4 bits, and a control, of which one cell never began."""
    first = [seed_cell(0, quantised=copy_of(0.9)), seed_cell(1, 0.95, broken_at=None), control_cell()]
    return [
        results(*first, run_id="first", controls=control_of()),
        results(seed_cell(2, 0.05), run_id="second", ledger_head="77" * 32, controls={}),
    ]


@pytest.fixture
def runs(folder: Path) -> list[str]:
    """Both as runs that have ended."""
    for document in documents():
        made = RunFolder.create(folder / "runs", document.run_id)
        made.results.write_text(document.model_dump_json(), encoding="utf-8")
        made.write_manifest()
    return ["first", "second"]


@pytest.fixture
def files(folder: Path) -> list[str]:
    """Both as stored files, one of them gzipped."""
    first, second = (document.model_dump_json().encode() for document in documents())
    (folder / "first.json").write_bytes(first)
    (folder / "second.json.gz").write_bytes(gzip.compress(second))
    return ["first.json", "second.json.gz"]


def test_several_runs_make_one_grid_and_their_reports(run: Run, runs: list[str], folder: Path) -> None:
    code, out, err = run("report", *runs)
    assert (code, err) == (0, "")
    assert (
        "lora_withheld                        3 (0, 1, 2)  98 % [94, 100]  1.2, 95, 5.0 %    range 1.2 to 95 %" in out
    )
    assert "lora_withheld: quantised, untouched  -            98 % [94, 100]  90 %" in out
    assert "Controls at learning rate 0: 1 of 1 byte-identical" in out
    assert out.endswith(
        "run     first\nfolder  runs/first/\nreport  runs/first/report.html\n"
        "run     second\nfolder  runs/second/\nreport  runs/second/report.html\n"
    )
    for name in runs:
        assert (folder / "runs" / name / "report.html").is_file()
        RunFolder(folder / "runs" / name).check_manifest()


def test_stored_files_make_the_same_grid(run: Run, files: list[str]) -> None:
    code, out, err = run("report", *files)
    assert (code, err) == (0, "")
    assert "lora_withheld                        3 (0, 1, 2)  98 % [94, 100]  1.2, 95, 5.0 %" in out
    assert out.endswith("run     first\nrun     second\n")
    assert run("report", "./first.json").out.count("Cheapest break over attacks") == 1


def test_one_run_has_its_blocks_unless_another_format_is_asked(run: Run, runs: list[str]) -> None:
    plain = run("report", "second").out
    assert "attacker    $" in plain
    assert run("report", "second", "--format", "terminal").out == plain
    assert "attacker    $" not in run("report", "second", "--format", "markdown").out


def test_the_formats(run: Run, runs: list[str], files: list[str]) -> None:
    grid = build_grid(documents())
    assert run("report", *files, "--format", "markdown") == (0, to_markdown(grid), "")
    assert run("report", *runs, "--format", "markdown") == (0, to_markdown(grid), "")
    rows = json.loads(run("report", *files, "--format", "json").out)["rows"]
    assert [(row["attack"], len(row["seeds"])) for row in rows] == [
        ("lora_withheld", 3),
        ("lora_withheld", 1),
        ("control", 1),
    ]
    whole = json.loads(run("report", *files, "--json").out)
    assert [document["run_id"] for document in whole] == ["first", "second"]


def test_whole_results_and_a_format_are_not_asked_at_once(run: Run, files: list[str]) -> None:
    code, out, err = run("report", *files, "--json", "--format", "markdown")
    assert (code, out, err) == (2, "", "--json: is named beside --format markdown; name one of them\n")


def test_an_unknown_format_is_refused(run: Run, files: list[str]) -> None:
    assert run("report", *files, "--format", "html").code == 2


@pytest.mark.parametrize("name", ["../x", "absent.json", "absent.json.gz"])
def test_a_file_that_is_not_there(run: Run, name: str) -> None:
    assert run("report", name) == (2, "", f"{name}: is no file; name a run, or a results.json\n")


@pytest.mark.parametrize("format_", ["terminal", "markdown", "json"])
def test_a_grid_with_an_incomplete_cell_ends_with_5(run: Run, folder: Path, format_: str) -> None:
    document = results(never_began(), controls={})
    (folder / "x.json").write_text(document.model_dump_json(), encoding="utf-8")
    code, out, _ = run("report", "x.json", "--format", format_)
    assert code == 5 and "never began" in out


def test_the_stored_results_make_the_page() -> None:
    """The committed page is what the stored results make; without any, the fixture's tests stand for it."""
    folder, committed = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
    stored = stored_results(folder)
    assert committed.is_file() == bool(stored), "the page and the results that make it are committed together"
    if stored:
        assert committed.read_text(encoding="utf-8") == page(folder / "intro.md", stored)


@pytest.mark.parametrize("is_complete", [True, False])
def test_make_results_writes_the_page(files: list[str], folder: Path, is_complete: bool) -> None:
    (folder / "docs" / "results").mkdir(parents=True)
    for name in files:
        (folder / name).rename(folder / "docs" / "results" / name)
    if not is_complete:
        never = results(never_began(), run_id="third", controls={})
        (folder / "docs" / "results" / "third.json").write_text(never.model_dump_json(), encoding="utf-8")
    intro = folder / "docs" / "results" / "intro.md"
    intro.write_text("# Results\n\nWords of a person.\n", encoding="utf-8")
    command = folder / "bin" / "robustlab"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m robustlab "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    made = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "results", "BIN=bin", "READY="],
        cwd=folder,
        env={**os.environ, "ROBUSTLAB_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    written = (folder / "docs" / "results.md").read_text(encoding="utf-8")
    assert written == page(intro, stored_results(intro.parent))
    assert written.startswith("# Results\n\nWords of a person.\n\n")
    assert not (folder / "docs" / "results.md.part").exists()


def test_make_results_needs_stored_results(folder: Path) -> None:
    (folder / "docs").mkdir()
    command = folder / "bin" / "robustlab"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexit 2\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    words = ["make", "-f", str(ROOT / "Makefile"), "results", "BIN=bin", "READY="]
    made = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert not (folder / "docs" / "results.md").exists()


def read_sweep() -> list[Any]:
    """The plans of the sweep: one for each safeguard."""
    return [load_yaml(path, schema_of("plan")) for path in sorted((ROOT / "docs" / "results").glob("*.yaml"))]


def test_the_sweep_is_72_cells_that_exist() -> None:
    plans = read_sweep()
    assert sum(len(p.safeguards) * len(p.attacks) * len(p.seeds) for p in plans) == 72
    assert {p.attacks for p in plans} == {plans[0].attacks} and len(plans[0].attacks) == 8
    for plan in plans:
        assert plan.targets == ("smollm2_135m_instruct",) and "control" in plan.attacks
        for kind in ("targets", "safeguards", "attacks", "budgets", "evals"):
            for name in getattr(plan, kind):
                find(kind, name)


def test_make_sweep_runs_those_plans_under_their_names() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = {line.partition(" := ")[0]: line.partition(" := ")[2].split() for line in text.splitlines()}
    plans = read_sweep()
    assert sorted(lines["SWEEPS"]) == sorted(plan.safeguards[0] for plan in plans)
    assert "robustlab run docs/results/$$safeguard.yaml --as sweep-$$safeguard --runs $(RUNS)" in text
    fetched = {*lines["SWEPT"], *lines["SWEEPS"]}
    assert {name for plan in plans for name in (*plan.targets, *plan.safeguards)} <= fetched
