"""plan, run and resume of a plan that has a search: who is asked, and what is told before anything is spent."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cli import runs as run_commands
from robustlab.cost.prices import load_price_card
from robustlab.record.run_folder import RunFolder
from robustlab.search.candidates import pin_search
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import dump_yaml, load_yaml
from robustlab.spec.plan import Cell, Plan, ResolvedPlan

Run = Callable[..., Any]
RUN_ID = "20261122T021733Z-a1b2c3"
PLAN = """\
kind: plan
targets: [tiny]
safeguards: [none]
attacks: [lora_sft_smoke]
budgets: [smoke]
evals: [smoke_refusal, smoke_benign]
search:
  strategy: undirected
  trials: 4
  halving: {first_step: 2, factor: 2}
  objective: smoke_refusal
  utility: smoke_benign
  directions: []
  confirm_seeds: [100]
  seed: 3
"""


@pytest.fixture
def plan_file(folder: Path) -> str:
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    return "plan.yaml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stand-ins that were asked: the modules themselves load torch."""
    seen: list[str] = []

    def stand_in(name: str) -> Callable[..., SimpleNamespace]:
        def launch(*_: Any, **__: Any) -> SimpleNamespace:
            seen.append(name)
            return SimpleNamespace(folder=SimpleNamespace(path=Path()), results=None)

        return launch

    for module, names in {
        "engine.launch": ("launch_plan", "resume_run"),
        "engine.named": ("launch_named",),
        "search.launch": ("launch_search", "launch_named_search", "resume_search"),
    }.items():
        stands = SimpleNamespace(**{name: stand_in(name) for name in names})
        monkeypatch.setitem(sys.modules, f"robustlab.{module}", stands)
    monkeypatch.setattr(run_commands, "prepare_process", lambda: None)
    monkeypatch.setattr(run_commands, "print_results", lambda found, as_json: None)
    return seen


def test_plan_says_that_it_is_a_search_with_its_trials_and_caps(run: Run, plan_file: str) -> None:
    code, out, _ = run("plan", plan_file)
    assert code == 0
    assert "tiny / none / lora_sft_smoke / seed 3" in out
    assert "one trial of each recipe" in out and "the whole run" not in out
    assert "a search, undirected: at most 4 trials over lora_sft_smoke" in out
    assert "one purse for all trials and their measurements, smoke: max_usd 0.002" in out


def test_plan_as_json_holds_the_search(run: Run, plan_file: str) -> None:
    told = json.loads(run("plan", plan_file, "--json").out)
    assert told["search"]["trials"] == 4 and len(told["cells"]) == 1


def test_plan_refuses_what_cannot_be_searched(run: Run, folder: Path, plan_file: str) -> None:
    Path(plan_file).write_text(PLAN.replace("lora_sft_smoke", "control_smoke"), encoding="utf-8")
    code, _, err = run("plan", plan_file)
    assert code == 2 and "attacks/control_smoke.yaml: has nothing that a search could vary, got kind control" in err


def test_run_goes_through_the_search(run: Run, plan_file: str, asked: list[str]) -> None:
    assert run("run", plan_file).code == 0
    assert run("run", plan_file, "--as", "found").code == 0
    Path(plan_file).write_text(PLAN.partition("search:")[0] + "seeds: [0]\n", encoding="utf-8")
    assert run("run", plan_file).code == 0
    assert asked == ["launch_search", "launch_named_search", "launch_plan"]


def test_resume_goes_through_the_search_where_the_run_is_one(
    run: Run, folder: Path, plan_file: str, asked: list[str], smoke_plan: ResolvedPlan
) -> None:
    held = RunFolder.create(folder / "runs", RUN_ID)
    held.prices.write_bytes(load_price_card(None).path.read_bytes())
    plan: Plan = load_yaml(Path(plan_file), schema_of("plan"))
    search = pin_search(plan, smoke_plan.cells)
    held.plan.write_text(dump_yaml(smoke_plan.model_copy(update={"search": search, "cells": ()})), encoding="utf-8")
    assert run("resume", RUN_ID).code == 0
    held.plan.write_text(dump_yaml(smoke_plan), encoding="utf-8")
    assert run("resume", RUN_ID).code == 0
    assert asked == ["resume_search", "resume_run"]


@pytest.fixture
def smoke_plan() -> ResolvedPlan:
    """A resolved plan of one cell."""
    from robustlab.engine.plan import resolve_offline

    plan = Plan(
        kind="plan", targets=("tiny",), safeguards=("none",), attacks=("lora_sft_smoke",), budgets=("smoke",),
        evals=("smoke_refusal", "smoke_benign"), seeds=(0,),
    )  # fmt: skip
    resolved = resolve_offline(plan, data_csv=None, shadow_price=None, card=load_price_card(None)).plan
    assert isinstance(resolved.cells[0], Cell)
    return resolved
