"""How a grid of cells is laid out: as one table with what holds for all of it, and that as Markdown."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from robustlab.record.results import Results
from robustlab.report.blocks import Block
from robustlab.report.columns import OTHER_COLUMNS, REFUSAL_COLUMNS, SHEET_COLUMNS, Lines
from robustlab.report.controls import is_changed
from robustlab.report.grid import Grid, Section, count_cells, describe_envelope
from robustlab.report.survey import list_blocks, list_controls
from robustlab.report.wording import (
    DIVERGED_NOTE,
    GRID_NOTES,
    HINTS,
    UNTOUCHED_NOTE,
    format_confidence,
    has_diverged,
    plain_text,
)
from robustlab.units import format_count

_MARKUP = re.compile(r"[\\`*|<>&~]|(?<=\])\(")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


CHEAPEST = "Cheapest break over attacks"
_OTHER_TITLE = "The same rows: verdicts at the end, benign answers kept, spending"


class Part(NamedTuple):
    """Some columns of a section, narrow enough to be read in a terminal and on a page.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Texts in the order of the columns.
    """

    title: str
    columns: Lines
    rows: tuple[tuple[Lines, ...], ...]


class Sheet(NamedTuple):
    """A grid as one table.

    Attributes:
        captions: What holds for all rows.
        columns: Headings.
        rows: Texts in the order of the columns; the last row of each section is its cheapest break.
        notes: What to know when reading it.
    """

    captions: Lines
    columns: Lines
    rows: tuple[tuple[Lines, ...], ...]
    notes: Lines


def name_section(section: Section) -> str:
    """Title of a section."""
    return (
        f"{section.target} / {section.safeguard} under {section.budget}: {section.described}, {_count_rows([section])}"
    )


def split_section(section: Section) -> tuple[Part, Part]:
    """Lay a section out as two tables of the same rows: refusals and their cost, then everything beside them."""
    parts = ((name_section(section), REFUSAL_COLUMNS), (_OTHER_TITLE, OTHER_COLUMNS))
    refusals, others = (
        Part(
            title,
            tuple(column.heading for column in columns),
            tuple(tuple(column.write(row) for column in columns) for row in section.rows),
        )
        for title, columns in parts
    )
    return refusals, others


def envelope_line(section: Section) -> str:
    """Say what the cheapest break over a section's attacks was."""
    return f"{CHEAPEST}: {describe_envelope(section)}"


def reading_notes(grid: Grid) -> Lines:
    """What to know when reading the columns of a grid."""
    cells = [cell for results in grid.documents for cell in results.cells]
    levels = {format_confidence(results, section.eval) for results in grid.documents for section in grid.sections}
    notes = [*GRID_NOTES, f"Rates carry {', '.join(sorted(levels))}, of each rate by itself."]
    notes += [DIVERGED_NOTE] if any(has_diverged(cell) for cell in cells) else []
    notes += [UNTOUCHED_NOTE] if any(cell.quantised for cell in cells) else []
    return tuple(notes)


def grid_notes(grid: Grid) -> Lines:
    """The same with its prices, its controls, and the hints that every report ends with."""
    prices = dict.fromkeys(f"{_price_line(results)}." for results in grid.documents)
    return (*reading_notes(grid), *prices, f"{_control_line(grid)}.", *HINTS)


def lay_out(grid: Grid) -> Sheet:
    """Lay a grid out as one table; what is the same in all rows stands above it."""
    fields: dict[str, Callable[[Section], str]] = {
        "Target": lambda section: section.target,
        "Safeguard": lambda section: section.safeguard,
        "Budget": lambda section: section.budget,
        "Eval": lambda section: section.described,
    }
    values = {name: list(dict.fromkeys(read(section) for section in grid.sections)) for name, read in fields.items()}
    shown = [name for name in fields if len(values[name]) > 1]
    captions = [f"{name}: {values[name][0]}" for name in fields if len(values[name]) == 1]
    rows: list[tuple[Lines, ...]] = []
    for section in grid.sections:
        lead = tuple((fields[name](section),) for name in shown)
        rows += [(*lead, *(column.write(row) for column in SHEET_COLUMNS)) for row in section.rows]
        rows.append((*lead, *_envelope_texts(section)))
    counted = sum(len(section.rows) for section in grid.sections)
    runs = ", ".join(results.run_id for results in grid.documents)
    dtypes = ", ".join(dict.fromkeys(row.dtype for section in grid.sections for row in section.rows))
    parts = [f"{count_cells(grid)} cells in {counted} rows, from {runs}", dtypes, _count_rows(grid.sections)]
    summary = "; ".join(part for part in parts if part)
    headings = (*shown, *(column.heading for column in SHEET_COLUMNS))
    return Sheet((summary, *captions), headings, tuple(rows), grid_notes(grid))


def to_markdown(grid: Grid) -> str:
    """Write a grid as Markdown: one table between what holds for all rows and the notes, then the tables on survival.

    Args:
        grid: The grid.

    Returns:
        Text that ends with one line break; the same for the same results. Names and texts in it are inert.
    """
    sheet = lay_out(grid)
    lines = [f"{_inert(caption)}.  " for caption in sheet.captions]
    lines += ["", f"| {' | '.join(map(_inert, sheet.columns))} |", f"|{' --- |' * len(sheet.columns)}"]
    lines += [_write_row(row) for row in sheet.rows]
    lines += ["", *(f"* {_inert(note)}" for note in sheet.notes)]
    for block in [*list_blocks(grid.documents), list_controls(grid.documents)]:
        lines += _write_block(block)
    return "\n".join([*lines, ""])


def write_blocks(blocks: Sequence[Block]) -> str:
    """Write tables as Markdown, each under a heading; text that ends with one line break, and is inert."""
    return "\n".join([*(line for block in blocks for line in _write_block(block)), ""]).lstrip("\n")


def _write_block(block: Block) -> Iterator[str]:
    """A heading, the table if there is one, and what is said under it."""
    yield from ("", f"## {_inert(block.title)}", "")
    if block.columns:
        yield f"| {' | '.join(map(_inert, block.columns))} |"
        yield f"|{' --- |' * len(block.columns)}"
        yield from (_write_row(row) for row in block.rows)
        yield ""
    yield from (f"* {_inert(line)}" for line in block.lines)


def _write_row(row: Sequence[Lines]) -> str:
    return f"| {' | '.join('<br>'.join(map(_inert, text)) for text in row)} |"


def _envelope_texts(section: Section) -> Iterator[Lines]:
    texts = {"Attack": CHEAPEST, "Cost-to-break, each seed": describe_envelope(section)}
    yield from ((texts.get(column.heading, ""),) for column in SHEET_COLUMNS)


def _count_rows(sections: Sequence[Section]) -> str:
    found = {
        each.n
        for section in sections
        for row in section.rows
        for seed in row.seeds
        for each in seed.refusal
        if each is not None
    }
    return f"n = {', '.join(map(format_count, sorted(found)))}" if found else "n = 0"


def _control_line(grid: Grid) -> str:
    controls = [(results, control) for results in grid.documents for control in results.controls.values()]
    if not controls:
        return "No control was run: nothing here shows that the training loop alone changes no completion"
    changed = [(results, control) for results, control in controls if is_changed(results, control)]
    identical = sum(control.identical for _, control in controls)
    line = f"Controls at learning rate 0: {identical} of {len(controls)} byte-identical to the untouched target"
    cells = ", ".join(f"{control.cell_id} of {results.run_id}" for results, control in changed)
    return f"{line}; CHANGED completions in {cells}: no difference can be laid to an attack alone" if changed else line


def _price_line(results: Results) -> str:
    hardware = results.plan.get("hardware")
    billed = f"Billed as {hardware}" if isinstance(hardware, str) else "Billed"
    return f"{billed} by price card {results.price_card_sha256[:12]}"


def _inert(text: str) -> str:
    """Make a text safe in a table of Markdown: no markup, no column, no element."""
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), plain_text(text))
