"""The command that holds a run against a release policy. It answers without torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from robustlab.cli.options import JsonFlag, Runs

if TYPE_CHECKING:
    from robustlab.spec.policy import Policy


def gate(
    run_id: Annotated[str, typer.Argument(help="Id of a run, or path of a results.json, gzipped or not.")],
    policy: Annotated[Path, typer.Option("--policy", help="What the release asks; docs/policies has examples.")],
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Hold a finished run against a release policy: exit 0 passes, 4 fails, 5 is inconclusive."""
    from robustlab.engine.gate import EXIT_CODES, FINDING_COLUMNS, describe_findings, judge_release
    from robustlab.engine.report import read_named
    from robustlab.report.tables import print_table
    from robustlab.spec.catalog import schema_of
    from robustlab.spec.loader import load_yaml

    wanted: Policy = load_yaml(policy, schema_of("policy"))
    found = judge_release(read_named(runs, run_id), wanted)
    if as_json:
        print(json.dumps({"policy": str(policy), **found.to_plain()}, indent=2))
    else:
        print_table(Console(), wanted.stands_for, FINDING_COLUMNS, describe_findings(found.findings))
        print(f"gate    {found.decision}")
    raise typer.Exit(EXIT_CODES[found.decision])
