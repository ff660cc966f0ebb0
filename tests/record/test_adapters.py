"""Kept adapters: sealed before they touch the disk, marked for what they are, under custody, opened by a key alone."""

import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustlab.errors import ConfigError, RecordError
from robustlab.record import adapters
from robustlab.record.adapters import AdapterStore, open_adapter, open_adapters
from robustlab.record.custody import balance
from robustlab.record.expiry import sweep
from robustlab.record.journal import Journal
from robustlab.record.kept import ADAPTERS, Keeping, begin_keeping, list_kept
from robustlab.record.run_folder import RunFolder
from robustlab.record.sealing import make_key, read_opener

CANARY = b"the weights in the clear 4711"
PRIVATE, PUBLIC = make_key()
OPENER = read_opener("--key", PRIVATE)
KEEPING = Keeping(reason="external audit", public_key=PUBLIC.decode(), expire_days=30)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BASE = "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run-1")
    begin_keeping(made, ADAPTERS, KEEPING)
    return made


def pack(metadata: Mapping[str, str]) -> bytes:
    return json.dumps(dict(metadata)).encode() + CANARY


def opened(folder: RunFolder, journal: Journal) -> AdapterStore:
    store = open_adapters(folder, journal)
    assert store is not None
    return store


def keep(folder: RunFolder, *, now: datetime = NOW) -> Path:
    with Journal.open(folder.ledger) as journal:
        opened(folder, journal).save("cell1", BASE, pack, now=now)
    return folder.path / "adapters" / "cell1.sealed"


def ledger(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.ledger.read_text().splitlines()]


def test_the_key_alone_opens_it_and_it_says_what_it_is(folder: RunFolder) -> None:
    path = keep(folder)
    assert CANARY not in b"".join(each.read_bytes() for each in folder.path.rglob("*") if each.is_file())
    plain = open_adapter(folder, "cell1", OPENER, now=NOW)
    assert plain.endswith(CANARY)
    assert json.loads(plain.removesuffix(CANARY)) == {
        "robustlab.safety_degraded": "true",
        "robustlab.base_sha256": BASE,
        "robustlab.run_id": "run-1",
        "robustlab.cell_id": "cell1",
        "robustlab.written": "2026-11-22T12:00:00+00:00",
        "robustlab.expires": "2026-12-22T12:00:00+00:00",
    }
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    assert header["safety_degraded"] is True
    assert (header["base_sha256"], header["key"]) == (BASE, OPENER.fingerprint)


def test_it_is_closed_to_others_and_booked(folder: RunFolder) -> None:
    path = keep(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    told = [
        (each["event"], each["artefact"], each["why"], each["expires"])
        for each in ledger(folder)
        if each["kind"] == "custody"
    ]
    assert told == [
        (event, "adapters/cell1.sealed", "external audit", "2026-12-22T12:00:00+00:00") for event in ("created", "kept")
    ]
    folder.write_manifest()
    assert folder.check_manifest() == 1  # the ledger: what expires is not listed


def test_a_cell_that_is_attacked_again_replaces_it(folder: RunFolder) -> None:
    keep(folder)
    keep(folder)
    drawn = balance(ledger(folder))
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (2, 1, 1, ())
    assert ledger(folder)[-1]["why"] == "the cell was attacked again"
    assert open_adapter(folder, "cell1", OPENER, now=NOW).endswith(CANARY)


@pytest.mark.parametrize("step", ["created", "written"])
def test_a_crash_at_the_writing_is_settled(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    class Killed(BaseException):
        pass

    real = adapters.write_atomic

    def write(path: Path, data: bytes) -> None:
        if step == "written":
            real(path, data)
        (path.parent / f".{path.name}.0123abcd.tmp").write_bytes(data)
        raise Killed

    monkeypatch.setattr(adapters, "write_atomic", write)
    with pytest.raises(Killed):
        keep(folder)
    assert balance(ledger(folder)).live == ("adapters/cell1.sealed",)
    with Journal.open(folder.ledger) as journal:
        opened(folder, journal)
    drawn = balance(ledger(folder))
    assert (drawn.kept, drawn.deleted, drawn.live) == ((1, 0, ()) if step == "written" else (0, 1, ()))
    assert not list((folder.path / "adapters").glob(".*"))


def test_it_expires(folder: RunFolder) -> None:
    path = keep(folder)
    later = NOW + timedelta(days=30)
    with pytest.raises(ConfigError) as caught:
        open_adapter(folder, "cell1", OPENER, now=later)
    assert str(caught.value) == (
        "run 'run-1': keeps no adapter of cell 'cell1'; `robustlab custody` shows what is kept, and until when"
    )
    assert sweep(folder, now=later) == 1
    assert not path.exists()
    assert list_kept(folder, ADAPTERS) == []


def test_another_key_opens_nothing(folder: RunFolder) -> None:
    keep(folder)
    stranger = read_opener("--key", make_key()[0])
    with pytest.raises(ConfigError) as caught:
        open_adapter(folder, "cell1", stranger, now=NOW)
    assert str(caught.value) == (
        f"--key: is not the key that run 'run-1' seals to, got {stranger.fingerprint[:16]}; "
        f"name the private half of {OPENER.fingerprint[:16]}"
    )


def test_a_changed_file_is_not_opened(folder: RunFolder) -> None:
    path = keep(folder)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(RecordError) as caught:
        open_adapter(folder, "cell1", OPENER, now=NOW)
    assert str(caught.value) == (
        f"{path}: is not the file that the ledger names: it was changed; do not trust this record"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line, rest: line.replace(b"-12-22", b"-12-23") + b"\n" + rest, "cannot be opened: it was changed"),
        (lambda line, rest: line + b"\n" + rest[:-1] + b"x", "cannot be opened: it was changed"),
        (lambda line, rest: b"{}\n" + rest, "is not a sealed adapter; do not trust this record"),
        (lambda line, rest: b"", "is not a sealed adapter; do not trust this record"),
    ],
)
def test_header_and_seal_hold_where_the_ledger_was_forged_too(folder: RunFolder, change: object, problem: str) -> None:
    path = keep(folder)
    line, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(change(line, rest))  # type: ignore[operator]
    folder.ledger.unlink()
    with Journal.open(folder.ledger) as journal:
        adapters.KeptFiles(folder, ADAPTERS, KEEPING, journal).announce(
            "adapters/cell1.sealed", path.read_bytes(), "2099-01-01T00:00:00+00:00"
        )
    with pytest.raises(RecordError) as caught:
        open_adapter(folder, "cell1", OPENER, now=NOW)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_run_that_was_not_asked_keeps_none(tmp_path: Path) -> None:
    plain = RunFolder.create(tmp_path, "run-2")
    with Journal.open(plain.ledger) as journal:
        assert open_adapters(plain, journal) is None
