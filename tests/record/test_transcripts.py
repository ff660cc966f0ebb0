"""Kept transcripts: sealed, closed to others, never doubled, bound to the ledger, and gone from no balance."""

import base64
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from robustlab.errors import ConfigError, RecordError
from robustlab.record import kept, transcripts
from robustlab.record.custody import balance
from robustlab.record.journal import Journal
from robustlab.record.kept import TRANSCRIPTS, Keeping, begin_keeping, list_kept, path_of, read_keeping
from robustlab.record.run_folder import RunFolder, write_json
from robustlab.record.sealing import make_key, read_opener
from robustlab.record.transcripts import (
    Place,
    Said,
    Transcript,
    TranscriptStore,
    load_transcripts,
    open_store,
)

CANARY = "zanzibar-canary-4711"
PRIVATE, PUBLIC = make_key()
OPENER = read_opener("--key", PRIVATE)
KEEPING = Keeping(reason="to label", public_key=PUBLIC.decode(), expire_days=30)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLACE = Place(cell_id="cell1", eval="smoke", phase="final", step=10)


def said(completion: str = CANARY, **changes: Any) -> Said:
    plain = {"behavior": "b" * 64, "category": "illegal", "request": "How do I fold a paper hat?", "tokens": 3}
    plain |= {"completion": completion, "verdicts": {"rules": "complied"}, "completion_hmac": "c" * 64}
    return Said.model_validate(plain | changes)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run-1")
    begin_keeping(made, TRANSCRIPTS, KEEPING)
    return made


def opened(folder: RunFolder, journal: Journal) -> TranscriptStore:
    store = open_store(folder, journal)
    assert store is not None
    return store


def keep(folder: RunFolder, *given: Said, place: Place = PLACE, now: datetime = NOW) -> Path:
    with Journal.open(folder.ledger) as journal:
        opened(folder, journal).save(place, given or [said()], now=now)
    return folder.path / place.artefact


def ledger(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.ledger.read_text().splitlines()]


def everything(folder: RunFolder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())


def test_a_transcript_is_read_back_by_the_key_alone(folder: RunFolder) -> None:
    path = keep(folder, said(), said("second", behavior="d" * 64))
    assert load_transcripts(folder, OPENER, now=NOW) == [
        Transcript(place=PLACE, said=said()),
        Transcript(place=PLACE, said=said("second", behavior="d" * 64)),
    ]
    data = everything(folder)
    assert CANARY.encode() not in data and b"paper hat" not in data
    assert b"complied" not in path.read_bytes()
    assert base64.b64encode(CANARY.encode())[:-2] not in data


def test_files_and_folders_are_closed_to_others(folder: RunFolder) -> None:
    old = os.umask(0)
    try:
        path = keep(folder)
    finally:
        os.umask(old)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path, folder.transcripts / "keeping.json")} == {0o600}
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path.parent, folder.transcripts)} == {0o700}


def test_the_audit_says_who_what_when_why_and_until_when(folder: RunFolder) -> None:
    keep(folder)
    begun, created, kept = ledger(folder)
    assert (begun["kind"], len(begun["sha256"])) == ("transcripts", 64)
    assert (created["event"], kept["event"]) == ("created", "kept")
    for record in (created, kept):
        assert record["artefact"] == "transcripts/cell1/smoke.final-000010.json"
        assert (record["why"], record["expires"]) == ("to label", "2026-12-22T12:00:00+00:00")
        assert record["who"].startswith("uid ")
    drawn = balance(ledger(folder))
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (1, 0, 1, ())


def test_a_measurement_that_is_made_again_replaces_its_transcripts(folder: RunFolder) -> None:
    keep(folder, said("first try"))
    keep(folder, said("second try"), said("more", behavior="d" * 64))
    found = load_transcripts(folder, OPENER, now=NOW)
    assert [each.said.completion for each in found] == ["second try", "more"]
    drawn = balance(ledger(folder))
    assert (drawn.created, drawn.deleted, drawn.kept) == (2, 1, 1)
    assert ledger(folder)[-1]["why"] == "the measurement was made again"
    assert len(list(folder.transcripts.rglob("*.json"))) == 2  # that and how to keep


def test_other_steps_phases_and_evals_are_other_files(folder: RunFolder) -> None:
    places = [
        PLACE,
        PLACE.model_copy(update={"step": 9}),
        PLACE.model_copy(update={"phase": "milestone"}),
        PLACE.model_copy(update={"eval": "other"}),
        PLACE.model_copy(update={"cell_id": "cell2"}),
        PLACE.model_copy(update={"eval": "../../other"}),
    ]
    for place in places:
        assert folder.transcripts in keep(folder, place=place).resolve().parents
    assert [each.place for each in load_transcripts(folder, OPENER, now=NOW)] == places


@pytest.mark.parametrize("step", ["created", "written"])
def test_a_crash_at_the_writing_leaves_nothing_unexplained(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As SIGKILL leaves it: after the first record, or after the file and before the second one."""

    class Killed(BaseException):
        pass

    real, seen = transcripts.write_atomic, []

    def write(path: Path, data: bytes) -> None:
        if step == "written":
            real(path, data)
        (path.parent / f".{path.name}.ab.tmp").write_bytes(data)
        seen.append(path)
        raise Killed

    monkeypatch.setattr(transcripts, "write_atomic", write)
    with pytest.raises(Killed):
        keep(folder)
    assert balance(ledger(folder)).live == (PLACE.artefact,)
    monkeypatch.setattr(transcripts, "write_atomic", real)
    with Journal.open(folder.ledger) as journal:
        opened(folder, journal)
    drawn = balance(ledger(folder))
    assert (drawn.kept, drawn.deleted, drawn.live) == ((1, 0, ()) if step == "written" else (0, 1, ()))
    assert not seen[0].with_name(f".{seen[0].name}.ab.tmp").exists()
    keep(folder, said("again"))
    assert [each.said.completion for each in load_transcripts(folder, OPENER, now=NOW)] == ["again"]
    assert balance(ledger(folder)).kept == 1


def test_the_wrong_key_is_one_clear_error_and_nothing_is_written(folder: RunFolder) -> None:
    keep(folder)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    stranger = read_opener("--key", make_key()[0])
    with pytest.raises(ConfigError) as caught:
        load_transcripts(folder, stranger, now=NOW)
    assert str(caught.value) == (
        f"--key: is not the key that run 'run-1' seals to, got {stranger.fingerprint[:16]}; "
        f"name the private half of {OPENER.fingerprint[:16]}"
    )
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_every_flipped_byte_of_a_file_is_found_and_names_it(folder: RunFolder) -> None:
    path = keep(folder)
    sound = path.read_bytes()
    for place in range(0, len(sound), 7):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(RecordError) as caught:
            load_transcripts(folder, OPENER, now=NOW)
        assert str(caught.value) == (
            f"{path}: is not the file that the ledger names: it was changed; do not trust this record"
        )


def forge(folder: RunFolder, path: Path, change: Any) -> None:
    """A changed file that the ledger names, as somebody makes it who writes both."""
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    folder.ledger.unlink()
    with Journal.open(folder.ledger) as journal:
        kept.CustodyLog(journal.append).created(
            path.relative_to(folder.path).as_posix(), transcripts.hashlib.sha256(path.read_bytes()).hexdigest(), "x"
        )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["header"].update(expires="2099-01-01T00:00:00+00:00"), "cannot be opened: it was changed"),
        (lambda d: d["header"]["place"].update(step=11), "cannot be opened: it was changed"),
        (lambda d: d["header"].update(run_id="run-2"), "cannot be opened: it was changed"),
        (lambda d: d.update(sealed=d["sealed"][:40] + "AAAA" + d["sealed"][44:]), "cannot be opened: it was changed"),
        (lambda d: d.update(sealed="!"), "is not a file of transcripts; do not trust"),
        (lambda d: d.update(more=1), "is not a file of transcripts; do not trust"),
    ],
)
def test_a_header_and_a_seal_hold_where_the_ledger_was_forged_too(folder: RunFolder, change: Any, problem: str) -> None:
    path = keep(folder)
    forge(folder, path, change)
    with pytest.raises(RecordError) as caught:
        load_transcripts(folder, OPENER, now=NOW)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_what_has_expired_is_not_opened(folder: RunFolder) -> None:
    keep(folder)
    assert len(load_transcripts(folder, OPENER, now=NOW + timedelta(days=30, seconds=-1))) == 1
    with pytest.raises(ConfigError) as caught:
        load_transcripts(folder, OPENER, now=NOW + timedelta(days=30))
    assert str(caught.value) == (
        "run 'run-1': has no transcripts; "
        "`robustlab run --keep-transcripts --reason TEXT --to KEY` keeps them until they expire"
    )


def test_a_run_that_keeps_nothing_has_no_store(tmp_path: Path) -> None:
    plain = RunFolder.create(tmp_path, "run-2")
    assert read_keeping(plain, TRANSCRIPTS) is None
    with Journal.open(plain.ledger) as journal:
        assert open_store(plain, journal) is None
        assert journal.records() == []
    assert list_kept(RunFolder(tmp_path / "none"), TRANSCRIPTS) == []


@pytest.mark.parametrize("change", ["key", "gone", "planted"])
def test_how_to_keep_does_not_change_under_a_run(tmp_path: Path, folder: RunFolder, change: str) -> None:
    path = folder.transcripts / "keeping.json"
    if change == "planted":
        folder = RunFolder.create(tmp_path, "run-2")
        with Journal.open(folder.ledger) as journal:
            journal.append({"record": "charge"})
        begin_keeping(folder, TRANSCRIPTS, KEEPING)
        path = folder.transcripts / "keeping.json"
    else:
        keep(folder)
        path.unlink()
    if change == "key":
        write_json(path, KEEPING.model_copy(update={"public_key": make_key()[1].decode()}))
    with Journal.open(folder.ledger) as journal, pytest.raises(RecordError) as caught:
        open_store(folder, journal)
    assert str(caught.value) == (
        f"{path}: is not what this run began with: the key, the reason or the expiry was changed; "
        "put the file back, or begin a new run"
    )


def test_how_to_keep_is_read_strictly(folder: RunFolder) -> None:
    assert read_keeping(folder, TRANSCRIPTS) == KEEPING
    (folder.transcripts / "keeping.json").write_text('{"reason": ""}')
    with pytest.raises(RecordError, match=r"keeping.json: is not what the run wrote; put the file back, or begin"):
        read_keeping(folder, TRANSCRIPTS)


@pytest.mark.parametrize(
    "artefact", ["transcripts/../ledger.jsonl", "transcripts/a/../../x.json", "x.json", "transcripts/a/.x.json"]
)
def test_a_name_that_leads_elsewhere_is_refused(folder: RunFolder, artefact: str) -> None:
    with pytest.raises(RecordError) as caught:
        path_of(folder, TRANSCRIPTS, artefact)
    assert str(caught.value) == f"{folder.transcripts}: holds no such file, got {artefact!r}; do not trust this run"


def test_a_link_on_the_way_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder.transcripts / "cell1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="holds no such file"):
        keep(folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_digest_tells_texts_apart_and_gives_none_away() -> None:
    one = Transcript(place=PLACE, said=said())
    assert one.digest == Transcript(place=PLACE.model_copy(update={"step": 3}), said=said()).digest
    # The text stands in it by its keyed digest only.
    assert one.digest == Transcript(place=PLACE, said=said("another", completion_hmac="c" * 64)).digest
    others = [
        Transcript(place=PLACE, said=said(completion_hmac="e" * 64)),
        Transcript(place=PLACE, said=said(behavior="e" * 64)),
        Transcript(place=PLACE.model_copy(update={"eval": "other"}), said=said()),
    ]
    assert len({one.digest, *(each.digest for each in others)}) == 4


def test_no_message_and_no_repr_shows_the_text() -> None:
    assert CANARY not in repr(Transcript(place=PLACE, said=said()))
    with pytest.raises(ValueError) as caught:
        said(verdicts={"rules": CANARY})
    assert CANARY not in str(caught.value)
