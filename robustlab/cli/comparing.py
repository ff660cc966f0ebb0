"""The command `compare`: two or more runs side by side."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from robustlab.cli.options import JsonFlag, Runs
from robustlab.errors import ConfigError


class SidesFormat(StrEnum):
    """How a comparison is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"


def compare(
    names: Annotated[
        list[str], typer.Argument(help="Run ids, or paths of results.json files; the first against each.")
    ],
    runs: Runs = Path("runs"),
    written: Annotated[SidesFormat | None, typer.Option("--format", help="terminal or markdown.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold runs side by side: the same cells, tested on the same rows; says what does not compare."""
    from robustlab.cli.printing import end_with
    from robustlab.engine.compare import compare_runs

    if as_json and written is not None:
        raise ConfigError("--json", f"is named beside --format {written.value}", "name one of them")
    comparison, documents = compare_runs(runs, names)
    if as_json:
        from robustlab.report.comparison import to_plain

        print(json.dumps(to_plain(comparison), indent=2))
    elif written is SidesFormat.MARKDOWN:
        from robustlab.report.layout import write_blocks
        from robustlab.report.sides import list_sides

        print(write_blocks(list_sides(comparison)), end="")
    else:
        from rich.console import Console

        from robustlab.report.sides import list_sides
        from robustlab.report.tables import print_blocks

        print_blocks(list_sides(comparison, categories=False), Console())
    end_with(documents)
