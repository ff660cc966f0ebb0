"""The trials of a search as Optuna's journal keeps them: begun, measured at rungs, ended. What is ended is never begun.

A trial is written whole when it begins, and how it ended is one record, so that a search that was killed at any byte
opens with every finished trial and at most one that is under way. Only the process that holds the run's ledger writes.
This module does not decide anything about a trial.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from robustlab.errors import RecordError
from robustlab.failpoints import reach
from robustlab.record import results
from robustlab.record.results import PropertyResult
from robustlab.record.run_folder import write_atomic, write_error
from robustlab.search.board import Finding
from robustlab.search.proposals import Proposal, list_distributions, list_params
from robustlab.search.space import Point, Region

_STUDY = "search"
_STATES: Mapping[results.TrialState, TrialState] = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        state: In one word.
        step: Steps that it took.
        value: Its value at the end; None unless it was measured there.
        reason: Why it failed, or the cap that ended it; None for the other states.
        select: Its refusal rate on the select rows at the end; None where ``value`` is.
    """

    state: results.TrialState
    step: int
    value: float | None
    reason: str | None
    select: PropertyResult | None


@dataclass(frozen=True)
class LoggedTrial:
    """One trial.

    Attributes:
        number: From 0.
        proposal: What is tried, and who proposed it.
        seed: Seed of its training.
        cell_id: Its id in the ledger.
        rungs: Its value at each rung that it got to, by step.
        ending: How it ended; None while it is under way.
    """

    number: int
    proposal: Proposal
    seed: int
    cell_id: str
    rungs: Mapping[int, float]
    ending: Ending | None

    @property
    def finding(self) -> Finding:
        """What the board is told of it, once it has ended."""
        if self.ending is None:
            raise RecordError(f"trial {self.number}", "has not ended", "post what is finished")
        proposal, ending = self.proposal, self.ending
        told = (proposal.direction, proposal.around, proposal.point)
        return Finding(self.number, *told, ending.state, ending.step, ending.value, self.rungs)


class TrialLog:
    """The journal of one search."""

    def __init__(self, path: Path, regions: Sequence[Region]) -> None:
        """Open the journal, or begin one; a record that a crash tore is dropped.

        Args:
            path: Its file; the folder exists.
            regions: Every recipe's, for the parameters' names and bounds.

        Raises:
            RecordError: If it cannot be written, or holds what Optuna did not write.
        """
        self._path, self._regions = path, regions
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _mend(path)
        with self._guarded():
            # No symbolic link as a lock: a run folder holds plain files.
            backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
            self._storage = JournalStorage(backend)
            known = [study.study_name for study in self._storage.get_all_studies()]
            open_study = optuna.load_study if _STUDY in known else optuna.create_study
            self._study = open_study(study_name=_STUDY, storage=self._storage)
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._tell(trial)

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._path

    def list_trials(self) -> list[LoggedTrial]:
        """Every trial that was begun, in order."""
        return [_read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def begin(self, proposal: Proposal, *, seed: int, cell_id: str) -> None:
        """Write down that a trial begins.

        Args:
            proposal: What it tries.
            seed: Seed of its training.
            cell_id: Its id in the ledger.
        """
        params = list_params(self._regions, proposal.point)
        known = list_distributions(self._regions)
        attributes = {"seed": seed, "cell_id": cell_id, "proposal": asdict(proposal)}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={name: known[name] for name in params},
            user_attrs=attributes,
        )
        with self._guarded():
            self._study.add_trial(trial)
        reach("search.trial_begun")

    def report(self, number: int, step: int, value: float) -> None:
        """Write down what a trial showed at a rung; one that is repeated after a crash showed the same before."""
        with self._guarded():
            self._storage.set_trial_intermediate_value(self._id(number), step, value)
        reach("search.rung_reported")

    def end(self, number: int, ending: Ending) -> None:
        """Write down how a trial ended."""
        select = None if ending.select is None else ending.select.model_dump(mode="json")
        outcome = {**asdict(ending), "select": select}
        with self._guarded():
            self._storage.set_trial_user_attr(self._id(number), "ending", outcome)
            reach("search.ending_written")
            self._tell(self._study.get_trials(deepcopy=False)[number])
        reach("search.trial_ended")

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(_STUDY)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _tell(self, trial: FrozenTrial) -> None:
        """Close a trial whose ending is known, in Optuna's own words."""
        outcome = trial.user_attrs.get("ending")
        if outcome is not None:
            state = _STATES.get(outcome["state"], TrialState.FAIL)
            value = outcome["value"] if state == TrialState.COMPLETE else None
            self._study.tell(trial.number, value, state=state)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except RecordError:
            raise
        except OSError as error:
            raise write_error(self._path, error) from None
        except (ValueError, KeyError) as error:
            problem = f"is not a journal of Optuna: {error}"
            raise RecordError(str(self._path), problem, "do not trust this run; repeat it") from None


def _mend(path: Path) -> None:
    """Make the file, closed to others; or drop a lock that a crash left, and a last record that was not written out."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data or not path.is_file():
        write_atomic(path, whole)


def _read(trial: FrozenTrial) -> LoggedTrial:
    attributes: dict[str, Any] = trial.user_attrs
    proposal, ending = attributes["proposal"], attributes.get("ending")
    return LoggedTrial(
        number=trial.number,
        proposal=Proposal(**{**proposal, "point": Point(**proposal["point"])}),
        seed=attributes["seed"],
        cell_id=attributes["cell_id"],
        rungs=dict(trial.intermediate_values),
        ending=None if ending is None else _read_ending(ending),
    )


def _read_ending(plain: Mapping[str, Any]) -> Ending:
    select = plain["select"]
    return Ending(**{**plain, "select": None if select is None else PropertyResult.model_validate(select)})
