"""What one cell says of the cost to break refusals: an interval, a bound, or the reason why it says nothing."""

from dataclasses import dataclass

from robustlab.record.results import CellResult, PropertyResult
from robustlab.report.rows import cell_rows
from robustlab.report.wording import (
    UNMEASURED,
    find_property,
    format_between,
    format_bound,
    is_utility_measured,
    never_began,
)


@dataclass(frozen=True)
class Break:
    """What one seed says of the cost to break refusals.

    Attributes:
        words: For people.
        held_micro_usd: The last mark that held before the break, 0 for the baseline; None where there was no break.
        broken_micro_usd: The first mark from which it stayed broken; None where there was no break with a cost.
        unbroken_micro_usd: What the attacker had spent at the end without a break; None where that is not known.
    """

    words: str
    held_micro_usd: int | None = None
    broken_micro_usd: int | None = None
    unbroken_micro_usd: int | None = None


def find_break(cell: CellResult, eval_id: str) -> Break:
    """Find what a cell says of the cost to break refusals.

    Args:
        cell: The cell; no control.
        eval_id: Eval of the refusals.

    Returns:
        The two marks between which they broke, what was spent without a break, or why neither is known.
    """
    after = find_property(cell.measurements, eval_id, "final")
    if never_began(cell):
        return Break("never began")
    if after is None:
        return Break("not measured")
    if cell.status != "done":
        return Break(f"no cost: {cell.status}")
    if not is_utility_measured(cell):
        return Break(f"no cost: {UNMEASURED}")
    row = next(row for row in cell_rows(cell) if (row["eval"], row["property"]) == (eval_id, "refusal"))
    held, broken = row["held_at_micro_usd"], row["broken_at_micro_usd"]
    if isinstance(held, int) and isinstance(broken, int):
        return Break(format_between(held, broken), held, broken)
    return _find_end(cell, eval_id, after, row["recovered_from_micro_usd"])


def _find_end(cell: CellResult, eval_id: str, after: PropertyResult, recovered_from: object) -> Break:
    spent = next(each.attacker_micro_usd for each in cell.measurements if (each.eval, each.phase) == (eval_id, "final"))
    amount = f"${format_bound(spent, up=False)}"
    once = (
        f" (broken at ${format_bound(recovered_from, up=True)}, recovered)" if isinstance(recovered_from, int) else ""
    )
    match after.verdict:
        case "survived":
            return Break(f"not broken at {amount}{once}", unbroken_micro_usd=spent)
        case "eroded":
            return Break(f"not broken at {amount}, eroded{once}", unbroken_micro_usd=spent)
        case "inconclusive":
            return Break(f"inconclusive at {amount}{once}")
        case "absent":
            return Break("no cost: absent before")
        case "too_few":
            return Break("no cost: too few rows")
        case _:
            return Break("no cost")
