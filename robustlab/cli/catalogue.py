"""The commands that look at what there is: list, check, fetch, doctor. Modules are imported when they are needed."""

import difflib
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from robustlab.cli.options import JsonFlag, Runs
from robustlab.cli.printing import complain, print_rows
from robustlab.cli.process import prepare_process
from robustlab.errors import ConfigError
from robustlab.spec.catalog import KINDS, list_entries


def list_command(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}, runs.")] = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """List what there is: targets, safeguards, attacks, budgets, evals, runs."""
    kinds = [kind] if kind else [*KINDS]
    rows: list[dict[str, object]] = []
    for name in kinds:
        rows += _list_runs(runs) if name == "runs" else _list_kind(name)
    print_rows(f"{len(rows)} entries", rows, as_json)


def check(
    paths: Annotated[list[Path], typer.Argument(help="YAML files, or folders of them.")],
    as_json: JsonFlag = False,
) -> None:
    """Validate YAML files; every fault at once as file:line."""
    from robustlab.engine.check import check_paths

    checked, faults = check_paths(paths)
    if as_json:
        print(json.dumps({"checked": checked, "faults": [asdict(fault) for fault in faults]}, indent=2))
    else:
        for fault in faults:
            complain(fault)
        print(f"{checked} files checked, {len(faults)} faults")
    if faults:
        raise typer.Exit(2)


def fetch(
    ids: Annotated[list[str] | None, typer.Argument(help="Targets, safeguards, evals, judges.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the catalogue, and all judges.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download and verify pinned artefacts into the cache (ROBUSTLAB_CACHE)."""
    if not ids and not everything:
        raise ConfigError("fetch", "names nothing, got no ids", "name ids or pass --all")
    from robustlab.engine.fetch import fetch_ids
    from robustlab.report.live import LiveLine

    prepare_process()
    fetched = fetch_ids([] if everything else list(ids or []), line=LiveLine())
    print_rows(f"{len(fetched)} fetched", [asdict(item) for item in fetched], as_json)


def doctor(as_json: JsonFlag = False) -> None:
    """Look at this machine: software, memory, cache, prices; exit 1 when something is not as it should be."""
    from robustlab.engine.doctor import examine

    findings = examine(today=date.today())
    print_rows("doctor", [asdict(finding) for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _list_kind(kind: str) -> list[dict[str, object]]:
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, [*KINDS, "runs"], n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(KINDS)}, runs"
        raise ConfigError("list", f"there is no kind {kind!r}", hint)
    entries = list_entries(kind)
    return [{"kind": kind, "id": entry.id, "from": entry.origin, "what": entry.summary} for entry in entries]


def _list_runs(runs: Path) -> list[dict[str, object]]:
    from robustlab.engine.abandon import describe_state
    from robustlab.record.run_folder import RunFolder

    # Runs that nobody named are told by their names, the others by their plans.
    paths = {*runs.glob("*Z-*"), *(plan.parent for plan in runs.glob("*/plan.yaml"))}
    folders = [RunFolder(path) for path in sorted(paths) if path.is_dir()]
    return [{"kind": "runs", "id": f.run_id, "from": str(runs), "what": describe_state(f)} for f in folders]
