"""What counts as a control, as a cost-to-break and as the cap that stopped an attack; what a purse was billed."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cost.entries import Entry
from robustlab.cost.meter import Meter
from robustlab.cost.prices import load_price_card
from robustlab.cost.quantities import Quantities
from robustlab.engine.outcome import (
    _is_utility_kept,
    _status,
    _stopped_by,
    _with_break_costs,
    build_cell_result,
    build_node,
    build_purses,
    build_unstarted_result,
    compare_control,
)
from robustlab.engine.plan import resolve_offline
from robustlab.record.results import AccountCost, Counts, Measurement, PropertyResult
from robustlab.spec.budgets import Budget
from robustlab.spec.catalog import load
from robustlab.spec.plan import Cell, Plan, ResolvedPlan

SECOND = 10**9


def _property(name: str, verdict: str) -> PropertyResult:
    counts = Counts(refused=4, complied=6, hollow=0, incoherent=0, unjudged=0)
    shared: dict[str, Any] = {"direction": "higher_is_safer", "value": 0.4, "low": 0.2, "high": 0.7, "method": "wilson"}
    kept = {"n": 10, "judge": "rules", "counts": counts, "verdict": verdict, "broken_at_micro_usd": None}
    return PropertyResult(property=name, **shared, **kept)


def _measurement(
    name: str, phase: Any, verdict: str, *, eval_id: str = "e", sha: str = "a", usd: int = 0
) -> Measurement:
    return Measurement(
        eval=eval_id,
        role="test",
        variant="v",
        phase=phase,
        step=0,
        attacker_micro_usd=usd,
        properties=[_property(name, verdict)],
        completions_sha256=sha,
    )


def _control(status: str, steps: int, measurements: list[Measurement]) -> Any:
    cost = SimpleNamespace(attacker=SimpleNamespace(steps=steps))
    return SimpleNamespace(cell_id="c", status=status, cost=cost, measurements=measurements, quantised=[])


BASELINE = [_measurement("refusal", "baseline", "baseline"), _measurement("x", "baseline", "baseline", eval_id="f")]
FINAL = [_measurement("refusal", "final", "survived"), _measurement("x", "final", "survived", eval_id="f")]


@pytest.mark.parametrize(
    ("status", "steps", "final", "identical"),
    [
        ("done", 3, FINAL, True),
        ("done", 0, FINAL, False),
        ("incomplete", 3, FINAL, False),
        ("done", 3, FINAL[:1], False),
        ("done", 3, [], False),
        ("done", 3, [FINAL[0], _measurement("x", "final", "survived", eval_id="f", sha="b")], False),
    ],
)
def test_a_control_shows_something_only_when_it_ran_in_full(
    status: str, steps: int, final: list[Measurement], identical: bool
) -> None:
    found = compare_control(_control(status, steps, BASELINE + final))
    assert (found.identical, found.steps, found.compared) == (identical, steps, 10 * len(final))


@pytest.mark.parametrize(("copied", "identical"), [("a", True), ("b", False)])
def test_a_control_on_a_4_bit_copy_is_held_against_that_copy(copied: str, identical: bool) -> None:
    """Quantising alone changes texts: a difference from the released target is not the control's doing."""
    control = _control("done", 3, BASELINE + FINAL)
    control.measurements[0] = _measurement("refusal", "baseline", "baseline", sha="of the released target")
    control.quantised = [
        _measurement("refusal", "baseline", "eroded", sha=copied),
        _measurement("x", "baseline", "survived", eval_id="f"),
    ]
    assert compare_control(control).identical is identical


@pytest.mark.parametrize(
    ("ended", "cut_by", "expected"),
    [("schedule", None, "schedule"), ("schedule", "max_steps", "max_steps"), ("max_usd", "max_steps", "max_usd")],
)
def test_a_schedule_that_a_cap_cut_is_stopped_by_that_cap(ended: str, cut_by: str | None, expected: str) -> None:
    cell: Any = SimpleNamespace(schedule=SimpleNamespace(cut_by=cut_by))
    run: Any = SimpleNamespace(outcome=SimpleNamespace(stopped_by=ended))
    assert _stopped_by(cell, run) == expected


@pytest.mark.parametrize(
    ("utility", "cost"),
    [("survived", 7), ("eroded", 7), ("inconclusive", 7), ("absent", None), ("too_few", None), (None, None)],
)
def test_nothing_has_a_cost_to_break_unless_utility_was_measured(utility: str | None, cost: int | None) -> None:
    broken = _measurement("refusal", "final", "broken", usd=7)
    floor = [] if utility is None else [_measurement("utility/benign_answers", "final", utility, eval_id="u", usd=7)]
    run: Any = SimpleNamespace(measurements=(broken, *floor))
    assert _is_utility_kept(run) is (cost is not None)
    assert _with_break_costs(broken, run, "done").properties[0].broken_at_micro_usd == cost
    assert _with_break_costs(broken, run, "destructive").properties[0].broken_at_micro_usd is None


@pytest.mark.parametrize("verdict", ["survived", "broken", "absent", "too_few"])
def test_following_instructions_is_no_floor(verdict: str) -> None:
    """It neither stands in for benign answers nor takes a cost away where these were kept."""
    broken = _measurement("refusal", "final", "broken", usd=7)
    followed = _measurement("utility/instructions", "final", verdict, eval_id="i", usd=7)
    floor = _measurement("utility/benign_answers", "final", "survived", eval_id="u", usd=7)
    assert not _is_utility_kept(SimpleNamespace(measurements=(broken, followed)))  # type: ignore[arg-type]
    run: Any = SimpleNamespace(measurements=(broken, followed, floor))
    assert _with_break_costs(broken, run, "done").properties[0].broken_at_micro_usd == 7


@pytest.mark.parametrize(("eval_id", "status"), [("instructions_60", "done"), ("smoke_benign", "destructive")])
def test_lost_answers_wreck_a_cell_and_lost_instructions_do_not(eval_id: str, status: str) -> None:
    cell: Any = SimpleNamespace(evals={eval_id: load("evals", eval_id)})
    final = _measurement("utility/anything", "final", "broken", eval_id=eval_id)
    run: Any = SimpleNamespace(incomplete=None, outcome=SimpleNamespace(diverged=False), measurements=(final,))
    assert _status(cell, run) == status


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ResolvedPlan:
    """An attack on the tiny target, under a budget of our own and once more without caps for the laboratory."""
    ids = {"targets": ["tiny"], "safeguards": ["none"], "attacks": ["lora_sft_smoke"], "budgets": ["smoke"]}
    written = Plan.model_validate_json(json.dumps({"kind": "plan", "evals": ["smoke_refusal"], "seeds": [0], **ids}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        found = resolve_offline(written, card=load_price_card(None), data_csv=None, shadow_price=None).plan
    caps = {"max_usd": 0.2, "max_wall_hours": 1.0, "max_device_hours": 4.0, "max_train_tokens": 100}
    shared = {"kind": "budget", "stands_for": "a test", "hardware": "cpu_2vcpu_8gb", "attacker": {"max_usd": 1.0}}
    budget = Budget.model_validate({**shared, "laboratory": caps, "total_usd": 0.5})
    (first,) = found.cells
    return found.model_copy(update={"cells": (first.model_copy(update={"budget_id": "cent", "budget": budget}), first)})


def _entry(record: Any, account: Any, seconds: int, micro_usd: int, *, purse: str = "cent", tokens: int = 0) -> Entry:
    used = Quantities(wall_ns=seconds * SECOND, device_ns=2 * seconds * SECOND, train_tokens=tokens)
    return Entry(record, "node", purse, account, "phase", {}, used, micro_usd, "cpu_2vcpu_8gb", "2026-11-22T02:17:33Z")


def test_a_purse_is_billed_over_all_its_nodes(plan: ResolvedPlan) -> None:
    entries = [
        _entry("reserve", "laboratory", 9_000, 9_000),
        _entry("settle", "laboratory", 360, 1_000, tokens=40),
        _entry("overshoot", "laboratory", 360, 500, tokens=30),
        _entry("crash", "laboratory", 720, 500),
        _entry("impute", "laboratory", 360, 0),
        _entry("settle", "attacker", 36, 100),
        _entry("settle", "laboratory", 7_200, 7_000, purse="smoke"),
    ]
    purses = build_purses(plan, entries, {"purses": {"cent": {"cells": 1}}})
    assert [purse.budget for purse in purses] == ["cent", "smoke"]
    cent, smoke = purses
    assert (cent.attacker_micro_usd, cent.laboratory_micro_usd, cent.total_micro_usd) == (100, 2_000, 2_100)
    # 360 + 360 + 36 s passed: a crash charges a reservation, and what is imputed was timed elsewhere.
    assert cent.wall_seconds == 756.0
    # $0.002 of 0.2; 1,800 s are 0.5 h, on two devices 1 h; 40 tokens are the trajectory's; $0.0021 of 0.5.
    assert cent.caps_used == {
        "laboratory.max_usd": 0.01,
        "laboratory.max_wall_hours": 0.5,
        "laboratory.max_device_hours": 0.25,
        "laboratory.max_train_tokens": 0.4,
        "total_usd": 0.0042,
    }
    assert (cent.estimate, smoke.estimate) == ({"cells": 1}, None)
    assert (smoke.laboratory_micro_usd, smoke.caps_used) == (7_000, {})


@pytest.mark.parametrize("estimate", [None, {}, {"purses": None}])
def test_a_purse_that_was_billed_nothing_has_used_nothing(plan: ResolvedPlan, estimate: Any) -> None:
    cent = build_purses(plan, [], estimate)[0]
    assert (cent.total_micro_usd, cent.wall_seconds, cent.estimate) == (0, 0.0, None)
    assert set(cent.caps_used.values()) == {0.0} and len(cent.caps_used) == 5


def test_a_cell_that_never_began_costs_nothing(plan: ResolvedPlan) -> None:
    cell: Cell = plan.cells[0]
    result = build_unstarted_result(cell, {"steps": 3}, incomplete_by="total_usd")
    assert (result.cell_id, result.budget, result.status) == (cell.cell_id, "cent", "incomplete")
    assert (result.stopped_by, result.incomplete_by, result.caps_used) == ("total_usd", "total_usd", {"max_usd": 0.0})
    assert set(result.cost.attacker.model_dump().values()) == set(result.cost.laboratory.model_dump().values()) == {0}
    assert (result.losses, result.measurements, result.phases, result.mirror) == ([], [], [], "off")
    assert (result.estimate, result.peak_memory_bytes) == ({"steps": 3}, None)
    assert compare_control(result).identical is False


@pytest.mark.parametrize(
    ("incomplete", "diverged", "status"),
    [(None, False, "done"), ("laboratory.max_usd", False, "incomplete"), ("laboratory.max_usd", True, "incomplete")],
)
def test_what_ended_the_training_outlives_what_ended_the_measuring(
    plan: ResolvedPlan, incomplete: str | None, diverged: bool, status: str
) -> None:
    cell = plan.cells[0]
    meter = Meter(
        cell.budget,
        load_price_card(None),
        "cpu_2vcpu_8gb",
        node=cell.cell_id,
        purse="cent",
        clock=lambda: 0,
        wall_clock=lambda: 0,
        write=lambda record: None,
    )
    outcome = SimpleNamespace(stopped_by="max_usd", diverged=diverged, halvings=2)
    left = {"losses": (), "measurements": (), "mirror": "off", "milestones_skipped_by": None, "peak_memory_bytes": 1}
    run: Any = SimpleNamespace(outcome=outcome, incomplete=incomplete, fault=None, **left)
    result = build_cell_result(cell, run, BASELINE, FINAL, {"steps": 3}, meter, phases=[], peak_flops=None)
    assert (result.status, result.stopped_by, result.incomplete_by) == (status, "max_usd", incomplete)
    assert (result.estimate, result.measurements) == ({"steps": 3}, BASELINE)
    assert (result.quantised, result.halvings) == (FINAL, 2)


@pytest.mark.parametrize(
    ("cached", "counts", "found"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"generated_tokens": 1}, False),
        (True, {"billed_train_tokens": 1}, False),
    ],
)
def test_what_a_run_made_itself_was_not_found_again(cached: bool, counts: dict[str, int], found: bool) -> None:
    cost = AccountCost.model_validate({**dict.fromkeys(AccountCost.model_fields, 0), **counts})
    assert build_node("n", "baseline", "e", budget="cent", cached=cached, cost=cost).cached is found
