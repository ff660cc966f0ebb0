"""Estimate against actual: what a cell or a purse was expected to cost beforehand, and what it did. Estimates none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from robustlab.record.results import CellResult, PurseResult
from robustlab.report.wording import never_began
from robustlab.units import MICRO_PER_USD, format_count, format_flops, format_seconds, format_usd

_BYTES_PER_GB = 10**9
_Compared = tuple[str, object, float | None, Callable[[float], str]]


@dataclass(frozen=True)
class Forecast:
    """One quantity, expected and recorded, as people read it.

    Attributes:
        name: What.
        low: Lowest that was expected.
        centre: What was expected.
        high: Highest that was expected.
        actual: What was recorded.
        is_inside: Whether the actual lies within the bounds.
    """

    name: str
    low: str
    centre: str
    high: str
    actual: str
    is_inside: bool


def list_forecasts(cell: CellResult) -> list[Forecast]:
    """Set every estimated quantity of a cell beside what was recorded.

    What either lacks is left out; a cell that never began, or could not be run to its end, is held against nothing.
    """
    attacker, laboratory, expected = cell.cost.attacker, cell.cost.laboratory, cell.estimate
    compared: list[_Compared] = [
        ("attacker, USD", _part(expected, "attacker", "usd"), attacker.micro_usd / MICRO_PER_USD, _usd),
        ("attacker, time", _part(expected, "attacker", "seconds"), attacker.wall_seconds, format_seconds),
        ("laboratory, USD", _part(expected, "laboratory", "usd"), laboratory.micro_usd / MICRO_PER_USD, _usd),
        ("laboratory, time", _part(expected, "laboratory", "seconds"), laboratory.wall_seconds, format_seconds),
        ("steps", expected.get("steps"), attacker.steps, _count),
        ("train tokens", expected.get("train_tokens"), attacker.train_tokens, _count),
        ("compute of the steps", expected.get("flops"), _training_flops(cell), _flops),
        ("memory at the peak", expected.get("memory_bytes"), cell.peak_memory_bytes, _gigabytes),
    ]
    return [] if never_began(cell) or cell.fault is not None else list(_compare(compared))


def list_purse_forecasts(purse: PurseResult) -> list[Forecast]:
    """Set what a budget's cells and their shared work were expected to cost beside what they did."""
    attacker, laboratory = purse.attacker_micro_usd, purse.laboratory_micro_usd
    expected: Mapping[str, object] = purse.estimate or {}
    compared: list[_Compared] = [
        ("attacker, USD", _part(expected, "attacker", "usd"), attacker / MICRO_PER_USD, _usd),
        ("laboratory, USD", _part(expected, "laboratory", "usd"), laboratory / MICRO_PER_USD, _usd),
        ("total, USD", expected.get("total_usd"), purse.total_micro_usd / MICRO_PER_USD, _usd),
        ("wall time", expected.get("wall_seconds"), purse.wall_seconds, format_seconds),
    ]
    return list(_compare(compared))


def forecast_line(cell: CellResult) -> str | None:
    """Say on one line how the attacker's cost lies in its estimate; None where nothing was estimated."""
    found = {forecast.name: forecast for forecast in list_forecasts(cell)}
    money, time = found.get("attacker, USD"), found.get("attacker, time")
    if money is None or time is None:
        return None
    inside = "inside" if money.is_inside and time.is_inside else "OUTSIDE"
    return f"{money.low} to {money.high} and {time.low} to {time.high} for the attacker; the actual lies {inside}"


def _compare(compared: Sequence[_Compared]) -> Iterator[Forecast]:
    for name, bounds, actual, write in compared:
        low, centre, high = _bounds(bounds)
        if low is None or centre is None or high is None or actual is None:
            continue
        yield Forecast(name, write(low), write(centre), write(high), write(actual), low <= actual <= high)


def _part(expected: Mapping[str, object], scope: str, name: str) -> object:
    found = expected.get(scope)
    return found.get(name) if isinstance(found, dict) else None


def _bounds(found: object) -> tuple[float | None, float | None, float | None]:
    """Low, centre and high of a range; a single figure is its own centre and has no bounds."""
    if not isinstance(found, dict):
        return None, None, None
    low, centre, high = (found.get(key) for key in ("low", "centre", "high"))
    numbers = [value if isinstance(value, int | float) else None for value in (low, centre, high)]
    return numbers[0], numbers[1], numbers[2]


def _training_flops(cell: CellResult) -> float | None:
    found = [phase.flops for phase in cell.phases if (phase.account, phase.phase) == ("attacker", "train")]
    return float(sum(found)) if found else None


def _usd(usd: float) -> str:
    return format_usd(round(usd * MICRO_PER_USD))


def _count(value: float) -> str:
    return format_count(round(value))


def _flops(value: float) -> str:
    return format_flops(round(value))


def _gigabytes(value: float) -> str:
    return f"{value / _BYTES_PER_GB:.2f} GB"
