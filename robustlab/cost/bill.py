"""What a whole run will cost: shared work once, every cell, purse by purse and together, and whether it can fit.

A purse is a budget. The attacker's caps hold for each cell; the laboratory's caps and ``total_usd`` hold for all cells
of a purse and the shared work that it pays for. The process starts once; a released target is loaded once for each
purse and installed and measured once in a run, for the next purse finds it in the cache. On the wall clock the
attacker's load, and benign answers that an earlier cell had written, cost nothing: they are billed again, not done.
This module does not know measured time.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from robustlab.cost.caps import read_limits
from robustlab.cost.estimate import Estimate, Outlook, cell_ceilings
from robustlab.cost.job import Job
from robustlab.cost.outlay import Outlay, list_laboratory_outlays, usd_of
from robustlab.cost.pace import QUANTISING_LOADS, READINGS, Pace, Range, Reading, read_pace
from robustlab.cost.reach import (
    TIMED,
    TOTAL,
    WORK,
    CapUse,
    Ceiling,
    judge_count,
    judge_timed,
    judge_total,
    list_ceilings,
    most_usd,
)
from robustlab.cost.recipes import is_quantised
from robustlab.spec.attacks import Ablation, Untouched
from robustlab.spec.base import content_hash
from robustlab.spec.plan import Cell
from robustlab.units import exact_usd

_BOUNDS: Mapping[Reading, str] = {"fast": "low", "centre": "centre", "slow": "high"}


@dataclass(frozen=True)
class PricedCell:
    """A cell with what it was estimated from.

    Attributes:
        cell: The cell.
        job: Its numbers.
        estimate: Its estimate.
    """

    cell: Cell
    job: Job
    estimate: Estimate


@dataclass(frozen=True)
class PurseEstimate:
    """What one purse will be billed.

    Attributes:
        cells: How many cells it pays for.
        attacker: All its cells' attackers.
        laboratory: All its cells' measurements, and the shared work that falls to it.
        total_usd: Both together.
        wall_seconds: What passes on the wall clock.
        caps: The laboratory's caps, as ``laboratory.max_usd``, and ``total_usd``.
        refusal: Why its cells cannot fit together; None when they may proceed.
    """

    cells: int
    attacker: Outlook
    laboratory: Outlook
    total_usd: Range
    wall_seconds: Range
    caps: dict[str, CapUse]
    refusal: str | None


@dataclass(frozen=True)
class RunEstimate:
    """What a whole run will be billed.

    Attributes:
        attacker: All cells' attackers.
        laboratory: Shared work and all cells' measurements.
        total_usd: Both together.
        wall_seconds: What passes on the wall clock.
        purses: The same for each purse, by the budget's id.
    """

    attacker: Outlook
    laboratory: Outlook
    total_usd: Range
    wall_seconds: Range
    purses: dict[str, PurseEstimate]

    def to_dict(self) -> dict[str, object]:
        """All fields by name, as JSON can hold them."""
        return asdict(self)


@dataclass
class _Sums:
    """What one purse is billed in one reading."""

    attacker: float = 0.0
    laboratory: float = 0.0
    wall: float = 0.0
    fees: float = 0.0


def estimate_run(cells: Sequence[PricedCell]) -> RunEstimate:
    """Add up the cells of a run and the work that they share.

    Args:
        cells: Every cell in the order in which they run, at least one.

    Returns:
        Low, centre and high of each purse and of all; ``refusal`` says why where a purse cannot hold its cells.
    """
    readings = {reading: _add_up(cells, reading) for reading in READINGS}
    grouped: dict[str, list[PricedCell]] = {}
    for priced in cells:
        grouped.setdefault(priced.cell.budget_id, []).append(priced)
    purses = {name: _estimate_purse(group, [readings[r][name] for r in READINGS]) for name, group in grouped.items()}
    every = list(purses.values())
    return RunEstimate(
        attacker=_join([purse.attacker for purse in every]),
        laboratory=_join([purse.laboratory for purse in every]),
        total_usd=_add([purse.total_usd for purse in every]),
        wall_seconds=_add([purse.wall_seconds for purse in every]),
        purses=purses,
    )


def refuse_together(cells: Sequence[PricedCell], run: RunEstimate) -> dict[str, Estimate]:
    """Estimates of all cells by their ids, refused where their purse cannot hold them together."""
    found = {}
    for priced in cells:
        refusal = priced.estimate.refusal or run.purses[priced.cell.budget_id].refusal
        found[priced.cell.cell_id] = replace(priced.estimate, refusal=refusal)
    return found


def _add_up(cells: Sequence[PricedCell], reading: Reading) -> dict[str, _Sums]:
    """Play a run through in one reading; the last purse pays for the record, as the engine does."""
    sums: dict[str, _Sums] = {}
    seen: set[Hashable] = set()
    for index, priced in enumerate(cells):
        pace, bound = read_pace(priced.job.hardware, reading), _BOUNDS[reading]
        fees = _shared_fee_usd(priced, pace, seen) + float(getattr(priced.estimate.judge_fee_usd, bound))
        shared = _shared_seconds(priced, pace, seen) + (0.0 if index else pace.startup_seconds)
        shared += pace.record_seconds if index == len(cells) - 1 else 0.0
        attacker = float(getattr(priced.estimate.attacker.seconds, bound))
        laboratory = shared + float(getattr(priced.estimate.laboratory.seconds, bound))
        purse = sums.setdefault(priced.cell.budget_id, _Sums())
        purse.fees += fees
        purse.attacker += attacker
        purse.laboratory += laboratory
        purse.wall += laboratory + max(attacker - _imputed_seconds(priced, pace, seen), 0.0)
    return sums


def _shared_fee_usd(priced: PricedCell, pace: Pace, seen: set[Hashable]) -> float:
    """Fees of the baseline, and of that of a quantised copy, where no cell before this one had it measured."""
    released = (priced.cell.target_id, priced.cell.safeguard_id)
    fees = 0.0 if released in seen else pace.setup_fee_usd(priced.job)
    if is_quantised(priced.cell.recipe) and (released, "nf4") not in seen and not pace.optimistic:
        fees += pace.final_fee_usd(priced.job)
    return fees


def _shared_seconds(priced: PricedCell, pace: Pace, seen: set[Hashable]) -> float:
    cell, seconds = priced.cell, 0.0
    released = (cell.target_id, cell.safeguard_id)
    if (released, cell.budget_id) not in seen:
        seconds += pace.load_seconds(priced.job)
    if released not in seen:
        seconds += pace.setup_seconds(priced.job)
    if is_quantised(cell.recipe):
        copy = (released, cell.budget_id, "nf4")
        if copy not in seen:
            seconds += (QUANTISING_LOADS - 1) * pace.load_seconds(priced.job)
            measured = (released, "nf4") in seen or pace.optimistic
            seconds += 0.0 if measured else pace.final_seconds(priced.job)
        seen |= {copy, (released, "nf4")}
    seen |= {released, (released, cell.budget_id)}
    return seconds


def _imputed_seconds(priced: PricedCell, pace: Pace, seen: set[Hashable]) -> float:
    """What the attacker is billed for and nobody waits for."""
    cell = priced.cell
    if isinstance(cell.recipe, Untouched):
        return 0.0
    data = (cell.target_id, cell.safeguard_id, _data_of(cell))
    cached = pace.optimistic or data in seen
    seen.add(data)
    loads = QUANTISING_LOADS if is_quantised(cell.recipe) else 1
    return loads * pace.load_seconds(priced.job) + (pace.data_seconds(priced.job) if cached else 0.0)


def _data_of(cell: Cell) -> str | None:
    """What the target has to answer for the attacker; None where it answers nothing."""
    return None if isinstance(cell.recipe, Ablation | Untouched) else content_hash(cell.recipe.data)


def _estimate_purse(group: Sequence[PricedCell], readings: Sequence[_Sums]) -> PurseEstimate:
    job = group[0].job
    attacker = _outlook(job, [sums.attacker for sums in readings])
    laboratory = _outlook(job, [sums.laboratory for sums in readings], [sums.fees for sums in readings])
    total = Range.across(usd_of(job, sums.attacker + sums.laboratory) + sums.fees for sums in readings)
    return PurseEstimate(
        cells=len(group),
        attacker=attacker,
        laboratory=laboratory,
        total_usd=total,
        wall_seconds=Range.across(sums.wall for sums in readings),
        caps=_list_caps(group, laboratory, total),
        refusal=_find_refusal(group),
    )


def _list_caps(group: Sequence[PricedCell], laboratory: Outlook, total: Range) -> dict[str, CapUse]:
    """The laboratory's caps and the total's, over all cells of a purse."""
    job = group[0].job
    limit = job.budget.total_usd
    work = Ceiling(WORK, Fraction(laboratory.seconds.high) / 3600, "its installations and measurements")
    whole = None if limit is None else exact_usd(limit) / (job.usd_per_device_hour * job.devices)
    ceilings = list_ceilings(job, job.budget.laboratory, total_hours=whole, work=work)
    counted = _count_installations(group)
    caps = {}
    for name, cap in read_limits(job.budget.laboratory).items():
        if name in TIMED:
            use = _use_of(job, name, laboratory)
            caps[f"laboratory.{name}"] = judge_timed(job, name, cap, use, ceilings, binds=use.centre > cap)
        else:
            most = counted[name][0]
            caps[f"laboratory.{name}"] = judge_count(float(cap), Range(0, most, most), counted[name], binds=most > cap)
    if limit is not None:
        caps[TOTAL] = _judge_total(group, limit, total, most_usd(job, ceilings))
    return caps


def _judge_total(group: Sequence[PricedCell], limit: float, total: Range, laboratory: tuple[Fraction, bool]) -> CapUse:
    attackers = [most_usd(priced.job, cell_ceilings(priced.job, priced.cell.schedule)) for priced in group]
    binds = total.centre > limit or any(priced.estimate.binding_cap == TOTAL for priced in group)
    return judge_total(limit, total, [laboratory, *attackers], binds=binds)


def _use_of(job: Job, name: str, laboratory: Outlook) -> Range:
    if name == "max_usd":
        return laboratory.usd
    each = job.devices if name == "max_device_hours" else 1
    seconds = laboratory.seconds
    return Range(*(each * value / 3600 for value in (seconds.low, seconds.centre, seconds.high)))


def _count_installations(group: Sequence[PricedCell]) -> dict[str, tuple[float, str]]:
    """Steps and tokens of every safeguard that a purse may have to install."""
    works = {(priced.cell.target_id, priced.cell.safeguard_id): priced.job.safeguard for priced in group}
    trained = [work for work in works.values() if work is not None]
    steps = sum(work.training.steps for work in trained)
    rows = [(work.training.steps * work.training.batch_rows * work.step_factor, work.row_tokens) for work in trained]
    tokens = round(sum(count * length for count, length in rows))
    return {
        "max_train_tokens": (tokens, f"its safeguards read at most {tokens:,} tokens"),
        "max_steps": (steps, f"its safeguards have {steps:,} steps"),
        "max_trials": (0, "the laboratory runs no trials"),
    }


def _find_refusal(group: Sequence[PricedCell]) -> str | None:
    """Hold the least that the cells of a purse need together against the caps that they share."""
    if len(group) == 1:
        return group[0].estimate.refusal
    job, attacker, laboratory, fees = group[0].job, 0.0, 0.0, 0.0
    for priced in group:
        pace = read_pace(priced.job.hardware, "fast")
        step = pace.step_seconds(priced.job, priced.job.counts.shortest_row)
        attacker += pace.preparation_seconds(priced.job) + step
        laboratory += pace.ending_seconds(priced.job)
        fees += pace.final_fee_usd(priced.job)
    needs = list_laboratory_outlays(job, laboratory, fees)
    if job.budget.total_usd is not None:
        needs[TOTAL] = Outlay(job.budget.total_usd, usd_of(job, attacker + laboratory) + fees, 0.0)
    tight = {name: outlay for name, outlay in needs.items() if outlay.fixed > outlay.limit}
    told = (f"{outlay.fixed:.3g} of {name}, got {outlay.limit:.3g}" for name, outlay in tight.items())
    each = f"load, one step and the final evaluation of all {len(group)} cells of budget {group[0].cell.budget_id!r}"
    return next((f"{each} need at least {need}" for need in told), None)


def _outlook(job: Job, seconds: Sequence[float], fees: Sequence[float] = (0.0, 0.0, 0.0)) -> Outlook:
    usd = (usd_of(job, value) + fee for value, fee in zip(seconds, fees, strict=True))
    return Outlook(Range.across(seconds), Range.across(usd))


def _join(outlooks: Sequence[Outlook]) -> Outlook:
    return Outlook(_add([outlook.seconds for outlook in outlooks]), _add([outlook.usd for outlook in outlooks]))


def _add(ranges: Sequence[Range]) -> Range:
    return Range(sum(r.low for r in ranges), sum(r.centre for r in ranges), sum(r.high for r in ranges))
