from fractions import Fraction

import pytest

from robustlab.cost.caps import Book, check_bill_is_capped, find_passed, read_limits
from robustlab.cost.prices import NS_PER_HOUR
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.errors import BudgetSpent, ConfigError
from robustlab.spec.budgets import CAP_NAMES, Budget, Caps

HOUR = Quantities(wall_ns=NS_PER_HOUR, device_ns=2 * NS_PER_HOUR)


def budget(**fields: object) -> Budget:
    plain = {"kind": "budget", "stands_for": "a test", "hardware": "h100_sxm", "attacker": {"max_usd": 500.0}}
    return Budget.model_validate(plain | {"laboratory": None, "total_usd": None} | fields)


def test_the_bill_is_rounded_up_once_and_not_per_record() -> None:
    # 0.0496 USD/h x 10 ms = 0.137 8 micro-USD: 10 records cost 1.378, so the bill is 2 and not 10
    book = Book(Fraction("0.0496"))
    grown = [book.charge(Quantities(device_ns=10_000_000), "settle") for _ in range(10)]
    assert grown == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert sum(grown) == book.micro_usd == 2


def test_usage_is_in_the_units_of_the_caps() -> None:
    book = Book(Fraction(3))
    book.charge(HOUR + Quantities(train_tokens=600, steps=4, trials=2), "settle")
    assert book.usage_with(NOTHING) == {
        "max_usd": 6, "max_wall_hours": 1, "max_device_hours": 2, "max_train_tokens": 600,
        "max_steps": 4, "max_trials": 2,
    }  # fmt: skip


def test_usage_names_every_cap_in_order() -> None:
    assert tuple(Book(Fraction(1)).usage_with(NOTHING)) == CAP_NAMES


@pytest.mark.parametrize("kind", ["overshoot", "abandon", "crash"])
def test_undone_work_is_billed_and_not_logical(kind: str) -> None:
    book = Book(Fraction(3))
    book.charge(HOUR + Quantities(steps=1), kind)  # type: ignore[arg-type]
    assert book.usage_with(NOTHING)["max_usd"] == 6
    assert book.usage_with(NOTHING)["max_steps"] == 0
    assert book.billed.steps == 1
    assert book.overshoot_micro_usd == (6_000_000 if kind == "overshoot" else 0)


def test_limits_are_those_that_exist_as_they_were_written() -> None:
    assert read_limits(None) == {}
    assert read_limits(Caps(max_steps=3, max_usd=0.1)) == {"max_usd": Fraction(1, 10), "max_steps": 3}


def test_the_order_of_the_checks_and_the_prefix() -> None:
    everything = {name: Fraction(2) for name in CAP_NAMES}
    limits = {name: Fraction(1) for name in CAP_NAMES}
    passed = list(find_passed(limits, everything, prefix="laboratory."))
    assert [spent.cap for spent in passed] == [
        "laboratory.max_usd", "laboratory.max_wall_hours", "laboratory.max_device_hours",
        "laboratory.max_train_tokens", "laboratory.max_steps", "laboratory.max_trials",
    ]  # fmt: skip
    assert all(isinstance(spent, BudgetSpent) and (spent.limit, spent.needed) == (1.0, 2.0) for spent in passed)


def test_reaching_a_cap_does_not_pass_it() -> None:
    assert list(find_passed({"max_steps": Fraction(2)}, {"max_steps": Fraction(2)}, prefix="")) == []


def test_off_a_cpu_the_bill_must_have_a_cap() -> None:
    with pytest.raises(ConfigError) as caught:
        check_bill_is_capped(budget(), on_cpu=False, where="budgets/x.yaml")
    assert str(caught.value) == (
        "budgets/x.yaml: must cap the laboratory's money or time, or the whole bill, on a device that is paid for, got "
        "neither; set total_usd, or max_usd or an hours cap of the laboratory"
    )


def test_a_cap_on_the_laboratorys_steps_ends_no_evaluation() -> None:
    with pytest.raises(ConfigError, match="must cap the laboratory's money or time"):
        check_bill_is_capped(budget(laboratory={"max_steps": 5}), on_cpu=False, where="budgets/x.yaml")


@pytest.mark.parametrize("fields", [{"total_usd": 600.0}, {"laboratory": {"max_usd": 100.0}}])
def test_one_cap_on_the_bill_is_enough(fields: dict[str, object]) -> None:
    check_bill_is_capped(budget(**fields), on_cpu=False, where="budgets/x.yaml")


def test_an_empty_laboratory_block_is_no_cap() -> None:
    with pytest.raises(ConfigError):
        check_bill_is_capped(budget(laboratory={}), on_cpu=False, where="budgets/x.yaml")


def test_on_a_cpu_no_cap_is_asked_for() -> None:
    check_bill_is_capped(budget(), on_cpu=True, where="budgets/x.yaml")
