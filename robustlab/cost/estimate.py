"""What a cell will cost, before anything is spent: low, centre and high, the cap that will bind, whether it can fit.

The bands come from the three readings of the device in ``robustlab.cost.pace``; prices are the card's. A cell is
refused only if load, one step and the final measurement, or memory, cannot fit even at best. A cell is estimated as if
it were alone with its purse; ``robustlab.cost.bill`` adds cells up. This module does not know measured time.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from robustlab.cost.job import Completions, Job
from robustlab.cost.memory import needed_bytes
from robustlab.cost.outlay import Outlay, find_binding, list_laboratory_outlays, list_outlays, usd_of
from robustlab.cost.pace import READINGS, Pace, Range, read_pace
from robustlab.cost.reach import CapUse, Ceiling, attacker_ceilings, list_attacker_caps
from robustlab.cost.recipes import count_trained_rows, step_flops
from robustlab.errors import CannotFit
from robustlab.spec.attacks import Untouched
from robustlab.spec.plan import Schedule


@dataclass(frozen=True)
class Outlook:
    """What one account will be billed.

    Attributes:
        seconds: On the wall clock.
        usd: US dollars.
    """

    seconds: Range
    usd: Range


@dataclass(frozen=True)
class Estimate:
    """What one cell will cost.

    Attributes:
        attacker: Load, benign answers and as many steps as the caps allow.
        laboratory: Its set-up, probe step, milestones and final measurement.
        final: The final measurement alone.
        judge_seconds: Of the laboratory's time, that of the second judges.
        judge_fee_usd: Of the laboratory's bill, their fees.
        shared: Start-up, load, the safeguard's installation and the baseline, paid by the laboratory once for all
            cells of one released target and purse. Low is what is left of it when everything is cached.
        steps: Steps that the caps allow; low is that of the slowest reading.
        train_tokens: Tokens of those steps.
        flops: Operations of the centre's steps.
        memory_bytes: Peak on one device; rough.
        device_memory_bytes: Memory of the device that it is held against.
        binding_cap: Cap that will end the training before the schedule does, by the centre; None when none will.
        caps_reached: Share of every cap that will be used, by name and by the centre.
        caps: The attacker's caps: what will be used of each, and whether it can bind.
        refusal: Why the cell cannot fit; None when it may proceed.
    """

    attacker: Outlook
    laboratory: Outlook
    final: Outlook
    judge_seconds: Range
    judge_fee_usd: Range
    shared: Outlook
    steps: Range
    train_tokens: Range
    flops: int
    memory_bytes: Range
    device_memory_bytes: int
    binding_cap: str | None
    caps_reached: dict[str, float]
    caps: dict[str, CapUse]
    refusal: str | None

    def to_dict(self) -> dict[str, object]:
        """All fields by name, as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class _Case:
    """One reading of the device, played through."""

    steps: int
    binding_cap: str | None
    attacker_seconds: float
    laboratory_seconds: float
    final_seconds: float
    final_fee_usd: float
    judge_seconds: float
    judge_fee_usd: float
    shared_seconds: float
    fee_usd: float
    used: dict[str, float]
    caps_reached: dict[str, float]


def estimate_cell(job: Job, schedule: Schedule, *, memory_bytes: int) -> Estimate:
    """Estimate one cell.

    Args:
        job: The cell before it has a schedule.
        schedule: What ``plan_schedule`` made of it.
        memory_bytes: Memory of the device that was found.

    Returns:
        Low, centre and high of both accounts; ``refusal`` says why where even the best reading cannot fit.
    """
    cases = [_play(job, schedule, read_pace(job.hardware, reading)) for reading in READINGS]
    centre = cases[READINGS.index("centre")]
    tokens = _count_tokens(job, centre.steps, [case.steps for case in cases])
    uses = {name: Range.across(case.used[name] for case in cases) for name in centre.used}
    uses["max_train_tokens"] = tokens
    return Estimate(
        attacker=_outlook(job, [case.attacker_seconds for case in cases]),
        laboratory=_outlook(job, [case.laboratory_seconds for case in cases], [case.judge_fee_usd for case in cases]),
        final=_outlook(job, [case.final_seconds for case in cases], [case.final_fee_usd for case in cases]),
        judge_seconds=Range.across(case.judge_seconds for case in cases),
        judge_fee_usd=Range.across(case.judge_fee_usd for case in cases),
        shared=_outlook(job, [case.shared_seconds for case in cases], [case.fee_usd for case in cases]),
        steps=Range.across(case.steps for case in cases),
        train_tokens=tokens,
        flops=centre.steps * step_flops(job.target.shape, job.recipe, job.counts.mean_row),
        memory_bytes=Range(*needed_bytes(job)),
        device_memory_bytes=memory_bytes,
        binding_cap=centre.binding_cap,
        caps_reached=centre.caps_reached,
        caps=list_attacker_caps(job, schedule, uses, centre.binding_cap, cell_ceilings(job, schedule)),
        refusal=_find_refusal(job, memory_bytes),
    )


def require_fit(estimate: Estimate, where: str) -> None:
    """Refuse a cell that cannot fit.

    Args:
        estimate: The cell's estimate.
        where: Label of the cell, for the message.

    Raises:
        CannotFit: If the estimate says so.
    """
    if estimate.refusal is not None:
        raise CannotFit(where, estimate.refusal, "raise the cap, shorten the evaluation or choose a smaller target")


def cell_ceilings(job: Job, schedule: Schedule) -> list[Ceiling]:
    """What bounds the time of a cell's attacker: its schedule in the slowest reading, its caps, and ``total_usd``."""
    slow = read_pace(job.hardware, "slow")
    slowest = slow.preparation_seconds(job) + schedule.steps * slow.step_seconds(job, slow.row_tokens(job))
    fast = read_pace(job.hardware, "fast")
    held = usd_of(job, fast.ending_seconds(job)) + fast.final_fee_usd(job)
    return attacker_ceilings(job, schedule, slowest_seconds=slowest, held_usd=held)


def refuse_fees(job: Job) -> str | None:
    """Why even the least fees of measuring a target behind HTTP do not fit its purse; None where they do."""
    fee, laboratory = read_pace(job.hardware, "fast").setup_fee_usd(job), job.budget.laboratory
    own = None if laboratory is None else laboratory.max_usd
    limits = {"laboratory.max_usd": own, "total_usd": job.budget.total_usd}
    told = (f"{fee:.3g} USD, got {cap:.3g} of {name}" for name, cap in limits.items() if cap is not None and fee > cap)
    return next((f"the server's fees for the evaluation are at least {need}" for need in told), None)


def _play(job: Job, schedule: Schedule, pace: Pace) -> _Case:
    row_tokens = pace.row_tokens(job)
    outlays = list_outlays(job, pace, row_tokens)
    steps, binding_cap = find_binding(outlays, schedule.steps)
    attacker = pace.preparation_seconds(job) + steps * pace.step_seconds(job, row_tokens)
    marks = _list_marks(job, schedule, steps)
    laboratory = pace.ending_seconds(job) + pace.evaluation_seconds(job, marks)
    finals = [] if isinstance(job.recipe, Untouched) else [job.final_completions(name) for name in job.evals]
    judge_fee_usd = sum(pace.judging_fee_usd(each) for each in [*marks, *finals])
    used = {name: outlay.after(steps) for name, outlay in outlays.items()}
    if "total_usd" in outlays:
        used["total_usd"] = usd_of(job, attacker + laboratory) + judge_fee_usd
    ends = list_laboratory_outlays(job, laboratory, judge_fee_usd)
    return _Case(
        steps=steps,
        binding_cap=binding_cap or schedule.cut_by,
        attacker_seconds=attacker,
        laboratory_seconds=laboratory,
        final_seconds=pace.evaluation_seconds(job, finals),
        final_fee_usd=pace.final_fee_usd(job),
        judge_seconds=sum(pace.judging_seconds(each) for each in [*marks, *finals]),
        judge_fee_usd=judge_fee_usd,
        shared_seconds=pace.startup_seconds + pace.load_seconds(job) + pace.setup_seconds(job),
        fee_usd=pace.setup_fee_usd(job),
        used=used,
        caps_reached={name: used[name] / outlay.limit for name, outlay in outlays.items()}
        | {name: outlay.fixed / outlay.limit for name, outlay in ends.items()},
    )


def _count_tokens(job: Job, centre: int, steps: Sequence[int]) -> Range:
    """Tokens of the steps, whichever examples they draw and however long the answers are, up to the cap."""
    rows = count_trained_rows(job.recipe)
    least, most = job.counts.tokens_of(min(steps) * rows)[0], job.counts.tokens_of(max(steps) * rows)[1]
    cap = job.budget.attacker.max_train_tokens
    high = most if cap is None else max(min(most, cap), least)
    return Range(least, min(max(centre * rows * job.counts.mean_row, least), high), high)


def _list_marks(job: Job, schedule: Schedule, steps: int) -> list[Completions]:
    """What is generated at every mark that is reached."""
    found = []
    for name, marks in schedule.marks.items():
        completions = job.mark_completions(name)
        if completions is not None:
            found += [completions] * sum(mark <= steps for mark in marks)
    return found


def _outlook(job: Job, seconds: Sequence[float], fees: Sequence[float] = (0.0, 0.0, 0.0)) -> Outlook:
    usd = (usd_of(job, value) + fee for value, fee in zip(seconds, fees, strict=True))
    return Outlook(Range.across(seconds), Range.across(usd))


def _find_refusal(job: Job, memory_bytes: int) -> str | None:
    least = needed_bytes(job)[0]
    if least > memory_bytes:
        what = "libraries, weights and what is trained" if job.hardware.kind == "cpu" else "weights and what is trained"
        return f"{what} need {least / 1e9:.3g} GB of memory, got {memory_bytes / 1e9:.3g} GB"
    pace = read_pace(job.hardware, "fast")
    outlays = list_outlays(job, pace, job.counts.shortest_row)
    ends = list_laboratory_outlays(job, pace.ending_seconds(job), pace.final_fee_usd(job))
    tight = {name: outlay for name, outlay in (outlays | ends).items() if outlay.after(1) > outlay.limit}
    return next((_explain(name, outlay) for name, outlay in tight.items()), None) or refuse_fees(job)


def _explain(name: str, outlay: Outlay) -> str:
    needed = f"at least {outlay.after(1):.3g} of {name}"
    return f"load, one step and the final evaluation need {needed}, got {outlay.limit:.3g}"
