"""The two journals of a run are read as one, and no clock makes of that what cannot have happened."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustlab.record.audit import read_audit
from robustlab.record.custody import CustodyLog, list_present
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAME, DIGEST = "transcripts/cell/1.json", "d" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run-1")


def tell(path: Path, *told: tuple[str, float]) -> None:
    """Append events of one artefact, each at so many days after ``START``."""
    days = iter([day for _, day in told])
    with Journal.open(path, now=lambda: START + timedelta(days=next(days))) as journal:
        log = CustodyLog(journal.append)
        for event, _ in told:
            if event == "session":
                journal.append({"kind": "session", "pid": 1})
            else:
                getattr(log, event)(NAME, DIGEST, "audit")


def events(folder: RunFolder) -> list[str]:
    return [str(record.get("event", record["kind"])) for record in read_audit(folder).records]


def test_a_run_without_journals_says_nothing(folder: RunFolder) -> None:
    assert read_audit(folder).records == () and read_audit(folder).torn_bytes == 0


def test_unfinished_records_of_both_are_counted(folder: RunFolder) -> None:
    folder.ledger.write_bytes(b"{")
    folder.custody.write_bytes(b"{{")
    assert read_audit(folder).torn_bytes == 3


@pytest.mark.parametrize(
    "ledger_days",
    [(60, 0, 0), (60, 60, 60), (0, 0, 60), (0, 60, 0), (0, 0, 0)],
    ids=["first ahead", "all ahead", "last ahead", "middle ahead", "sound"],
)
def test_what_expired_was_there_whatever_the_clock_said(folder: RunFolder, ledger_days: tuple[float, ...]) -> None:
    tell(folder.ledger, *zip(("session", "created", "kept"), ledger_days, strict=True))
    tell(folder.custody, ("deleted", 30))
    assert events(folder) == ["session", "created", "kept", "deleted"]
    assert list_present(read_audit(folder).records) == []


def test_what_was_deleted_there_may_be_made_again_in_the_ledger(folder: RunFolder) -> None:
    tell(folder.ledger, ("created", 0), ("created", 2))
    tell(folder.custody, ("deleted", 1))
    assert events(folder) == ["created", "deleted", "created"]
    assert [found.event for found in list_present(read_audit(folder).records)] == ["created"]


def test_what_the_ledger_deleted_itself_comes_before_its_second_making(folder: RunFolder) -> None:
    tell(folder.ledger, ("created", 5), ("deleted", 5), ("created", 5), ("kept", 5))
    tell(folder.custody, ("deleted", 1))
    assert events(folder) == ["created", "deleted", "created", "kept", "deleted"]


def test_what_never_was_there_is_still_told(folder: RunFolder) -> None:
    tell(folder.ledger, ("session", 0))
    tell(folder.custody, ("deleted", -1))
    assert events(folder) == ["session", "deleted"]
