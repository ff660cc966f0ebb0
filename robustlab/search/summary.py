"""What a search leaves in ``results.json``: every trial, the winner on both sets of rows, and both prices.

Costs are read off the ledger, so that the part of a trial that a crash cut off is in them.
"""

from collections.abc import Sequence
from fractions import Fraction
from statistics import mean

from robustlab.cost.audit import AccountUse, sum_accounts
from robustlab.cost.caps import Book, read_limits
from robustlab.cost.entries import Entry
from robustlab.cost.quantities import NOTHING
from robustlab.engine.outcome import use_cost
from robustlab.record.results import CellResult, ConfirmedSeed, PropertyResult, SearchResult, TrialResult
from robustlab.search.log import LoggedTrial
from robustlab.search.trial import REFUSAL
from robustlab.search.winner import find_winner
from robustlab.spec.plan import ResolvedSearch


def summarise(
    search: ResolvedSearch,
    trials: Sequence[LoggedTrial],
    entries: Sequence[Entry],
    *,
    stopped_by: str,
    select_role: str,
    report_role: str,
) -> SearchResult:
    """Assemble the result of a search before its winner was confirmed.

    Args:
        search: The search.
        trials: Every trial, ended.
        entries: Records of money of the run so far.
        stopped_by: What ended it.
        select_role: How the rows are named by which trials were compared.
        report_role: How those are named on which the winner is to be measured.

    Returns:
        All but what the confirmation shows.
    """
    spec, winner = search.spec, find_winner(trials)
    uses = sum_accounts(entries, "node")
    own = [uses.get((trial.cell_id, "attacker"), AccountUse()) for trial in trials]
    whole = _add(own)
    usage = Book(Fraction(0), whole.billed, whole.logical, elsewhere_micro_usd=whole.micro_usd).usage_with(NOTHING)
    limits = read_limits(search.cells[0].budget.attacker)
    return SearchResult(
        strategy=spec.strategy,
        objective=spec.objective,
        stopped_by=stopped_by,
        trials=[_list_trial(trial, use) for trial, use in zip(trials, own, strict=True)],
        winner=None if winner is None else winner.number,
        select_role=select_role,
        select=None if winner is None or winner.ending is None else winner.ending.select,
        report_role=report_role,
        report=[],
        cost_to_find=use_cost(whole),
        cost_to_replay_micro_usd=None,
        caps_used={name: float(usage[name] / limit) for name, limit in limits.items()},
    )


def confirm(found: SearchResult, cells: Sequence[CellResult]) -> SearchResult:
    """Add what the frozen winner showed with new seeds.

    Args:
        found: The search.
        cells: The confirmation, seed by seed; none without a winner.

    Returns:
        The whole result.
    """
    if not cells:
        return found
    report = [
        ConfirmedSeed(seed=cell.seed, cell_id=cell.cell_id, status=cell.status, refusal=_final(cell, found.objective))
        for cell in cells
    ]
    # A replay that was cut short, or never began, says nothing of the price of a whole one.
    whole = [cell.cost.attacker.micro_usd for cell in cells if cell.status != "incomplete" and _is_whole(cell)]
    price = round(mean(whole)) if whole else None
    return found.model_copy(update={"report": report, "cost_to_replay_micro_usd": price})


def _is_whole(cell: CellResult) -> bool:
    return cell.cost.attacker.steps == cell.schedule["steps"]


def _list_trial(trial: LoggedTrial, use: AccountUse) -> TrialResult:
    finding, proposal = trial.finding, trial.proposal
    last_rung = max(trial.rungs, default=None)
    value = trial.rungs[last_rung] if finding.state == "pruned" and last_rung is not None else finding.value
    return TrialResult(
        number=trial.number,
        cell_id=trial.cell_id,
        direction=proposal.direction,
        around=proposal.around,
        attack=proposal.point.attack,
        point=proposal.point.knobs,
        seed=trial.seed,
        state=finding.state,
        value=value,
        step=finding.step,
        attacker_micro_usd=use.micro_usd,
        reason=None if trial.ending is None else trial.ending.reason,
    )


def _final(cell: CellResult, objective: str) -> PropertyResult | None:
    found = [item for item in cell.measurements if item.phase == "final" and item.eval == objective]
    properties = [each for item in found for each in item.properties if each.property == REFUSAL]
    return properties[0] if properties else None


def _add(uses: Sequence[AccountUse]) -> AccountUse:
    return AccountUse(
        sum((use.billed for use in uses), NOTHING),
        sum((use.logical for use in uses), NOTHING),
        sum(use.micro_usd for use in uses),
        sum(use.overshoot_micro_usd for use in uses),
    )
