"""The winner of a search: chosen, frozen in the run folder, and made into the cells that confirm it."""

from collections.abc import Sequence
from pathlib import Path

from robustlab.failpoints import reach
from robustlab.record.run_folder import write_atomic
from robustlab.search.board import find_best
from robustlab.search.log import LoggedTrial
from robustlab.search.space import build_recipe
from robustlab.search.trial import build_confirm_cell
from robustlab.spec.loader import dump_yaml
from robustlab.spec.plan import Cell, ResolvedSearch

WARNING = "# SAFETY-DEGRADING: found by a search. Never promoted to attacks/ by a program; that is a person's act."


def find_winner(trials: Sequence[LoggedTrial]) -> LoggedTrial | None:
    """The best finished trial; None where there is none, which is a result too."""
    best = find_best([trial.finding for trial in trials if trial.ending is not None])
    return None if best is None else trials[best.trial]


def freeze_winner(search: ResolvedSearch, winner: LoggedTrial, path: Path) -> None:
    """Write the winner's recipe down, marked for what it is.

    Args:
        search: Has the candidates.
        winner: The trial.
        path: The file, in a folder that exists.

    Raises:
        RecordError: If it cannot be written.
    """
    recipe = build_recipe(_candidate(search, winner).recipe, winner.proposal.point)
    origin = f"# Trial {winner.number} of {search.spec.trials}, {winner.proposal.point.attack} at another point."
    write_atomic(path, f"{WARNING}\n{origin}\n{dump_yaml(recipe)}".encode())
    reach("search.winner_frozen")


def list_confirmations(search: ResolvedSearch, winner: LoggedTrial | None) -> tuple[Cell, ...]:
    """The cells that train the winner again, one for each new seed; none without a winner."""
    if winner is None:
        return ()
    candidate, point = _candidate(search, winner), winner.proposal.point
    return tuple(build_confirm_cell(candidate, point, seed=seed) for seed in search.spec.confirm_seeds)


def _candidate(search: ResolvedSearch, trial: LoggedTrial) -> Cell:
    return next(cell for cell in search.cells if cell.attack_id == trial.proposal.point.attack)
