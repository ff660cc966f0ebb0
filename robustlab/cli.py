"""Turns arguments into calls of the lab, prints what comes back, and sets the exit code. No logic lives here.

Exit codes: 0 done, 1 a check failed or the machine did, 2 a file or a flag is wrong, 3 refused by the budget,
4 the gate failed, 5 incomplete or inconclusive, 130 and 143 by signal.
Modules that need torch are imported inside the commands that run models, so that the others answer at once.
"""

import difflib
import json
import logging
import os
import signal
import sys
import warnings
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from robustlab.errors import ConfigError, RobustlabError
from robustlab.spec.catalog import KINDS, find, list_entries, schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustlab.engine.resolve import Resolution
    from robustlab.record.results import Results

app = typer.Typer(
    help="What does it cost to undo an open-weight model's safeguards, and which safety properties survive?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PlanFileArgument = Annotated[Path | None, typer.Argument(help="A PLAN.yaml; or name the parts by flags.")]
Targets = Annotated[list[str] | None, typer.Option("--target", help="Model under test; repeat for several.")]
Safeguards = Annotated[list[str] | None, typer.Option("--safeguard", help="Safeguard installed before release.")]
Attacks = Annotated[list[str] | None, typer.Option("--attack", help="Attack recipe; repeat for several.")]
Budgets = Annotated[list[str] | None, typer.Option("--budget", help="How much the attacker may spend.")]
Evals = Annotated[list[str] | None, typer.Option("--eval", help="Measurement; repeat for several.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds of the attack: 0, 1, ...; else 1.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="HarmBench's official 400-row CSV, read instead of the wheel.")
]
Shadow = Annotated[str | None, typer.Option("--shadow-price", help="Item of the price card to bill by.")]
RunArgument = Annotated[str, typer.Argument(help="Id of the run; `robustlab list runs` shows them.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs.")]


def main() -> None:
    """Run the command; every expected failure ends in one message and its exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        # Typer turns Ctrl-C into this code without a word.
        if ended.code == 130:
            sys.stderr.write("interrupted; `robustlab resume RUN` goes on where it was\n")
        raise
    except RobustlabError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        problem = error.strerror or str(error)
        sys.stderr.write(
            f"{error.filename or 'this machine'}: {problem}; look at the disk, the network and the rights\n"
        )
        sys.exit(1)


@app.command("list")
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
    _print_rows(f"{len(rows)} entries", rows, as_json)


@app.command()
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
            sys.stderr.write(f"{fault}\n")
        print(f"{checked} files checked, {len(faults)} faults")
    if faults:
        raise typer.Exit(2)


@app.command()
def fetch(
    ids: Annotated[list[str] | None, typer.Argument(help="Targets, safeguards, evals.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything in the catalogue.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download and verify pinned artefacts into the cache (ROBUSTLAB_CACHE)."""
    if not ids and not everything:
        raise ConfigError("fetch", "names nothing, got no ids", "name ids or pass --all")
    from robustlab.engine.fetch import fetch_ids
    from robustlab.report.live import LiveLine

    _prepare_process()
    fetched = fetch_ids([] if everything else list(ids or []), line=LiveLine())
    _print_rows(f"{len(fetched)} fetched", [asdict(item) for item in fetched], as_json)


@app.command()
def plan(
    plan_file: PlanFileArgument = None,
    target: Targets = None,
    safeguard: Safeguards = None,
    attack: Attacks = None,
    budget: Budgets = None,
    eval_: Evals = None,
    seeds: Seeds = None,
    data: Data = None,
    shadow_price: Shadow = None,
    as_json: JsonFlag = False,
) -> None:
    """Price a plan before anything is spent; exit 3 only if it cannot fit."""
    from robustlab.cost.estimate import require_fit
    from robustlab.engine.plan import resolve_offline

    wanted = _wanted(plan_file, target, safeguard, attack, budget, eval_, seeds)
    _check_options(wanted, data, shadow_price)
    resolution = resolve_offline(wanted, data_csv=data, shadow_price=shadow_price)
    _print_plan(resolution, as_json)
    for cell in resolution.plan.cells:
        require_fit(resolution.estimates[cell.cell_id], cell.label)


@app.command()
def run(
    plan_file: PlanFileArgument = None,
    target: Targets = None,
    safeguard: Safeguards = None,
    attack: Attacks = None,
    budget: Budgets = None,
    eval_: Evals = None,
    seeds: Seeds = None,
    data: Data = None,
    shadow_price: Shadow = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Tamper under a budget, measure before, during and after, and write the record; prints the run's id."""
    wanted = _wanted(plan_file, target, safeguard, attack, budget, eval_, seeds)
    _check_options(wanted, data, shadow_price)
    _prepare_process()
    from robustlab.engine.launch import launch_plan
    from robustlab.report.live import LiveLine

    launched = launch_plan(wanted, runs=runs, data_csv=data, shadow_price=shadow_price, line=LiveLine())
    _print_results([(launched.folder.path, launched.results)], as_json)


@app.command()
def resume(run_id: RunArgument, runs: Runs = Path("runs"), as_json: JsonFlag = False) -> None:
    """Go on with a run that was interrupted; what is done is not done again."""
    from robustlab.record.run_folder import RunFolder

    if RunFolder.open(runs, run_id).is_finished:
        from robustlab.engine.report import read_results

        _print_results([read_results(runs, run_id)], as_json)
        return
    _prepare_process()
    from robustlab.engine.launch import resume_run
    from robustlab.report.live import LiveLine

    launched = resume_run(run_id, runs=runs, line=LiveLine())
    _print_results([(launched.folder.path, launched.results)], as_json)


@app.command()
def report(
    run_ids: Annotated[list[str], typer.Argument(help="Run ids; `robustlab list runs` shows them.")],
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Print a run's table again and write its report.html anew; with --json, several runs make a list."""
    from robustlab.engine.report import rewrite_report

    _print_results([rewrite_report(runs, run_id) for run_id in run_ids], as_json)


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Look at this machine: software, memory, cache, prices; exit 1 when something is not as it should be."""
    from robustlab.engine.doctor import examine

    findings = examine(today=date.today())
    _print_rows("doctor", [asdict(finding) for finding in findings], as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _wanted(
    plan_file: Path | None,
    target: list[str] | None,
    safeguard: list[str] | None,
    attack: list[str] | None,
    budget: list[str] | None,
    evals: list[str] | None,
    seeds: int | None,
) -> Plan | ResolvedPlan:
    flags = {"target": target, "safeguard": safeguard, "attack": attack, "budget": budget, "eval": evals}
    if plan_file is not None:
        given = [name for name, value in [*flags.items(), ("seeds", seeds)] if value]
        if given:
            raise ConfigError(
                f"--{given[0]}", f"is named beside the plan {plan_file}", "give a plan or flags, not both"
            )
        found: Plan | ResolvedPlan = load_yaml(plan_file, schema_of("plan"))
        return found
    missing = [name for name, value in flags.items() if not value and name != "safeguard"]
    if missing:
        kinds = f"`robustlab list {missing[0]}s` shows what there is"
        raise ConfigError(f"--{missing[0]}", "is missing, got nothing", f"name one, or give a PLAN.yaml; {kinds}")
    ids = {f"{name}s": tuple(value or ("none",)) for name, value in flags.items()}
    try:
        return Plan(kind="plan", seeds=tuple(range(seeds or 1)), **ids)
    except ValidationError as error:
        raise _flag_error(error) from None


def _flag_error(error: ValidationError) -> ConfigError:
    detail = error.errors()[0]
    flag = str(detail["loc"][0]).removesuffix("s")
    if detail["type"] == "value_error":
        return ConfigError(f"--{flag}", str(detail["ctx"]["error"]), "name each once")
    return ConfigError(f"--{flag}", f"must be an id, got {detail['input']!r}", f"`robustlab list {flag}s` shows them")


def _check_options(wanted: Plan | ResolvedPlan, data: Path | None, shadow_price: str | None) -> None:
    given = {"--data": data, "--shadow-price": shadow_price}
    beside = [flag for flag, value in given.items() if value is not None]
    if isinstance(wanted, ResolvedPlan) and beside:
        raise ConfigError(beside[0], "is named beside a resolved plan, which has its own", "leave the flag out")
    if data is not None and not data.is_file():
        raise ConfigError("--data", f"names no file, got {str(data)!r}", "name HarmBench's CSV")
    # A misspelt id is told at once, not after torch has been loaded.
    for kind in KINDS if isinstance(wanted, Plan) else ():
        for name in getattr(wanted, kind):
            find(kind, name)


def _list_kind(kind: str) -> list[dict[str, object]]:
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, [*KINDS, "runs"], n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(KINDS)}, runs"
        raise ConfigError("list", f"there is no kind {kind!r}", hint)
    entries = list_entries(kind)
    return [{"kind": kind, "id": entry.id, "from": entry.origin, "what": entry.summary} for entry in entries]


def _list_runs(runs: Path) -> list[dict[str, object]]:
    from robustlab.record.run_folder import RunFolder

    folders = [RunFolder(path) for path in sorted(runs.glob("*Z-*")) if path.is_dir()]
    return [
        {"kind": "runs", "id": f.run_id, "from": str(runs), "what": "finished" if f.is_finished else "unfinished"}
        for f in folders
    ]


def _prepare_process() -> None:
    """Close files to others, forbid core dumps, and keep libraries quiet, before anything heavy is imported."""
    from robustlab.record.provenance import harden_process

    harden_process()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Libraries warn of their own next versions; the versions here are pinned, and the live line is the only voice.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)


def _print_plan(resolution: "Resolution", as_json: bool) -> None:
    from robustlab.engine.plan import describe_cell, describe_end
    from robustlab.report.tables import print_table

    pairs = [(cell, resolution.estimates[cell.cell_id]) for cell in resolution.plan.cells]
    if as_json:
        cells = [
            {"cell": cell.label, "cell_id": cell.cell_id, "schedule": cell.schedule.model_dump(mode="json")}
            | {"estimate": estimate.to_dict()}
            for cell, estimate in pairs
        ]
        print(json.dumps({"exact_lengths": resolution.exact, "cells": cells}, indent=2))
        return
    for cell, estimate in pairs:
        print_table(Console(), cell.label, ("", "low", "centre", "high"), describe_cell(estimate))
        print(f"  {describe_end(cell, estimate)}\n")
    if not resolution.exact:
        print("Lengths are a rule of thumb until `robustlab fetch` has counted tokens; `run` counts them first.")


def _print_results(found: "Sequence[tuple[Path, Results]]", as_json: bool) -> None:
    from robustlab.report.tables import print_results

    if as_json:
        dumped = [results.model_dump(mode="json") for _, results in found]
        print(json.dumps(dumped if len(dumped) > 1 else dumped[0], indent=2, ensure_ascii=False))
    for folder, results in [] if as_json else found:
        print_results(results, Console())
        print(f"run     {results.run_id}")
        print(f"folder  {folder}/")
        print(f"report  {folder / 'report.html'}")
    if any(cell.status == "incomplete" for _, results in found for cell in results.cells):
        raise typer.Exit(5)


def _print_rows(title: str, rows: list[dict[str, object]], as_json: bool) -> None:
    from robustlab.report.tables import print_table

    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table(Console(), title, list(rows[0]), [list(row.values()) for row in rows])
    else:
        print(title)


def _on_terminate(signum: int, frame: object) -> NoReturn:
    sys.stderr.write("terminated; `robustlab resume RUN` goes on where it was\n")
    raise SystemExit(143)
