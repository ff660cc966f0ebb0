"""The mirror: a real offline run read back with wandb's own tool, and every way in which it turns itself off."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb.sdk.mailbox.mailbox import MailboxClosedError

from robustlab.record.results import Measurement
from robustlab.report.wandb import WandbMirror

CONFIG = {"attack": "lora_withheld", "seed": 0, "max_usd": 0.01}


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def measured(synthetic: SimpleNamespace, eval_id: str, phase: str, value: float) -> Measurement:
    properties = [synthetic.rate("refusal", value, 40), synthetic.rate("refusal/illegal", value, 20)]
    return Measurement.model_validate(synthetic.measurement(eval_id, phase, 8, 600, properties))


def inspect(folder: Path) -> list[dict[str, Any]]:
    (run,) = (folder / "wandb").glob("offline-run-*")
    tool = shutil.which("wandb", path=str(Path(sys.executable).parent)) or "wandb"
    done = subprocess.run([tool, "leet", "inspect", "--json", str(run)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_offline_run_holds_every_scalar_and_nothing_of_the_host(synthetic: SimpleNamespace, tmp_path: Path) -> None:
    mirror = WandbMirror()
    mirror.start("run1", "c0ffee000001", CONFIG, tmp_path, "group1")
    assert mirror.state == "wandb: run1-c0ffee000001"
    for step in range(1, 21):
        mirror.log_step(step, 2.5 / step, step * 0.0001)
    mirror.log_measurement(measured(synthetic, "harmbench_64", "milestone", 0.5), 0.0012)
    mirror.log_measurement(measured(synthetic, "harmbench_64", "final", 0.1), 0.002)
    mirror.log_measurement(measured(synthetic, "harmbench_512", "final", 0.2), 0.002)
    mirror.finish(0)
    assert mirror.state == "wandb: run1-c0ffee000001"
    records = inspect(tmp_path)

    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    steps = [item for item in history if "train/loss" in item]
    assert [item["train/step"] for item in steps] == list(range(1, 21))
    assert steps[4]["train/loss"] == 0.5
    assert steps[4]["budget/usd"] == steps[4]["spend/usd"] == pytest.approx(0.0005)
    evals = [item for item in history if "train/loss" not in item]
    assert [item.get("eval/refusal") for item in evals] == [0.5, 0.1, None]
    assert evals[2]["eval/harmbench_512/refusal"] == 0.2
    assert evals[1]["eval/refusal/illegal"] == 0.1
    assert [item["budget/usd"] for item in evals] == [0.0012, 0.002, 0.002]

    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert {metric.get("glob_name"): metric.get("step_metric") for metric in metrics}["*"] == "budget/usd"
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_group"], run["host"]) == ("group1", "undisclosed")
    assert {key: value for key, value in run["config"]["update"].items() if key != "_wandb"} == CONFIG
    assert [record["exit"]["exit_code"] for record in records if record["type"] == "exit"] == [0]
    files = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert files == {"run-run1-c0ffee000001.wandb"}


def test_several_cells_in_one_process(tmp_path: Path) -> None:
    for cell in ("c0ffee000001", "c0ffee000002"):
        mirror = WandbMirror()
        mirror.start("run1", cell, CONFIG, tmp_path / cell, "group1")
        mirror.log_step(1, 1.0, 0.1)
        mirror.finish(1)
        assert mirror.state == f"wandb: run1-{cell}"
        exits = [record["exit"] for record in inspect(tmp_path / cell) if record["type"] == "exit"]
        assert exits == [{"exit_code": 1}]


def test_off_until_started_and_when_disabled(
    synthetic: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mirror = WandbMirror()
    mirror.start("run1", "c0ffee000001", CONFIG, tmp_path, "group1")
    mirror.log_step(1, 1.0, 0.1)
    mirror.log_measurement(measured(synthetic, "harmbench_64", "final", 0.1), 0.1)
    mirror.finish(0)
    assert mirror.state == "off"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "expected"), [(None, "offline"), ("offline", "offline"), ("online", "online")])
def test_online_only_when_the_user_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None, expected: str
) -> None:
    seen: list[Any] = []

    def init(**options: Any) -> None:
        seen.append(options["settings"])
        raise wandb.errors.CommError("no network here")

    monkeypatch.setattr(wandb, "init", init)
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    WandbMirror().start("run1", "c0ffee000001", CONFIG, tmp_path, "group1")
    (settings,) = seen
    assert settings.mode == expected
    assert (settings.console, settings.x_disable_stats, settings.disable_git, settings.save_code) == (
        "off",
        True,
        True,
        False,
    )


def test_a_folder_that_cannot_be_made_turns_it_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    mirror = WandbMirror()
    mirror.start("run1", "c0ffee000001", CONFIG, tmp_path / "file" / "mirror", "group1")
    mirror.log_step(1, 1.0, 0.1)
    mirror.finish(0)
    assert mirror.state.startswith("wandb failed: NotADirectoryError: ")


def test_a_folder_closed_to_writing_is_never_left_for_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the answer of the system is forged.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    mirror = WandbMirror()
    mirror.start("run1", "c0ffee000001", CONFIG, tmp_path, "group1")
    assert mirror.state == f"wandb failed: PermissionError: cannot write in {tmp_path}"


@pytest.mark.parametrize(
    "error",
    [
        wandb.errors.CommError("no\x1b[31m network"),
        wandb.errors.UsageError("no key"),
        ConnectionResetError("lost"),
        MailboxClosedError("closed"),
        TimeoutError("slow"),
        RuntimeError("odd"),
        ValueError("wrong"),
        AssertionError("empty"),
        ImportError("absent"),
    ],
)
def test_whatever_init_raises_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def init(**options: Any) -> None:
        raise error

    monkeypatch.setattr(wandb, "init", init)
    mirror = WandbMirror()
    mirror.start("run1", "c0ffee000001", CONFIG, tmp_path, "group1")
    assert mirror.state == f"wandb failed: {type(error).__name__}: {error}".replace("\x1b", "")
    mirror.log_step(1, 1.0, 0.1)
    mirror.finish(0)


def test_a_service_that_dies_turns_it_off_and_the_next_cell_gets_its_own(tmp_path: Path) -> None:
    """In a process of its own, where the service can be killed and the exit be watched for a traceback."""
    script = f"""
import os, signal, subprocess, time
from pathlib import Path
from robustlab.report.wandb import WandbMirror
mirror = WandbMirror()
mirror.start("run1", "a", {{}}, Path({str(tmp_path)!r}) / "a", "g")
mine = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True).stdout
for line in mine.splitlines():
    if "wandb-core" in line:
        os.kill(int(line.split()[0]), signal.SIGKILL)
time.sleep(0.3)
mirror.log_step(1, 1.0, 0.1)
mirror.log_step(2, 1.0, 0.1)
mirror.finish(0)
print(mirror.state)
other = WandbMirror()
other.start("run1", "b", {{}}, Path({str(tmp_path)!r}) / "b", "g")
other.finish(0)
print(other.state)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["wandb failed: ConnectionResetError: Connection lost", "wandb: run1-b"]
    assert "Traceback" not in done.stderr


def test_a_service_that_hangs_is_ended_and_the_run_goes_on(tmp_path: Path) -> None:
    """In a process of its own, whose service is stopped and never answers again."""
    script = f"""
import os, signal, subprocess
from pathlib import Path
from robustlab.report import wandb
mirror = wandb.WandbMirror()
mirror.start("run1", "a", {{}}, Path({str(tmp_path)!r}) / "a", "g")
mine = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True).stdout
for line in mine.splitlines():
    if "wandb-core" in line:
        os.kill(int(line.split()[0]), signal.SIGSTOP)
wandb._HANG_SECONDS = 2.0
mirror.log_step(1, 1.0, 0.1)
mirror.finish(0)
print(mirror.state)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    (state,) = done.stdout.splitlines()
    assert state.startswith("wandb failed: ")
    assert "Traceback" not in done.stderr
