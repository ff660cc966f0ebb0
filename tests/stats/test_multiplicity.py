"""Holm's step-down by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.errors import DataError
from robustlab.stats.multiplicity import adjust_holm

families = st.lists(st.floats(0, 1), max_size=8)


def test_holm_by_hand() -> None:
    # In order: 4 x 0.005 = 0.02; 3 x 0.01 = 0.03; 2 x 0.03 = 0.06; 1 x 0.04 = 0.04, raised to 0.06 before it.
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert adjust_holm([0.04]) == (0.04,)
    assert adjust_holm([0.9, 0.8]) == (1.0, 1.0)
    assert adjust_holm([]) == ()


@settings(deadline=None)
@given(families, st.randoms())
def test_holm_keeps_order_and_lies_between_the_raw_p_and_bonferroni(p_values: list[float], rng) -> None:
    adjusted = adjust_holm(p_values)
    for p, each in zip(p_values, adjusted, strict=True):
        assert p <= each <= min(1.0, len(p_values) * p)
    assert [each for _, each in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)
    order = rng.sample(range(len(p_values)), len(p_values))
    assert adjust_holm([p_values[i] for i in order]) == tuple(adjusted[i] for i in order)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_p_out_of_range(bad: float) -> None:
    with pytest.raises(DataError, match=r"adjust_holm: each p must lie in \[0, 1\], got .*; pass the p-values"):
        adjust_holm([0.5, bad])
