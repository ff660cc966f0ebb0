"""A budget is a contract: a cap is a finite number above zero, and a block without one is no limit."""

from pathlib import Path

import pytest

from robustlab.errors import InvalidFile
from robustlab.spec.base import canonical_json
from robustlab.spec.budgets import CAP_NAMES, Budget
from robustlab.spec.catalog import load, schema_of
from robustlab.spec.loader import load_yaml

BUDGET = """\
kind: budget
stands_for: A stranger
hardware: h100_sxm
attacker:
  {attacker}
laboratory: {laboratory}
total_usd: {total}
"""
MONEY_AND_TIME = ("max_usd", "max_wall_hours", "max_device_hours")
SET_ONE = "set one of max_usd, max_wall_hours, max_device_hours, max_train_tokens, max_steps"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(attacker: str = "max_usd: 1", laboratory: str = "null", total: str = "null") -> Budget:
    Path("x.yaml").write_text(BUDGET.format(attacker=attacker, laboratory=laboratory, total=total))
    found: Budget = load_yaml(Path("x.yaml"), schema_of("budgets"))
    return found


def faults(**parts: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        read(**parts)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("cap", MONEY_AND_TIME)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("-2", "must be greater than 0, got -2"),
        ("0", "must be greater than 0, got 0"),
        ("0.0", "must be greater than 0, got 0.0"),
        ("-0.0", "must be greater than 0, got -0.0"),
        (".inf", "must be a finite number, got .inf"),
        ("-.inf", "must be a finite number, got -.inf"),
        ("1e999", "must be a finite number, got 1e999"),
        (".nan", "must be a finite number, got .nan"),
        ("five", 'must be a number, got "five"'),
    ],
)
def test_a_cap_of_money_or_time_is_a_finite_number_above_zero(cap: str, value: str, problem: str) -> None:
    assert faults(attacker=f"{cap}: {value}") == [f"x.yaml:5: attacker.{cap}: {problem}"]
    assert faults(laboratory=f"{{{cap}: {value}}}") == [f"x.yaml:6: laboratory.{cap}: {problem}"]


@pytest.mark.parametrize("cap", [name for name in CAP_NAMES if name not in MONEY_AND_TIME])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("-2", "must be greater than or equal to 1, got -2"),
        ("0", "must be greater than or equal to 1, got 0"),
        (".inf", "must be a finite number, got .inf"),
        (".nan", "must be a finite number, got .nan"),
        ("1.5", "must be a whole number, got 1.5"),
    ],
)
def test_a_cap_of_counts_is_a_whole_number_above_zero(cap: str, value: str, problem: str) -> None:
    assert faults(attacker=f"{cap}: {value}") == [f"x.yaml:5: attacker.{cap}: {problem}"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [("0", "must be greater than 0, got 0"), ("-1", "must be greater than 0, got -1")],
)
def test_the_cap_of_the_whole_bill_is_above_zero(value: str, problem: str) -> None:
    assert faults(total=value) == [f"x.yaml:7: total_usd: {problem}"]


def test_every_fault_comes_at_once() -> None:
    assert faults(attacker="max_usd: -1\n  max_steps: 0", laboratory="{max_usd: .nan}", total=".inf") == [
        "x.yaml:5: attacker.max_usd: must be greater than 0, got -1",
        "x.yaml:6: attacker.max_steps: must be greater than or equal to 1, got 0",
        "x.yaml:7: laboratory.max_usd: must be a finite number, got .nan",
        "x.yaml:8: total_usd: must be a finite number, got .inf",
    ]


@pytest.mark.parametrize("attacker", ["max_usd: null", "{}", "max_usd: null\n  max_steps: null"])
def test_an_attacker_without_a_cap_is_refused(attacker: str) -> None:
    assert faults(attacker=attacker) == [
        f"x.yaml:4: attacker: must hold a cap that ends a training, got none; {SET_ONE}"
    ]


def test_trials_alone_end_no_training() -> None:
    assert faults(attacker="max_trials: 3") == [
        f"x.yaml:4: attacker: must hold a cap that ends a training, got only max_trials; {SET_ONE}"
    ]
    assert read(attacker="max_trials: 3\n  max_steps: 5").attacker.max_trials == 3


@pytest.mark.parametrize(("block", "got"), [("{}", "none"), ("{max_trials: 3}", "only max_trials")])
def test_a_laboratory_block_without_a_cap_is_refused(block: str, got: str) -> None:
    assert faults(laboratory=block) == [
        f"x.yaml:6: laboratory: must hold a cap that ends spending, got {got}; {SET_ONE}, or write null for no cap"
    ]
    assert read(laboratory="null").laboratory is None


@pytest.mark.parametrize("cap", [name for name in CAP_NAMES if name != "max_trials"])
def test_any_other_cap_is_enough(cap: str) -> None:
    assert getattr(read(attacker=f"{cap}: 1").attacker, cap) == 1
    assert read(laboratory=f"{{{cap}: 1}}").laboratory is not None


def test_an_attacker_block_that_is_not_there() -> None:
    Path("x.yaml").write_text("kind: budget\nstands_for: A\nhardware: b\nlaboratory: null\ntotal_usd: null\n")
    with pytest.raises(InvalidFile, match=r"^x\.yaml:1: attacker: is missing$"):
        load_yaml(Path("x.yaml"), schema_of("budgets"))


@pytest.mark.parametrize("cap", MONEY_AND_TIME)
def test_a_cap_too_small_to_afford_anything_is_the_estimates_to_refuse(cap: str) -> None:
    assert getattr(read(attacker=f"{cap}: 1e-12").attacker, cap) == 1e-12


def test_details_are_unverified_or_not_named() -> None:
    Path("x.yaml").write_text(BUDGET.format(attacker="max_usd: 1", laboratory="null", total="null\ndetails: checked"))
    with pytest.raises(InvalidFile) as caught:
        load_yaml(Path("x.yaml"), schema_of("budgets"))
    assert str(caught.value) == "x.yaml:8: details: must be 'unverified', got \"checked\""
    assert read(total="1\ndetails: unverified").details == "unverified"


def test_a_budget_without_details_has_the_content_that_it_had_before_there_were_any() -> None:
    assert "details" not in canonical_json(read())
    assert '"details":"unverified"' in canonical_json(read(total="1\ndetails: unverified"))


@pytest.mark.parametrize("usd", [1, 10, 100])
def test_the_ladder_caps_both_accounts_and_the_bill(usd: int) -> None:
    budget = load("budgets", f"usd_{usd}")
    assert (budget.attacker.max_usd, budget.laboratory.max_usd, budget.total_usd) == (usd, usd, 2 * usd)
    assert budget.hardware == "h100_sxm"


def test_one_gpu_hour_is_ended_by_the_hour_and_not_by_the_bill() -> None:
    budget = load("budgets", "one_gpu_hour")
    assert budget.attacker.model_dump(exclude_none=True) == {"max_device_hours": 1}
    assert budget.laboratory.model_dump(exclude_none=True) == {"max_device_hours": 2}
    # Three hours at $2.95 are $8.85.
    assert budget.total_usd == 9 > 3 * 2.95


def test_the_quoted_audit_says_that_it_is_unverified() -> None:
    budget = load("budgets", "kimi_k25_audit")
    assert budget.attacker.model_dump(exclude_none=True) == {"max_usd": 500, "max_wall_hours": 10}
    assert (budget.laboratory.max_usd, budget.total_usd, budget.details) == (500, 1000, "unverified")
    assert all(part in budget.stands_for for part in ("2026", "Import AI 454", "arXiv 2604.03121", "unverified"))
    assert all(load("budgets", name).details is None for name in ("laptop", "smoke", "usd_1", "one_gpu_hour"))
