"""What is done is never done again, and a run that was killed ends as if it had not been."""

import json
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustlab.engine.ledger import verify_ledger
from robustlab.record.custody import balance
from robustlab.record.journal import verify_journal
from robustlab.record.run_folder import RunFolder


@pytest.fixture
def resume(smoke: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """``robustlab resume`` in this process, which has loaded the libraries already."""
    import torch

    from robustlab.cli.main import app

    torch.set_num_threads(1)
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(smoke.cache))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mask = os.umask(0o077)
    with warnings.catch_warnings():
        yield lambda run_id, runs: CliRunner().invoke(
            app, ["resume", run_id, "--runs", str(runs)], catch_exceptions=False
        )
    os.umask(mask)


def test_resuming_a_finished_run_does_no_model_work(smoke: Any, resume: Callable[..., Any]) -> None:
    kept = {name: (smoke.folder / name).read_bytes() for name in ("ledger.jsonl", "items.jsonl", "plan.yaml")}
    before, started = smoke.results, time.monotonic()
    found = resume(smoke.folder.name, smoke.runs)
    assert found.exit_code == 0, found.output
    assert time.monotonic() - started < 10
    assert {name: (smoke.folder / name).read_bytes() for name in kept} == kept
    assert smoke.results == before
    RunFolder(smoke.folder).check_manifest()


def wait_for_state(process: "subprocess.Popen[str]", runs: Path, step: int) -> Path:
    """Wait until a state has been written; the folder of the run."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if found := sorted(runs.glob(f"*/resume/*/step-{step:06d}/manifest.json")):
            return found[0].parents[3]
        time.sleep(0.002)
    raise AssertionError(f"no state of step {step}: {process.communicate()[1]}")


def trajectory(cell: Any) -> list[Any]:
    return [(point["step"], point["loss"]) for point in cell["losses"]]


def scores(cell: Any) -> list[Any]:
    return [
        (
            m["eval"],
            m["phase"],
            m["step"],
            m["completions_sha256"],
            [(p["property"], p["counts"]) for p in m["properties"]],
        )
        for m in cell["measurements"]
    ]


def test_a_run_killed_in_training_ends_as_if_it_had_not_been(
    smoke: Any, start_attack: Callable[[], Any], resume: Callable[..., Any], tmp_path: Path
) -> None:
    process = start_attack()
    folder = wait_for_state(process, tmp_path / "runs", 4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    (states,) = (folder / "resume").iterdir()
    assert list(states.glob("step-*"))
    head = len(verify_or_torn(folder))

    found = resume(folder.name, tmp_path / "runs")
    assert found.exit_code == 0, found.output
    results = json.loads((folder / "results.json").read_text())
    (cell,) = results["cells"]
    whole = smoke.cell("lora_sft_smoke")
    assert cell["cell_id"] == whole["cell_id"]
    assert trajectory(cell) == trajectory(whole)
    assert scores(cell) == scores(whole)
    assert (folder / "items.jsonl").read_text().splitlines() == smoke.items("lora_sft_smoke")

    attacker = cell["cost"]["attacker"]
    assert (attacker["steps"], attacker["train_tokens"]) == (10, whole["cost"]["attacker"]["train_tokens"])
    assert attacker["billed_steps"] >= 10
    assert attacker["billed_train_tokens"] >= attacker["train_tokens"]
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert len(ledger) > head
    verify_journal(folder / "ledger.jsonl")
    assert verify_ledger(folder.parent, folder.name).ok
    assert balance(ledger).live == () and list((folder / "resume").iterdir()) == []
    RunFolder(folder).check_manifest()


def verify_or_torn(folder: Path) -> list[str]:
    verify_journal(folder / "ledger.jsonl")
    return (folder / "ledger.jsonl").read_text().splitlines()


def test_a_run_killed_before_its_first_state_begins_its_trajectory_anew(
    smoke: Any, resume: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at step 3, in this process: an error that nobody expects, in place of a signal."""
    from robustlab.cli.main import app
    from robustlab.lab import _CellWork

    calls = iter(range(1, 100))
    real = _CellWork._on_step

    def crash(self: Any, step: int, loss: float) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        real(self, step, loss)

    monkeypatch.setattr(_CellWork, "_on_step", crash)
    runs = tmp_path / "runs"
    plan = ["--target", "tiny", "--budget", "smoke", "--eval", "smoke_refusal", "--eval", "smoke_benign"]
    CliRunner().invoke(app, ["run", *plan, "--attack", "lora_sft_smoke", "--runs", str(runs)])
    (folder,) = runs.iterdir()
    assert not (folder / "results.json").exists()

    assert resume(folder.name, runs).exit_code == 0
    (cell,) = json.loads((folder / "results.json").read_text())["cells"]
    whole = smoke.cell("lora_sft_smoke")
    assert trajectory(cell) == trajectory(whole) and scores(cell) == scores(whole)
    attacker = cell["cost"]["attacker"]
    assert (attacker["steps"], attacker["billed_steps"]) == (10, 13)
    assert attacker["train_tokens"] == whole["cost"]["attacker"]["train_tokens"] < attacker["billed_train_tokens"]
