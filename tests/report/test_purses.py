"""Caps that cells share: limits from the resolved plan, shares as they are recorded."""

from types import SimpleNamespace

import pytest

from robustlab.report.purses import SharedCap, list_shared_caps, purse_lines, read_budgets


def test_limits_are_those_of_the_plan(synthetic: SimpleNamespace) -> None:
    caps = {"max_usd": 2.0, "max_device_hours": 0.5, "max_train_tokens": 12_000}
    cell = {"budget_id": "synthetic_cent", "budget": {**synthetic.budget, "laboratory": caps, "total_usd": None}}
    used = {"laboratory.max_usd": 0.5, "laboratory.max_device_hours": 0.0004, "laboratory.max_train_tokens": 1.0}
    results = synthetic.results(plan={"cells": [cell]}, purses=[synthetic.purse(caps_used=used)])
    assert list_shared_caps(results, results.purses[0]) == [
        SharedCap("laboratory.max_usd", "$2.00", "50.0 %"),
        SharedCap("laboratory.max_device_hours", "0.5 h", "0.0 %"),
        SharedCap("laboratory.max_train_tokens", "12,000", "100.0 %"),
    ]


@pytest.mark.parametrize("cells", ["odd", [7, {"evals": {}}], [{"budget_id": "x", "budget": {"kind": "budget"}}]])
def test_a_plan_that_names_no_budget_leaves_the_limit_open(synthetic: SimpleNamespace, cells: object) -> None:
    results = synthetic.results(plan={"cells": cells})
    assert read_budgets(results) == {}
    assert "laboratory.max_usd 49.0 % of -" in purse_lines(results)[0]
