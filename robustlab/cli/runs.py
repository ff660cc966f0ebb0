"""The commands that price and run plans: plan, run, resume, report. Torch is imported when a model is run."""

from pathlib import Path
from typing import Annotated

import typer

from robustlab.cli.options import (
    Attacks,
    Budgets,
    Data,
    Evals,
    JsonFlag,
    PlanFileArgument,
    Prices,
    RunArgument,
    Runs,
    Safeguards,
    Seeds,
    Shadow,
    Targets,
    check_options,
    read_card,
    read_plan,
    warn_of_stale_card,
)
from robustlab.cli.printing import print_plan, print_results
from robustlab.cli.process import prepare_process


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
    prices: Prices = None,
    as_json: JsonFlag = False,
) -> None:
    """Price a plan before anything is spent; exit 3 only if it cannot fit."""
    from robustlab.cost.estimate import require_fit
    from robustlab.engine.plan import resolve_offline

    wanted = read_plan(plan_file, target, safeguard, attack, budget, eval_, seeds)
    check_options(wanted, data, shadow_price)
    card = read_card(prices)
    warn_of_stale_card(card)
    resolution = resolve_offline(wanted, data_csv=data, shadow_price=shadow_price, card=card)
    print_plan(resolution, as_json)
    for cell in resolution.plan.cells:
        require_fit(resolution.estimates[cell.cell_id], cell.label)


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
    prices: Prices = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Tamper under a budget, measure before, during and after, and write the record; prints the run's id."""
    wanted = read_plan(plan_file, target, safeguard, attack, budget, eval_, seeds)
    check_options(wanted, data, shadow_price)
    card = read_card(prices)
    warn_of_stale_card(card)
    prepare_process()
    from robustlab.engine.launch import launch_plan
    from robustlab.report.live import LiveLine

    launched = launch_plan(wanted, runs=runs, data_csv=data, shadow_price=shadow_price, card=card, line=LiveLine())
    print_results([(launched.folder.path, launched.results)], as_json)


def resume(run_id: RunArgument, runs: Runs = Path("runs"), as_json: JsonFlag = False) -> None:
    """Go on with a run that was interrupted; what is done is not done again."""
    from robustlab.engine.cards import find_card_of
    from robustlab.record.run_folder import RunFolder

    if RunFolder.open(runs, run_id).is_finished:
        from robustlab.engine.report import read_results

        print_results([read_results(runs, run_id)], as_json)
        return
    warn_of_stale_card(find_card_of(runs, run_id))
    prepare_process()
    from robustlab.engine.launch import resume_run
    from robustlab.report.live import LiveLine

    launched = resume_run(run_id, runs=runs, line=LiveLine())
    print_results([(launched.folder.path, launched.results)], as_json)


def report(
    run_ids: Annotated[list[str], typer.Argument(help="Run ids; `robustlab list runs` shows them.")],
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Print a run's table again and write its report.html anew; with --json, several runs make a list."""
    from robustlab.engine.report import rewrite_report

    print_results([rewrite_report(runs, run_id) for run_id in run_ids], as_json)
