"""Prices a plan with what is on this machine already: no network, no torch, no spending."""

from collections.abc import Callable
from pathlib import Path

from robustlab.cost.estimate import Estimate, Range
from robustlab.cost.hardware import detect_cpu
from robustlab.cost.prices import load_price_card
from robustlab.data.sources import cache_root, is_fetched
from robustlab.engine.resolve import Resolution, reopen_plan, resolve_plan
from robustlab.errors import DataError
from robustlab.spec.catalog import load
from robustlab.spec.plan import Cell, Plan, ResolvedPlan
from robustlab.spec.targets import Target
from robustlab.train.counts import Counter
from robustlab.units import format_count, format_seconds


def resolve_offline(plan: Plan | ResolvedPlan, *, data_csv: Path | None, shadow_price: str | None) -> Resolution:
    """Resolve a plan without fetching anything.

    Args:
        plan: Ids, or cells that were resolved before.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.

    Returns:
        Cells, rows and estimates; ``exact`` is False where lengths had to be guessed because nothing was counted yet.

    Raises:
        ConfigError: If an id does not exist, a file is not valid or an eval has no rows left.
        DataError: If an eval's rows have not been fetched yet.
    """
    card, device = load_price_card(None), detect_cpu()
    if isinstance(plan, ResolvedPlan):
        return reopen_plan(plan, card=card, device=device, counter_of=_count_cached)
    for name in plan.evals:
        if data_csv is None and not is_fetched(load("evals", name).source):
            raise DataError(f"eval {name}", "its rows are not in the cache", f"run `robustlab fetch {name}` first")
    return resolve_plan(
        plan, card=card, device=device, counter_of=_count_cached, data_csv=data_csv, shadow_price=shadow_price
    )


def describe_cell(estimate: Estimate) -> list[tuple[str, str, str, str]]:
    """Low, centre and high of everything that a cell will cost, as rows of a table."""
    return [
        _line("attacker USD", estimate.attacker.usd, _usd),
        _line("laboratory USD", estimate.laboratory.usd, _usd),
        _line("attacker time", estimate.attacker.seconds, format_seconds),
        _line("laboratory time", estimate.laboratory.seconds, format_seconds),
        _line("start and baseline, once", estimate.shared.seconds, format_seconds),
        _line("steps", estimate.steps, _count),
        _line("train tokens", estimate.train_tokens, _count),
        _line("memory", estimate.memory_bytes, lambda size: f"{size / 1e9:.1f} GB"),
    ]


def describe_end(cell: Cell, estimate: Estimate) -> str:
    """What will end the attack, how much of each cap it will use by then, and whether it may start at all."""
    if estimate.refusal:
        return f"may not proceed: {estimate.refusal}"
    reached = ", ".join(f"{name} {share:.0%}" for name, share in estimate.caps_reached.items())
    ends = (
        f"{estimate.binding_cap} will end it"
        if estimate.binding_cap
        else f"its {cell.schedule.steps} steps will end it"
    )
    return f"may proceed; {ends}; caps used: {reached or 'there are none'}"


def _line(name: str, found: Range, write: Callable[[float], str]) -> tuple[str, str, str, str]:
    return name, write(found.low), write(found.centre), write(found.high)


def _usd(usd: float) -> str:
    return f"${usd:.6f}"


def _count(value: float) -> str:
    return format_count(round(value))


def _count_cached(name: str, target: Target) -> Counter:
    return Counter(target, None, cache_root())
