"""Where the resumable states of an unfinished cell lie, with the numbers that belong to them, under custody.

A state is recorded as created before its first byte and as deleted after its folder is gone; what a crash leaves in
between, ``robustlab.record.states`` tells the audit at the next start. This module does not know when a state is due or
when a cell has ended.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from torch import Tensor

from robustlab.errors import RecordError
from robustlab.failpoints import reach
from robustlab.record.custody import CustodyLog
from robustlab.record.journal import Journal
from robustlab.record.results import Item, LossPoint, Measurement
from robustlab.record.run_folder import read_plain, write_error
from robustlab.record.states import (
    OTHER_VERSION,
    artefact_name,
    find_damage,
    list_states,
    remove_state,
    state_name,
    tell_gone,
)
from robustlab.train.state import TrainState, find_misfit, read_sound, save_state

KEPT_STATES = 2
PROGRESS = "progress.json"


class Progress(BaseModel):
    """Numbers of an unfinished cell, kept in the state that they belong to."""

    context: str
    """Hash of what the state depends on besides its cell: released target, software, threads."""
    losses: list[LossPoint]
    measurements: list[Measurement]
    items: list[Item]
    skipped_by: str | None
    """Cap that kept a mark from being measured; None when none did."""


class StateStore:
    """The states of one cell."""

    def __init__(self, folder: Path, cell_id: str, journal: Journal) -> None:
        """Open the store; nothing is written yet.

        Args:
            folder: The run's folder of resumable states.
            cell_id: Id of the cell.
            journal: The run's ledger.
        """
        self._folder = folder / cell_id
        self._journal = journal
        self._custody = CustodyLog(journal.append)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Write a state with its numbers, and delete all but the newest two.

        Args:
            state: The state.
            progress: Its numbers.

        Raises:
            RecordError: If the disk is full or closed to writing; earlier states are intact.
        """
        folder = self._folder / state_name(state.step)
        if folder.exists():
            self._delete(folder, "the step was repeated")
        self._custody.created(artefact_name(folder), state.digest, "to resume after a crash")
        reach("store.announced")
        save_state(self._folder, state, {PROGRESS: progress.model_dump_json().encode("utf-8")})
        reach("store.saved")
        for old in list_states(self._folder)[KEPT_STATES:]:
            self._delete(old, "a newer state has taken its place")

    def load(
        self, context: str, own: Callable[[], Mapping[str, Tensor]] | None = None
    ) -> tuple[TrainState, Progress] | None:
        """Read the newest state that is as it was written, and its numbers. Newer ones, being damaged, are deleted.

        Args:
            context: Hash of what the present process would go on with.
            own: Tensors of the modification that the state will be put into; None not to look whether they fit.

        Returns:
            None when there is no such state.

        Raises:
            RecordError: If the state was made with another released target, other software, another version or
                another thread count, or the disk does not let it be read; then nothing of it is deleted.
        """
        for folder in list_states(self._folder):
            damage = find_damage(folder) or _find_missing(folder)
            if damage is None:
                return _read(folder, context, own)
            self._delete(folder, f"it cannot be gone on from: {damage}")
        return None

    def clear(self, why: str) -> None:
        """Delete every state, and say so in the audit.

        Args:
            why: The reason, for the audit.

        Raises:
            RecordError: If the disk does not let one go.
        """
        for folder in list_states(self._folder):
            self._delete(folder, why)
        if self._folder.is_dir():
            reach("store.emptied")
            try:
                shutil.rmtree(self._folder)
            except OSError as error:
                raise write_error(self._folder, error) from None

    def _delete(self, folder: Path, why: str) -> None:
        name, digest = artefact_name(folder), remove_state(folder)
        if digest is not None:
            self._custody.deleted(name, digest, why)
        else:
            tell_gone(name, self._journal.records(), self._journal.append, f"{why}; it was damaged")
        reach("store.release_told")


def _find_missing(folder: Path) -> str | None:
    return None if (folder / PROGRESS).exists() else f"{PROGRESS} is missing"


def _read(folder: Path, context: str, own: Callable[[], Mapping[str, Tensor]] | None) -> tuple[TrainState, Progress]:
    numbers = read_plain(folder / PROGRESS)
    # First of all: other software may know neither the rest of the numbers nor the tensors.
    if _read_context(folder, numbers) != context:
        problem = "was made with another released target, other software or another number of threads"
        raise RecordError(str(folder), problem, "resume as the run was started, or start a new run")
    try:
        progress = Progress.model_validate_json(numbers)
    except ValidationError:
        raise _foreign(folder) from None
    state = read_sound(folder)
    misfit = None if own is None else find_misfit(state, own())
    if misfit is not None:
        raise RecordError(str(folder), misfit, "resume as the run was started, or start a new run")
    return state, progress


def _read_context(folder: Path, numbers: bytes) -> object:
    try:
        return json.loads(numbers)["context"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _foreign(folder) from None


def _foreign(folder: Path) -> RecordError:
    return RecordError(str(folder), f"{PROGRESS} is none of this version", OTHER_VERSION)
