"""compare: what is printed, for runs and for stored results, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.record.results import Item, Results
from robustlab.record.run_folder import RunFolder
from tests.report.test_comparison import FIRST, SECOND, items
from tests.report.test_comparison import run as make_results

Run = Callable[..., Any]


def store(folder: Path, results: Results, rows: dict[str, list[Item]]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(results.model_dump_json(), encoding="utf-8")
    lines = [item.model_dump_json() for told in rows.values() for item in told]
    (folder / "items.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def runs(folder: Path) -> Path:
    """Two finished runs of the same cell."""
    for name, told in (("first", FIRST), ("second", SECOND)):
        store(folder / "runs" / name, make_results(name, told), items(name, told))
        RunFolder(folder / "runs" / name).write_manifest()
    return folder / "runs"


def test_two_runs_are_printed_side_by_side(run: Run, runs: Path) -> None:
    code, out, err = run("compare", "first", "second")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "synthetic_1b / refusal_sft / lora / seed 0 under synthetic_cent"
    assert lines[1].split("  ")[0] == "Property" and "End of first" in lines[1] and "End of second" in lines[1]
    assert "80 % [76, 84] ERODED" in lines[2] and "20 % [16, 24] ERODED" in lines[2] and "-60.0 points [" in lines[2]
    assert "What differs besides, and how to read this: first and second" in lines


def test_as_json_and_as_markdown(run: Run, runs: Path) -> None:
    plain = json.loads(run("compare", "first", "second", "--json").out)
    assert (plain["runs"], plain["tests"]) == (["first", "second"], 1)
    out = run("compare", "first", "second", "--format", "markdown").out
    assert out.startswith("## synthetic_1b / refusal_sft / lora / seed 0 under synthetic_cent\n")
    assert "| Property | End of first | End of second | Difference | p after Holm | Cost to break, each |" in out
    assert out.endswith("\n") and not out.endswith("\n\n")
    message = "--json: is named beside --format markdown; name one of them\n"
    assert run("compare", "first", "second", "--json", "--format", "markdown") == (2, "", message)


def test_nothing_is_written(run: Run, runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    run("compare", "first", "second")
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_stored_results_compare_with_a_run(run: Run, runs: Path, folder: Path) -> None:
    store(folder / "stored", make_results("third", SECOND), items("third", SECOND))
    for name in ("stored/results.json", "./stored/results.json"):
        assert json.loads(run("compare", "first", name, "--json").out)["tests"] == 1
    (folder / "stored" / "items.jsonl").unlink()
    plain = json.loads(run("compare", "first", "stored/results.json", "--json").out)
    assert plain["tests"] == 0
    assert plain["cells"][0]["properties"][0]["not_compared"] == [
        "no verdict of each row: items.jsonl is not there, or holds no such row"
    ]


def test_runs_of_one_name_are_told_apart(run: Run, runs: Path, folder: Path) -> None:
    other = make_results("first", SECOND).model_copy(update={"ledger_head": "other"})
    store(folder / "stored", other, items("first", SECOND))
    told = json.loads(run("compare", "first", "stored/results.json", "--json").out)
    assert told["runs"] == ["first (1)", "first (2)"]


def test_an_incomplete_cell_ends_with_5(run: Run, runs: Path, folder: Path) -> None:
    store(folder / "stored", make_results("third", SECOND, status="incomplete"), items("third", SECOND))
    assert run("compare", "first", "stored/results.json").code == 5
    assert run("compare", "first", "stored/results.json", "--json").code == 5


def test_one_run_or_one_twice_is_no_comparison(run: Run, runs: Path) -> None:
    assert run("compare", "first") == (2, "", "compare: needs two runs or more, got 1; name another one\n")
    message = "compare: got run first twice, as first and runs/first; name it once\n"
    assert run("compare", "first", "runs/first") == (2, "", message)


def test_a_run_that_is_not_there_or_not_finished(run: Run, runs: Path) -> None:
    message = "run 'none': is not in runs; `robustlab list runs` shows what there is\n"
    assert run("compare", "first", "none") == (2, "", message)
    RunFolder.create(runs, "begun")
    message = "run 'begun': has not ended; `robustlab resume begun` goes on with it\n"
    assert run("compare", "first", "begun") == (2, "", message)


def test_items_that_are_none(run: Run, runs: Path, folder: Path) -> None:
    store(folder / "stored", make_results("third", SECOND), items("third", SECOND))
    path = folder / "stored" / "items.jsonl"
    path.write_text(path.read_text().splitlines()[0] + '\n{"no": "item"}\n')
    code, out, err = run("compare", "first", "stored/results.json")
    assert (code, out) == (1, "")
    assert (
        err == "stored/items.jsonl line 2: is no item of a measurement; put the run's own file back, or take it away\n"
    )


def test_a_run_that_was_changed_is_not_compared(run: Run, runs: Path) -> None:
    with (runs / "second" / "items.jsonl").open("a") as file:
        file.write("\n")
    code, out, err = run("compare", "first", "second")
    assert (code, out) == (1, "")
    assert "items.jsonl has changed" in err
