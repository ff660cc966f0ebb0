"""One run of the whole pipeline through the command line, shared by the tests that look at what it left behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLAN = [
    "--target",
    "tiny",
    "--safeguard",
    "none",
    "--budget",
    "smoke",
    "--eval",
    "smoke_refusal",
    "--eval",
    "smoke_benign",
]


def environment(cache: Path) -> dict[str, str]:
    """One thread as in this process, so that bytes can be compared; no network; a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROBUSTLAB_", "WANDB_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "ROBUSTLAB_CACHE": str(cache),
        "ROBUSTLAB_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


@dataclass(frozen=True)
class Smoke:
    """A finished run.

    Attributes:
        folder: Its folder.
        runs: Folder of runs.
        cache: The cache that it filled.
        stdout: What it printed.
        stderr: Its live line.
        code: Its exit code.
        started_s: When it was started, in seconds since 1970.
    """

    folder: Path
    runs: Path
    cache: Path
    stdout: str
    stderr: str
    code: int
    started_s: float

    @property
    def results(self) -> Any:
        return json.loads((self.folder / "results.json").read_text())

    @property
    def ledger(self) -> list[Any]:
        return [json.loads(line) for line in (self.folder / "ledger.jsonl").read_text().splitlines()]

    def cell(self, attack: str) -> Any:
        return next(cell for cell in self.results["cells"] if cell["attack"] == attack)

    def items(self, attack: str) -> list[str]:
        """Lines of ``items.jsonl`` of one cell; the key of the digests is the cache's."""
        lines = (self.folder / "items.jsonl").read_text().splitlines()
        return [line for line in lines if json.loads(line)["cell_id"] == self.cell(attack)["cell_id"]]


def command(runs: Path, *attacks: str) -> list[str]:
    named = [part for attack in attacks for part in ("--attack", attack)]
    return [sys.executable, "-m", "robustlab", "run", *PLAN, *named, "--runs", str(runs)]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """A control and one attack on the tiny target."""
    root = tmp_path_factory.mktemp("smoke")
    runs, cache, started = root / "runs", root / "cache", time.time()
    done = subprocess.run(
        command(runs, "control_smoke", "lora_sft_smoke"),
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    folders = sorted(runs.glob("*")) if runs.is_dir() else []
    assert len(folders) == 1, done.stderr
    return Smoke(folders[0], runs, cache, done.stdout, done.stderr, done.returncode, started)


@pytest.fixture
def start_attack(smoke: Smoke, tmp_path: Path) -> Callable[[], "subprocess.Popen[str]"]:
    """Starts the attack alone in a run of its own, with the cache of ``smoke``."""
    return lambda: subprocess.Popen(
        command(tmp_path / "runs", "lora_sft_smoke"),
        cwd=ROOT,
        env=environment(smoke.cache) | {"WANDB_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
