"""Figures in results are bounded: whoever divides what is read cannot overflow."""

import pytest
from pydantic import ValidationError

from robustlab.record.results import AccountCost, Bill

COST = {
    "micro_usd": 2**63 - 1, "device_seconds": 0.0, "wall_seconds": 0.0, "train_tokens": 0, "steps": 0,
    "billed_train_tokens": 0, "billed_steps": 0, "flops": 2**100, "overshoot_micro_usd": 0,
}  # fmt: skip


def test_the_largest_figures() -> None:
    assert AccountCost.model_validate(COST).micro_usd == 2**63 - 1


@pytest.mark.parametrize("value", [2**63, 10**400, -1, -(10**400)])
@pytest.mark.parametrize("name", ["micro_usd", "steps", "train_tokens", "generated_tokens"])
def test_a_figure_that_no_run_reaches(name: str, value: int) -> None:
    with pytest.raises(ValidationError, match=name):
        AccountCost.model_validate(COST | {name: value})


def test_more_operations_than_ever_were() -> None:
    with pytest.raises(ValidationError, match="flops"):
        AccountCost.model_validate(COST | {"flops": 2**100 + 1})


def test_a_bill_is_bounded() -> None:
    with pytest.raises(ValidationError, match="total_micro_usd"):
        Bill(attacker_micro_usd=0, laboratory_micro_usd=0, total_micro_usd=10**400)
