"""What a cell will cost, before anything is spent: low, centre and high, the cap that will bind, whether it can fit.

The bands come from the three readings of the device in ``robustlab.cost.pace``; prices are the card's. A cell is
refused only if load, one step and the final measurement, or memory, cannot fit even at best. This module does not know
measured time.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from robustlab.cost.flops import lora_step
from robustlab.cost.job import Job
from robustlab.cost.memory import needed_bytes
from robustlab.cost.outlay import Outlay, find_binding, list_laboratory_outlays, list_outlays, usd_of
from robustlab.cost.pace import READINGS, Pace, read_pace
from robustlab.errors import CannotFit
from robustlab.spec.plan import Schedule


@dataclass(frozen=True)
class Range:
    """A figure with its bounds, low <= centre <= high."""

    low: float
    centre: float
    high: float

    @classmethod
    def across(cls, values: Iterable[float]) -> "Range":
        """The range of three readings."""
        return cls(*sorted(values))


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
        laboratory: Probe step, milestones and final measurement.
        shared: Start-up and baseline, paid by the laboratory once for all cells of one released target.
        steps: Steps that the caps allow; low is that of the slowest reading.
        train_tokens: Tokens of those steps.
        flops: Operations of the centre's steps.
        memory_bytes: Peak on one device; rough.
        binding_cap: Cap that will end the training before the schedule does, by the centre; None when none will.
        caps_reached: Share of every cap that will be used, by name and by the centre.
        refusal: Why the cell cannot fit; None when it may proceed.
    """

    attacker: Outlook
    laboratory: Outlook
    shared: Outlook
    steps: Range
    train_tokens: Range
    flops: int
    memory_bytes: Range
    binding_cap: str | None
    caps_reached: dict[str, float]
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
    shared_seconds: float
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
    training, rows = job.recipe.training, [job.counts.mean_row] * job.recipe.training.batch_rows
    return Estimate(
        attacker=_outlook(job, [case.attacker_seconds for case in cases]),
        laboratory=_outlook(job, [case.laboratory_seconds for case in cases]),
        shared=_outlook(job, [case.shared_seconds for case in cases]),
        steps=Range.across(case.steps for case in cases),
        train_tokens=Range.across(case.steps * training.batch_rows * job.counts.mean_row for case in cases),
        flops=centre.steps * lora_step(job.target.shape, rows, adapter_parameters=job.adapter_parameters),
        memory_bytes=Range(*needed_bytes(job)),
        binding_cap=centre.binding_cap,
        caps_reached=centre.caps_reached,
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


def _play(job: Job, schedule: Schedule, pace: Pace) -> _Case:
    outlays = list_outlays(job, pace, job.counts.mean_row)
    steps, binding_cap = find_binding(outlays, schedule.steps)
    attacker = pace.preparation_seconds(job) + steps * pace.step_seconds(job, job.counts.mean_row)
    laboratory = pace.ending_seconds(job) + _marks_seconds(job, schedule, pace, steps)
    baseline = pace.evaluation_seconds(job, (job.final_completions(name) for name in job.evals))
    reached = {name: outlay.after(steps) / outlay.limit for name, outlay in outlays.items()}
    if "total_usd" in outlays:
        reached["total_usd"] = usd_of(job, attacker + laboratory) / outlays["total_usd"].limit
    ends = list_laboratory_outlays(job, laboratory)
    return _Case(
        steps=steps,
        binding_cap=binding_cap or schedule.cut_by,
        attacker_seconds=attacker,
        laboratory_seconds=laboratory,
        shared_seconds=pace.startup_seconds + baseline,
        caps_reached=reached | {name: outlay.fixed / outlay.limit for name, outlay in ends.items()},
    )


def _marks_seconds(job: Job, schedule: Schedule, pace: Pace, steps: int) -> float:
    total = 0.0
    for name, marks in schedule.marks.items():
        completions = job.mark_completions(name)
        reached = sum(mark <= steps for mark in marks)
        if completions is not None:
            total += reached * pace.generation_seconds(job.target.shape, completions)
    return total


def _outlook(job: Job, seconds: list[float]) -> Outlook:
    return Outlook(Range.across(seconds), Range.across(usd_of(job, value) for value in seconds))


def _find_refusal(job: Job, memory_bytes: int) -> str | None:
    least = needed_bytes(job)[0]
    if least > memory_bytes:
        return f"weights and adapter need {least / 1e9:.3g} GB of memory, got {memory_bytes / 1e9:.3g} GB"
    pace = read_pace(job.hardware, "fast")
    outlays = list_outlays(job, pace, job.counts.shortest_row)
    ends = list_laboratory_outlays(job, pace.ending_seconds(job))
    tight = {name: outlay for name, outlay in (outlays | ends).items() if outlay.after(1) > outlay.limit}
    return next((_explain(name, outlay) for name, outlay in tight.items()), None)


def _explain(name: str, outlay: Outlay) -> str:
    needed = f"at least {outlay.after(1):.3g} of {name}"
    return f"load, one step and the final evaluation need {needed}, got {outlay.limit:.3g}"
