"""Reads a plan with a search as the plain plan of its recipes, and says in words what it will do; loads no torch.

The recipes are priced and checked like cells of an ordinary plan; which points of them are tried is not known here.
"""

from collections.abc import Iterator, Mapping

from robustlab.cost.caps import read_limits
from robustlab.cost.flops import count_adapter_parameters
from robustlab.errors import ConfigError
from robustlab.record.run_folder import RunFolder
from robustlab.search.space import Region, check_region, narrow_region
from robustlab.spec.attacks import FullSft, LoraDpo, LoraSft
from robustlab.spec.catalog import load, schema_of
from robustlab.spec.evals import BenignAnswersEval, RefusalEval
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Cell, Plan, ResolvedPlan, ResolvedSearch
from robustlab.spec.search import Ranges, Search


def list_candidates(plan: Plan | ResolvedPlan) -> Plan | ResolvedPlan:
    """A plan whose cells are the recipes of a search as the catalogue has them, one seed each.

    Args:
        plan: One with a search; resolved, what a run wrote as ``plan.yaml``.

    Returns:
        An ordinary plan, which can be priced and resolved; the plan itself where it has no search.
    """
    if isinstance(plan, Plan):
        return plan if plan.search is None else plan.model_copy(update={"search": None, "seeds": (plan.search.seed,)})
    return plan if plan.search is None else plan.model_copy(update={"search": None, "cells": plan.search.cells})


def holds_search(folder: RunFolder) -> bool:
    """Whether a run that has begun is a search; one without a plan is none."""
    if not folder.plan.is_file():
        return False
    plan: Plan | ResolvedPlan = load_yaml(folder.plan, schema_of("plan"))
    return plan.search is not None


def pin_search(plan: Plan | ResolvedPlan, cells: tuple[Cell, ...]) -> ResolvedSearch | None:
    """Fix what a search may vary, and refuse one that could not be run.

    Args:
        plan: A plan.
        cells: Its candidates, resolved.

    Returns:
        The search with the ranges of every recipe, as they were pinned before or as the catalogue has them now; None
        where the plan has no search.

    Raises:
        ConfigError: If an eval is not of the kind that is needed, or a recipe or a direction does not fit the ranges.
    """
    search = plan.search
    if isinstance(search, Search):
        _check_evals(search, cells[0])
        search = ResolvedSearch(spec=search, ranges=_read_ranges(cells), cells=cells)
    if search is not None:
        for cell in search.cells:
            _check_ranks(cell, search.ranges)
        narrow_regions(search.spec, list_regions(search))
    return search


def list_regions(search: ResolvedSearch) -> dict[str, Region]:
    """The region of every recipe, by its id; errors as for ``check_region``."""
    return {cell.attack_id: check_region(cell.attack_id, cell.attack, search.ranges) for cell in search.cells}


def narrow_regions(search: Search, whole: Mapping[str, Region]) -> dict[str, Region]:
    """The region of every direction, by its name; errors as for ``narrow_region``."""
    return {each.name: narrow_region(whole[each.attack], each) for each in search.directions}


def describe_search(search: ResolvedSearch) -> Iterator[str]:
    """Say what a search will try, when it stops and who pays, line by line."""
    spec, budget = search.spec, search.cells[0].budget
    names = ", ".join(cell.attack_id for cell in search.cells)
    yield f"a search, {spec.strategy}: at most {spec.trials} trials over {names}; the lines above are one trial each"
    for name, region in narrow_regions(spec, list_regions(search)).items():
        yield f"  direction {name}: {region.attack}, {_describe_ranges(region.ranges)}"
    rungs = f"from step {spec.halving.first_step} on, at every {spec.halving.factor}-fold of it"
    yield f"  {rungs}, one trial in {spec.halving.factor} goes on; judged by {spec.objective} on its select rows"
    limits = read_limits(budget.attacker)
    caps = ", ".join(f"{name} {float(limit):g}" for name, limit in limits.items()) or "no cap but their number"
    yield f"  one purse for all trials and their measurements, {search.cells[0].budget_id}: {caps}"
    seeds = ", ".join(str(seed) for seed in spec.confirm_seeds)
    word = "seed" if len(spec.confirm_seeds) == 1 else "seeds"
    yield f"  the winner is trained again with the {word} {seeds} and measured on the report rows"


def _check_evals(search: Search, cell: Cell) -> None:
    objective = cell.evals[search.objective]
    if not isinstance(objective, RefusalEval):
        problem = f"objective: must be an eval of kind refusal, got {search.objective!r} of kind {objective.kind}"
        raise ConfigError("search", problem, "name one, such as harmbench_64")
    if objective.property_id != "refusal":
        problem = f"objective: must measure refusal, got {search.objective!r}, which measures {objective.property_id}"
        raise ConfigError("search", problem, "name one without wrapper and prefill, such as harmbench_64")
    utility = None if search.utility is None else cell.evals[search.utility]
    if utility is not None and not isinstance(utility, BenignAnswersEval):
        problem = f"utility: must be an eval of kind benign_answers, got {search.utility!r} of kind {utility.kind}"
        raise ConfigError("search", problem, "name one, such as benign_answers_64, or null")


def _read_ranges(cells: tuple[Cell, ...]) -> dict[str, Ranges]:
    found = {}
    for cell in cells:
        attack = load("attacks", cell.attack_id)
        if isinstance(attack, LoraSft | LoraDpo | FullSft) and attack.ranges is not None:
            found[cell.attack_id] = attack.ranges
    return found


def _check_ranks(cell: Cell, known: Mapping[str, Ranges]) -> None:
    """Refuse ranks that no adapter of the target can have: each would only fail once it has been paid for."""
    ranges, recipe = known.get(cell.attack_id), cell.recipe
    if ranges is None or not isinstance(recipe, LoraSft | LoraDpo):
        return
    for rank in ranges.rank or ():
        try:
            count_adapter_parameters(cell.target.shape, recipe.training.lora.model_copy(update={"rank": rank}))
        except ConfigError as error:
            where = f"attacks/{cell.attack_id}.yaml: ranges.rank"
            raise ConfigError(where, error.problem, "choose lower ranks") from None


def _describe_ranges(ranges: Ranges) -> str:
    known = ranges.model_dump(mode="json", exclude_none=True)
    return ", ".join(f"{name.replace('_', ' ')} {_describe_values(name, values)}" for name, values in known.items())


def _describe_values(name: str, values: list[float]) -> str:
    joint = " or " if name in ("rank", "steps") else " to "
    return joint.join(f"{value:g}" for value in values)
