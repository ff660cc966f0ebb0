"""What a process does when it takes up a run: it looks at the clocks and brings states, files and audit in line."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.hardware import find_hardware
from robustlab.cost.pace import read_pace
from robustlab.cost.prices import load_price_card
from robustlab.record.custody import CustodyLog, balance
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder
from robustlab.report.live import LiveLine
from robustlab.session import Session
from robustlab.spec.budgets import Budget, Caps

HARDWARE = "cpu_2vcpu_8gb"
BUDGET = Budget(kind="budget", stands_for="a test", hardware=HARDWARE, attacker=Caps(), laboratory=None, total_usd=None)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


@pytest.fixture
def begin(folder: RunFolder, tmp_path: Path) -> Callable[..., Any]:
    """One process that takes the run up, at a time that is this much later than it is."""

    @contextmanager
    def build(later: timedelta = timedelta(0)) -> Iterator[tuple[Session, io.StringIO]]:
        said = io.StringIO()
        with Journal.open(folder.ledger, now=lambda: datetime.now(UTC) + later) as journal:
            pace = read_pace(find_hardware(HARDWARE, "a test"), "centre")
            yield Session(folder, journal, load_price_card(None), HARDWARE, tmp_path, LiveLine(said), pace), said

    return build


def test_a_clock_that_was_set_back_since_the_last_record_is_said(begin: Callable[..., Any]) -> None:
    with begin(timedelta(hours=3)):
        pass
    with begin() as (_, said):
        assert "the clock stands 3 h 00 min before the ledger's last record; no duration" in said.getvalue()
    with begin() as (_, said):
        assert said.getvalue() == ""


def test_a_jump_between_two_nodes_is_seen(begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = [0]
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    with begin() as (session, _):
        with session.meter("a", "test", BUDGET):
            pass
        ahead[0] = 3_600_000_000_000
        with session.meter("b", "test", BUDGET):
            pass
        jumps = [record for record in session.charged if record["record"] == "clock_jump"]
    assert [(jump["node"], round(jump["tags"]["jump_ns"] / 1e9)) for jump in jumps] == [("b", 3600)]


def test_what_a_crash_left_is_brought_in_line(begin: Callable[..., Any], folder: RunFolder) -> None:
    with begin() as (session, _):
        CustodyLog(session.journal.append).created("resume/cell/step-000004", "ab" * 32, "to resume after a crash")
    (folder.path / ".results.json.01234567.tmp").write_bytes(b"half")
    (folder.resume / "cell" / ".staged-000004").mkdir(parents=True)
    with begin() as (session, _):
        records = session.journal.records()
    assert not list(folder.path.rglob("*.tmp")) and list((folder.resume / "cell").iterdir()) == []
    drawn = balance(records)
    assert (drawn.created, drawn.deleted, drawn.live) == (1, 1, ())
    (deleted,) = [record for record in records if record.get("event") == "deleted"]
    assert deleted["why"] == "reconciled after a crash: it was left half written"
