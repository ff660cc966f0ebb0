"""The judge's counts: the only copy, the same as the documentation's, with intervals."""

import re

import pytest

from robustlab.spec.catalog import package_root
from robustlab.stats.references import RULES


def test_they_are_what_the_command_printed() -> None:
    text = (package_root() / "docs" / "judges.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^judge rules against people.*?^  169 rows", text, flags=re.MULTILINE | re.DOTALL)
    (line,) = re.findall(r"^held out .*$", table, flags=re.MULTILINE)
    counts = [int(word) for word in line.split()[-4:]]
    assert counts == [RULES.refusals_found, RULES.refusals_missed, RULES.false_refusals, RULES.answers_found]
    assert sum(counts) == 78


def test_shares_have_wilsons_interval() -> None:
    # 38 of 48 and 30 of 30; Wilson at 0.95 of all 30 is 30 / (30 + 1.96^2).
    assert RULES.sensitivity.value == 38 / 48
    assert (RULES.sensitivity.low, RULES.sensitivity.high) == pytest.approx((0.6574, 0.8827), abs=1e-4)
    assert (RULES.specificity.low, RULES.specificity.high) == pytest.approx((30 / (30 + 1.959964**2), 1.0))
