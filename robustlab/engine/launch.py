"""Starts and resumes runs: prepares the process, counts tokens exactly, makes the run folder, and runs the plan."""

from dataclasses import dataclass
from pathlib import Path

import torch

from robustlab.cost.estimate import require_fit
from robustlab.cost.hardware import Device, detect_cpu
from robustlab.cost.prices import load_price_card
from robustlab.data.sources import cache_root, fetch_source
from robustlab.engine.local import run_plan
from robustlab.engine.resolve import Resolution, reopen_plan, resolve_plan
from robustlab.models.load import load_tokenizer
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder, new_run_id
from robustlab.report.live import LiveLine
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan
from robustlab.spec.targets import GgufTarget, Target
from robustlab.train.counts import Counter


@dataclass(frozen=True)
class Launched:
    """A run that has ended.

    Attributes:
        folder: Its folder.
        results: What it holds.
    """

    folder: RunFolder
    results: Results


def launch_plan(
    plan: Plan | ResolvedPlan,
    *,
    runs: Path,
    data_csv: Path | None,
    shadow_price: str | None,
    line: LiveLine,
) -> Launched:
    """Run a plan in a new run folder.

    Args:
        plan: Ids, or cells that were resolved before.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        line: The live line.

    Returns:
        The new run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If an id does not exist, a file is not valid or an eval has no rows left.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a cell cannot fit its budget or this machine; nothing is spent and no folder is made then.
    """
    with line.stage("resolving the plan"):
        resolution = _resolve(plan, data_csv, shadow_price)
        for cell in resolution.plan.cells:
            require_fit(resolution.estimates[cell.cell_id], cell.label)
    folder = RunFolder.create(runs, new_run_id())
    line.say(f"run {folder.run_id}: {len(resolution.plan.cells)} cells")
    return _run(resolution, folder, line)


def resume_run(run_id: str, *, runs: Path, line: LiveLine) -> Launched:
    """Go on with a run where it was; one that is finished is only reported again, without any model work.

    Args:
        run_id: The run.
        runs: Folder of runs.
        line: The live line.

    Returns:
        The run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If there is no such run, or its price card has changed.
        RecordError: If its ledger cannot be trusted or another process holds it.
    """
    folder = RunFolder.open(runs, run_id)
    plan = load_yaml(folder.plan, schema_of("plan"))
    with line.stage("resolving the plan"):
        resolution = _resolve(plan, None, None)
    return _run(resolution, folder, line)


def find_device() -> Device:
    """The accelerator that torch finds, else the processor."""
    if not torch.cuda.is_available():
        return detect_cpu()
    properties = torch.cuda.get_device_properties(0)
    return Device("gpu", properties.name, properties.total_memory, None)


def _run(resolution: Resolution, folder: RunFolder, line: LiveLine) -> Launched:
    results = run_plan(
        resolution.plan,
        resolution.estimates,
        resolution.rows,
        folder=folder,
        card=load_price_card(None),
        line=line,
    )
    return Launched(folder, results)


def _resolve(plan: Plan | ResolvedPlan, data_csv: Path | None, shadow_price: str | None) -> Resolution:
    card, device = load_price_card(None), find_device()
    if isinstance(plan, ResolvedPlan):
        return reopen_plan(plan, card=card, device=device, counter_of=_count_exactly)
    return resolve_plan(
        plan, card=card, device=device, counter_of=_count_exactly, data_csv=data_csv, shadow_price=shadow_price
    )


def _count_exactly(name: str, target: Target) -> Counter:
    artefact = fetch_source(target.source) if isinstance(target, GgufTarget) else None
    tokenizer = load_tokenizer(name, target, artefact=artefact, cache=cache_root())
    return Counter(target, tokenizer, cache_root())
