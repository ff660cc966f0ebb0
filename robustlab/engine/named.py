"""Runs under a name that a person chose: begun once, gone on with after that, and only for the plan that they hold."""

from collections.abc import Mapping
from pathlib import Path

from robustlab.cost.prices import PriceCard
from robustlab.engine.abandon import refuse_abandoned
from robustlab.engine.held import read_plan, refuse_difference
from robustlab.engine.holding import has_begun
from robustlab.engine.judges import refuse_other_consent
from robustlab.engine.keeping import refuse_other_keeping
from robustlab.engine.launch import Launched, launch_plan, resolve_exactly, resume_run
from robustlab.engine.report import read_results
from robustlab.record.kept import Area, Keeping
from robustlab.record.run_folder import RunFolder, check_run_id
from robustlab.record.sending import Consent
from robustlab.report.live import LiveLine
from robustlab.spec.plan import Plan, ResolvedPlan


def launch_named(
    plan: Plan | ResolvedPlan,
    name: str,
    *,
    runs: Path,
    data_csv: Path | None,
    shadow_price: str | None,
    card: PriceCard,
    line: LiveLine,
    keeping: Mapping[Area, Keeping] | None = None,
    consent: Consent | None = None,
    resume_hours: int | None = None,
) -> Launched:
    """Run a plan under a name, or go on where a run of that name was; what is finished is only reported again.

    Args:
        plan: Ids, or cells that were resolved before.
        name: Id of the run.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card; a run that is gone on with keeps its own.
        line: The live line.
        keeping: How to keep, by area; None to keep none of it, or to go on as the run began.
        consent: That completions may be sent to second judges elsewhere; None likewise.
        resume_hours: For how long its states outlive it unfinished; None likewise.

    Returns:
        The run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If the name is none, or the run of that name was abandoned, or holds, keeps or sends otherwise.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a cell cannot fit its budget or this machine; nothing is spent then.
        RecordError: If what the run holds cannot be trusted or another process holds it.
    """
    folder = RunFolder(runs / check_run_id(name))
    if not folder.path.is_dir() or not has_begun(folder):
        return launch_plan(
            plan,
            runs=runs,
            data_csv=data_csv,
            shadow_price=shadow_price,
            card=card,
            line=line,
            run_id=name,
            keeping=keeping,
            consent=consent,
            resume_hours=resume_hours,
        )
    folder = RunFolder.open(runs, name)
    refuse_other(folder, keeping, consent)
    held = read_plan(folder)
    with line.stage(f"comparing the plan with the one that run {name} holds"):
        plan = resolve_exactly(plan, data_csv, shadow_price, card).plan if isinstance(plan, Plan) else plan
    refuse_difference(name, held, plan)
    if folder.is_finished:
        return Launched(folder, read_results(runs, name)[1])
    line.say(f"run {name}: {_count_done(folder, held)} of {len(held.cells)} cells are done, going on")
    return resume_run(name, runs=runs, line=line, resume_hours=resume_hours)


def refuse_other(folder: RunFolder, keeping: Mapping[Area, Keeping] | None, consent: Consent | None) -> None:
    """Refuse a run that was given up, or that keeps or sends otherwise than it is told to now.

    Args:
        folder: The run's folder.
        keeping: How to keep, by area; None to go on as the run began.
        consent: That completions may be sent to second judges elsewhere; None likewise.

    Raises:
        ConfigError: If it is one of these.
    """
    refuse_abandoned(folder)
    refuse_other_keeping(folder, keeping)
    refuse_other_consent(folder, consent)


def _count_done(folder: RunFolder, held: ResolvedPlan) -> int:
    return sum((folder.path / "cells" / f"{cell.cell_id}.json").is_file() for cell in held.cells)
