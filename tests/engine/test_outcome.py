"""What counts as a control, as a cost-to-break and as the cap that stopped an attack."""

from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.engine.outcome import _is_utility_kept, _stopped_by, _with_break_costs, compare_control
from robustlab.record.results import Counts, Measurement, PropertyResult


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
    return SimpleNamespace(cell_id="c", status=status, cost=cost, measurements=measurements)


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
