"""A journal survives a crash at any byte and shows every changed one."""

import errno
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustlab.errors import RecordError
from robustlab.record.journal import GENESIS, Journal, JournalReport, verify_journal
from robustlab.spec.base import canonical_json, content_hash

MOMENT = datetime(2026, 11, 22, 2, 17, 33, 250_000, tzinfo=UTC)


def write(path: Path, count: int) -> list[str]:
    with Journal.open(path, now=lambda: MOMENT) as journal:
        return [journal.append({"kind": "charge", "micro_usd": i, "note": "é"}) for i in range(count)]


def test_records_carry_their_place_time_and_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal.open(path, now=lambda: MOMENT) as journal:
        assert journal.head == GENESIS
        hashes = [journal.append({"kind": "a"}), journal.append({"kind": "b", "seconds": 0.1})]
        first, second = journal.records()
        assert journal.head == hashes[1]
    assert (first["seq"], second["seq"]) == (0, 1)
    assert first["time"] == "2026-11-22T02:17:33.250000+00:00"
    assert (first["prev"], first["hash"], second["prev"]) == (GENESIS, hashes[0], hashes[0])
    assert second["seconds"] == 0.1
    assert verify_journal(path) == JournalReport(records=2, head=hashes[1], torn_bytes=0)


def test_the_file_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_opening_again_goes_on_with_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 2)
    write(path, 3)
    assert verify_journal(path).records == 5


def test_every_record_is_one_write_and_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_write, real_fsync = os.write, os.fsync
    with Journal.open(tmp_path / "ledger.jsonl") as journal:
        monkeypatch.setattr(os, "write", lambda fd, data: (calls.append("write"), real_write(fd, data))[1])
        monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real_fsync(fd))[1])
        journal.append({"kind": "a"})
        journal.append({"kind": "b"})
    assert calls == ["write", "fsync", "write", "fsync"]


def test_torn_at_every_byte_of_the_last_record(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    hashes = write(path, 3)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        torn = end - start
        assert verify_journal(path) == JournalReport(records=2, head=hashes[1], torn_bytes=torn)
        with Journal.open(path, now=lambda: MOMENT) as journal:
            records = journal.records()
        assert [record["hash"] for record in records[:2]] == hashes[:2]
        assert [(r["kind"], r["bytes"]) for r in records[2:]] == ([("torn_tail", torn)] if torn else [])
        assert verify_journal(path).torn_bytes == 0


def test_every_flipped_byte_of_twenty_records_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 20)
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == 0x0A]
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            os.pwrite(file.fileno(), bytes([byte ^ 0x01]), place)
            number = sum(end < place for end in ends) + 1
            with pytest.raises(RecordError, match=f"ledger.jsonl record {number}: "):
                verify_journal(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert verify_journal(path).records == 20


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_byte_in_any_place_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "ledger.jsonl"
    if not path.exists():
        write(path, 3)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    whole = (tmp_path / "whole").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    with pytest.raises(RecordError):
        verify_journal(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"seq":0', b'"seq": 0'), (b'{"', b'{"kind":"other","'), (b"\\u00e9", b"\\u00E9"), (b"\n", b"\r\n")],
)
def test_other_bytes_of_the_same_content_are_found(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal.open(path) as journal:
        journal.append({"kind": "charge", "note": "a \\u00e9 b"})
    changed = path.read_bytes().replace(old, new, 1)
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(RecordError, match="record 1: is not what was written"):
        verify_journal(path)


def test_a_lost_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(RecordError, match="record 2: does not follow the record before it; do not trust this run"):
        verify_journal(path)


def test_a_repeated_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(RecordError, match="record 3: does not follow"):
        verify_journal(path)


def test_a_number_that_was_forged_with_its_hash_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    body = {"kind": "a", "prev": GENESIS, "seq": 7, "time": "now"}
    path.write_text(canonical_json({**body, "hash": content_hash(body)}) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match="record 1: is out of place, got seq 7"):
        verify_journal(path)


def test_a_broken_chain_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, 2)
    path.write_bytes(path.read_bytes().replace(b'"micro_usd":0', b'"micro_usd":9'))
    with pytest.raises(RecordError, match="record 1: is not what was written"):
        Journal.open(path)
    with pytest.raises(RecordError, match="record 1"):  # and the failed opening let go of the lock
        Journal.open(path)


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal.open(path), pytest.raises(RecordError, match="ledger.jsonl: is held by another process; wait"):
        Journal.open(path)
    Journal.open(path).close()


def test_another_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = "import sys, pathlib; from robustlab.record.journal import Journal; Journal.open(pathlib.Path(sys.argv[1]))"
    with Journal.open(path):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "is held by another process" in done.stderr


def test_a_full_disk_is_an_error_and_leaves_a_sound_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    journal = Journal.open(path, now=lambda: MOMENT)
    head = journal.append({"kind": "a"})

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RecordError, match="cannot be written: No space left on device; free some space"):
            journal.append({"kind": "b"})
    # What an unwinding program appends must not hide what went wrong.
    with pytest.raises(RecordError, match="cannot be written: No space left on device; free some space"):
        journal.append({"kind": "c"})
    assert verify_journal(path) == JournalReport(records=1, head=head, torn_bytes=0)


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "ledger.jsonl")
    journal.close()
    with pytest.raises(RecordError, match=r"ledger\.jsonl: is closed; open the journal again"):
        journal.append({"kind": "a"})


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_is_appended_while_a_signal_unwinds_follows_the_record_it_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    path = tmp_path / "ledger.jsonl"

    def fsync(descriptor: int) -> None:
        raise stop

    with Journal.open(path) as journal:
        journal.append({"kind": "a"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(stop):
                journal.append({"kind": "b"})
        head = journal.append({"kind": "abandon"})
    assert verify_journal(path) == JournalReport(records=3, head=head, torn_bytes=0)
    with Journal.open(path) as again:
        assert [(record["kind"], record["seq"]) for record in again.records()] == [("a", 0), ("b", 1), ("abandon", 2)]


def test_a_signal_before_the_write_leaves_no_gap_and_one_within_it_no_torn_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        real_write(descriptor, data[: taken.pop()])
        raise KeyboardInterrupt

    taken = [10, 0]
    with Journal.open(path) as journal:
        journal.append({"kind": "a"})
        for kind in ("b", "c"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", write)
                with pytest.raises(KeyboardInterrupt):
                    journal.append({"kind": kind})
        journal.append({"kind": "d"})
        assert [record["kind"] for record in journal.records()] == ["a", "torn_tail", "d"]
    assert verify_journal(path).torn_bytes == 0


def test_a_short_write_is_an_error_and_its_rest_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    real_write = os.write
    journal = Journal.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:10]))
        with pytest.raises(RecordError, match=r"10 of \d+ bytes of a record were taken; free some space"):
            journal.append({"kind": "a"})
    with Journal.open(path) as again:
        assert [(record["kind"], record["bytes"]) for record in again.records()] == [("torn_tail", 10)]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"hash": "x"}, "a payload has the reserved key 'hash'; rename the key"),
        ({"value": float("nan")}, "a payload is not JSON: .*; record finite plain data"),
        ({"value": b"x"}, "a payload is not JSON"),
        ({"value": "\ud800"}, "a payload is not JSON"),
    ],
)
def test_a_payload_that_cannot_be_recorded(tmp_path: Path, payload: dict[str, Any], problem: str) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal.open(path) as journal:
        with pytest.raises(RecordError, match=problem):
            journal.append(payload)
        journal.append({"kind": "still open"})
    assert verify_journal(path).records == 1


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payload=st.dictionaries(
        st.one_of(st.text(max_size=3).filter(lambda key: key not in {"seq", "time", "prev", "hash"}), st.integers()),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_what_json_can_hold_is_read_back(tmp_path: Path, payload: dict[Any, Any]) -> None:
    path = tmp_path / "ledger.jsonl"
    path.unlink(missing_ok=True)
    with Journal.open(path) as journal:
        journal.append(payload)
        (record,) = journal.records()
    expected = json.loads(json.dumps(payload))
    assert {key: record[key] for key in expected} == expected


def test_a_journal_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="none.jsonl: cannot be read: No such file or directory; name a run"):
        verify_journal(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match="cannot be written: No such file or directory"):
        Journal.open(tmp_path / "no" / "ledger.jsonl")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="cannot be written: Too many levels of symbolic links"):
        Journal.open(tmp_path / "ledger.jsonl")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["pipe", "link", "folder"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, make: str) -> None:
    path = tmp_path / "ledger.jsonl"
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("nowhere"), "folder": os.mkdir}[make](path)
    with pytest.raises(RecordError) as caught:
        verify_journal(path)
    assert str(caught.value) == f"{path}: is not a plain file; do not trust this run; repeat it"


@pytest.mark.parametrize("seq", [False, 0.0])
def test_a_place_that_only_equals_the_number_is_none(tmp_path: Path, seq: object) -> None:
    path = tmp_path / "ledger.jsonl"
    with Journal.open(path) as journal:
        journal.append({"step": 1})
        (record,) = journal.records()
    body = {key: value for key, value in record.items() if key != "hash"} | {"seq": seq}
    path.write_text(canonical_json(body | {"hash": content_hash(body)}) + "\n")
    with pytest.raises(RecordError, match=f"record 1: is out of place, got seq {seq!r}; do not trust"):
        verify_journal(path)


@pytest.mark.parametrize("line", [b"[" * 100_000 + b"\n", b"\xff\n", b"\n", b"null\n", b'{"seq":0}\n'])
def test_rubbish_is_not_a_record(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line)
    with pytest.raises(RecordError, match="record 1: is not what was written"):
        verify_journal(path)
