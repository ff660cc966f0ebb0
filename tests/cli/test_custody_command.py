"""``robustlab custody``: what was made and what became of it, exit 1 where the disk does not agree."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine import custody as engine
from robustlab.record.custody import CustodyLog
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder

Run = Callable[..., Any]
A = "a" * 64


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(engine, "SECOND_LOOK_SECONDS", 0.0)
    found = RunFolder.create(folder / "runs", "demo")
    with Journal.open(found.ledger) as journal:
        CustodyLog(journal.append).created("resume/cell/step-000004", A, "to resume after a crash")
        CustodyLog(journal.append).deleted("resume/cell/step-000004", A, "the cell has been measured")
        journal.append({"record": "charge", "account": "attacker", "phase": "train", "node": "cell"})
    return found


def test_a_run_that_agrees_ends_with_0(run: Run, made: RunFolder) -> None:
    for words in ((), ("demo",)):
        code, out, err = run("custody", *words)
        assert (code, err) == (0, "")
        assert "degraded artefacts\n" in out
        (line,) = (line for line in out.splitlines() if "step-000004" in line)
        assert "demo" in line and "aaaaaaaaaaaa " in line and "to resume after a crash" in line
        assert line.endswith("the cell has been measured")
        assert "no completion left this machine\n" in out
        wanted = "created 1 = deleted 1 + kept 0 + live 0; 1 cells attacked in memory; unfinished; the disk agrees"
        assert out.endswith(f"run demo: {wanted}\n")


def test_what_does_not_agree_ends_with_1_and_is_one_line_each(run: Run, made: RunFolder) -> None:
    (made.path / "x.pt").write_bytes(b"")
    (made.path / "x.pt").chmod(0o644)
    code, out, err = run("custody")
    assert code == 1
    assert out.endswith("unfinished; 2 faults\n")
    assert err == (
        f"run demo: {Path('runs/demo/x.pt')}: is open to others, got mode 0644; close it with `chmod -R go= RUN`, and "
        "find out who has read it\n"
        f"run demo: {Path('runs/demo/x.pt')}: lies there, and no record says that it should; find out where it came "
        "from, and remove it\n"
    )
    code, out, _ = run("custody", "--json")
    assert code == 1
    (plain,) = json.loads(out)
    assert len(plain["faults"]) == 2
    assert plain["balance"] == {"created": 1, "deleted": 1, "kept": 0, "live": []}


def test_names_from_a_ledger_cannot_write_on_the_terminal(run: Run, made: RunFolder) -> None:
    with Journal.open(made.ledger) as journal:
        CustodyLog(journal.append).created("adapters/\x1b[2J[bold]x", A, "\u202eaudit")
    code, out, err = run("custody", "demo")
    assert code == 1
    assert "\x1b" not in out + err and "\u202e" not in out + err


def test_without_runs_there_is_nothing_to_say(run: Run, folder: Path) -> None:
    code, out, err = run("custody")
    assert (code, err) == (0, "")
    assert out == "no degraded artefact was ever written\nno completion left this machine\n"
    assert run("custody", "none").code == 2


def test_torch_is_not_loaded(made: RunFolder) -> None:
    code = "import sys; from robustlab.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code, "custody", "--runs", str(made.path.parent)],
        capture_output=True, text=True, timeout=120, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ended.stdout.endswith("False\n")


def test_an_error_of_the_machine_is_told_without_secrets(
    run: Run, made: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-token-4711")

    def fail(*arguments: object) -> None:
        raise OSError("https://me:word@host said canary-token-4711")

    monkeypatch.setattr(engine, "examine_runs", fail)
    code, out, err = run("custody")
    assert (code, out) == (1, "")
    assert err == ("this machine: https://<secret>@host said <secret>; look at the disk, the network and the rights\n")
