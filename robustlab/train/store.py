"""Where the resumable states of an unfinished cell lie, with the numbers that belong to them, under custody.

A state is recorded as created before its first byte and as deleted after its folder is gone. This module does not know
when a state is due or when a cell has ended.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from robustlab.errors import RecordError
from robustlab.record.custody import CustodyLog
from robustlab.record.results import Item, LossPoint, Measurement
from robustlab.record.run_folder import write_json
from robustlab.train.state import TrainState, list_states, load_newest, remove_state, save_state

KEPT_STATES = 2


class Progress(BaseModel):
    """Numbers of an unfinished cell, kept beside the state that they belong to."""

    context: str
    """Hash of what the state depends on besides its cell: released target, software, threads."""
    losses: list[LossPoint]
    measurements: list[Measurement]
    items: list[Item]
    skipped_by: str | None
    """Cap that kept a mark from being measured; None when none did."""


class StateStore:
    """The states of one cell."""

    def __init__(self, folder: Path, cell_id: str, append: Callable[[dict[str, Any]], str]) -> None:
        """Open the store; nothing is written yet.

        Args:
            folder: The run's folder of resumable states.
            cell_id: Id of the cell.
            append: Writes one record of the ledger durably.
        """
        self._folder = folder / cell_id
        self._cell_id = cell_id
        self._custody = CustodyLog(append)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Write a state with its numbers, and delete all but the newest two.

        Args:
            state: The state.
            progress: Its numbers.

        Raises:
            RecordError: If the disk is full or closed to writing; earlier states are intact.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(self._progress(state.step), progress)
        self._custody.created(self._artefact(state.step), state.digest, "to resume after a crash")
        save_state(self._folder, state)
        for old in list_states(self._folder)[KEPT_STATES:]:
            self._delete(old, "a newer state has taken its place")

    def load(self, context: str) -> tuple[TrainState, Progress] | None:
        """Read the newest valid state and its numbers.

        Args:
            context: Hash of what the present process would go on with.

        Returns:
            None when there is no valid state.

        Raises:
            RecordError: If the state was made with another released target, other software or another thread count.
        """
        state = load_newest(self._folder)
        if state is None:
            return None
        path = self._progress(state.step)
        progress = Progress.model_validate_json(path.read_bytes())
        if progress.context != context:
            problem = "was made with another released target, other software or another number of threads"
            raise RecordError(str(path), problem, "resume as the run was started, or start a new run")
        return state, progress

    def clear(self, why: str) -> None:
        """Delete every state, and say so in the audit.

        Args:
            why: The reason, for the audit.
        """
        for folder in list_states(self._folder):
            self._delete(folder, why)
        if self._folder.is_dir():
            shutil.rmtree(self._folder)

    def _delete(self, folder: Path, why: str) -> None:
        step = int(folder.name.removeprefix("step-"))
        digest = remove_state(folder)
        if digest is not None:
            self._custody.deleted(self._artefact(step), digest, why)
        self._progress(step).unlink(missing_ok=True)

    def _artefact(self, step: int) -> str:
        return f"resume/{self._cell_id}/step-{step:06d}"

    def _progress(self, step: int) -> Path:
        return self._folder / f"progress-{step:06d}.json"
