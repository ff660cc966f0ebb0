"""The extra is asked for before anything is spent, and a file that needs it can be checked without it."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from robustlab.data import lm_tasks
from robustlab.engine.weights import refuse_what_needs_weights
from robustlab.errors import ConfigError
from robustlab.spec.catalog import load, package_root
from tests.lm_tasks.harness import EXAMPLE

ONE_CELL = ("--target", "tiny", "--safeguard", "none", "--attack", "lora_sft_smoke", "--budget", "smoke")
NAME = Path(EXAMPLE).stem


@pytest.fixture
def example(folder: Path) -> Path:
    """The example in a working folder, beside what it names."""
    (folder / "evals").mkdir()
    shutil.copytree(package_root() / "tests" / "lm_tasks", folder / "tests" / "lm_tasks")
    return Path(shutil.copy(package_root() / EXAMPLE, folder / "evals"))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_without_the_extra_nothing_is_spent(
    example: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(lm_tasks, "find_spec", lambda name: None)
    code, _, err = run(command, *ONE_CELL, "--eval", NAME)
    message = f"eval {NAME}: needs lm-eval, which is not installed; run `pip install 'robustlab[lm-eval]'`\n"
    assert code == 2 and err.endswith(message)
    assert not (example.parent.parent / "runs").exists()
    assert run("check", "evals").code == 0


def test_a_target_behind_http_is_refused(example: Path) -> None:
    none, untouched = ("none", load("safeguards", "none")), ("untouched", load("attacks", "untouched"))
    message = (
        r"^t.yaml:1: weights cannot be had over HTTP, and eval 'lm_eval_common_facts' reads its figures off them; "
    )
    with pytest.raises(ConfigError, match=message):
        refuse_what_needs_weights("t.yaml:1", none, untouched, {NAME: load("evals", NAME)})


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs the extra robustlab[lm-eval]")
def test_a_task_is_measured_before_and_after(example: Path, run: Callable[..., Any]) -> None:
    code, out, err = run("run", *ONE_CELL, "--eval", NAME, "--as", "facts")
    assert code == 0, err
    assert "utility/common_facts  lm_eval_common_facts  16  19 % [6.6, 43]" in out
    assert "France" not in out + err
    assert '"lm_eval": "0.4.13"' in (example.parent.parent / "runs" / "facts" / "results.json").read_text("utf-8")
