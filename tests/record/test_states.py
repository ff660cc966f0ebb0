"""What lies in the folder of resumable states, and what the audit is told of it after a crash; no torch needed."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustlab.errors import RecordError
from robustlab.record import states
from robustlab.record.custody import CustodyLog, balance
from robustlab.record.journal import Journal
from robustlab.record.states import (
    artefact_name,
    describe_files,
    find_fault,
    list_states,
    reconcile_states,
    remove_state,
    remove_states,
    state_name,
    tell_gone,
)

RECONCILED = "reconciled after a crash: "


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "ledger.jsonl") as opened:
        yield opened


def make(folder: Path, digest: str = "ab" * 32) -> Path:
    """A state that holds."""
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(b"tensors")
    (folder / "state.json").write_text(json.dumps({"digest": digest}))
    (folder / "manifest.json").write_bytes(describe_files(folder, ("state.safetensors", "state.json")))
    return folder


def told(journal: Journal) -> list[tuple[str, str, str]]:
    records = [record for record in journal.records() if record["kind"] == "custody"]
    return [(record["event"], record["artefact"], record["why"]) for record in records]


def test_the_manifest_says_sizes_and_hashes(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-000004")
    listed = json.loads((folder / "manifest.json").read_text())
    # sha256 of the seven bytes "tensors".
    sha256 = "26cc73f9fbf623d9a49bbf3f3d88f70195f2de68d7f25b5161f6700e6644cf44"
    assert listed["state.safetensors"] == {"bytes": 7, "sha256": sha256}
    assert find_fault(folder) is None


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        (b"", "manifest.json is none"),
        (b"[]", "manifest.json is none"),
        (b"{}", "manifest.json is none"),
        (b'{"state.json": {}}', "manifest.json is none"),
        (b"[" * 100_000, "manifest.json is none"),
        (b'{"../x": {}, "state.safetensors": {}, "state.json": {}}', "manifest.json names '../x'"),
        (b'{".": {}, "state.safetensors": {}, "state.json": {}}', "manifest.json names '.'"),
        (b'{"/etc/passwd": {}, "state.safetensors": {}, "state.json": {}}', "manifest.json names '/etc/passwd'"),
        (b'{"state.safetensors": 7, "state.json": {}}', "state.safetensors has changed"),
    ],
)
def test_a_manifest_that_does_not_hold(tmp_path: Path, manifest: bytes, fault: str) -> None:
    folder = make(tmp_path / "step-000004")
    (folder / "manifest.json").write_bytes(manifest)
    assert find_fault(folder) == fault


def test_faults_of_files(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-000004")
    (folder / "extra").write_bytes(b"")
    assert find_fault(folder) is None
    (folder / "state.json").rename(tmp_path / "elsewhere")
    assert find_fault(folder) == "state.json is missing"
    (folder / "state.json").symlink_to(tmp_path / "elsewhere")
    assert find_fault(folder) == "state.json is missing"
    (folder / "manifest.json").unlink()
    assert find_fault(folder) == "manifest.json cannot be read: No such file or directory"


def test_an_error_of_the_disk_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "step-000004")

    def broken(self: Path) -> bool:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(Path, "is_file", broken)
    assert find_fault(folder) == "it cannot be read: Input/output error"


def test_states_are_listed_newest_first_and_nothing_else_is(tmp_path: Path) -> None:
    names = ["step-000004", "step-000100", "step-1000000", "step-999999", "step-x", "step-12", ".staged-000012"]
    for name in names:
        (tmp_path / name).mkdir()
    assert [path.name for path in list_states(tmp_path)] == [
        "step-1000000",
        "step-999999",
        "step-000100",
        "step-000004",
    ]
    assert list_states(tmp_path / "nowhere") == []
    assert state_name(4) == "step-000004"


def test_removing_a_state_gives_the_digest_that_custody_knows(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-000004")
    (folder / "state.safetensors").unlink()
    assert remove_state(folder) == "ab" * 32
    assert not folder.exists()
    for name in ("manifest.json", "state.json"):
        folder = make(tmp_path / "step-000004")
        (folder / name).write_text('{"digest": 3}')
        assert remove_state(folder) is None
        assert not folder.exists()


def test_a_disk_that_lets_nothing_go_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "step-000004")

    def refuse(path: Path) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RecordError) as caught:
        remove_state(folder)
    remedy = "make the folder writable, or choose another one"
    assert str(caught.value) == f"{folder}: cannot be written: Read-only file system; {remedy}"


def test_what_holds_and_is_known_stays(tmp_path: Path, journal: Journal) -> None:
    folder = make(tmp_path / "resume" / "cell" / "step-000004")
    CustodyLog(journal.append).created(artefact_name(folder), "ab" * 32, "to resume after a crash")
    head = journal.head
    reconcile_states(tmp_path / "resume", journal.records(), journal.append)
    assert (journal.head, find_fault(folder)) == (head, None)
    assert balance(journal.records()).live == ("resume/cell/step-000004",)


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ("nothing", "it was never written, or was gone before that was told"),
        ("staged", "it was left half written"),
        ("damaged", "it was damaged, state.safetensors has changed"),
        ("other", "it lay there without a record"),
    ],
)
def test_what_does_not_hold_goes_and_the_audit_says_so(tmp_path: Path, journal: Journal, left: str, why: str) -> None:
    resume = tmp_path / "resume"
    folder = resume / "cell" / "step-000004"
    CustodyLog(journal.append).created(artefact_name(folder), "ab" * 32, "to resume after a crash")
    match left:
        case "nothing":
            folder.parent.mkdir(parents=True)
        case "staged":
            make(folder).rename(folder.with_name(".staged-000004"))
        case "damaged":
            (make(folder) / "state.safetensors").write_bytes(b"tensorz")
        case _:
            make(folder, "cd" * 32)
    reconcile_states(resume, journal.records(), journal.append)
    assert list(folder.parent.iterdir()) == []
    assert ("deleted", artefact_name(folder), f"{RECONCILED}{why}") in told(journal)
    drawn = balance(journal.records())
    made = 2 if left == "other" else 1
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (made, made, 0, ())


def test_a_damaged_state_that_nobody_knows_just_goes(tmp_path: Path, journal: Journal) -> None:
    folder = make(tmp_path / "resume" / "cell" / "step-000004")
    (folder / "manifest.json").unlink()
    reconcile_states(tmp_path / "resume", journal.records(), journal.append)
    assert not folder.exists() and journal.records() == []


def test_a_state_of_another_version_is_refused_and_stays(tmp_path: Path, journal: Journal) -> None:
    folder = make(tmp_path / "resume" / "cell" / "step-000004")
    (folder / "state.json").write_text("{}")
    (folder / "manifest.json").write_bytes(describe_files(folder, ("state.safetensors", "state.json")))
    with pytest.raises(RecordError) as caught:
        reconcile_states(tmp_path / "resume", journal.records(), journal.append)
    told_ = "holds no state of this version: state.json has no digest; resume with the version that wrote it, or start"
    assert str(caught.value) == f"{folder}: {told_} a new run; nothing was deleted"
    assert folder.exists()


def test_artefacts_elsewhere_are_not_touched(tmp_path: Path, journal: Journal) -> None:
    CustodyLog(journal.append).created("transcripts/a.json", "ab" * 32, "asked for")
    reconcile_states(tmp_path / "resume", journal.records(), journal.append)
    assert balance(journal.records()).live == ("transcripts/a.json",)


def test_a_run_that_will_not_go_on_leaves_no_state(tmp_path: Path, journal: Journal) -> None:
    resume = tmp_path / "resume"
    log = CustodyLog(journal.append)
    for cell, step in (("a", 4), ("a", 8), ("b", 4)):
        log.created(artefact_name(make(resume / cell / state_name(step))), "ab" * 32, "to resume after a crash")
    log.created("resume/b/step-000008", "cd" * 32, "to resume after a crash")
    assert remove_states(resume, journal.records(), journal.append, "abandoned") == 4
    assert list(resume.iterdir()) == []
    assert {why for event, _, why in told(journal) if event == "deleted"} == {"abandoned"}
    assert balance(journal.records()).live == ()


def test_only_the_named_artefact_is_told_gone(tmp_path: Path, journal: Journal) -> None:
    log = CustodyLog(journal.append)
    for name in ("resume/a/step-000004", "resume/a/step-000008"):
        log.created(name, "ab" * 32, "to resume after a crash")
    tell_gone("resume/a/step-000004", journal.records(), journal.append, "it was damaged")
    assert balance(journal.records()).live == ("resume/a/step-000008",)


def test_the_failpoint_of_a_removal_lies_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "step-000004")
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(states, "reach", lambda name: seen.append((name, folder.exists())))
    remove_state(folder)
    assert seen == [("state.removed", False)]
