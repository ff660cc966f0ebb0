"""plan: prices, refusals, and one clear message for each wrong flag, before anything is spent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.prices import load_price_card
from robustlab.engine.plan import resolve_offline
from robustlab.spec.catalog import package_root
from robustlab.spec.loader import dump_yaml
from robustlab.spec.plan import Plan

Run = Callable[..., Any]

TINY = ["--target", "tiny", "--safeguard", "none", "--attack", "lora_sft_smoke"]
TINY += ["--budget", "smoke", "--eval", "smoke_refusal"]
PLAN = (
    "kind: plan\ntargets: [tiny]\nsafeguards: [none]\nattacks: [lora_sft_smoke]\nbudgets: [smoke]\n"
    "evals: [smoke_refusal]\nseeds: [0, 3]\n"
)
SMOKE = (package_root() / "budgets" / "smoke.yaml").read_text(encoding="utf-8")


def test_plan_prices_a_cell(run: Run) -> None:
    code, out, err = run("plan", *TINY)
    assert (code, err) == (0, "")
    assert "tiny / none / lora_sft_smoke / seed 0" in out
    assert "may proceed; its 10 steps will end it; caps used: max_usd " in out
    assert out.endswith(
        "Lengths are a rule of thumb until `robustlab fetch` has counted tokens; `run` counts them first.\n"
    )


def test_plan_prints_json(run: Run, folder: Path) -> None:
    code, out, err = run("plan", *TINY, "--seeds", "2", "--json")
    printed = json.loads(out)
    assert (code, err) == (0, "")
    assert printed["exact_lengths"] is False
    assert [cell["cell"] for cell in printed["cells"]] == [f"tiny / none / lora_sft_smoke / seed {i}" for i in (0, 1)]
    first = printed["cells"][0]
    assert first.keys() == {"cell", "cell_id", "schedule", "estimate"}
    assert first["schedule"]["steps"] == len(first["schedule"]["learning_rates"]) == 10
    for account in ("attacker", "laboratory", "shared"):
        usd = first["estimate"][account]["usd"]
        assert 0 <= usd["low"] <= usd["centre"] <= usd["high"]
    assert first["estimate"]["steps"] == {"low": 10, "centre": 10, "high": 10}
    assert first["estimate"]["refusal"] is None
    assert not (folder / "runs").exists()


def test_plan_reads_a_file(run: Run, folder: Path) -> None:
    (folder / "PLAN.yaml").write_text(PLAN)
    cells = json.loads(run("plan", "PLAN.yaml", "--json").out)["cells"]
    assert [cell["cell"].rpartition(" ")[2] for cell in cells] == ["0", "3"]


def test_plan_says_what_is_wrong_with_a_file(run: Run, folder: Path) -> None:
    (folder / "PLAN.yaml").write_text(PLAN.replace("budgets:", "budget:").replace("[0, 3]", "[0, 0]"))
    assert run("plan", "PLAN.yaml") == (
        2,
        "",
        "PLAN.yaml:1: budgets: is missing\n"
        "PLAN.yaml:5: budget: is not a known key; did you mean 'budgets'?\n"
        "PLAN.yaml:7: seeds: names 0 twice\n",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--target: is missing, got nothing; name one, or give a PLAN.yaml; `robustlab list targets` shows what"),
        (["--target", "tiny"], "--attack: is missing, got nothing; name one, or give a PLAN.yaml; "),
        ([*TINY, "--target", ""], "--target: must be an id, got ''; `robustlab list targets` shows them\n"),
        ([*TINY, "--attack", "lora_sft_smoke"], "--attack: names 'lora_sft_smoke' twice; name each once\n"),
        ([*TINY, "--data", "absent.csv"], "--data: names no file, got 'absent.csv'; name HarmBench's CSV\n"),
        ([*TINY, "--target", "tinny"], "target 'tinny': is not in targets/; did you mean 'tiny'?\n"),
        ([*TINY, "--budget", "smok"], "budget 'smok': is not in budgets/; did you mean 'smoke'?\n"),
        (["absent.yaml"], "absent.yaml: cannot be read: No such file or directory; name a file that exists\n"),
        (
            ["PLAN.yaml", "--eval", "smoke_benign"],
            "--eval: is named beside the plan PLAN.yaml; give a plan or flags, not both\n",
        ),
        (
            ["PLAN.yaml", "--seeds", "2"],
            "--seeds: is named beside the plan PLAN.yaml; give a plan or flags, not both\n",
        ),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_wrong_flag_is_told_before_anything_is_spent(
    run: Run, folder: Path, command: str, words: list[str], message: str
) -> None:
    (folder / "PLAN.yaml").write_text(PLAN)
    code, out, err = run(command, *words)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not (folder / "runs").exists()
    assert not (folder / "cache").exists()


def test_a_price_that_does_not_exist_is_told(run: Run) -> None:
    code, out, err = run("plan", *TINY, "--shadow-price", "gold")
    assert (code, out) == (2, "")
    assert err.startswith("--shadow-price: 'gold' has no price in ")


def test_a_budget_below_one_step_is_refused_with_3(run: Run, folder: Path) -> None:
    (folder / "budgets").mkdir()
    (folder / "budgets" / "smoke.yaml").write_text(SMOKE.replace("max_usd: 0.002", "max_usd: 1e-12"))
    code, out, err = run("plan", *TINY)
    assert code == 3
    assert "may not proceed: load, one step and the final evaluation need at least" in out
    assert err.startswith(
        "tiny / none / lora_sft_smoke / seed 0: load, one step and the final evaluation need at least "
    )
    assert err.endswith(" of max_usd, got 1e-12; raise the cap, shorten the evaluation or choose a smaller target\n")
    code, out, _ = run("plan", *TINY, "--json")
    assert code == 3
    assert json.loads(out)["cells"][0]["estimate"]["refusal"].endswith("of max_usd, got 1e-12")
    assert not (folder / "runs").exists()


def test_a_plan_without_its_rows_says_how_to_get_them(run: Run) -> None:
    words = [*TINY, "--eval", "harmbench_64"]
    message = "eval harmbench_64: its rows are not in the cache; run `robustlab fetch harmbench_64` first\n"
    assert run("plan", *words) == (1, "", message)


def test_an_eval_of_the_official_file_asks_for_it(run: Run) -> None:
    message = "--data: is missing: the source has no path of its own; name the file with --data FILE\n"
    assert run("plan", *TINY, "--eval", "harmbench_csv_40") == (2, "", message)


@pytest.mark.parametrize("flag", ["--data", "--shadow-price"])
def test_a_resolved_plan_takes_no_other_data_or_price(run: Run, folder: Path, flag: str) -> None:
    ids = {"targets": ("tiny",), "safeguards": ("none",), "attacks": ("lora_sft_smoke",), "budgets": ("smoke",)}
    wanted = Plan.model_validate({"kind": "plan", "evals": ("smoke_refusal",), "seeds": (0,), **ids})
    resolved = resolve_offline(wanted, data_csv=None, shadow_price=None, card=load_price_card(None)).plan
    (folder / "resolved.yaml").write_text(dump_yaml(resolved), encoding="utf-8")
    cells: list[dict[str, Any]] = json.loads(run("plan", "resolved.yaml", "--json").out)["cells"]
    assert [cell["cell_id"] for cell in cells] == [resolved.cells[0].cell_id]
    message = f"{flag}: is named beside a resolved plan, which has its own; leave the flag out\n"
    assert run("plan", "resolved.yaml", flag, "cpu_2vcpu_8gb") == (2, "", message)


@pytest.mark.parametrize(("seeds", "problem"), [("0", "greater than or equal to 1"), ("x", "valid integer")])
def test_seeds_are_a_count(run: Run, seeds: str, problem: str) -> None:
    code, _, err = run("plan", *TINY, "--seeds", seeds)
    assert code == 2
    assert "--seeds" in err and problem in err
