"""Every command that prices by an old card says so on the standard error: resume, ledger price and reconcile too."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cli import money, runs
from robustlab.cost.prices import load_price_card
from robustlab.engine import holding, ledger, reconcile, reconciliation
from robustlab.record.run_folder import RunFolder

Run = Callable[..., Any]

RUN_ID = "20261122T021733Z-a1b2c3"
OLD = 'as_of: "2020-01-01"'


@pytest.fixture
def card(folder: Path) -> Path:
    """An old card, which a run that has not ended holds as its own."""
    lines = load_price_card(None).path.read_text(encoding="utf-8").splitlines()
    held = RunFolder.create(folder / "runs", RUN_ID)
    held.prices.write_text("\n".join(OLD if line.startswith("as_of:") else line for line in lines), encoding="utf-8")
    return Path("runs") / RUN_ID / "prices.yaml"


def is_warning(err: str, card: Path) -> bool:
    return err.startswith(f"{card}: is ") and "got as_of 2020-01-01" in err and err.count("\n") == 1


def test_resume_warns_before_it_goes_on(run: Run, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = SimpleNamespace(folder=SimpleNamespace(path=Path()), results=None)
    # A stand-in, since the module itself loads torch.
    stand_in = SimpleNamespace(resume_run=lambda run_id, runs, line: launched)
    monkeypatch.setitem(sys.modules, "robustlab.engine.launch", stand_in)
    monkeypatch.setattr(holding, "require_resumable", lambda folder: None)
    monkeypatch.setattr(runs, "prepare_process", lambda: None)
    monkeypatch.setattr(runs, "print_results", lambda found, as_json: None)
    code, _, err = run("resume", RUN_ID)
    assert code == 0 and is_warning(err, card)


def test_pricing_again_warns_of_the_card_that_is_named(run: Run, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "price_again", lambda *_, **__: [])
    monkeypatch.setattr(ledger, "describe_torn_tail", lambda *_: None)
    assert is_warning(run("ledger", "price", RUN_ID, "--prices", str(card)).err, card)
    assert "2020" not in run("ledger", "price", RUN_ID).err


def test_a_record_that_a_crash_left_unfinished_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "price_again", lambda *_, **__: [])
    monkeypatch.setattr(ledger, "export_focus", lambda *_: 3)
    monkeypatch.setattr(ledger, "describe_torn_tail", lambda *_: "a torn tail is left out")
    assert run("ledger", "price", RUN_ID).err == "a torn tail is left out\n"
    exported = run("ledger", "export", RUN_ID, "--out", "x.csv")
    assert (exported.out, exported.err) == ("3 charges written to x.csv\n", "a torn tail is left out\n")


def test_reconcile_warns_of_the_runs_own_card(run: Run, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "reconcile_run", lambda *_, **__: None)
    monkeypatch.setattr(reconciliation, "describe", lambda found: [])
    assert is_warning(run("reconcile", RUN_ID).err, card)
    assert is_warning(run("reconcile", RUN_ID, "--prices", str(card)).err, card)
    assert money.read_card(None).prices.as_of.year > 2020
