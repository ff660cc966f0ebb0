"""fetch, report, resume and doctor: what is printed, and how they end."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cli import catalogue
from robustlab.cli import runs as run_commands
from robustlab.engine import doctor
from robustlab.record.results import AccountCost, Results
from robustlab.record.run_folder import RunFolder

Run = Callable[..., Any]


def test_fetch_without_ids_names_nothing(run: Run) -> None:
    assert run("fetch") == (2, "", "fetch: names nothing, got no ids; name ids or pass --all\n")


@pytest.mark.parametrize(
    ("words", "asked"),
    [(["tiny", "smoke_refusal"], ["tiny", "smoke_refusal"]), (["--all"], []), (["tiny", "--all"], [])],
)
def test_fetch_asks_for_ids_or_for_everything(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], asked: list[str]
) -> None:
    seen: list[list[str]] = []
    # A stand-in, since the module itself loads torch.
    stand_in = SimpleNamespace(fetch_ids=lambda ids, line: seen.append(ids) or [])
    monkeypatch.setitem(sys.modules, "robustlab.engine.fetch", stand_in)
    monkeypatch.setattr(catalogue, "prepare_process", lambda: None)
    assert run("fetch", *words, "--json") == (0, "[]\n", "")
    assert seen == [asked]


@pytest.mark.parametrize("command", ["report", "resume"])
@pytest.mark.parametrize(
    ("run_id", "message"),
    [
        (
            "a b",
            "run 'a b': is not a run id; ids look like 20261122T021733Z-a1b2c3, or hold at most 64 letters, digits, "
            "dots, dashes, underscores\n",
        ),
        (
            "20261122T021733Z-a1b2c3",
            "run '20261122T021733Z-a1b2c3': is not in runs; `robustlab list runs` shows what there is\n",
        ),
    ],
)
def test_a_run_that_does_not_exist(run: Run, command: str, run_id: str, message: str) -> None:
    assert run(command, run_id) == (2, "", message)


def test_a_run_without_results_says_how_to_go_on(run: Run, folder: Path) -> None:
    (folder / "runs" / "20261122T021733Z-a1b2c3").mkdir(parents=True)
    code, out, err = run("report", "20261122T021733Z-a1b2c3")
    assert (code, out) == (2, "")
    assert err == (
        "run '20261122T021733Z-a1b2c3': has not ended; `robustlab resume 20261122T021733Z-a1b2c3` goes on with it\n"
    )


def test_results_of_another_schema_are_not_guessed(run: Run, folder: Path) -> None:
    path = folder / "runs" / "20261122T021733Z-a1b2c3"
    path.mkdir(parents=True)
    (path / "results.json").write_text('{"schema": 2}')
    RunFolder(path).write_manifest()
    code, out, err = run("report", path.name)
    assert (code, out) == (1, "")
    assert err.startswith("runs/20261122T021733Z-a1b2c3/results.json: is not a result of schema 1, ")
    assert err.endswith("; name a results.json, or use the version that wrote it\n")


def make_results(run_id: str, status: str) -> Results:
    spent = dict.fromkeys(AccountCost.model_fields, 0)
    names = ("cell_id", "target", "safeguard", "attack", "budget", "dtype", "mirror", "stopped_by")
    cell = dict.fromkeys(names, "made up") | {
        "seed": 0,
        "schedule": {},
        "status": status,
        "caps_used": {},
        "estimate": {},
        "cost": {"attacker": spent, "laboratory": spent},
        "losses": [],
        "measurements": [],
    }
    head = {"schema": 1, "run_id": run_id, "plan": {}, "versions": {}, "price_card_sha256": "", "ledger_head": ""}
    return Results.model_validate({**head, "controls": {}, "cells": [cell], "nodes": []})


@pytest.fixture
def runs(folder: Path) -> Path:
    """One run that is done and one that is incomplete."""
    for run_id, status in (("20261122T021733Z-aaaaaa", "done"), ("20261122T021733Z-bbbbbb", "incomplete")):
        path = folder / "runs" / run_id
        path.mkdir(parents=True)
        (path / "results.json").write_text(make_results(run_id, status).model_dump_json())
        RunFolder(path).write_manifest()
    return folder / "runs"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_incomplete_run_ends_with_5_however_it_is_printed(run: Run, runs: Path, flags: list[str]) -> None:
    done, incomplete = sorted(path.name for path in runs.iterdir())
    assert run("report", done, *flags).code == 0
    assert run("report", incomplete, *flags).code == 5
    ended = run("report", incomplete, done, *flags)
    assert ended.code == 5
    assert ended.out.index(incomplete) < ended.out.index(done)
    assert (runs / done / "report.html").is_file()


def test_reports_as_json_are_one_document(run: Run, runs: Path) -> None:
    done, incomplete = sorted(path.name for path in runs.iterdir())
    assert json.loads(run("report", done, "--json").out) == json.loads((runs / done / "results.json").read_text())
    both = json.loads(run("report", done, incomplete, "--json").out)
    assert [results["run_id"] for results in both] == [done, incomplete]


SMOKE = ["--target", "tiny", "--attack", "lora_sft_smoke", "--budget", "smoke", "--eval", "smoke_refusal"]


@pytest.fixture
def launched(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Which stand-in was asked to run a plan, and under which name: the modules themselves load torch."""
    asked: list[tuple[str, str | None]] = []

    def stand_in(module: str, *names: str) -> None:
        def launch(plan: Any, *, name: str | None = None, **given: Any) -> SimpleNamespace:
            asked.append((module, name))
            folder = SimpleNamespace(path=Path("runs") / (name or "new"))
            return SimpleNamespace(folder=folder, results=make_results(name or "new", "done"))

        stands = SimpleNamespace(**dict.fromkeys(names, launch))
        monkeypatch.setitem(sys.modules, f"robustlab.{module}", stands)

    stand_in("engine.launch", "launch_plan")
    stand_in("engine.named", "launch_named")
    stand_in("search.launch", "launch_search", "launch_named_search")
    monkeypatch.setattr(run_commands, "prepare_process", lambda: None)
    return asked


def test_a_run_has_a_name_only_where_one_is_given(run: Run, launched: list[tuple[str, str | None]]) -> None:
    assert run("run", *SMOKE).code == 0
    code, out, _ = run("run", *SMOKE, "--as", "sweep")
    assert (code, "run     sweep\n" in out) == (0, True)
    assert launched == [("engine.launch", None), ("engine.named", "sweep")]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65])
def test_what_is_no_name_is_refused_before_torch_is_loaded(
    run: Run, launched: list[tuple[str, str | None]], name: str
) -> None:
    code, out, err = run("run", *SMOKE, f"--as={name}")
    assert (code, out, launched) == (2, "", [])
    assert err == (
        f"run {name!r}: is not a run id; ids look like 20261122T021733Z-a1b2c3, or hold at most 64 letters, digits, "
        "dots, dashes, underscores\n"
    )


def test_named_runs_are_listed(run: Run, folder: Path) -> None:
    for name in ("sweep", "20261122T021733Z-a1b2c3"):
        (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / "sweep" / "plan.yaml").write_text("")
    (folder / "runs" / "other").mkdir()
    rows = json.loads(run("list", "runs", "--json").out)
    assert [row["id"] for row in rows] == ["20261122T021733Z-a1b2c3", "sweep"]


def test_doctor_prints_findings(run: Run, folder: Path) -> None:
    code, out, err = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert (code, err) == (1, "")
    assert findings["eval harmbench_64"] == {
        "name": "eval harmbench_64",
        "found": "not fetched",
        "ok": False,
        "remedy": "robustlab fetch harmbench_64",
    }
    assert findings["wandb mode"]["ok"]
    assert "robustlab fetch harmbench_64" in run("doctor").out


def test_doctor_is_content_with_a_good_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda today: [doctor.Finding("all", "well", True, "")])
    assert run("doctor", "--json").code == 0
