"""Created = deleted + kept + live, and nothing leaves that never came."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import CustodyError
from robustlab.record.custody import Artefact, CustodyBalance, CustodyLog, balance, list_present
from robustlab.record.journal import Journal

A, B = "a" * 64, "b" * 64


def test_records_say_who_what_when_and_why(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "ledger.jsonl") as journal:
        log = CustodyLog(journal.append, who="tester")
        assert log.created("resume/adapter.safetensors", A, "checkpoint of step 10") == journal.head
        log.kept("resume/adapter.safetensors", A, "external audit")
        records = journal.records()
    first = {key: records[0][key] for key in ("kind", "event", "artefact", "sha256", "who", "why")}
    assert first == {
        "kind": "custody",
        "event": "created",
        "artefact": "resume/adapter.safetensors",
        "sha256": A,
        "who": "tester",
        "why": "checkpoint of step 10",
    }
    assert (records[1]["event"], records[1]["why"]) == ("kept", "external audit")
    assert all("time" in record for record in records)


def log_to(records: list[dict[str, Any]]) -> CustodyLog:
    return CustodyLog(lambda record: (records.append(record), "hash")[1])


def test_the_actor_is_the_process_by_default() -> None:
    records: list[dict[str, Any]] = []
    log_to(records).created("x", A, "why")
    assert records[0]["who"].startswith("uid ")
    assert ", pid " in records[0]["who"]


def test_the_balance() -> None:
    records: list[dict[str, Any]] = [{"kind": "charge", "micro_usd": 1}]
    log = log_to(records)
    log.created("state", A, "step 10")
    log.created("state", B, "step 20")
    log.deleted("state", A, "replaced")
    log.created("adapter", A, "asked for")
    log.kept("adapter", A, "external audit")
    # 3 made: (state, A), (state, B), (adapter, A); one gone, one kept, one live
    assert balance(records) == CustodyBalance(created=3, deleted=1, kept=1, live=("state",))
    log.deleted("state", B, "run ended")
    log.deleted("adapter", A, "expired")
    assert balance(records) == CustodyBalance(created=3, deleted=3, kept=0, live=())


def test_a_step_that_is_repeated_after_a_crash_is_one_artefact() -> None:
    records: list[dict[str, Any]] = []
    log = log_to(records)
    log.created("state", A, "step 10")
    log.created("state", A, "step 10 again")
    assert balance(records) == CustodyBalance(created=1, deleted=0, kept=0, live=("state",))
    log.deleted("state", A, "replaced")
    log.created("state", A, "step 10 a third time")
    assert balance(records) == CustodyBalance(created=2, deleted=1, kept=0, live=("state",))


@pytest.mark.parametrize("event", ["deleted", "kept"])
def test_what_never_came_cannot_leave(event: str) -> None:
    records: list[dict[str, Any]] = []
    log = log_to(records)
    log.created("state", A, "step 10")
    getattr(log, event)("state", B, "why")
    with pytest.raises(CustodyError, match=f"state: was {event} without having been there, sha256 {B}; find out"):
        balance(records)


def test_nothing_is_deleted_twice() -> None:
    records: list[dict[str, Any]] = []
    log = log_to(records)
    log.created("state", A, "step 10")
    log.deleted("state", A, "replaced")
    log.deleted("state", A, "again")
    with pytest.raises(CustodyError, match="state: was deleted without having been there"):
        balance(records)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["created", "deleted", "kept"]), st.sampled_from("xyz")), max_size=20))
def test_created_is_always_deleted_plus_kept_plus_live(events: list[tuple[str, str]]) -> None:
    records = [{"kind": "custody", "event": event, "artefact": name, "sha256": A} for event, name in events]
    try:
        drawn = balance(records)
    except CustodyError:
        return
    assert drawn.created == drawn.deleted + drawn.kept + len(drawn.live)


def test_an_expiry_stands_in_the_record_where_there_is_one() -> None:
    records: list[dict[str, Any]] = []
    log = log_to(records)
    log.created("transcripts/a.json", A, "to label", expires="2026-12-22T12:00:00+00:00")
    log.created("state", B, "step 10")
    assert records[0]["expires"] == "2026-12-22T12:00:00+00:00"
    assert "expires" not in records[1]


def test_what_is_present_is_listed_with_its_last_event() -> None:
    records: list[dict[str, Any]] = [{"kind": "charge", "micro_usd": 1}]
    log = log_to(records)
    log.created("transcripts/a.json", A, "to label", expires="2026-12-22T12:00:00+00:00")
    log.created("state", A, "step 10")
    log.created("state", B, "step 20")
    log.kept("transcripts/a.json", A, "another reason")
    log.deleted("state", A, "replaced")
    assert list_present(records) == [
        Artefact(
            "transcripts/a.json",
            A,
            "kept",
            made=None,
            why="to label",
            expires="2026-12-22T12:00:00+00:00",
            ended=None,
            ended_why="another reason",
        ),
        Artefact("state", B, "created", made=None, why="step 20", expires=None),
    ]
