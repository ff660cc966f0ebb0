"""Critical values against tables."""

import pytest

from robustlab.errors import DataError
from robustlab.stats.levels import check_confidence, normal_critical, student_critical


def test_critical_values_of_the_tables() -> None:
    assert normal_critical(0.95) == pytest.approx(1.959964, abs=1e-6)
    assert normal_critical(0.90) == pytest.approx(1.644854, abs=1e-6)
    assert student_critical(0.95, 4) == pytest.approx(2.776445, abs=1e-6)
    assert student_critical(0.90, 3) == pytest.approx(2.353363, abs=1e-6)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, float("nan")])
def test_levels_out_of_range(confidence: float) -> None:
    for ask in (check_confidence, normal_critical, lambda level: student_critical(level, 4)):
        with pytest.raises(DataError, match=r"confidence: must lie between 0 and 1, got .*; use e.g. 0.95"):
            ask(confidence)
