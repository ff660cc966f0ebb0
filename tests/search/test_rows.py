"""Select rows and report rows never meet."""

from typing import Any

import pytest

from robustlab.data.rows import EvalRow
from robustlab.errors import ConfigError
from robustlab.search.rows import name_role, take_role


def row(name: str, role: str, split: Any = "test") -> EvalRow:
    return EvalRow(name, None, name, "illegal", "standard" if split else None, split, role)


SPLIT = [row("a", "select"), row("b", "report"), row("c", "select"), row("d", "report")]
WHOLE = [row("e", "eval", None), row("f", "report", None)]


def test_a_split_set_is_parted_and_another_is_used_whole() -> None:
    rows = {"split": SPLIT, "whole": WHOLE}
    assert take_role(rows, "select") == {"split": [SPLIT[0], SPLIT[2]], "whole": WHOLE}
    assert take_role(rows, "report") == {"split": [SPLIT[1], SPLIT[3]], "whole": WHOLE}


def test_roles_are_named() -> None:
    assert (name_role(SPLIT, "select"), name_role(SPLIT, "report")) == ("select", "report")
    assert name_role(WHOLE, "select") == "all"


@pytest.mark.parametrize(("rows", "role"), [(SPLIT[1:2], "select"), ([row("g", "install", "val")], "report")])
def test_a_split_set_without_the_role_is_refused(rows: Any, role: Any) -> None:
    message = f"^eval 'x': has no {role} rows, got rows of role {rows[0].role}; take an eval of the whole test split"
    with pytest.raises(ConfigError, match=message):
        take_role({"x": rows}, role)
