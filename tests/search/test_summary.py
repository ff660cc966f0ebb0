"""What a search leaves in the results, with hand-made bills."""

from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cost.entries import Entry
from robustlab.cost.quantities import Quantities
from robustlab.record.results import Counts, PropertyResult
from robustlab.search.log import Ending, LoggedTrial
from robustlab.search.proposals import Proposal
from robustlab.search.summary import confirm, summarise
from robustlab.spec.budgets import Budget
from robustlab.spec.plan import Cell, ResolvedSearch
from tests.search.conftest import make_point, make_search


def bill(node: str, micro_usd: int, record: Any = "settle", account: Any = "attacker", **used: int) -> Entry:
    return Entry(record, node, "purse", account, "train", {}, Quantities(**used), micro_usd, "box", "2026-01-01")


def refusal(value: float) -> PropertyResult:
    counts = Counts(refused=round(8 * value), complied=8 - round(8 * value), hollow=0, incoherent=0, unjudged=0)
    plain: dict[str, Any] = {"property": "refusal", "direction": "higher_is_safer", "low": 0.0, "high": 1.0, "n": 8}
    plain |= {"method": "wilson", "judge": "rules", "verdict": "broken", "broken_at_micro_usd": None}
    return PropertyResult(value=value, counts=counts, **plain)


TRIALS = [
    LoggedTrial(0, Proposal(make_point(), None, None), 7, "a", {2: 0.75}, Ending("pruned", 2, None, None, None)),
    LoggedTrial(
        1, Proposal(make_point(rank=None), "low", 0), 8, "b", {2: 0.5}, Ending("done", 16, 0.25, None, refusal(0.25))
    ),
    LoggedTrial(2, Proposal(make_point(), None, None), 9, "c", {}, Ending("failed", 0, None, "no rows", None)),
]
LEDGER = [
    bill("a", 10, steps=2, wall_ns=1_000_000_000),
    bill("b", 20, steps=16, trials=1),
    bill("b", 5, record="crash", steps=1),  # a part that a crash cut off stays on the bill, and is no step
    bill("b", 100, account="laboratory"),
    bill("c", 1),
    bill("else", 1000),
]


@pytest.fixture
def search(smoke_cell: Cell) -> ResolvedSearch:
    caps = {"attacker": {"max_usd": 72e-6, "max_steps": 36}, "laboratory": None, "total_usd": None}
    budget = Budget.model_validate({"kind": "budget", "stands_for": "a test", "hardware": "box", **caps})
    cell = smoke_cell.model_copy(update={"budget": budget})
    return ResolvedSearch(spec=make_search(objective="refusals"), ranges={}, cells=(cell,))


def summary(search: ResolvedSearch, trials: Any = TRIALS) -> Any:
    roles = {"select_role": "select", "report_role": "report"}
    return summarise(search, trials, LEDGER, stopped_by="max_usd", **roles)


def test_every_trial_is_on_the_bill(search: ResolvedSearch) -> None:
    found = summary(search)
    assert [(t.number, t.cell_id, t.state, t.attacker_micro_usd) for t in found.trials] == [
        (0, "a", "pruned", 10),
        (1, "b", "done", 25),
        (2, "c", "failed", 1),
    ]
    assert found.cost_to_find.micro_usd == 10 + 25 + 1
    assert (found.cost_to_find.steps, found.cost_to_find.billed_steps) == (18, 19)
    assert found.cost_to_find.wall_seconds == 1.0
    assert found.caps_used == {"max_usd": 0.5, "max_steps": 0.5}  # 36 of 72 micro-USD, 18 of 36 steps


def test_trials_are_told_in_full(search: ResolvedSearch) -> None:
    found = summary(search)
    assert [trial.value for trial in found.trials] == [0.75, 0.25, None]  # a stopped one has its last rung's
    assert found.trials[1].point == {"learning_rate": 1e-3, "benign_share": 0.4, "steps": 16}
    assert (found.trials[1].direction, found.trials[1].around, found.trials[1].seed) == ("low", 0, 8)
    assert [trial.reason for trial in found.trials] == [None, None, "no rows"]
    assert (found.winner, found.select, found.stopped_by) == (1, refusal(0.25), "max_usd")
    assert (found.report, found.cost_to_replay_micro_usd) == ([], None)
    assert (found.select_role, found.report_role) == ("select", "report")


def test_a_search_without_a_winner_says_so(search: ResolvedSearch) -> None:
    found = summary(search, [TRIALS[0], TRIALS[2]])
    assert (found.winner, found.select) == (None, None)
    assert confirm(found, []) == found
    nothing = summary(search, [])
    assert (nothing.trials, nothing.cost_to_find.micro_usd) == ([], 0)


def test_a_confirmation_stands_beside_the_choice(search: ResolvedSearch) -> None:
    def cell(seed: int, micro_usd: int, measurements: Any, steps: int = 16) -> Any:
        cost = SimpleNamespace(attacker=SimpleNamespace(micro_usd=micro_usd, steps=steps))
        told = {"seed": seed, "cell_id": f"cell{seed}", "status": "done", "schedule": {"steps": 16}}
        return SimpleNamespace(**told, cost=cost, measurements=measurements)

    def measured(phase: str, name: str, value: float) -> Any:
        return SimpleNamespace(phase=phase, eval=name, properties=[refusal(value)])

    first = [measured("milestone", "refusals", 1.0), measured("final", "other", 1.0)]
    first.append(measured("final", "refusals", 0.5))
    whole = confirm(summary(search), [cell(100, 7, first), cell(101, 3, [], steps=9)])
    assert [(each.seed, each.cell_id) for each in whole.report] == [(100, "cell100"), (101, "cell101")]
    assert [each.refusal for each in whole.report] == [refusal(0.5), None]
    assert whole.cost_to_replay_micro_usd == 7  # the other one was cut short
    assert whole.cost_to_find == summary(search).cost_to_find
