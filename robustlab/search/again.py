"""A plan that a finished run of its name holds already: it is compared and read, and no model is loaded. No torch.

What cannot be told without a tokenizer, or differs, is left to the launchers, which say why.
"""

from pathlib import Path

from robustlab.cost.prices import PriceCard
from robustlab.engine.held import describe_difference, read_plan
from robustlab.engine.plan import resolve_offline
from robustlab.engine.report import read_results
from robustlab.errors import DataError
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder, check_run_id
from robustlab.search.candidates import list_candidates, pin_search
from robustlab.spec.plan import Plan, ResolvedPlan


def find_finished(
    plan: Plan | ResolvedPlan,
    name: str,
    *,
    runs: Path,
    data_csv: Path | None,
    shadow_price: str | None,
    card: PriceCard,
) -> tuple[Path, Results] | None:
    """Read what a finished run of a name holds, if it holds this very plan.

    Args:
        plan: Ids, or cells that were resolved before.
        name: Id of the run.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card.

    Returns:
        The run's folder and its results; None where there is none, or where it takes a tokenizer to tell.

    Raises:
        ConfigError: If the name is none, an id does not exist or a file is not valid.
        RecordError: If the run's record is not as its manifest says.
    """
    folder = RunFolder(runs / check_run_id(name))
    if not folder.path.is_dir() or folder.path.is_symlink() or not folder.is_finished or not folder.plan.is_file():
        return None
    wanted = _resolve(plan, data_csv, shadow_price, card)
    if wanted is None:
        return None
    held = read_plan(folder)
    if wanted.search is not None:
        held = held.model_copy(update={"cells": ()})
    return read_results(runs, name) if describe_difference(held, wanted) is None else None


def _resolve(
    plan: Plan | ResolvedPlan, data_csv: Path | None, shadow_price: str | None, card: PriceCard
) -> ResolvedPlan | None:
    """The plan with its cells, those of a search left out; None where its lengths are not known exactly."""
    if isinstance(plan, ResolvedPlan) and plan.search is None:
        return plan
    try:
        resolution = resolve_offline(list_candidates(plan), data_csv=data_csv, shadow_price=shadow_price, card=card)
    except DataError:
        return None
    if not resolution.exact:
        return None
    search = pin_search(plan, resolution.plan.cells)
    return resolution.plan if search is None else resolution.plan.model_copy(update={"search": search, "cells": ()})
