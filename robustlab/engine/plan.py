"""Prices a plan with what is on this machine already: no network, no torch, no spending."""

from collections.abc import Callable, Mapping
from pathlib import Path

from robustlab.cost.bill import PurseEstimate, RunEstimate
from robustlab.cost.estimate import Estimate
from robustlab.cost.hardware import detect_devices
from robustlab.cost.pace import Range
from robustlab.cost.prices import PriceCard
from robustlab.cost.reach import CapUse
from robustlab.data.sources import cache_root, is_fetched
from robustlab.engine.resolve import Resolution, find_recipe, find_user_source, reopen_plan, resolve_plan
from robustlab.errors import DataError
from robustlab.spec.catalog import load
from robustlab.spec.evals import Eval
from robustlab.spec.plan import Cell, Plan, ResolvedPlan
from robustlab.spec.safeguards import NoSafeguard
from robustlab.spec.sources import GeneratedSource, Source
from robustlab.spec.targets import Target
from robustlab.train.counts import Counter
from robustlab.units import MICRO_PER_USD, format_count, format_seconds, format_usd

Row = tuple[str, ...]
BAND_COLUMNS: Row = ("", "low", "centre", "high")
CAP_COLUMNS: Row = ("cap", "limit", "low", "centre", "high", "at most", "")


def resolve_offline(
    plan: Plan | ResolvedPlan, *, data_csv: Path | None, shadow_price: str | None, card: PriceCard
) -> Resolution:
    """Resolve a plan without fetching anything.

    Args:
        plan: Ids, or cells that were resolved before.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card.

    Returns:
        Cells, rows and estimates; ``exact`` is False where lengths had to be guessed because nothing was counted yet.

    Raises:
        ConfigError: If an id does not exist, a file is not valid or an eval has no rows left.
        DataError: If the rows of an eval or a safeguard have not been fetched yet.
    """
    device = detect_devices()
    _require_fetched(plan, data_csv)
    if isinstance(plan, ResolvedPlan):
        return reopen_plan(plan, card=card, device=device, counter_of=_count_cached)
    return resolve_plan(
        plan, card=card, device=device, counter_of=_count_cached, data_csv=data_csv, shadow_price=shadow_price
    )


def describe_cell(estimate: Estimate) -> list[Row]:
    """Low, centre and high of everything that a cell will cost, under ``BAND_COLUMNS``."""
    return [
        _line("attacker USD", estimate.attacker.usd, _usd),
        _line("laboratory USD", estimate.laboratory.usd, _usd),
        _line("shared USD, once", estimate.shared.usd, _usd),
        _line("attacker time", estimate.attacker.seconds, format_seconds),
        _line("laboratory time", estimate.laboratory.seconds, format_seconds),
        _line("of it the final evaluation", estimate.final.seconds, format_seconds),
        *_describe_judges(estimate),
        _line("start, safeguard and baseline, once", estimate.shared.seconds, format_seconds),
        _line("steps", estimate.steps, _count),
        _line("train tokens", estimate.train_tokens, _count),
        _line("memory", estimate.memory_bytes, _memory),
    ]


def describe_caps(estimate: Estimate, purse: PurseEstimate) -> list[Row]:
    """Every cap of a cell's attacker, then those that all cells of its purse share, under ``CAP_COLUMNS``."""
    return [_cap_line(name, cap) for caps in (estimate.caps, purse.caps) for name, cap in caps.items()]


def describe_purse(cell: Cell) -> str:
    """Whose purse pays for a cell, and whether anybody has checked the claim that it quotes."""
    budget = cell.budget
    return budget.stands_for if budget.details is None else f"{budget.stands_for} (details: {budget.details})"


def describe_run(run: RunEstimate) -> list[Row]:
    """Low, centre and high of the whole run's bill and, where there are several, of each purse's."""
    rows = _bill("", run)
    for name, purse in run.purses.items() if len(run.purses) > 1 else ():
        rows += _bill(f"{name}: ", purse)
    return rows


def describe_memory(estimate: Estimate) -> str:
    """What a cell needs of the device's memory, and whether that may do."""
    needed, there = estimate.memory_bytes, estimate.device_memory_bytes
    figures = f"memory: {_memory(needed.low)} to {_memory(needed.high)} needed, the device has {_memory(there)}"
    if needed.low > there:
        return f"{figures}: does not fit"
    return f"{figures}: fits" if needed.high <= there else f"{figures}: may not fit"


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
    return f"may proceed; {ends}; caps used: {reached}"


def _describe_judges(estimate: Estimate) -> list[Row]:
    """What the second judges of a cell take of its laboratory; nothing where that is nothing to speak of."""
    if estimate.judge_seconds.high == estimate.judge_fee_usd.high == 0:
        return []
    return [
        _line("of it the second judges", estimate.judge_seconds, format_seconds),
        _line("their fees in USD", estimate.judge_fee_usd, _usd),
    ]


def _require_fetched(plan: Plan | ResolvedPlan, data_csv: Path | None) -> None:
    """Refuse where resolving would have to go to the network."""
    if isinstance(plan, ResolvedPlan):
        evals = {name: spec for cell in plan.cells for name, spec in cell.evals.items()}
        safeguards = {cell.safeguard_id: cell.safeguard for cell in plan.cells}
        attacks = {cell.attack_id: cell.recipe for cell in plan.cells}
        data_csv = Path(plan.data_csv) if plan.data_csv else None
    else:
        evals = {name: load("evals", name) for name in plan.evals}
        safeguards = {name: load("safeguards", name) for name in plan.safeguards}
        attacks = {name: find_recipe(name, load("attacks", name)) for name in plan.attacks}
    needed = {} if data_csv is not None else _list_sources(evals)
    for name, spec in safeguards.items():
        if not isinstance(spec, NoSafeguard) and spec.install is not None:
            needed[f"safeguard {name}"] = spec.install
    for name, recipe in attacks.items():
        if (own := find_user_source(recipe)) is not None:
            needed[f"attack {name}"] = own
    for label, source in needed.items():
        if not is_fetched(source):
            remedy = f"run `robustlab fetch {label.split()[-1]}` first"
            raise DataError(label, "its rows are not in the cache", remedy)


def _list_sources(evals: Mapping[str, Eval]) -> dict[str, Source]:
    """Where the rows of each eval come from, by its label; rows that are made come from nowhere."""
    sources = {f"eval {name}": spec.source for name, spec in evals.items()}
    return {label: source for label, source in sources.items() if not isinstance(source, GeneratedSource)}


def _bill(prefix: str, bill: RunEstimate | PurseEstimate) -> list[Row]:
    return [
        _line(f"{prefix}attacker USD", bill.attacker.usd, _usd),
        _line(f"{prefix}laboratory USD", bill.laboratory.usd, _usd),
        _line(f"{prefix}total USD", bill.total_usd, _usd),
        _line(f"{prefix}wall time", bill.wall_seconds, format_seconds),
    ]


def _cap_line(name: str, cap: CapUse) -> Row:
    write = next((write for ending, write in _UNITS.items() if name.endswith(ending)), _count)
    figures = (cap.limit, cap.use.low, cap.use.centre, cap.use.high, cap.reach)
    return name, *(write(figure) for figure in figures), f"{cap.status}: {cap.reason}" if cap.reason else cap.status


def _line(name: str, found: Range, write: Callable[[float], str]) -> Row:
    return name, write(found.low), write(found.centre), write(found.high)


def _usd(usd: float) -> str:
    return format_usd(round(usd * MICRO_PER_USD))


def _hours(hours: float) -> str:
    return f"{hours:.3g} h"


def _memory(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _count(value: float) -> str:
    return format_count(round(value))


_UNITS: Mapping[str, Callable[[float], str]] = {"usd": _usd, "hours": _hours}


def _count_cached(name: str, target: Target) -> Counter:
    return Counter(target, None, cache_root())
