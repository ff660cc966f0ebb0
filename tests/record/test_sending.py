"""Consent to send completions away, and what the audit says was sent."""

from typing import Any

import pytest

from robustlab.errors import ConfigError
from robustlab.record.sending import (
    Consent,
    Sent,
    allow,
    list_allowed,
    read_consent,
    record_sending,
    record_sent,
    sum_sent,
)


def log() -> tuple[list[dict[str, Any]], Any]:
    records: list[dict[str, Any]] = []

    def append(record: dict[str, Any]) -> str:
        records.append(record)
        return "hash"

    return records, append


def test_flags_become_a_consent() -> None:
    assert read_consent(["Judge.Example", "judge.example"], " for the audit ") == Consent(
        ("judge.example",), "for the audit"
    )
    assert read_consent(None, "a reason") is None
    assert read_consent([], None) is None


@pytest.mark.parametrize(
    ("hosts", "reason", "message"),
    [
        (["h"], None, "--send-completions: needs a reason, got none; say why with --reason TEXT: it is audited"),
        (["h"], "  ", "--send-completions: needs a reason, got none; say why with --reason TEXT: it is audited"),
        (["h"], "for sk-" + "a" * 30, "--reason: holds a secret, and would be stored; write the reason without it"),
        (["h"], "a\nb", "--reason: is no such line, got 3 characters; write one line of at most 500 characters"),
        (["h"], "a" * 501, "--reason: is no such line, got 501 characters; write one line of at most 500 characters"),
        (
            ["http://h"],
            "why",
            "--send-completions: must be a host, got 'http://h'; name it without path or user",
        ),
        ([""], "why", "--send-completions: must be a host, got ''; name it without path or user"),
    ],
)
def test_flags_that_are_refused(hosts: list[str], reason: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_consent(hosts, reason)
    assert str(caught.value) == message


def test_the_ledger_says_what_may_be_sent_where() -> None:
    records, append = log()
    allow(append, Consent(("a.example", "b.example"), "an audit"))
    assert {record["kind"] for record in records} == {"completions"}
    assert all(record["who"].startswith("uid ") for record in records)
    other = [{"kind": "custody", "event": "allowed", "host": "c"}, {"record": "settle"}]
    assert list_allowed([*records, *other]) == {"a.example": "an audit", "b.example": "an audit"}


def test_what_was_sent_adds_up_and_a_sending_that_was_cut_short_counts_in_full() -> None:
    records, append = log()
    allow(append, Consent(("a",), "why"))
    record_sending(append, "one", "a", completions=8, size=800, why="why")
    record_sent(append, "one", "a", completions=5, size=500, why="why")
    record_sending(append, "one", "b", completions=2, size=20, why="why")
    record_sending(append, "one", "b", completions=3, size=30, why="why")
    record_sent(append, "one", "b", completions=3, size=30, why="why")
    record_sending(append, "two", "a", completions=1, size=7, why="why")
    # a: 5 sent and 1 cut short; b: 2 cut short and 3 sent.
    assert sum_sent([{"record": "settle"}, *records]) == [Sent("a", 6, 507), Sent("b", 5, 50)]
    assert records[1] == {
        "kind": "completions",
        "event": "sending",
        "judge": "one",
        "host": "a",
        "completions": 8,
        "bytes": 800,
        "who": records[1]["who"],
        "why": "why",
    }
