"""What a plan must be for its attacked adapters to be kept, and whether a run keeps as it is told to now."""

from collections.abc import Iterable, Mapping

from robustlab.errors import ConfigError
from robustlab.record.kept import ADAPTERS, TRANSCRIPTS, Area, Keeping, read_keeping
from robustlab.record.run_folder import RunFolder
from robustlab.spec.attacks import Ablation, FullSft, Untouched
from robustlab.spec.plan import Cell

SEARCHED = "@search"
"""How the ids of attacks end that a search found."""
FLAGS: Mapping[Area, str] = {TRANSCRIPTS: "--keep-transcripts", ADAPTERS: "--keep-adapter"}
"""What asks for each area."""


def check_keeping(cells: Iterable[Cell], keeping: Mapping[Area, Keeping] | None) -> None:
    """Refuse a plan with a cell whose attack leaves no adapter that may be kept, before anything is spent.

    Args:
        cells: What is to be run.
        keeping: How to keep, by area; None to keep nothing.

    Raises:
        ConfigError: If adapters are to be kept and a cell makes none, or one that is never kept.
    """
    for cell in cells if ADAPTERS in (keeping or {}) else ():
        problem = _refuse(cell)
        if problem is not None:
            raise ConfigError(FLAGS[ADAPTERS], f"{problem}, got {cell.label}", "leave the flag, or that attack, out")


def refuse_other_keeping(folder: RunFolder, keeping: Mapping[Area, Keeping] | None) -> None:
    """Refuse to go on with a run that keeps otherwise than it is told to now.

    Args:
        folder: The run's folder.
        keeping: As it is given now, by area; None to go on as the run began.

    Raises:
        ConfigError: If the key, the reason or the expiry is another, or the run keeps nothing there.
    """
    for area, how in (keeping or {}).items():
        if how != read_keeping(folder, area):
            problem = f"keeps {area.name} otherwise than asked now, or none: another key, reason or expiry"
            remedy = f"take another name, or leave {FLAGS[area]} out to go on as is"
            raise ConfigError(f"run {folder.run_id!r}", problem, remedy)


def _refuse(cell: Cell) -> str | None:
    """Why a cell's adapter cannot be kept; None where it can."""
    if cell.attack_id.endswith(SEARCHED):
        return "is refused for the winner of a search, whose adapter is never kept"
    if isinstance(cell.recipe, FullSft):
        return "is refused where all weights are trained: full attacked weights are never written"
    if isinstance(cell.recipe, Ablation | Untouched):
        return f"is refused for an attack of kind {cell.recipe.kind}, which makes no adapter"
    return None
