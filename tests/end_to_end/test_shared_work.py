"""Two runs of one plan at once: each shared piece of work is made once, and what is done is done for good."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import PLAN, ROOT, environment

# The safeguard trains on the rows of smoke_refusal, so only the benign ones can be measured.
SAFE = ["deep_refusal_smoke" if word == "none" else word for word in PLAN if word != "smoke_refusal"]
SAFE.remove("--eval")
AGAIN = """
import sys
from robustlab.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "trl", "peft", "datasets"} & set(sys.modules)
    sys.stderr.write(f"loaded: {sorted(heavy)}\\n")
"""


@dataclass(frozen=True)
class Pair:
    """Two finished runs of one plan, and the cache that they shared."""

    runs: Path
    cache: Path
    errors: dict[str, str]

    def results(self, name: str) -> Any:
        return json.loads((self.runs / name / "results.json").read_text())

    def ledger(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.runs / name / "ledger.jsonl").read_text().splitlines()]

    def nodes(self, name: str) -> dict[str, Any]:
        return {node["node"]: node for node in self.results(name)["nodes"]}


def words(runs: Path, name: str) -> list[str]:
    return ["run", *SAFE, "--attack", "lora_sft_smoke", "--runs", str(runs), "--as", name]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    runs, cache = root / "runs", root / "cache"
    given = {"cwd": ROOT, "env": environment(cache) | {"WANDB_MODE": "disabled"}, "text": True}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "robustlab", *words(runs, name)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **given,  # type: ignore[call-overload]
        )
        for name in ("one", "two")
    }
    errors = {name: process.communicate(timeout=600)[1] for name, process in started.items()}
    assert [process.returncode for process in started.values()] == [0, 0], errors
    return Pair(runs, cache, errors)


def test_shared_work_is_made_once_and_found_again(pair: Pair) -> None:
    one, two = pair.nodes("one"), pair.nodes("two")
    assert one.keys() == two.keys() and len(one) == 2
    for node in one:
        assert [one[node]["cached"], two[node]["cached"]].count(False) == 1, pair.errors
        found = one[node] if one[node]["cached"] else two[node]
        # Nothing was trained or generated to find it again.
        assert (found["cost"]["billed_train_tokens"], found["cost"]["generated_tokens"]) == (0, 0)
    assert [path.name for path in (pair.cache / "released").iterdir() if path.name.startswith(".staged")] == []


def test_whoever_waited_said_so_and_was_billed_for_it(pair: Pair) -> None:
    for name, error in pair.errors.items():
        waited = [each for each in pair.ledger(name) if each.get("phase") == "wait"]
        assert bool(waited) == (" is at it, waiting" in error)
        assert all((each["account"], each["record"]) == ("laboratory", "settle") for each in waited)
        assert all(each["quantities"]["wall_ns"] > 0 for each in waited)


def test_both_runs_measured_the_same(pair: Pair) -> None:
    one, two = (pair.results(name)["cells"][0] for name in ("one", "two"))
    assert [each["completions_sha256"] for each in one["measurements"]] == [
        each["completions_sha256"] for each in two["measurements"]
    ]


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_finished_plan_loads_nothing_and_writes_nothing(pair: Pair, command: str) -> None:
    before = {path: path.read_bytes() for path in (pair.runs / "one").rglob("*") if path.is_file()}
    given = words(pair.runs, "one") if command == "run" else ["resume", "one", "--runs", str(pair.runs)]
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *given],
        cwd=ROOT,
        env=environment(pair.cache),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded: []"
    assert "run     one\n" in done.stdout
    assert {path: path.read_bytes() for path in (pair.runs / "one").rglob("*") if path.is_file()} == before
