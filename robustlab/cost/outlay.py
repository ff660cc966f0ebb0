"""What a job would use of each cap: a fixed part before step 1 and a part for each step.

Caps are checked in the order of ``robustlab.cost.caps``: the attacker's, then ``total_usd``, of which the laboratory's
probe step and final measurement are held back. This module does not know measured time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from robustlab.cost.caps import read_limits
from robustlab.cost.job import Job
from robustlab.cost.pace import Pace
from robustlab.cost.recipes import count_trained_rows
from robustlab.units import exact_usd


@dataclass(frozen=True)
class Outlay:
    """Use of one cap, in the cap's unit.

    Attributes:
        limit: The cap.
        fixed: What is used before step 1 and, for ``total_usd``, after the last.
        per_step: What each step uses.
    """

    limit: float
    fixed: float
    per_step: float

    def after(self, steps: int) -> float:
        """What is used after ``steps`` steps."""
        return self.fixed + steps * self.per_step

    def affordable(self, steps: int) -> int:
        """How many of ``steps`` steps the cap allows, >= 0."""
        if self.after(steps) <= self.limit:
            return steps
        if self.per_step == 0:
            return 0
        return min(max(int((self.limit - self.fixed) / self.per_step), 0), steps)


def list_outlays(job: Job, pace: Pace, row_tokens: int) -> dict[str, Outlay]:
    """Use of each cap that ends the attacker's work, by its name in the order of the checks.

    Args:
        job: What is to be run.
        pace: A reading of the device.
        row_tokens: Length of the training examples.

    Returns:
        One entry for each cap that the budget sets; caps that it leaves open are absent.
    """
    ready, step = pace.preparation_seconds(job), pace.step_seconds(job, row_tokens)
    used = {
        "max_usd": (usd_of(job, ready), usd_of(job, step)),
        "max_wall_hours": (ready / 3600, step / 3600),
        "max_device_hours": (ready * job.devices / 3600, step * job.devices / 3600),
        "max_train_tokens": (0.0, float(count_trained_rows(job.recipe) * row_tokens)),
        "max_steps": (0.0, 1.0),
        "max_trials": (1.0, 0.0),
        "total_usd": (usd_of(job, ready + pace.ending_seconds(job)) + pace.final_fee_usd(job), usd_of(job, step)),
    }
    return {name: Outlay(float(limit), *used[name]) for name, limit in _limits(job).items()}


def list_laboratory_outlays(job: Job, seconds: float, fee_usd: float) -> dict[str, Outlay]:
    """Use of each of the laboratory's caps by some seconds and US dollars of its work, by its name on the bill."""
    hours = seconds / 3600
    used = {"max_usd": usd_of(job, seconds) + fee_usd, "max_wall_hours": hours, "max_device_hours": hours * job.devices}
    limits = read_limits(job.budget.laboratory)
    return {f"laboratory.{name}": Outlay(float(limits[name]), used[name], 0.0) for name in used if name in limits}


def find_binding(outlays: Mapping[str, Outlay], steps: int) -> tuple[int, str | None]:
    """How many steps all caps allow together.

    Args:
        outlays: Use of each cap, in the order of the checks.
        steps: Steps of the recipe.

    Returns:
        Steps that can be afforded and the first cap that allows no more, None when all ``steps`` can be.
    """
    affordable = {name: outlay.affordable(steps) for name, outlay in outlays.items()}
    fewest = min(affordable.values(), default=steps)
    return fewest, next((name for name, count in affordable.items() if count == fewest < steps), None)


def usd_of(job: Job, seconds: float) -> float:
    """US dollars of a stretch of time on the job's devices."""
    return float(job.usd_per_device_hour) * job.devices * seconds / 3600


def _limits(job: Job) -> dict[str, Fraction]:
    total = {} if job.budget.total_usd is None else {"total_usd": exact_usd(job.budget.total_usd)}
    return read_limits(job.budget.attacker) | total
