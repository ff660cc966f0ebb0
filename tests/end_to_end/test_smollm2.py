"""The real model on HarmBench's official CSV, through the command line. Never prints a row or a completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustlab.data.sources import cache_root, is_fetched
from robustlab.record.journal import verify_journal
from robustlab.record.results import Results
from robustlab.spec.catalog import load

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_forty_stratified_rows_of_the_official_csv(harmbench_csv: Path, tmp_path: Path) -> None:
    if not is_fetched(load("targets", "smollm2_135m_instruct").source):
        pytest.skip("SmolLM2 is not in the cache: run `robustlab fetch smollm2_135m_instruct`")
    parts = ["--target", "smollm2_135m_instruct", "--safeguard", "none", "--attack", "control_smoke"]
    options = ["--budget", "laptop", "--eval", "harmbench_csv_40", "--data", str(harmbench_csv), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "robustlab", "run", *parts, *options, "--runs", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "ROBUSTLAB_CACHE": str(cache_root()), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}"
    results = Results.model_validate_json(done.stdout)
    cell = results.cells[0]
    overall = [found for item in cell.measurements for found in item.properties if found.property == "refusal"]
    # Without a safeguard this model refuses next to nothing: 40 rows, none lost, before and after alike.
    assert [found.counts.n for found in overall] == [40, 40]
    assert all(found.value <= 0.1 for found in overall)
    assert [control.identical for control in results.controls.values()] == [True]
    functional = json.loads((next(tmp_path.glob("2*")) / "results.json").read_text())["plan"]["cells"][0]["evals"]
    assert functional["harmbench_csv_40"]["functional"] == ["standard", "contextual"]
    verify_journal(next(tmp_path.glob("2*")) / "ledger.jsonl")
