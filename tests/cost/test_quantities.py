from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.quantities import FIELD_NAMES, Quantities
from robustlab.errors import DataError

quantities = st.builds(Quantities, *(st.integers(0, 10**15) for _ in FIELD_NAMES))


def test_addition_is_field_by_field() -> None:
    total = Quantities(wall_ns=5, steps=1, train_tokens=600) + Quantities(wall_ns=7, train_tokens=5, flops=9)
    assert total == Quantities(wall_ns=12, steps=1, train_tokens=605, flops=9)


@given(quantities, quantities)
def test_subtraction_undoes_addition(one: Quantities, other: Quantities) -> None:
    assert (one + other) - other == one


def test_scaling_rounds_up() -> None:
    # 1.5 x 3 = 4.5 -> 5; 1.5 x 2 = 3; 1.5 x 1 = 1.5 -> 2
    assert Quantities(wall_ns=3, steps=2, flops=1).scaled(Fraction(3, 2)) == Quantities(wall_ns=5, steps=3, flops=2)


def test_scaling_keeps_large_numbers_exact() -> None:
    assert Quantities(flops=2**80 + 1).scaled(Fraction(1)) == Quantities(flops=2**80 + 1)


@given(quantities)
def test_dict_round_trip(one: Quantities) -> None:
    assert Quantities.from_dict(one.to_dict()) == one


def test_absent_fields_are_zero() -> None:
    assert Quantities.from_dict({"steps": 2}) == Quantities(steps=2)


def test_unknown_field_is_refused() -> None:
    with pytest.raises(DataError, match=r"^quantities: have no field 'step'; use one of wall_ns, device_ns, "):
        Quantities.from_dict({"step": 2})


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_anything_but_a_whole_number_is_refused(value: int) -> None:
    with pytest.raises(DataError) as caught:
        Quantities(steps=value)
    assert str(caught.value) == f"steps: must be an integer >= 0, got {value!r}; count in whole units"
