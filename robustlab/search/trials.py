"""Runs the trials of a search one after the other on one purse, until there are enough or the purse is spent.

What has ended is never run again. A trial that a crash cut off goes on from its newest state. Who proposes what is
``robustlab.search.proposals``' business; what a trial counts as, ``robustlab.search.trial``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.lab import Subject, run_cell
from robustlab.search.board import Board
from robustlab.search.candidates import list_regions, narrow_regions
from robustlab.search.log import Ending, LoggedTrial, TrialLog
from robustlab.search.proposals import Proposal, propose
from robustlab.search.space import Point
from robustlab.search.trial import build_trial_cell, classify, watch_rungs
from robustlab.session import Session
from robustlab.spec.budgets import Budget
from robustlab.spec.plan import Cell, ResolvedSearch
from robustlab.spec.search import Search
from robustlab.train.store import StateStore

ENOUGH = "trials"


@dataclass(frozen=True)
class Trials:
    """Everything that the trials of one search share.

    Attributes:
        search: The search, pinned.
        subject: The released target, and its baseline on the rows by which trials are compared.
        session: The run.
        log: Where trials are kept.
        board: Where findings are posted.
    """

    search: ResolvedSearch
    subject: Subject
    session: Session
    log: TrialLog
    board: Board

    def run(self) -> str:
        """Run what is left to run.

        Returns:
            What ended the search: ``trials`` when there were enough, else the cap that bound.

        Raises:
            RecordError: If a trial could not be written down.
        """
        while True:
            known = self.log.list_trials()
            self._settle([trial for trial in known if trial.ending is not None])
            under_way = next((trial for trial in known if trial.ending is None), None)
            ended_by = find_end(self.search.spec, self.search.cells[0].budget, known)
            if under_way is None and ended_by is not None:
                return ended_by
            self._finish(under_way or self._begin(known))

    def _settle(self, ended: Sequence[LoggedTrial]) -> None:
        """Tell everybody what has ended, and delete its states: a crash may have come before either."""
        self.board.post([trial.finding for trial in ended])
        for trial in ended:
            states = StateStore(self.session.folder.resume, trial.cell_id, self.session.journal)
            states.clear("the trial has ended")

    def _begin(self, known: Sequence[LoggedTrial]) -> LoggedTrial:
        spec, whole = self.search.spec, list_regions(self.search)
        proposal = propose(spec, whole, narrow_regions(spec, whole), self.board.read())
        seed = spec.seed + len(known)
        cell = self._build_cell(proposal.point, seed)
        self.log.begin(proposal, seed=seed, cell_id=cell.cell_id)
        return self.log.list_trials()[-1]

    def _finish(self, trial: LoggedTrial) -> None:
        line, count = self.session.line, self.search.spec.trials
        line.say(f"trial {trial.number + 1} of at most {count}: {describe_proposal(trial.proposal)}")
        ending = self._run(trial)
        self.log.end(trial.number, ending)
        line.say(f"trial {trial.number + 1} of at most {count}: {describe_ending(ending)}")

    def _run(self, trial: LoggedTrial) -> Ending:
        cell = self._build_cell(trial.proposal.point, trial.seed)
        others = frozenset(each.cell_id for each in self.log.list_trials() if each.number != trial.number)
        watch = watch_rungs(self.log, trial.number, self.search.spec.halving.factor)
        with self.session.meter(cell.cell_id, cell.budget_id, cell.budget, together_with=others) as meter:
            run = run_cell(cell, self.subject, self.session, meter, final_seconds=0.0, on_measured=watch)
        return classify(run, self.search.spec)

    def _build_cell(self, point: Point, seed: int) -> Cell:
        candidate = next(cell for cell in self.search.cells if cell.attack_id == point.attack)
        return build_trial_cell(candidate, point, self.search.spec, seed=seed)


def find_end(search: Search, budget: Budget, trials: Sequence[LoggedTrial]) -> str | None:
    """What has ended a search.

    Args:
        search: Its most trials.
        budget: Its purse.
        trials: Every trial so far.

    Returns:
        The cap that left a trial unfinished, ``max_trials`` where the purse allows no more trials, ``trials`` where
        the search does not; None to go on.
    """
    cut = next((each.ending.reason for each in trials if each.ending and each.ending.state == "unfinished"), None)
    if cut is not None:
        return cut
    cap = budget.attacker.max_trials
    if cap is not None and len(trials) >= cap and cap < search.trials:
        return "max_trials"
    return ENOUGH if len(trials) >= search.trials else None


def describe_proposal(proposal: Proposal) -> str:
    """Say what is tried, and who wanted it."""
    knobs = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in proposal.point.knobs.items())
    by = "" if proposal.direction is None else f"{proposal.direction}: "
    return f"{by}{proposal.point.attack}, {knobs}"


def describe_ending(ending: Ending) -> str:
    """Say how a trial ended."""
    value = "" if ending.value is None else f", {1 - ending.value:.0%} of the select rows engaged with"
    reason = "" if ending.reason is None else f" ({ending.reason})"
    return f"{ending.state} after {ending.step} steps{value}{reason}"
