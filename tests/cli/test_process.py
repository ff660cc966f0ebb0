"""Exit codes and pipes; no traceback ever, and no torch where none is needed."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from robustlab.cli import catalogue
from robustlab.cli.main import main
from robustlab.spec.catalog import package_root

Run = Callable[..., Any]

TINY = ["--target", "tiny", "--safeguard", "none", "--attack", "lora_sft_smoke"]
TINY += ["--budget", "smoke", "--eval", "smoke_refusal"]
HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "bitsandbytes", "wandb", "accelerate")


def spawn(folder: Path, *words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    command = [sys.executable, "-c", code, *words] if code else [sys.executable, "-m", "robustlab", *words]
    environment = {**os.environ, "PYTHONPATH": str(package_root()), "ROBUSTLAB_CACHE": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["list"], 0),
        (["list", "budgts"], 2),
        (["plan", *TINY], 0),
        (["pln"], 2),
        (["check", "absent.yaml"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_command_ends_with_its_code_and_never_with_a_traceback(folder: Path, words: list[str], code: int) -> None:
    ended = spawn(folder, *words)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr + ended.stdout
    assert bool(ended.stderr) is (code != 0)
    assert bool(ended.stdout) is (code == 0)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["check", str(package_root() / "budgets")], ["plan", *TINY], ["doctor", "--json"]],
    ids=["help", "list", "check", "plan", "doctor"],
)
def test_light_commands_load_no_model_library(folder: Path, words: list[str]) -> None:
    code = (
        "import sys\n"
        "from robustlab.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    sys.stderr.write('LOADED ' + ' '.join({name.partition('.')[0] for name in sys.modules}))\n"
    )
    loaded = spawn(folder, *words, code=code).stderr.partition("LOADED ")[2].split()
    assert "pydantic" in loaded
    assert set(HEAVY) & set(loaded) == set()


def test_a_reader_who_leaves_early_gets_no_traceback(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package_root())}
    command = f"{sys.executable} -m robustlab list --json | true"
    ended = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.stderr == ""


def test_a_closed_standard_output_is_no_fault(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package_root())}
    command = f"{sys.executable} -m robustlab list >&-"
    ended = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_folder_that_looks_like_a_file_is_passed_over(run: Run, folder: Path) -> None:
    (folder / "budgets" / "x.yaml").mkdir(parents=True)
    os.mkfifo(folder / "budgets" / "y.yaml")
    code, out, _ = run("list", "budgets")
    assert code == 0 and "smoke" in out


def test_a_machine_that_fails_ends_with_1_and_names_the_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(kind: str) -> list[object]:
        raise OSError(28, "No space left on device", "budgets/x.yaml")

    monkeypatch.setattr(catalogue, "list_entries", full)
    expected = "budgets/x.yaml: No space left on device; look at the disk, the network and the rights\n"
    assert run("list") == (1, "", expected)


def test_a_closed_pipe_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.TextIOWrapper):
        def flush(self) -> None:
            raise BrokenPipeError

    handed: list[Sequence[int]] = []
    monkeypatch.setattr(os, "dup2", lambda *fds: handed.append(fds))
    with Path(os.devnull).open("rb") as devnull, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Closed(io.BytesIO()))
        patch.setattr(sys.stdout, "fileno", devnull.fileno, raising=False)
        patch.setattr(sys, "argv", ["robustlab", "list", "runs"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    assert len(handed) == 1


def test_no_kernel_from_the_hub_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("raise SystemExit('an unpinned kernel was imported')\n", encoding="utf-8")
    code = "from robustlab.cli.process import prepare_process\nprepare_process()\nimport bitsandbytes, transformers"
    done = spawn(tmp_path, code=code)
    assert (done.returncode, done.stderr) == (0, "")
