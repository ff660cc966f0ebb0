"""How commands print what they found: a table for people, JSON with ``--json``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustlab.engine.resolve import Resolution
    from robustlab.record.results import Results


def print_plan(resolution: "Resolution", as_json: bool) -> None:
    """Print what each cell of a plan will cost."""
    from robustlab.engine import plan as engine
    from robustlab.report.tables import print_table

    run, pairs = resolution.run, [(cell, resolution.estimates[cell.cell_id]) for cell in resolution.plan.cells]
    if as_json:
        cells = [
            {"cell": cell.label, "cell_id": cell.cell_id, "schedule": cell.schedule.model_dump(mode="json")}
            | {"estimate": estimate.to_dict()}
            for cell, estimate in pairs
        ]
        print(json.dumps({"exact_lengths": resolution.exact, "cells": cells, "run": asdict(run)}, indent=2))
        return
    for cell, estimate in pairs:
        caps = engine.describe_caps(estimate, run.purses[cell.budget_id])
        print_table(Console(), cell.label, engine.BAND_COLUMNS, engine.describe_cell(estimate))
        print()
        print_table(Console(), f"{cell.budget_id}: {engine.describe_purse(cell)}", engine.CAP_COLUMNS, caps)
        print(f"  {engine.describe_memory(estimate)}")
        print(f"  {engine.describe_end(cell, estimate)}\n")
    print_table(Console(), "the whole run", engine.BAND_COLUMNS, engine.describe_run(run))
    if not resolution.exact:
        print("Lengths are a rule of thumb until `robustlab fetch` has counted tokens; `run` counts them first.")


def print_results(found: "Sequence[tuple[Path, Results]]", as_json: bool) -> None:
    """Print finished runs; the command ends with 5 if a cell could not be measured in full."""
    from robustlab.report.tables import print_results as print_tables

    if as_json:
        dumped = [results.model_dump(mode="json") for _, results in found]
        print(json.dumps(dumped if len(dumped) > 1 else dumped[0], indent=2, ensure_ascii=False))
    for folder, results in [] if as_json else found:
        print_tables(results, Console())
        print(f"run     {results.run_id}")
        print(f"folder  {folder}/")
        print(f"report  {folder / 'report.html'}")
    if any(cell.status == "incomplete" for _, results in found for cell in results.cells):
        raise typer.Exit(5)


def print_rows(title: str, rows: list[dict[str, object]], as_json: bool) -> None:
    """Print rows that share their keys; the title alone where there are none."""
    from robustlab.report.tables import print_table

    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table(Console(), title, list(rows[0]), [list(row.values()) for row in rows])
    else:
        print(title)
