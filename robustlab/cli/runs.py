"""The commands that price and run plans: plan, run, resume, report. Torch is imported when a model is run."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.cli.disposal import ResumeHours, keep_states_for, sweep_due_states
from robustlab.cli.keeping import (
    FLAGS,
    ExpireDays,
    KeepAdapter,
    KeepTranscripts,
    Reason,
    To,
    read_keeping,
    refuse_search,
    sweep_expired,
)
from robustlab.cli.options import (
    Attacks,
    Budgets,
    Data,
    Evals,
    JsonFlag,
    Name,
    PlanFileArgument,
    Prices,
    RunArgument,
    Runs,
    Safeguards,
    Seeds,
    SendCompletions,
    Shadow,
    Targets,
    check_options,
    read_card,
    read_plan,
    warn_of_stale_card,
)
from robustlab.cli.printing import GridFormat, print_documents, print_grid, print_plan, print_results
from robustlab.cli.process import prepare_process
from robustlab.errors import ConfigError
from robustlab.record.run_folder import check_run_id
from robustlab.record.sending import read_consent

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustlab.engine.launch import Launched


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
    from robustlab.search.candidates import list_candidates, pin_search

    wanted = read_plan(plan_file, target, safeguard, attack, budget, eval_, seeds)
    check_options(wanted, data, shadow_price)
    card = read_card(prices)
    warn_of_stale_card(card)
    candidates = list_candidates(wanted)
    resolution = resolve_offline(candidates, data_csv=data, shadow_price=shadow_price, card=card)
    print_plan(resolution, as_json, pin_search(wanted, resolution.plan.cells))
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
    name: Name = None,
    keep_transcripts: KeepTranscripts = False,
    keep_adapter: KeepAdapter = False,
    reason: Reason = None,
    to: To = None,
    expire_days: ExpireDays = None,
    send_completions: SendCompletions = None,
    resume_hours: ResumeHours = None,
    as_json: JsonFlag = False,
) -> None:
    """Tamper under a budget, measure before, during and after, and write the record; prints the run's id."""
    wanted = read_plan(plan_file, target, safeguard, attack, budget, eval_, seeds)
    check_options(wanted, data, shadow_price)
    if name is not None:
        check_run_id(name)
    consent = read_consent(send_completions, reason)
    asked = [flag for flag, is_asked in zip(FLAGS, (keep_transcripts, keep_adapter), strict=True) if is_asked]
    # One reason serves all flags; it is idle only where none is given.
    keeping = read_keeping(asked, reason if asked or consent is None else None, to, expire_days)
    if wanted.search is not None:
        refuse_search(asked)
    card = read_card(prices)
    warn_of_stale_card(card)
    sweep_expired(runs)
    sweep_due_states(runs)
    if name is not None and not asked and consent is None:
        from robustlab.search.again import find_finished

        again = find_finished(wanted, name, runs=runs, data_csv=data, shadow_price=shadow_price, card=card)
        if again is not None:
            print_results([again], as_json)
            return
    prepare_process()
    from robustlab.report.live import LiveLine

    launch = _find_launch(is_search=wanted.search is not None, name=name)
    if keeping is not None:
        launch = partial(launch, keeping=keeping)
    if consent is not None:
        launch = partial(launch, consent=consent)
    if resume_hours is not None:
        launch = partial(launch, resume_hours=resume_hours)
    launched = launch(wanted, runs=runs, data_csv=data, shadow_price=shadow_price, card=card, line=LiveLine())
    print_results([(launched.folder.path, launched.results)], as_json)


def resume(
    run_id: RunArgument, runs: Runs = Path("runs"), resume_hours: ResumeHours = None, as_json: JsonFlag = False
) -> None:
    """Go on with a run that was interrupted; what is done is not done again."""
    from robustlab.engine.cards import find_card_of
    from robustlab.engine.holding import require_resumable
    from robustlab.record.run_folder import RunFolder
    from robustlab.search.candidates import holds_search

    keep_states_for(runs, run_id, resume_hours)
    sweep_expired(runs)
    sweep_due_states(runs)
    folder = RunFolder.open(runs, run_id)
    if folder.is_finished:
        from robustlab.engine.report import read_results

        print_results([read_results(runs, run_id)], as_json)
        return
    require_resumable(folder)
    warn_of_stale_card(find_card_of(runs, run_id))
    prepare_process()
    from robustlab.report.live import LiveLine

    resume_it = _find_resume(is_search=holds_search(folder))
    launched = resume_it(run_id, runs=runs, line=LiveLine())
    print_results([(launched.folder.path, launched.results)], as_json)


def report(
    run_ids: Annotated[list[str], typer.Argument(help="Run ids, or paths of results.json files, gzipped or not.")],
    runs: Runs = Path("runs"),
    grid: Annotated[
        GridFormat | None, typer.Option("--format", help="Of the grid of all cells; one run alone has blocks too.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a run's table again, or one grid of several; write report.html of runs anew; --json gives whole results."""
    from robustlab.engine.report import gather_results

    if as_json and grid is not None:
        raise ConfigError("--json", f"is named beside --format {grid.value}", "name one of them")
    found = gather_results(runs, run_ids)
    folders = [(folder, results) for folder, results in found if folder is not None]
    if as_json:
        print_documents([results for _, results in found])
    elif len(found) == len(folders) == 1 and grid in (None, GridFormat.TERMINAL):
        print_results(folders, as_json=False)
    else:
        print_grid(found, grid or GridFormat.TERMINAL)


def _find_launch(*, is_search: bool, name: str | None) -> "Callable[..., Launched]":
    """What runs a plan: an ordinary one or a search, under a name or not."""
    if is_search:
        from robustlab.search.launch import launch_named_search, launch_search

        return launch_search if name is None else partial(launch_named_search, name=name)
    from robustlab.engine.launch import launch_plan
    from robustlab.engine.named import launch_named

    return launch_plan if name is None else partial(launch_named, name=name)


def _find_resume(*, is_search: bool) -> "Callable[..., Launched]":
    """What goes on with a run."""
    if is_search:
        from robustlab.search.launch import resume_search

        return resume_search
    from robustlab.engine.launch import resume_run

    return resume_run
