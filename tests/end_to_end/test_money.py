"""The commands about money on a real run of the tiny target, and budgets that bind in one."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from robustlab.cli.main import app
from robustlab.spec.catalog import package_root
from tests.end_to_end.conftest import PLAN, environment


@pytest.fixture
def ask(smoke: Any) -> Callable[..., Result]:
    """A command about a run, in this process."""
    return lambda *words: CliRunner().invoke(app, [*words, "--runs", str(smoke.runs)], catch_exceptions=False)


def test_the_ledger_of_a_run_verifies(smoke: Any, ask: Callable[..., Result]) -> None:
    found = ask("ledger", "verify", smoke.folder.name, "--json")
    findings = {finding["name"]: finding for finding in json.loads(found.stdout)}
    assert found.exit_code == 0, found.stdout
    assert {"chain", "head", "money", "sums", "reservations", "overshoot", "time"} <= set(findings)
    assert all(finding["ok"] for finding in findings.values())


def test_the_export_adds_up_to_the_bill(smoke: Any, ask: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "charges.csv"
    assert ask("ledger", "export", smoke.folder.name, "--out", str(out)).exit_code == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    written = [row for row in rows if row["x_NodeId"] != "record"]
    # What the writing of the record cost is on the ledger, and came too late for the results.
    late = sum(int(r["micro_usd"]) for r in smoke.ledger if r.get("node") == "record" and r["record"] == "settle")
    billed = sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0)) * 1_000_000
    assert billed - late <= smoke.results["bill"]["total_micro_usd"] <= billed
    assert {row["SkuId"] for row in written} == {"cpu_2vcpu_8gb"}


def test_another_card_prices_the_run_without_running_it(smoke: Any, ask: Callable[..., Result], tmp_path: Path) -> None:
    card = yaml.safe_load((package_root() / "robustlab" / "cost" / "prices.yaml").read_text(encoding="utf-8"))
    card["devices"]["cpu_2vcpu_8gb"]["usd_per_device_hour"] = 0.496
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(card), encoding="utf-8")
    found = ask("ledger", "price", smoke.folder.name, "--prices", str(own), "--json")
    (total,) = [row for row in json.loads(found.stdout) if row["account"] is None]
    # Ten times the price is ten times the bill, but for what each account's rounding up adds.
    assert 0 <= 10 * total["old_micro_usd"] - total["new_micro_usd"] <= 10 * len(json.loads(found.stdout))


def test_a_run_beside_the_audit_of_2026(smoke: Any, ask: Callable[..., Result]) -> None:
    found = ask("reconcile", smoke.folder.name, "--reference", "kimi_k25_audit")
    assert found.exit_code == 0, found.stdout
    for expected in (
        "A device-billed",
        "B token-billed",
        "C FLOP-derived",
        "implied MFU",
        "unverified",
    ):
        assert expected in found.stdout, expected
    plain = ask("reconcile", smoke.folder.name, "--json")
    assert json.loads(plain.stdout)["run_id"] == smoke.folder.name


def test_phases_bill_and_peak_stand_in_the_results(smoke: Any) -> None:
    for cell in smoke.results["cells"]:
        for account in ("attacker", "laboratory"):
            phases = [phase for phase in cell["phases"] if phase["account"] == account]
            assert sum(phase["micro_usd"] for phase in phases) == cell["cost"][account]["micro_usd"]
        training = next(phase for phase in cell["phases"] if phase["phase"] == "train")
        assert 0 < training["mfu"] < 1 and training["cpu_seconds"] > 0
        assert cell["peak_memory_bytes"] > 50_000_000
        assert cell["milestones_skipped_by"] is None
    bill, costs = smoke.results["bill"], [cell["cost"] for cell in smoke.results["cells"]]
    assert bill["attacker_micro_usd"] == sum(cost["attacker"]["micro_usd"] for cost in costs)
    assert bill["total_micro_usd"] == bill["attacker_micro_usd"] + bill["laboratory_micro_usd"]


def test_a_flipped_byte_is_found_in_a_real_run(smoke: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(smoke.folder, runs / smoke.folder.name)
    ledger = runs / smoke.folder.name / "ledger.jsonl"
    data = bytearray(ledger.read_bytes())
    data[len(data) // 2] ^= 1
    ledger.write_bytes(data)
    found = CliRunner().invoke(app, ["ledger", "verify", smoke.folder.name, "--runs", str(runs)])
    assert found.exit_code == 1 and "False" in found.stdout


def run_under(smoke: Any, folder: Path, budget: dict[str, Any]) -> tuple[int, Any, str]:
    """Run the attack in a working folder with a budget of its own; exit code, results and what it printed."""
    (folder / "budgets").mkdir()
    whole = {"kind": "budget", "stands_for": "a test", "hardware": "cpu_2vcpu_8gb"} | budget
    (folder / "budgets" / "own.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    plan = [part if part != "smoke" else "own" for part in PLAN]
    words = [sys.executable, "-m", "robustlab", "run", *plan, "--attack", "lora_sft_smoke", "--runs", str(folder / "r")]
    surroundings = environment(smoke.cache) | {"WANDB_MODE": "disabled", "PATH": os.environ["PATH"]}
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, check=False, timeout=300)
    found = sorted((folder / "r").glob("*/results.json"))
    return done.returncode, json.loads(found[0].read_text()) if found else None, done.stdout + done.stderr


def test_a_cap_in_the_middle_of_training_is_never_passed(smoke: Any, tmp_path: Path) -> None:
    whole = smoke.cell("lora_sft_smoke")["cost"]["attacker"]["wall_seconds"]
    cap_hours = 0.6 * whole / 3600
    budget = {"attacker": {"max_wall_hours": cap_hours}, "laboratory": None, "total_usd": None}
    code, results, said = run_under(smoke, tmp_path, budget)
    assert code == 0, said
    (cell,) = results["cells"]
    attacker = cell["cost"]["attacker"]
    assert attacker["wall_seconds"] <= cap_hours * 3600 or attacker["overshoot_micro_usd"] > 0
    # How far it gets is the machine's business; that it is measured, and says what ended it, is ours.
    assert cell["stopped_by"] in ("max_wall_hours", "schedule")
    if cell["stopped_by"] == "max_wall_hours":
        assert cap_hours * 3600 < attacker["wall_seconds"] + next_reservation(tmp_path / "r")
    assert (cell["stopped_by"] == "schedule") == (attacker["steps"] == 10)
    assert [each["eval"] for each in cell["measurements"] if each["phase"] == "final"] == [
        "smoke_refusal",
        "smoke_benign",
    ]


def next_reservation(runs: Path) -> float:
    """Seconds that another step would have reserved, by the ledger: it must not have been stopped for less."""
    (path,) = runs.glob("*/ledger.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    trained = [r for r in records if (r.get("account"), r.get("phase")) == ("attacker", "train")]
    settled = [r["quantities"] for r in trained if r["record"] == "settle"]
    steps = [used["wall_ns"] for used in settled if used["steps"]]
    # States are among the stretches without a step, and so is more.
    longest_state = max(used["wall_ns"] for used in settled if not used["steps"])
    return float(1.5 * max(steps[-8:], default=0) + longest_state) / 1e9


def test_a_laboratory_that_cannot_pay_for_its_end_is_refused(smoke: Any, tmp_path: Path) -> None:
    budget = {"attacker": {"max_steps": 10}, "laboratory": {"max_wall_hours": 1e-7}, "total_usd": None}
    code, results, said = run_under(smoke, tmp_path, budget)
    assert (code, results) == (3, None), said
    assert "laboratory.max_wall_hours" in said
    assert "Traceback" not in said
