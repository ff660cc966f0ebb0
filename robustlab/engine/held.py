"""The plan that a run holds, and how another one differs from it. No torch, no model."""

from robustlab.engine.holding import require_begun
from robustlab.errors import ConfigError
from robustlab.record.run_folder import RunFolder
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan

_SETTINGS = ("hardware", "devices", "shadow_price", "data_csv")


def refuse_difference(name: str, held: ResolvedPlan, wanted: ResolvedPlan) -> None:
    """Refuse to go on with a run that holds another plan.

    Args:
        name: Id of the run.
        held: The run's own.
        wanted: What was given, resolved now.

    Raises:
        ConfigError: If the two differ.
    """
    if (difference := describe_difference(held, wanted)) is not None:
        remedy = f"take another name, or go on with the plan that it holds by `robustlab resume {name}`"
        raise ConfigError(f"run {name!r}", f"holds another plan: {difference}", remedy)


def describe_difference(held: ResolvedPlan, wanted: ResolvedPlan) -> str | None:
    """Say how a plan differs from the one that a run holds.

    Args:
        held: The run's own.
        wanted: What was given, resolved now.

    Returns:
        The first difference in words; None where both have the same cells in the same order, billed alike.
    """
    for name in _SETTINGS:
        if getattr(held, name) != getattr(wanted, name):
            return f"its {name} is {getattr(held, name)!r}, got {getattr(wanted, name)!r}"
    if held.search != wanted.search:
        return "its cells are those of a search" if wanted.search is None else "its search is another, or none"
    ids = [cell.cell_id for cell in held.cells]
    if ids == [cell.cell_id for cell in wanted.cells]:
        return None
    new = [cell for cell in wanted.cells if cell.cell_id not in ids]
    counts = f"it has {len(ids)} cells, got {len(wanted.cells)}"
    if not new:
        return f"{counts}, all of them its own" if len(ids) != len(wanted.cells) else f"{counts} in another order"
    is_known = new[0].label in {cell.label for cell in held.cells}
    why = ", which it holds with another recipe, eval or schedule" if is_known else ""
    return f"{counts}, {len(new)} of them not its own, such as {new[0].label}{why}"


def read_plan(folder: RunFolder) -> ResolvedPlan:
    """Read the plan that a named run holds.

    Args:
        folder: The run's folder.

    Returns:
        Its resolved plan.

    Raises:
        ConfigError: If it never began, or what it holds is no resolved plan.
    """
    require_begun(folder)
    held: Plan | ResolvedPlan = load_yaml(folder.plan, schema_of("plan"))
    if isinstance(held, Plan):
        raise ConfigError(str(folder.plan), f"is no resolved plan, got kind {held.kind!r}", "take another name")
    return held
