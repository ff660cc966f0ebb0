"""Fixes what an attack will do before step 1: how many steps, at which learning rates, measured when.

The recipe is only cut by what even the most optimistic reading of the device can never afford; the caps do the exact
stopping. Pure functions of specs and numbers: equal inputs, equal schedule, on any machine.
"""

import math

from robustlab.cost.job import Job
from robustlab.cost.outlay import find_binding, list_outlays
from robustlab.cost.pace import read_pace
from robustlab.cost.recipes import count_steps, find_optimizer
from robustlab.spec.plan import Schedule
from robustlab.spec.training import Optimizer


def plan_schedule(job: Job) -> Schedule:
    """Fix the schedule of a cell.

    Args:
        job: The cell before it has a schedule.

    Returns:
        The schedule. It has no step when not even one can be afforded; ``estimate_cell`` then refuses the cell.
    """
    outlays = list_outlays(job, read_pace(job.hardware, "fast"), job.counts.shortest_row)
    steps, cut_by = find_binding(outlays, count_steps(job.recipe))
    optimizer = find_optimizer(job.recipe)
    milestones = {name: spec.milestones for name, spec in job.evals.items() if spec.milestones is not None}
    return Schedule(
        steps=steps,
        cut_by=cut_by,
        learning_rates=(0.0,) * steps if optimizer is None else list_learning_rates(optimizer, steps),
        marks={name: list_marks(steps, milestone.per_decade) for name, milestone in milestones.items()},
    )


def list_learning_rates(optimizer: Optimizer, steps: int) -> tuple[float, ...]:
    """Learning rate of each step.

    Step k of the warm-up has k / (warmup_steps + 1) of the peak, so that no step is spent at 0. The first step after
    it has the peak; a linear curve then falls by equal amounts and a cosine along half a wave, towards 0 one step
    after the last.
    """
    return tuple(optimizer.learning_rate * _share_of_peak(optimizer, step, steps) for step in range(1, steps + 1))


def list_marks(steps: int, per_decade: int) -> tuple[int, ...]:
    """Steps after which a milestone is measured: marks in cost, frozen as steps.

    Every step costs the same, so marks that are geometric in cost are geometric in steps: ``round(10 ** (i /
    per_decade))`` for i = 1, 2, ..., strictly between step 1 and the last. 32 steps with 2 marks a decade give 3 and
    10.
    """
    marks: list[int] = []
    index, step = 1, round(10 ** (1 / per_decade))
    while step < steps:
        if step > 1 and step not in marks[-1:]:
            marks.append(step)
        index += 1
        step = round(10 ** (index / per_decade))
    return tuple(marks)


def _share_of_peak(optimizer: Optimizer, step: int, steps: int) -> float:
    warmup = optimizer.warmup_steps
    if step <= warmup:
        return step / (warmup + 1)
    progress = (step - warmup - 1) / (steps - warmup)
    if optimizer.curve == "linear":
        return 1 - progress
    return (1 + math.cos(math.pi * progress)) / 2 if optimizer.curve == "cosine" else 1.0
