"""Estimate against actual, as people read it."""

from types import SimpleNamespace

import pytest

from robustlab.report.forecast import forecast_line, list_forecasts, list_purse_forecasts


def test_every_quantity_that_both_know(synthetic: SimpleNamespace) -> None:
    (cell,) = synthetic.results(synthetic.broken_cell()).cells
    found = {
        each.name: (each.low, each.centre, each.high, each.actual, each.is_inside) for each in list_forecasts(cell)
    }
    assert found == {
        "attacker, USD": ("$0.000900", "$0.001100", "$0.001600", "$0.001200", True),
        "attacker, time": ("1 min 00 s", "1 min 20 s", "2 min 00 s", "1 min 27 s", True),
        "laboratory, USD": ("$0.020000", "$0.030000", "$0.050000", "$0.031000", True),
        "train tokens": ("20,000", "20,480", "21,000", "20,480", True),
        "memory at the peak": ("1.00 GB", "2.00 GB", "3.00 GB", "2.50 GB", True),
    }


@pytest.mark.parametrize(("bound", "value"), [("low", 87.5), ("high", 86.5)])
def test_outside_is_said(synthetic: SimpleNamespace, bound: str, value: float) -> None:
    (cell,) = synthetic.results(synthetic.broken_cell()).cells
    seconds = {"low": 60.0, "centre": 80.0, "high": 120.0} | {bound: value}
    usd = {"low": 0.0009, "centre": 0.0011, "high": 0.0016}
    cell = cell.model_copy(update={"estimate": {"attacker": {"seconds": seconds, "usd": usd}}})
    assert [each.is_inside for each in list_forecasts(cell)] == [True, False]
    assert str(forecast_line(cell)).endswith("the actual lies OUTSIDE")


def test_one_line_for_a_terminal(synthetic: SimpleNamespace) -> None:
    (cell,) = synthetic.results(synthetic.broken_cell()).cells
    expected = "$0.000900 to $0.001600 and 1 min 00 s to 2 min 00 s for the attacker; the actual lies inside"
    assert forecast_line(cell) == expected


@pytest.mark.parametrize(
    "estimate", [{}, {"attacker": 3}, {"attacker": {"usd": {"low": 1}}}, {"attacker": {"usd": "x"}}]
)
def test_what_was_not_estimated_is_left_out(synthetic: SimpleNamespace, estimate: dict[str, object]) -> None:
    (cell,) = synthetic.results(synthetic.broken_cell()).cells
    cell = cell.model_copy(update={"estimate": estimate})
    assert list_forecasts(cell) == []
    assert forecast_line(cell) is None


def test_a_purse_beside_its_estimate(synthetic: SimpleNamespace) -> None:
    results = synthetic.results(purses=[synthetic.purse(), synthetic.purse(estimate=None)])
    told, untold = (list_purse_forecasts(purse) for purse in results.purses)
    assert [(each.name, each.actual, each.is_inside) for each in told] == [
        ("attacker, USD", "$0.003600", True),
        ("laboratory, USD", "$0.098040", True),
        ("total, USD", "$0.101640", True),
        ("wall time", "2 h 00 min", False),
    ]
    assert untold == []


def test_a_cell_that_never_began_missed_no_estimate(synthetic: SimpleNamespace) -> None:
    cell = synthetic.results(synthetic.broken_cell(incomplete_by="total_usd", measurements=[])).cells[0]
    assert (list_forecasts(cell), forecast_line(cell)) == ([], None)
