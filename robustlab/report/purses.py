"""The caps that all cells of a budget share, as people read them: what was allowed and how much of it was used.

Knows the contract of ``results.json``. It adds nothing up; ``robustlab.engine.sums`` does.
"""

import json
from dataclasses import dataclass

from pydantic import ValidationError

from robustlab.cost.caps import read_limits
from robustlab.record.results import PurseResult, Results
from robustlab.report.wording import format_share
from robustlab.spec.budgets import Budget
from robustlab.units import MICRO_PER_USD, format_count, format_usd


@dataclass(frozen=True)
class SharedCap:
    """One cap over all cells of a budget.

    Attributes:
        name: ``laboratory.max_usd`` and its like, or ``total_usd``.
        limit: What it allows; a dash where the plan does not say.
        share: How much of it was used.
    """

    name: str
    limit: str
    share: str


def read_budgets(results: Results) -> dict[str, Budget]:
    """Read the budgets of a resolved plan by their ids; what is no budget of this version is left out."""
    search = results.plan.get("search")
    listed = [results.plan.get("cells"), search.get("cells") if isinstance(search, dict) else None]
    found: dict[str, Budget] = {}
    for cell in [cell for cells in listed if isinstance(cells, list) for cell in cells]:
        if not isinstance(cell, dict) or "budget" not in cell:
            continue
        try:
            found[str(cell.get("budget_id"))] = Budget.model_validate_json(json.dumps(cell["budget"]))
        except ValidationError:
            continue
    return found


def list_shared_caps(results: Results, purse: PurseResult) -> list[SharedCap]:
    """List every cap that all cells of a budget share, in the order of the checks."""
    limits = _limits(read_budgets(results).get(purse.budget))
    return [SharedCap(name, limits.get(name, "-"), format_share(share)) for name, share in purse.caps_used.items()]


def purse_bill(purse: PurseResult) -> str:
    """Write what a budget was billed on one line."""
    attacker, laboratory = format_usd(purse.attacker_micro_usd), format_usd(purse.laboratory_micro_usd)
    return f"{format_usd(purse.total_micro_usd)} (attacker {attacker}, laboratory {laboratory})"


def purse_lines(results: Results) -> list[str]:
    """Write each budget's bill and the use of its shared caps on one line; budgets without such caps have none."""
    lines = []
    for purse in results.purses:
        caps = [f"{cap.name} {cap.share} of {cap.limit}" for cap in list_shared_caps(results, purse)]
        if caps:
            lines.append(f"Purse {purse.budget}: {purse_bill(purse)}; caps used: {', '.join(caps)}")
    return lines


def _limits(budget: Budget | None) -> dict[str, str]:
    if budget is None:
        return {}
    limits = {f"laboratory.{name}": float(limit) for name, limit in read_limits(budget.laboratory).items()}
    if budget.total_usd is not None:
        limits["total_usd"] = budget.total_usd
    return {name: _write_limit(name, limit) for name, limit in limits.items()}


def _write_limit(name: str, limit: float) -> str:
    if name.endswith("usd"):
        return format_usd(round(limit * MICRO_PER_USD))
    return f"{limit:g} h" if name.endswith("hours") else format_count(round(limit))
