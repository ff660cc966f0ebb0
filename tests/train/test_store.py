"""States of an unfinished cell, their numbers and the audit: every file in turn, and every moment of a crash."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.errors import RecordError
from robustlab.models.modification import tensors_digest
from robustlab.record.custody import balance
from robustlab.record.journal import Journal
from robustlab.record.states import list_states, reconcile_states
from robustlab.train.generators import read_generators
from robustlab.train.state import TrainState
from robustlab.train.store import Progress, StateStore

FILES = ("manifest.json", "progress.json", "state.json", "state.safetensors")


class Crash(BaseException):
    """The process ends here."""


def state_of(step: int) -> TrainState:
    modification = {"a.lora_A": torch.full((2, 3), float(step))}
    return TrainState(
        step=step,
        losses=(0.5,) * step,
        modification=modification,
        optimizer={"0.step": torch.tensor(float(step))},
        generators=read_generators(),
        logical={"steps": step},
        digest=tensors_digest(modification),
    )


def progress_of(context: str = "ctx") -> Progress:
    return Progress(context=context, losses=[], measurements=[], items=[], skipped_by=None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "ledger.jsonl") as opened:
        yield opened


@pytest.fixture
def resume(tmp_path: Path) -> Path:
    return tmp_path / "resume"


@pytest.fixture
def store(resume: Path, journal: Journal) -> StateStore:
    return StateStore(resume, "cell", journal)


def steps_in(resume: Path) -> list[int]:
    return [int(path.name[5:]) for path in list_states(resume / "cell")]


def whys(journal: Journal, event: str) -> list[tuple[str, str]]:
    return [(record["artefact"], record["why"]) for record in journal.records() if record.get("event") == event]


def test_the_newest_two_stay_and_the_audit_knows(store: StateStore, resume: Path, journal: Journal) -> None:
    for step in (4, 8, 12):
        store.save(state_of(step), progress_of())
    assert steps_in(resume) == [12, 8]
    assert sorted(path.name for path in (resume / "cell" / "step-000012").iterdir()) == list(FILES)
    assert whys(journal, "deleted") == [("resume/cell/step-000004", "a newer state has taken its place")]
    found = store.load("ctx")
    assert found is not None and (found[0].step, found[1]) == (12, progress_of())
    store.clear("the cell has been measured")
    assert not (resume / "cell").exists()
    drawn = balance(journal.records())
    assert (drawn.created, drawn.deleted, drawn.kept, drawn.live) == (3, 3, 0, ())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "changed"])
def test_any_damaged_file_falls_back_to_the_state_before(
    store: StateStore, resume: Path, journal: Journal, name: str, damage: str
) -> None:
    store.save(state_of(4), progress_of())
    store.save(state_of(8), progress_of())
    path = resume / "cell" / "step-000008" / name
    data = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "emptied": b"", "changed": bytes([data[0] ^ 1]) + data[1:]}[damage])
    found = store.load("ctx")
    assert found is not None and found[0].step == 4
    # It would otherwise take the place of the one that holds.
    assert steps_in(resume) == [4]
    ((artefact, why),) = whys(journal, "deleted")
    assert artefact == "resume/cell/step-000008"
    assert why.startswith("it cannot be gone on from: ") and name in why
    assert balance(journal.records()).live == ("resume/cell/step-000004",)


OTHER_VERSION = "resume with the version that wrote it, or start a new run; nothing was deleted"


@pytest.mark.parametrize("numbers", ["{}", "[]", "[" * 9_000, '{"context": "ctx"}'], ids=range(4))
def test_numbers_of_another_version_are_refused_and_cost_no_state(
    store: StateStore, resume: Path, monkeypatch: pytest.MonkeyPatch, numbers: str
) -> None:
    store.save(state_of(4), progress_of())
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "model_dump_json", lambda self: numbers)
        store.save(state_of(8), progress_of())
    with pytest.raises(RecordError) as caught:
        store.load("ctx")
    folder = resume / "cell" / "step-000008"
    assert str(caught.value) == f"{folder}: progress.json is none of this version; {OTHER_VERSION}"
    assert steps_in(resume) == [8, 4]


def test_the_context_is_looked_at_before_the_schema(
    store: StateStore, resume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("robustlab.train.state._SCHEMA", 99)
        patch.setattr(Progress, "model_dump_json", lambda self: '{"context": "then", "novel": 1}')
        store.save(state_of(4), progress_of())
    with pytest.raises(RecordError, match="was made with another released target, other software"):
        store.load("now")
    assert steps_in(resume) == [4]


def test_a_state_of_another_schema_is_refused_and_stays(
    store: StateStore, resume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("robustlab.train.state._SCHEMA", 99)
        store.save(state_of(4), progress_of())
    with pytest.raises(RecordError) as caught:
        store.load("ctx")
    folder = resume / "cell" / "step-000004"
    assert str(caught.value) == f"{folder}: holds no state of this version: ValueError; {OTHER_VERSION}"
    assert steps_in(resume) == [4]


def test_a_state_of_another_modification_is_refused_and_stays(store: StateStore, resume: Path) -> None:
    other = {"b.lora_A": torch.zeros(1)}
    store.save(replace(state_of(8), modification=other, digest=tensors_digest(other)), progress_of())
    with pytest.raises(RecordError) as caught:
        store.load("ctx", lambda: {"a.lora_A": torch.zeros(2, 3)})
    remedy = "resume as the run was started, or start a new run"
    assert str(caught.value) == f"{resume / 'cell' / 'step-000008'}: tensor a.lora_A is missing; {remedy}"
    assert steps_in(resume) == [8]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_lets_nothing_be_read_costs_no_state(
    store: StateStore, resume: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    store.save(state_of(4), progress_of())
    whole = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        if self.name == name:
            raise OSError(number, os.strerror(number))
        return whole(self)

    head, folder = journal.head, resume / "cell" / "step-000004"
    monkeypatch.setattr(Path, "lstat", lstat)
    remedy = "look at the file system and its permissions, and resume the run; nothing was deleted"
    for act in (lambda: store.load("ctx"), lambda: reconcile_states(resume, journal.records(), journal.append)):
        with pytest.raises(RecordError) as caught:
            act()
        assert str(caught.value) == f"{folder}: cannot be read: {os.strerror(number)}; {remedy}"
    assert (steps_in(resume), journal.head) == ([4], head)


def test_no_state_that_can_be_gone_on_from_is_none(store: StateStore, resume: Path, journal: Journal) -> None:
    assert store.load("ctx") is None
    store.save(state_of(4), progress_of())
    (resume / "cell" / "step-000004" / "manifest.json").unlink()
    assert store.load("ctx") is None
    assert balance(journal.records()).live == ()


def test_other_software_is_refused_and_costs_no_state(store: StateStore, resume: Path) -> None:
    store.save(state_of(4), progress_of("then"))
    with pytest.raises(RecordError) as caught:
        store.load("now", dict)
    problem = "was made with another released target, other software or another number of threads"
    folder = resume / "cell" / "step-000004"
    assert str(caught.value) == f"{folder}: {problem}; resume as the run was started, or start a new run"
    assert steps_in(resume) == [4]


def test_a_repeated_step_is_another_artefact(store: StateStore, resume: Path, journal: Journal) -> None:
    store.save(state_of(4), progress_of())
    store.save(replace(state_of(8), step=4), progress_of())
    drawn = balance(journal.records())
    assert (drawn.created, drawn.deleted, len(drawn.live)) == (2, 1, 1)
    assert whys(journal, "deleted") == [("resume/cell/step-000004", "the step was repeated")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_a_state_leaves_the_earlier_one(
    store: StateStore, resume: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store.save(state_of(4), progress_of())

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(RecordError, match="step-000008: cannot be written: "):
            store.save(state_of(8), progress_of())
    assert steps_in(resume) == [4]
    store.save(state_of(8), progress_of())
    assert steps_in(resume) == [8, 4]


def test_a_state_that_the_disk_does_not_let_go_is_an_error(
    store: StateStore, resume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(state_of(4), progress_of())

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RecordError) as caught:
        store.clear("the cell has been measured")
    told = "cannot be written: Read-only file system; make the folder writable, or choose another one"
    assert str(caught.value) == f"{resume / 'cell' / 'step-000004'}: {told}"


POINTS = [
    "store.announced",
    "state.begun",
    "state.tensors_written",
    "state.meta_written",
    "store.progress_written",
    "state.staged",
    "state.named",
    "store.saved",
    "state.removed",
    "store.release_told",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_of_a_save_balances_after_the_next_start(
    store: StateStore, resume: Path, journal: Journal, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States 4 and 8 are there; the process ends while 12 is written and 4 is deleted."""
    store.save(state_of(4), progress_of())
    store.save(state_of(8), progress_of())
    with monkeypatch.context() as patch:
        crash_at(patch, point)
        with pytest.raises(Crash):
            store.save(state_of(12), progress_of())
    reconcile_states(resume, journal.records(), journal.append)
    drawn = balance(journal.records())
    assert set(drawn.live) == {f"resume/cell/{path.name}" for path in list_states(resume / "cell")}
    assert list((resume / "cell").glob(".staged-*")) == []
    found = store.load("ctx")
    assert found is not None and found[0].step >= 8
    reconciled = [why for _, why in whys(journal, "deleted") if why.startswith("reconciled after a crash: ")]
    assert len(reconciled) == (point not in ("state.named", "store.saved", "store.release_told"))
    store.clear("the cell has been measured")
    drawn = balance(journal.records())
    assert (drawn.created, drawn.deleted, drawn.live) == (3, 3, ())


def crash_at(patch: pytest.MonkeyPatch, point: str) -> None:
    """End the process at a failpoint: nothing after it runs, no clean-up either."""
    from robustlab.record import states
    from robustlab.train import state, store

    def reach(name: str) -> None:
        if name == point:
            patch.setattr(shutil, "rmtree", lambda *args, **options: None)
            raise Crash

    for module in (states, state, store):
        patch.setattr(module, "reach", reach)


def test_reconciling_twice_changes_nothing(store: StateStore, resume: Path, journal: Journal) -> None:
    store.save(state_of(4), progress_of())
    append: Callable[[dict[str, Any]], str] = journal.append
    reconcile_states(resume, journal.records(), append)
    head = journal.head
    reconcile_states(resume, journal.records(), append)
    assert journal.head == head
