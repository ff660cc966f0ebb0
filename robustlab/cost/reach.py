"""What each cap of a budget can reach under the other caps and the work itself: which one binds, may bind or cannot.

Time and money of an account are one figure in three units, its hours on the wall clock: a cap in dollars, in hours or
in device hours bounds the other two. 10 hours of one device at $2.95 are $29.50, so that a cap of $500 never binds
there. The work is bounded by the slowest reading of the device, which is an estimate; a bound by another cap is exact.
This module does not know measured time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from robustlab.cost.caps import read_limits
from robustlab.cost.job import Job
from robustlab.cost.pace import Range
from robustlab.cost.recipes import count_trained_rows
from robustlab.spec.budgets import CAP_NAMES, Caps
from robustlab.spec.plan import Schedule
from robustlab.units import exact_usd, format_count

Status = Literal["binds", "can bind", "not expected", "cannot bind"]
Reachable = tuple[float, str]
TIMED = ("max_usd", "max_wall_hours", "max_device_hours")
WORK, TOTAL = "work", "total_usd"
# Where two bounds are equal, the one that is checked first is the one that binds; work that ends passes no cap.
_ORDER = (WORK, *CAP_NAMES, TOTAL)


@dataclass(frozen=True)
class CapUse:
    """One cap against what will be used of it, in the cap's own unit.

    Attributes:
        limit: The cap.
        use: What will be used at the end.
        reach: The most that can be used under the other caps and the schedule.
        status: ``binds`` where the centre runs into it, ``cannot bind`` where another cap or the schedule always ends
            the work before, ``not expected`` where the work ends before by every reading of the device, else
            ``can bind``.
        reason: Why it cannot bind or is not expected to; None where it is or can.
    """

    limit: float
    use: Range
    reach: float
    status: Status
    reason: str | None


@dataclass(frozen=True)
class Ceiling:
    """Something that bounds an account's time.

    Attributes:
        name: The cap, ``total_usd``, or ``work`` for the work itself.
        hours: Hours on the wall clock, >= 0.
        words: How the bound is told.
    """

    name: str
    hours: Fraction
    words: str


def list_ceilings(job: Job, caps: Caps | None, *, total_hours: Fraction | None, work: Ceiling) -> list[Ceiling]:
    """Everything that bounds the time of one account.

    Args:
        job: Its rate and devices are used.
        caps: Caps of the account.
        total_hours: Hours that ``total_usd`` leaves to the account; None where there is no such cap.
        work: How long the work can take at the most.

    Returns:
        The work first, then the caps in the order of the checks.
    """
    limits = read_limits(caps)
    found = [
        Ceiling(name, _hours(job, name, limits[name]), _tell(name, limits[name])) for name in TIMED if name in limits
    ]
    return [work, *found, *([] if total_hours is None else [Ceiling(TOTAL, max(total_hours, Fraction(0)), TOTAL)])]


def judge_timed(
    job: Job, name: str, limit: Fraction, use: Range, ceilings: Sequence[Ceiling], *, binds: bool
) -> CapUse:
    """Hold a cap of time or money against everything else that bounds its account.

    Args:
        job: Its rate and devices are used.
        name: One of ``TIMED``.
        limit: The cap.
        use: What will be used of it.
        ceilings: What ``list_ceilings`` found.
        binds: Whether the centre runs into it.

    Returns:
        The cap, with the reason where it cannot bind.
    """
    others = [ceiling for ceiling in ceilings if ceiling.name != name]
    reach = {ceiling.name: _amount(job, name, ceiling.hours) for ceiling in others}
    most = min(reach.values())
    stopping = [ceiling for ceiling in others if _stops(reach[ceiling.name], ceiling.name, limit, name)]
    lowest_cap = min((c for c in stopping if c.name != WORK), key=lambda c: c.hours, default=None)
    # A bound by a cap is exact, so it is told even where the work is expected to end long before.
    told = [c for c in stopping if c is lowest_cap or (c.name == WORK and reach[WORK] == most)]
    reason = ", ".join(_explain(job, name, ceiling, reach[ceiling.name]) for ceiling in reversed(told))
    status: Status = "cannot bind" if lowest_cap else "not expected" if told else "can bind"
    return _verdict(float(limit), use, (float(most), reason), binds=binds, else_status=status)


def judge_count(limit: float, use: Range, reachable: Reachable, *, binds: bool) -> CapUse:
    """Hold a cap against the most that can be used of it, which is told in words beside it."""
    return _verdict(
        limit, use, reachable, binds=binds, else_status="cannot bind" if reachable[0] <= limit else "can bind"
    )


def list_attacker_caps(
    job: Job, schedule: Schedule, uses: Mapping[str, Range], binding_cap: str | None, ceilings: Sequence[Ceiling]
) -> dict[str, CapUse]:
    """Every cap of a cell's attacker.

    Args:
        job: The cell before it has a schedule.
        schedule: Its schedule.
        uses: What will be used of each cap.
        binding_cap: The cap that ends the training by the centre; None where none does.
        ceilings: What bounds the attacker's time.

    Returns:
        The caps that the budget sets, by name in the order of the checks.
    """
    most = job.counts.tokens_of(schedule.steps * count_trained_rows(job.recipe))[1]
    cut = f"{schedule.cut_by} cuts its schedule to" if schedule.cut_by else "its schedule has"
    counted: dict[str, Reachable] = {
        "max_train_tokens": (most, f"its {schedule.steps} steps read at most {format_count(most)} tokens"),
        "max_steps": (schedule.steps, f"{cut} {schedule.steps} steps"),
        "max_trials": (1, "a cell is one trial; only a search counts several"),
    }
    found = {}
    for name, limit in read_limits(job.budget.attacker).items():
        binds = name == binding_cap
        if name in counted:
            found[name] = judge_count(float(limit), uses[name], counted[name], binds=binds)
        else:
            found[name] = judge_timed(job, name, limit, uses[name], ceilings, binds=binds)
    return found


def attacker_ceilings(job: Job, schedule: Schedule, *, slowest_seconds: float, held_usd: float) -> list[Ceiling]:
    """What bounds the time of a cell's attacker.

    Args:
        job: The cell before it has a schedule.
        schedule: Its schedule.
        slowest_seconds: The whole schedule in the slowest reading.
        held_usd: What is held back of ``total_usd`` for the laboratory at the least.

    Returns:
        The schedule first, then the caps in the order of the checks.
    """
    total = job.budget.total_usd
    left = None if total is None else _hours(job, "max_usd", exact_usd(total) - Fraction(held_usd))
    work = Ceiling(WORK, Fraction(slowest_seconds) / 3600, f"its {schedule.steps} steps")
    return list_ceilings(job, job.budget.attacker, total_hours=left, work=work)


def most_usd(job: Job, ceilings: Sequence[Ceiling]) -> tuple[Fraction, bool]:
    """The most that an account can be billed whatever ``total_usd`` is, and whether a cap says so and not the work."""
    tightest = min((ceiling for ceiling in ceilings if ceiling.name != TOTAL), key=lambda ceiling: ceiling.hours)
    return _amount(job, "max_usd", tightest.hours), tightest.name != WORK


def judge_total(limit: float, use: Range, bounds: Sequence[tuple[Fraction, bool]], *, binds: bool) -> CapUse:
    """Hold ``total_usd`` against the most that each account can be billed, as ``most_usd`` gives it."""
    most, is_capped = float(sum(bound for bound, _ in bounds)), all(capped for _, capped in bounds)
    told = f"attacker and laboratory together {'' if is_capped else 'are expected to '}use at most {show_usd(most)}"
    outside: Status = "cannot bind" if is_capped else "not expected"
    return _verdict(limit, use, (most, told), binds=binds, else_status=outside if most <= limit else "can bind")


def show_usd(usd: float) -> str:
    """Write dollars as ``$29.50`` from a dollar up, else to the millionth and without idle zeros: ``$0.0496``."""
    return f"${usd:,.2f}" if usd >= 1 else "$" + f"{usd:.6f}".rstrip("0").rstrip(".")


def _stops(reach: Fraction, other: str, limit: Fraction, name: str) -> bool:
    """Whether a bound ends the work before a cap can; of two that are equal, the one that is checked first does."""
    return reach < limit or (reach == limit and _ORDER.index(other) < _ORDER.index(name))


def _verdict(limit: float, use: Range, reachable: Reachable, *, binds: bool, else_status: Status) -> CapUse:
    status: Status = "binds" if binds else else_status
    return CapUse(limit, use, reachable[0], status, None if status in ("binds", "can bind") else reachable[1])


def _hours(job: Job, name: str, limit: Fraction) -> Fraction:
    """Hours on the wall clock that a cap of an account allows."""
    return limit / _per_hour(job, name)


def _amount(job: Job, name: str, hours: Fraction) -> Fraction:
    return hours * _per_hour(job, name)


def _per_hour(job: Job, name: str) -> Fraction:
    """What an hour on the wall clock uses of a cap."""
    rates = {"max_usd": job.usd_per_device_hour * job.devices, "max_wall_hours": Fraction(1)}
    return rates.get(name, Fraction(job.devices))


def _tell(name: str, amount: Fraction) -> str:
    figure = float(amount)
    if name == "max_usd":
        return show_usd(figure)
    return f"{figure:.3g} h" if name == "max_wall_hours" else f"{figure:.3g} device hours"


def _explain(job: Job, name: str, ceiling: Ceiling, reach: Fraction) -> str:
    figure = _tell(name, reach)
    if ceiling.name == WORK:
        return f"{ceiling.words} are expected to use at most {figure}"
    if ceiling.name == TOTAL:
        return f"total_usd leaves at most {figure}"
    pair = {ceiling.name, name}
    # Dollars and device hours are one figure whatever the number of devices; the wall clock is what it multiplies.
    devices = f" on {job.devices} devices" if job.devices > 1 and "max_wall_hours" in pair else ""
    price = f" at {show_usd(float(job.usd_per_device_hour))}" if "max_usd" in pair else ""
    return f"{ceiling.words}{devices}{price} are {figure}"
