"""Parses a command line with the real application, without running it."""

from typing import Any

import typer

from robustlab.cli.main import app


def parse(arguments: list[str]) -> dict[str, Any]:
    """Parse a command line with the real application, without running it."""
    group = typer.main.get_command(app)
    with group.make_context("robustlab", arguments) as context:
        name, command, rest = group.resolve_command(context, arguments)  # type: ignore[attr-defined]
        with command.make_context(name, rest, parent=context) as subcontext:
            return {"command": name, **subcontext.params}
