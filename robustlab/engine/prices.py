"""Shows a price card and says whether it can be relied on: valid, dated, of this age, for devices that are known.

Prices nothing; ``robustlab.cost.prices`` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from robustlab.cost.hardware import load_hardware
from robustlab.cost.prices import DevicePrice, PriceCard, TokenPrice, load_price_card
from robustlab.engine.doctor import Finding, examine_age
from robustlab.errors import ConfigError, InvalidFile

Unit = Literal["device-hour", "million prefill tokens", "million sampled tokens", "million train tokens"]


@dataclass(frozen=True)
class PriceRow:
    """One rate of a price card.

    Attributes:
        item: Key of the card.
        label: How people name it.
        kind: Whether time or tokens are billed.
        per: What the rate buys.
        usd: US dollars for one of them.
        low: Lowest price of a market survey; None when none was made.
        high: Highest price of a market survey; None when none was made.
        source: Who says so.
        as_of: Day on which the sources were read, ISO 8601.
        age_days: Days since then.
    """

    item: str
    label: str
    kind: Literal["device", "tokens"]
    per: Unit
    usd: float
    low: float | None
    high: float | None
    source: str
    as_of: str
    age_days: int

    def to_columns(self) -> dict[str, object]:
        """The row as a table for people shows it."""
        low, high = self.low or self.usd, self.high or self.usd
        band = "" if self.low is self.high is None else f"{_write(low)}-{_write(high)}"
        return {
            "item": self.item,
            "what": self.label,
            "USD": _write(self.usd),
            "per": self.per,
            "low-high": band,
            "as of": self.as_of,
            "days old": self.age_days,
            "source": self.source,
        }


def list_prices(card: PriceCard, today: date) -> list[PriceRow]:
    """Every rate of a card, devices first, in the order of the file.

    Args:
        card: The price card.
        today: For its age.

    Returns:
        One row for each rate that is offered; an item by the token has up to three.
    """
    devices = [row for key, price in card.prices.devices.items() for row in _device_rows(key, price, card, today)]
    tokens = [row for key, price in card.prices.tokens.items() for row in _token_rows(key, price, card, today)]
    return devices + tokens


def check_prices(path: Path | None, today: date) -> list[Finding]:
    """Look at a card before anything is priced by it.

    Args:
        path: The file; None for the card that came with the package.
        today: For its age.

    Returns:
        Findings, good and bad; a fault of the file is a finding and not an exception.
    """
    try:
        card = load_price_card(path)
    except InvalidFile as error:
        return [Finding(f"{f.path}:{f.line}", f"{f.field}: {f.problem}", False, "mend the card") for f in error.faults]
    except ConfigError as error:
        return [Finding(error.where, error.problem, False, error.remedy)]
    counts = f"devices: {len(card.prices.devices)}, items by the token: {len(card.prices.tokens)}"
    return [
        Finding("file", f"{card.path} is valid; {counts}", True, ""),
        _fingerprint(card),
        examine_age(card, today),
        *_unknown_devices(card),
        *_unpriced_devices(card, is_packaged=path is None),
    ]


def stale_warning(card: PriceCard, today: date) -> str | None:
    """What to tell a user who is about to price by a card that is old or dated in the future.

    Args:
        card: The price card.
        today: For its age.

    Returns:
        One line; None when the card may be relied on.
    """
    age = examine_age(card, today)
    if age.ok:
        return None
    return f"{card.path}: is {age.found}, got as_of {card.prices.as_of}; {age.remedy}, or name another with --prices"


def _device_rows(key: str, price: DevicePrice, card: PriceCard, today: date) -> Iterator[PriceRow]:
    yield PriceRow(
        key,
        price.label,
        "device",
        "device-hour",
        price.usd_per_device_hour,
        price.low,
        price.high,
        price.source,
        card.prices.as_of.isoformat(),
        card.age_days(today),
    )


def _token_rows(key: str, price: TokenPrice, card: PriceCard, today: date) -> Iterator[PriceRow]:
    rates: tuple[tuple[Unit, float | None], ...] = (
        ("million prefill tokens", price.usd_per_million_prefill),
        ("million sampled tokens", price.usd_per_million_sample),
        ("million train tokens", price.usd_per_million_train),
    )
    as_of, age = card.prices.as_of.isoformat(), card.age_days(today)
    for per, usd in rates:
        if usd is not None:
            yield PriceRow(key, price.label, "tokens", per, usd, None, None, price.source, as_of, age)


def _fingerprint(card: PriceCard) -> Finding:
    packaged = load_price_card(None).sha256
    note = "the packaged card's" if card.sha256 == packaged else f"the packaged card's is {packaged}"
    return Finding("sha256", f"{card.sha256}, {note}", True, "")


def _unknown_devices(card: PriceCard) -> Iterator[Finding]:
    known = load_hardware()
    for key in card.prices.devices:
        if key not in known:
            remedy = f"use one of {', '.join(known)}; no run can be planned on another"
            yield Finding(f"device {key}", "has a price and no entry in hardware.yaml", False, remedy)


def _unpriced_devices(card: PriceCard, *, is_packaged: bool) -> Iterator[Finding]:
    for key in load_hardware():
        if key not in card.prices.devices:
            # A card of one's own lists what one rents; the packaged one must know every device.
            remedy = "add the price and its source" if is_packaged else ""
            found = "is in hardware.yaml and has no price; budgets on it are refused"
            yield Finding(f"device {key}", found, not is_packaged, remedy)


def _write(usd: float) -> str:
    return f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:g}"
