"""How cells and grids of them are printed in a terminal or a pipe. This module does not judge or price anything."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustlab.record.results import AccountCost, CellResult, NodeResult, Results
from robustlab.report.blocks import Block, fit
from robustlab.report.controls import control_lines
from robustlab.report.forecast import forecast_line
from robustlab.report.grid import Grid, Section, build_grid
from robustlab.report.layout import envelope_line, grid_notes, reading_notes, split_section
from robustlab.report.purses import purse_lines
from robustlab.report.rows import cell_rows, is_category, untouched_rows
from robustlab.report.search import TRIAL_COLUMNS, search_lines, search_title, trial_rows
from robustlab.report.survey import list_blocks, list_controls
from robustlab.report.wording import (
    HINTS,
    UNTOUCHED,
    cell_title,
    describe_budget,
    describe_cap,
    describe_end,
    format_confidence,
    list_troubles,
    plain_text,
)
from robustlab.units import format_count, format_flops, format_seconds, format_usd

MOST_BLOCKS = 4
"""Cells whose own blocks are printed in a terminal; a run of more prints its grid alone."""
_COLUMNS = ("Property", "Eval", "n", "Before", "After", "Verdict")
_COPY_COLUMNS = ("Property", "Eval", "n", "Released", "In 4 bits", "Verdict")


def print_results(results: Results, console: Console) -> None:
    """Print the search if there was one, every cell, the grid of several, shared work, controls, and what it all means.

    Categories stand in the report only, and so do the blocks of single cells where there are more than a few.
    """
    if results.search is not None:
        print_table(console, search_title(results.search), TRIAL_COLUMNS, trial_rows(results.search))
        for told in search_lines(results.search):
            _print_line(console, told)
    if len(results.cells) <= MOST_BLOCKS:
        for cell in results.cells:
            _print_cell(results, cell, console)
    else:
        _print_line(console, f"{len(results.cells)} cells; the block of each, with its categories, is in report.html")
    if len(results.cells) > 1:
        grid = build_grid([results])
        for section in grid.sections:
            _print_section(section, console)
        for note in reading_notes(grid):
            _print_line(console, note)
    print_survival([results], console)
    for line in [*node_lines(results), bill_line(results), *purse_lines(results), *control_lines(results)]:
        if line:
            _print_line(console, line)
    for hint in HINTS:
        _print_line(console, hint)


def print_grid(grid: Grid, console: Console) -> None:
    """Print the grid of several runs, and what to know when reading it."""
    for section in grid.sections:
        _print_section(section, console)
    print_survival(grid.documents, console)
    for note in grid_notes(grid):
        _print_line(console, note)


def print_survival(documents: Sequence[Results], console: Console) -> None:
    """Print what survived, what it cost and the controls; categories and details are in the report and in JSON."""
    blocks = [*list_blocks(documents, categories=False), list_controls(documents)]
    print_blocks([block for block in blocks if not block.is_detail], console)


def print_blocks(blocks: Sequence[Block], console: Console) -> None:
    """Print tables with what has to be said under each."""
    for block in blocks:
        shown = fit(block)
        if shown.columns:
            print_table(console, shown.title, shown.columns, [["; ".join(text) for text in row] for row in shown.rows])
        else:
            _print_line(console, shown.title)
        for line in shown.lines:
            _print_line(console, f"  {line}")
        console.print()


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


def _print_cell(results: Results, cell: CellResult, console: Console) -> None:
    rows = [row for row in cell_rows(cell) if not is_category(row)]
    print_table(console, _title(results, cell), _COLUMNS, [_printed(row) for row in rows])
    if untouched := [row for row in untouched_rows(cell) if not is_category(row)]:
        print_table(console, f"{UNTOUCHED}, before any training", _COPY_COLUMNS, [_printed(row) for row in untouched])
    _print_line(console, f"  attacker    {account_line(cell.cost.attacker)}")
    _print_line(console, f"  laboratory  {account_line(cell.cost.laboratory)}")
    if forecast := forecast_line(cell):
        _print_line(console, f"  estimate    {forecast}")
    if cell.milestones_skipped_by:
        _print_line(console, f"  marks       skipped by {describe_cap(cell.milestones_skipped_by)}")
    for trouble in list_troubles(cell):
        _print_line(console, f"  trouble     {trouble}")
    for level in sorted({format_confidence(results, str(row["eval"])) for row in rows}):
        _print_line(console, f"  {level}, of each rate by itself; verdicts rest on the paired change")
    console.print()


def _print_section(section: Section, console: Console) -> None:
    for part in split_section(section):
        print_table(console, part.title, part.columns, [["; ".join(text) for text in row] for row in part.rows])
    _print_line(console, f"  {envelope_line(section)}")
    console.print()


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
