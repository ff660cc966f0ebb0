"""How commands print what they found: a table for people, JSON with ``--json``."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustlab.engine.resolve import Resolution
    from robustlab.record.results import Results
    from robustlab.spec.plan import ResolvedSearch


class GridFormat(StrEnum):
    """How a grid of cells is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"


def complain(message: object) -> None:
    """Write a message to standard error; what a file or a server put into it cannot steer a terminal."""
    from robustlab.report.wording import plain_text

    sys.stderr.write("".join(f"{plain_text(line)}\n" for line in str(message).split("\n")))


def print_plan(resolution: "Resolution", as_json: bool, search: "ResolvedSearch | None") -> None:
    """Print what each cell of a plan will cost, and what a search will do with them."""
    from robustlab.engine import plan as engine
    from robustlab.report.tables import print_table

    run, pairs = resolution.run, [(cell, resolution.estimates[cell.cell_id]) for cell in resolution.plan.cells]
    if as_json:
        cells = [
            {"cell": cell.label, "cell_id": cell.cell_id, "schedule": cell.schedule.model_dump(mode="json")}
            | {"estimate": estimate.to_dict()}
            for cell, estimate in pairs
        ]
        told = {} if search is None else {"search": search.spec.model_dump(mode="json")}
        print(json.dumps({"exact_lengths": resolution.exact, "cells": cells, "run": asdict(run), **told}, indent=2))
        return
    for cell, estimate in pairs:
        caps = engine.describe_caps(estimate, run.purses[cell.budget_id])
        print_table(Console(), cell.label, engine.BAND_COLUMNS, engine.describe_cell(estimate))
        print()
        print_table(Console(), f"{cell.budget_id}: {engine.describe_purse(cell)}", engine.CAP_COLUMNS, caps)
        print(f"  {engine.describe_memory(estimate)}")
        print(f"  {engine.describe_end(cell, estimate)}\n")
    title = "the whole run" if search is None else "one trial of each recipe"
    print_table(Console(), title, engine.BAND_COLUMNS, engine.describe_run(run))
    if search is not None:
        from robustlab.search.candidates import describe_search

        print("\n".join(describe_search(search)))
    if not resolution.exact:
        print("Lengths are a rule of thumb until `robustlab fetch` has counted tokens; `run` counts them first.")


def print_results(found: "Sequence[tuple[Path, Results]]", as_json: bool) -> None:
    """Print finished runs; the command ends with 5 if a cell could not be measured in full."""
    from robustlab.report.tables import print_results as print_tables

    if as_json:
        print_documents([results for _, results in found])
    for folder, results in [] if as_json else found:
        print_tables(results, Console())
        _print_place(folder, results)
    end_with([results for _, results in found])


def print_documents(documents: "Sequence[Results]") -> None:
    """Print whole results as JSON, a list of several; ends as ``print_results`` does."""
    dumped = [results.model_dump(mode="json") for results in documents]
    print(json.dumps(dumped if len(dumped) > 1 else dumped[0], indent=2))
    end_with(documents)


def print_grid(found: "Sequence[tuple[Path | None, Results]]", grid_format: GridFormat) -> None:
    """Print one grid of all cells of some results, a run's with its folder; ends as ``print_results`` does."""
    from robustlab.report.dump import to_plain
    from robustlab.report.grid import build_grid
    from robustlab.report.layout import to_markdown
    from robustlab.report.tables import print_grid as print_tables

    grid = build_grid([results for _, results in found])
    match grid_format:
        case GridFormat.MARKDOWN:
            print(to_markdown(grid), end="")
        case GridFormat.JSON:
            print(json.dumps(to_plain(grid), indent=2))
        case GridFormat.TERMINAL:
            print_tables(grid, Console())
            for folder, results in found:
                _print_place(folder, results)
        case _:
            assert_never(grid_format)
    end_with(grid.documents)


def print_rows(title: str, rows: list[dict[str, object]], as_json: bool) -> None:
    """Print rows that share their keys; the title alone where there are none."""
    from robustlab.report.tables import print_table

    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table(Console(), title, list(rows[0]), [list(row.values()) for row in rows])
    else:
        print(title)


def _print_place(folder: Path | None, results: "Results") -> None:
    from robustlab.report.wording import plain_text

    print(f"run     {plain_text(results.run_id)}")
    if folder is not None:
        print(f"folder  {folder}/")
        print(f"report  {folder / 'report.html'}")


def end_with(documents: "Sequence[Results]") -> None:
    """End the command with 5 if a cell could not be measured in full."""
    if any(cell.status == "incomplete" for results in documents for cell in results.cells):
        raise typer.Exit(5)
