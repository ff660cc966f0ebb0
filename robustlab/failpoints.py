"""Named points of the code at which a test can end the process as a crash would, without a word and without a clean-up.

Each stands right before or after something that must survive: a record, a file, a state, a deletion. Unarmed, passing
one is a comparison. ``ROBUSTLAB_FAILPOINT=name[:count]`` kills the process at the count-th passing,
``ROBUSTLAB_FAILPOINT_LOG=FILE`` lists every point that is passed. This module knows nothing of what happens there.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from robustlab.errors import ConfigError

POINT, LOG = "ROBUSTLAB_FAILPOINT", "ROBUSTLAB_FAILPOINT_LOG"

NAMES: Mapping[str, str] = {
    "run.folder_made": "the folder of a new run is there, and resume/ in it is not",
    "run.created": "the folder of a new run is whole and empty",
    "run.consented": "the ledger says where completions may go",
    "run.session_begun": "the ledger says that a process works on the run",
    "run.prices_written": "the price card is copied",
    "run.estimates_written": "what was expected is written",
    "run.plan_written": "the resolved plan is written",
    "run.results_written": "results.json is written",
    "run.items_written": "items.jsonl is written",
    "run.report_written": "the report is written",
    "run.sealed": "the manifest is written",
    "journal.record_ready": "a record is made and no byte of it written",
    "journal.record_written": "a record is written and not synced",
    "journal.record_synced": "a record is on the disk, and nobody has been told",
    "journal.tail_dropped": "an unfinished record is cut off, and no record says so",
    "file.begun": "the temporary file of a whole file is there, empty",
    "file.written": "the temporary file is written and synced, and has not its name",
    "file.named": "the file has its name, and its folder is not synced",
    "state.begun": "the staged folder of a state is there, empty",
    "state.tensors_written": "the tensors of a state are written",
    "state.meta_written": "the numbers of a state are written beside its tensors",
    "state.staged": "a state is whole, synced and has not its name",
    "state.named": "a state has its name, and its folder is not synced",
    "state.removed": "the folder of a state is gone, and custody does not know",
    "store.progress_written": "the measurements of a state are written, and the state is not",
    "store.announced": "custody knows of a state that is not written",
    "store.saved": "a state is written, and older ones are still there",
    "store.release_told": "custody knows that a state is gone",
    "store.emptied": "all states of a cell are gone, and their folder is still there",
    "cell.items_written": "the items of a cell are written, and its result is not",
    "cell.result_written": "the result of a cell is written, and its states are still there",
    "cell.cleared": "the states of a finished cell are gone",
    "released.staged": "a released target is written and has not its manifest",
    "released.manifested": "a released target is whole, synced and has not its name",
    "released.named": "a released target has its name in the cache",
    "baseline.key_made": "the key of a target's digests is in the cache",
    "baseline.kept": "the verdicts of a baseline are in the cache",
    "data.kept": "an attack's training set is in the cache",
    "keeping.begun": "the folder of what is kept is there, and does not say how to keep",
    "keeping.written": "how to keep is written",
    "transcript.announced": "custody knows of a transcript that is not written",
    "transcript.written": "a transcript is written, and custody does not know that it stays",
    "transcript.kept": "custody knows that a transcript stays",
    "adapter.announced": "custody knows of a kept adapter that is not written",
    "adapter.written": "a kept adapter is written, and custody does not know that it stays",
    "adapter.kept": "custody knows that an adapter stays",
    "mirror.started": "wandb has begun to mirror a cell",
    "mirror.finished": "wandb has ended",
    "search.begun": "the ledger names the search",
    "search.trial_begun": "the search's journal has a trial that has not run",
    "search.rung_reported": "the journal has a trial's value at a rung",
    "search.ending_written": "the journal has a trial's ending, and Optuna does not know",
    "search.trial_ended": "the journal has a trial that has ended, and its states are still there",
    "search.posted": "the board has all findings",
    "search.summarised": "search.json is written",
    "search.winner_frozen": "winner.yaml is written",
}
"""Every point, with what is true there."""


@dataclass
class _Watch:
    """What to do at the points: kill at one, list all that are passed, or both."""

    name: str | None
    left: int
    log: int | None

    def see(self, name: str) -> None:
        if self.log is not None:
            os.write(self.log, f"{name}\n".encode())
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


_watch: _Watch | None = None


def reach(name: str) -> None:
    """Pass a point: nothing happens, unless a test has armed it.

    Args:
        name: One of ``NAMES``.
    """
    if _watch is not None:
        _watch.see(name)


def arm(environment: Mapping[str, str]) -> None:
    """Take what the environment asks for, in the place of what was asked for before.

    Args:
        environment: ``ROBUSTLAB_FAILPOINT`` and ``ROBUSTLAB_FAILPOINT_LOG`` are read; with neither all points are safe.

    Raises:
        ConfigError: If no point has the name, or the count is none.
    """
    global _watch
    wanted, listed = environment.get(POINT), environment.get(LOG)
    if wanted is None and listed is None:
        _watch = None
        return
    name, count = _read_point(wanted) if wanted is not None else (None, 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    _watch = _Watch(name, count, None if listed is None else os.open(listed, flags, 0o600))


def _read_point(wanted: str) -> tuple[str, int]:
    name, colon, count = wanted.partition(":")
    if name not in NAMES:
        raise ConfigError(POINT, f"names no failpoint, got {name!r}", "take one that robustlab/failpoints.py lists")
    if colon and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise ConfigError(POINT, f"must count from 1, got {count!r}", "write it as name:count")
    return name, int(count) if colon else 1
