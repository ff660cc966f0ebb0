"""Starts and resumes runs: prepares the process, counts tokens exactly, makes the run folder, and runs the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from robustlab.cost.estimate import require_fit
from robustlab.cost.hardware import Device, detect_cpu, detect_devices
from robustlab.cost.prices import PriceCard, load_price_card
from robustlab.cost.recipes import is_quantised
from robustlab.data.sources import cache_root, fetch_source
from robustlab.engine.holding import hold_new, hold_run
from robustlab.engine.judges import check_judges, check_judges_again, record_consent
from robustlab.engine.keeping import check_keeping
from robustlab.engine.local import run_plan
from robustlab.engine.remote import check_servers
from robustlab.engine.report import read_results
from robustlab.engine.resolve import Resolution, reopen_plan, resolve_plan
from robustlab.errors import CannotFit, DataError
from robustlab.failpoints import reach
from robustlab.models.load import load_tokenizer
from robustlab.models.quantize import require_nf4
from robustlab.record.journal import Journal
from robustlab.record.kept import Area, Keeping, begin_keeping
from robustlab.record.orphans import keep_for
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder, new_run_id, write_atomic
from robustlab.record.sending import Consent
from robustlab.report.live import LiveLine
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import dump_yaml, load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan
from robustlab.spec.targets import GgufTarget, OpenAiTarget, Target
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
    card: PriceCard,
    line: LiveLine,
    run_id: str | None = None,
    keeping: Mapping[Area, Keeping] | None = None,
    consent: Consent | None = None,
    resume_hours: int | None = None,
) -> Launched:
    """Run a plan in a new run folder.

    Args:
        plan: Ids, or cells that were resolved before.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card.
        line: The live line.
        run_id: Name of the new run; None to make one out of the time.
        keeping: How to keep, by area: what targets say, adapters; None to keep nothing.
        consent: That completions may be sent to second judges elsewhere; None where they may not.
        resume_hours: For how long its states outlive it unfinished; None for the usual time.

    Returns:
        The new run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If an id does not exist, a file is not valid or an eval has no rows left.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a cell cannot fit its budget or this machine; nothing is spent and no folder is made then.
        CustodyError: If completions may not be sent to a second judge; the same holds then.
    """
    with line.stage("resolving the plan"):
        resolution = resolve_exactly(plan, data_csv, shadow_price, card)
        for cell in resolution.plan.cells:
            require_fit(resolution.estimates[cell.cell_id], cell.label)
        if any(is_quantised(cell.recipe) for cell in resolution.plan.cells):
            require_nf4()
        check_judges(resolution.plan.cells, consent)
        check_keeping(resolution.plan.cells, keeping)
        check_servers(resolution.plan.cells)
    with hold_new(runs, run_id or new_run_id()) as (folder, journal):
        write_atomic(folder.prices, card.path.read_bytes())
        reach("run.prices_written")
        for area, how in (keeping or {}).items():
            begin_keeping(folder, area, how)
        record_consent(journal, consent)
        keep_for(journal, resume_hours)
        reach("run.consented")
        write_atomic(folder.plan, dump_yaml(resolution.plan).encode("utf-8"))
        line.say(f"run {folder.run_id}: {len(resolution.plan.cells)} cells")
        return _run(resolution, folder, journal, card, line)


def resume_run(run_id: str, *, runs: Path, line: LiveLine, resume_hours: int | None = None) -> Launched:
    """Go on with a run where it was; one that is finished is only reported again, without any model work.

    Args:
        run_id: The run.
        runs: Folder of runs.
        line: The live line.
        resume_hours: For how long its states outlive it unfinished; None to leave it as it is.

    Returns:
        The run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If there is no such run, it never began or was abandoned, or its price card has changed.
        RecordError: If its ledger cannot be trusted or another process holds it.
    """
    folder = RunFolder.open(runs, run_id)
    with hold_run(folder, say=line.say, resume_hours=resume_hours) as journal:
        # Asked under the lock: whoever held it before may have ended the run.
        if folder.is_finished:
            return Launched(folder, read_results(runs, run_id)[1])
        plan = load_yaml(folder.plan, schema_of("plan"))
        card = load_price_card(folder.prices)
        with line.stage("resolving the plan"):
            resolution = resolve_exactly(plan, None, None, card)
            check_judges_again(resolution.plan.cells, folder)
            check_servers(resolution.plan.cells)
        return _run(resolution, folder, journal, card, line)


def find_device() -> Device:
    """The accelerators that torch can use, as their driver names and counts them; else the processor.

    Returns:
        What will do the work and be billed.

    Raises:
        DataError: If torch finds accelerators and their driver does not: nobody could say what to bill.
    """
    if not torch.cuda.is_available():
        return detect_cpu()
    found = detect_devices()
    if found.kind == "cpu" or found.count != torch.cuda.device_count():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        driver = f"{found.count} x {found.name}"
        problem = f"torch finds {', '.join(names)}, got {driver} from the driver"
        raise DataError(
            "device", problem, "see whether `nvidia-smi` works, or choose devices with CUDA_VISIBLE_DEVICES"
        )
    return found


def _run(resolution: Resolution, folder: RunFolder, journal: Journal, card: PriceCard, line: LiveLine) -> Launched:
    results = run_plan(
        resolution.plan,
        resolution.estimates,
        resolution.run,
        resolution.rows,
        folder=folder,
        journal=journal,
        card=card,
        line=line,
    )
    return Launched(folder, results)


def resolve_exactly(
    plan: Plan | ResolvedPlan, data_csv: Path | None, shadow_price: str | None, card: PriceCard
) -> Resolution:
    """Resolve a plan for the device that is here, with tokens counted exactly.

    Args:
        plan: Ids, or cells that were resolved before.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card.

    Returns:
        Cells, rows and estimates.

    Raises:
        ConfigError: If an id does not exist, a file is not valid or an eval has no rows left.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a cell needs more memory than this machine has.
    """
    device = find_device()
    resolution = _resolve_on(device, plan, data_csv, shadow_price, card)
    for cell in resolution.plan.cells:
        least = resolution.estimates[cell.cell_id].memory_bytes.low
        if least > device.memory_bytes:
            # A plan may be priced for another device; a run happens on this one.
            problem = f"needs {least / 1e9:.3g} GB of memory, got {device.memory_bytes / 1e9:.3g} GB of {device.name}"
            raise CannotFit(cell.label, problem, "run it on a larger device or choose a smaller target")
    return resolution


def _resolve_on(
    device: Device, plan: Plan | ResolvedPlan, data_csv: Path | None, shadow_price: str | None, card: PriceCard
) -> Resolution:
    if isinstance(plan, ResolvedPlan):
        return reopen_plan(plan, card=card, device=device, counter_of=count_exactly)
    return resolve_plan(
        plan, card=card, device=device, counter_of=count_exactly, data_csv=data_csv, shadow_price=shadow_price
    )


def count_exactly(name: str, target: Target) -> Counter:
    """The counter of a target with its own tokenizer, which is fetched where it is not there yet; a server has none."""
    if isinstance(target, OpenAiTarget):
        return Counter(target, None, cache_root())
    artefact = fetch_source(target.source) if isinstance(target, GgufTarget) else None
    tokenizer = load_tokenizer(name, target, artefact=artefact, cache=cache_root())
    return Counter(target, tokenizer, cache_root())
