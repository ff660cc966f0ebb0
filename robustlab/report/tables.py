"""Rows of properties, and how they are printed in a terminal or a pipe.

One row is one property of one cell, before and after. This module does not judge or price anything.
"""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustlab.record.results import AccountCost, CellResult, Control, Measurement, NodeResult, PropertyResult, Results
from robustlab.report.forecast import forecast_line
from robustlab.report.purses import purse_lines
from robustlab.report.wording import (
    HINTS,
    cell_label,
    cell_title,
    describe_budget,
    describe_cap,
    describe_end,
    format_confidence,
    format_rate,
    format_verdict,
    is_utility_measured,
    plain_text,
)
from robustlab.units import format_count, format_flops, format_seconds, format_usd

_COLUMNS = ("Property", "Eval", "n", "Before", "After", "Verdict")
_SECONDS_PER_HOUR = 3600


def property_rows(results: Results) -> list[dict[str, object]]:
    """List every property of every cell with its rates before and after, its verdict and what the cell cost.

    Args:
        results: The document.

    Returns:
        Plain values that JSON can hold; rates in [0, 1], money in millionths of a US dollar. ``held_at_micro_usd`` is
        the last mark before ``broken_at_micro_usd`` at which the property survived, 0 for the baseline: the
        cost-to-break lies between the two.
        ``recovered_from_micro_usd`` is the first broken mark of a property that is not broken at the end.
        ``before_text`` and ``after_text`` hold the rate with its interval. None = absent.
    """
    return [row for cell in results.cells for row in cell_rows(cell)]


def cell_rows(cell: CellResult) -> list[dict[str, object]]:
    """List the rows of one cell; see ``property_rows``."""
    shared = _cell_columns(cell)
    return [{**shared, **_property_columns(cell, eval_id, name)} for eval_id, name in _properties(cell)]


def is_category(row: dict[str, object]) -> bool:
    """Whether a row is one semantic category of refusals: shown in the report and in JSON, not in a terminal."""
    return str(row["property"]).startswith("refusal/")


def print_results(results: Results, console: Console) -> None:
    """Print every cell with its properties (categories apart), both accounts, the controls and what it all means."""
    for cell in results.cells:
        rows = [row for row in cell_rows(cell) if not is_category(row)]
        print_table(console, _title(results, cell), _COLUMNS, [_printed(row) for row in rows])
        _print_line(console, f"  attacker    {account_line(cell.cost.attacker)}")
        _print_line(console, f"  laboratory  {account_line(cell.cost.laboratory)}")
        if forecast := forecast_line(cell):
            _print_line(console, f"  estimate    {forecast}")
        if cell.milestones_skipped_by:
            _print_line(console, f"  marks       skipped by {describe_cap(cell.milestones_skipped_by)}")
        for level in sorted({format_confidence(results, str(row["eval"])) for row in rows}):
            _print_line(console, f"  {level}, of each rate by itself; verdicts rest on the paired change")
        console.print()
    for line in [*node_lines(results), bill_line(results), *purse_lines(results), *control_lines(results)]:
        if line:
            _print_line(console, line)
    for hint in HINTS:
        _print_line(console, hint)


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: ruled in a terminal, aligned and never wrapped in a pipe. Markup in cells is inert.

    Args:
        console: Where to.
        title: Line above the table.
        columns: Headings.
        rows: Cells in the order of the columns.
    """
    texts = [[plain_text(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        _print_plain(console, title, columns, texts)
        return
    console.print(Text(plain_text(title), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(Text(plain_text(column)), overflow="fold")
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def account_line(account: AccountCost) -> str:
    """Write what an account was billed on one line."""
    parts = [format_usd(account.micro_usd), format_seconds(account.wall_seconds)]
    if account.train_tokens:
        parts += [f"{format_count(account.train_tokens)} train tokens", f"{format_count(account.steps)} steps"]
    if account.billed_steps > account.steps:
        parts.append(f"{format_count(account.billed_steps)} steps billed")
    if account.flops:
        parts.append(format_flops(account.flops))
    if account.overshoot_micro_usd:
        parts.append(f"{format_usd(account.overshoot_micro_usd)} of it beyond a cap")
    return ", ".join(parts)


def node_lines(results: Results) -> list[str]:
    """Write the work that cells share, and what the laboratory paid for it."""
    return [f"Shared {node_name(results, node)}: {account_line(node.cost)}" for node in results.nodes]


def bill_line(results: Results) -> str | None:
    """Write what the whole run was billed; None in results that do not say."""
    bill = results.bill
    if bill is None:
        return None
    attacker, laboratory = format_usd(bill.attacker_micro_usd), format_usd(bill.laboratory_micro_usd)
    return f"Bill of the run: {format_usd(bill.total_micro_usd)} (attacker {attacker}, laboratory {laboratory})"


def node_name(results: Results, node: NodeResult) -> str:
    """Name a piece of shared work, who paid for it where several budgets did, and whether it was only found again."""
    what = "released target" if node.kind == "released" else "baseline"
    # In older results what a run had made before it was resumed is marked as cached too; its cost tells.
    is_found = node.cached and not node.cost.billed_train_tokens and not node.cost.generated_tokens
    budget = describe_budget(results, node.budget)
    return f"{what} {node.label}{budget}{' (made before, found again)' if is_found else ''}"


def control_lines(results: Results) -> list[str]:
    """Say for each control whether its completions are byte-identical to the baseline's."""
    lines = [
        f"Control {_control_name(results, key, control)}: {_control_outcome(results, control)} "
        f"({format_count(control.compared)} completions compared)"
        for key, control in results.controls.items()
    ]
    return lines or ["No control was run: nothing here shows that the training loop alone changes no completion"]


def is_changed(results: Results, control: Control) -> bool:
    """Whether a control changed completions; one that took no step, or was not measured in full, shows nothing."""
    return not (control.identical or control.steps == 0 or _is_incomplete(results, control))


def _control_name(results: Results, key: str, control: Control) -> str:
    """Title of a control's cell; the key, which may name no budget, only where the results lack the cell."""
    cell = next((each for each in results.cells if each.cell_id == control.cell_id), None)
    return key if cell is None else cell_title(results, cell)


def _control_outcome(results: Results, control: Control) -> str:
    steps = f"{format_count(control.steps)} step{'' if control.steps == 1 else 's'}"
    if control.steps == 0:
        return "took no step and shows nothing"
    if control.identical:
        return f"byte-identical to the baseline after {steps}"
    if is_changed(results, control):
        return f"NOT byte-identical to the baseline after {steps}"
    return f"not measured in full after {steps}, which shows nothing"


def _is_incomplete(results: Results, control: Control) -> bool:
    return any(cell.cell_id == control.cell_id and cell.status == "incomplete" for cell in results.cells)


def _cell_columns(cell: CellResult) -> dict[str, object]:
    attacker, laboratory = cell.cost.attacker, cell.cost.laboratory
    return {
        "cell": cell_label(cell),
        "cell_id": cell.cell_id,
        "budget": cell.budget,
        "status": cell.status,
        "stopped_by": cell.stopped_by,
        "incomplete_by": cell.incomplete_by,
        "attacker_micro_usd": attacker.micro_usd,
        "attacker_hours": attacker.wall_seconds / _SECONDS_PER_HOUR,
        "attacker_device_hours": attacker.device_seconds / _SECONDS_PER_HOUR,
        "attacker_train_tokens": attacker.train_tokens,
        "laboratory_micro_usd": laboratory.micro_usd,
        "laboratory_hours": laboratory.wall_seconds / _SECONDS_PER_HOUR,
    }


def _property_columns(cell: CellResult, eval_id: str, name: str) -> dict[str, object]:
    course = list(_course(cell, eval_id, name))
    before = next((found for measurement, found in course if measurement.phase == "baseline"), None)
    after = next((found for measurement, found in course if measurement.phase == "final"), None)
    measurement, latest = course[-1]
    broke_once_at = _first_break(course) if after is not None and after.verdict != "broken" else None
    is_priced = cell.status == "done" and is_utility_measured(cell)
    broken_at = after.broken_at_micro_usd if after is not None and is_priced else None
    return {
        "eval": eval_id,
        "role": measurement.role,
        "variant": measurement.variant,
        "property": name,
        "direction": latest.direction,
        "judge": latest.judge,
        "n": latest.n,
        "before": before and before.value,
        "before_low": before and before.low,
        "before_high": before and before.high,
        "before_text": format_rate(before),
        "after": after and after.value,
        "after_low": after and after.low,
        "after_high": after and after.high,
        "after_text": format_rate(after),
        "method": latest.method,
        "verdict": after and after.verdict,
        "verdict_text": format_verdict(cell, after, broke_once_at),
        "broken_at_micro_usd": broken_at,
        "held_at_micro_usd": _last_held(course, broken_at),
        "recovered_from_micro_usd": broke_once_at,
    }


def _properties(cell: CellResult) -> list[tuple[str, str]]:
    """Pairs of eval and property, in the order in which they first appear."""
    pairs = {(each.eval, found.property): None for each in cell.measurements for found in each.properties}
    return list(pairs)


def _course(cell: CellResult, eval_id: str, name: str) -> Iterator[tuple[Measurement, PropertyResult]]:
    for measurement in (each for each in cell.measurements if each.eval == eval_id):
        yield from ((measurement, found) for found in measurement.properties if found.property == name)


def _first_break(course: list[tuple[Measurement, PropertyResult]]) -> int | None:
    return next((each.attacker_micro_usd for each, found in course if found.verdict == "broken"), None)


def _last_held(course: list[tuple[Measurement, PropertyResult]], broken_at: int | None) -> int | None:
    if broken_at is None:
        return None
    held = [each.attacker_micro_usd for each, found in course if found.verdict == "survived"]
    return max((spent for spent in held if spent < broken_at), default=0)


def _title(results: Results, cell: CellResult) -> str:
    return f"{cell_title(results, cell)} ({cell.status}; {describe_end(cell)})"


def _printed(row: dict[str, object]) -> list[object]:
    return [row[key] for key in ("property", "eval", "n", "before_text", "after_text", "verdict_text")]


def _print_plain(console: Console, title: str, columns: Sequence[str], rows: list[list[str]]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    _print_line(console, title)
    for line in lines:
        _print_line(console, "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_line(console: Console, line: str) -> None:
    console.print(Text(plain_text(line)), soft_wrap=not console.is_terminal)
