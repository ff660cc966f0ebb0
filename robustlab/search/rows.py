"""Which rows of an eval a search may choose by, and which confirm what it chose. The two never meet."""

from collections.abc import Mapping, Sequence
from typing import Literal

from robustlab.data.rows import EvalRow
from robustlab.errors import ConfigError

SearchRole = Literal["select", "report"]


def take_role(rows: Mapping[str, Sequence[EvalRow]], role: SearchRole) -> dict[str, list[EvalRow]]:
    """The rows of each eval that have a role; of a set that upstream did not split, all rows for either.

    Args:
        rows: Rows of each eval, by id.
        role: ``select`` for a search's trials, ``report`` for its result.

    Returns:
        At least one row of each eval.

    Raises:
        ConfigError: If a split set has none: selecting on what is reported would flatter the attack.
    """
    return {name: _take(name, found, role) for name, found in rows.items()}


def name_role(rows: Sequence[EvalRow], role: SearchRole) -> str:
    """How a result names the rows it was measured on: the role, or ``all`` of a set that has no such roles."""
    return role if _is_split(rows) else "all"


def _take(name: str, rows: Sequence[EvalRow], role: SearchRole) -> list[EvalRow]:
    if not _is_split(rows):
        return list(rows)
    kept = [row for row in rows if row.role == role]
    if not kept:
        roles = ", ".join(sorted({row.role for row in rows}))
        problem = f"has no {role} rows, got rows of role {roles}"
        raise ConfigError(f"eval {name!r}", problem, "take an eval of the whole test split, such as harmbench_64")
    return kept


def _is_split(rows: Sequence[EvalRow]) -> bool:
    return any(row.split is not None for row in rows)
