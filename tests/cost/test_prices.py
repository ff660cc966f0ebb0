import hashlib
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from robustlab.cost.prices import (
    NS_PER_HOUR,
    STALE_DAYS,
    load_price_card,
    price_device_time,
    price_flops,
    price_tokens,
)
from robustlab.errors import ConfigError, InvalidFile

CARD = load_price_card(None)
FILE = """kind: prices
as_of: "2026-01-01"
devices:
  box: {label: box, usd_per_device_hour: 2.0, low: 1.0, high: 3.0, source: hand-made}
tokens:
  api: {label: api, usd_per_million_prefill: null, usd_per_million_sample: null, usd_per_million_train: 1e-1, source: x}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "rate"),
    [("cpu_2vcpu_8gb", "0.0496"), ("h100_sxm", "2.95"), ("h200_sxm", "3.5"), ("b200", "5.5"), ("a100_80gb", "1.39")],
)
def test_device_rates_of_the_packaged_card(key: str, rate: str) -> None:
    assert CARD.device_rate(key, "here") == Fraction(rate)


@pytest.mark.parametrize(
    ("key", "rates"),
    [("kimi_k2_5_tokens_32k", ("1.47", "3.66", "4.4")), ("kimi_k2_5_tokens_128k", ("5.15", "12.81", "15.4"))],
)
def test_token_rates_of_the_packaged_card(key: str, rates: tuple[str, str, str]) -> None:
    found = tuple(CARD.token_rate(key, use, "here") for use in ("prefill", "sample", "train"))
    assert found == tuple(Fraction(rate) for rate in rates)


def test_every_item_is_sourced_and_the_card_is_dated() -> None:
    items = [*CARD.prices.devices.values(), *CARD.prices.tokens.values()]
    assert len(items) == 8
    assert all(len(item.source) > 10 for item in items)
    assert CARD.prices.as_of <= date.today()


def test_market_bands() -> None:
    h100, b200 = CARD.prices.devices["h100_sxm"], CARD.prices.devices["b200"]
    assert (h100.low, h100.high, b200.high) == (1.99, 5.0, 6.69)


def test_another_card_is_read_whole(tmp_path: Path) -> None:
    card = load_price_card(write(tmp_path, FILE))
    assert card.device_rate("box", "here") == 2
    assert card.token_rate("api", "train", "here") == Fraction(1, 10)
    assert card.sha256 == hashlib.sha256(FILE.encode()).hexdigest()
    assert card.sha256 != CARD.sha256


def test_age(tmp_path: Path) -> None:
    card = load_price_card(write(tmp_path, FILE))
    assert card.age_days(date(2026, 1, 1)) == 0
    assert card.age_days(date(2026, 4, 2)) == 30 + 28 + 31 + 2 == 91 > STALE_DAYS


def test_a_missing_price_is_an_error_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        CARD.device_rate("h100_sxn", "budgets/x.yaml:4")
    assert str(caught.value) == (f"budgets/x.yaml:4: 'h100_sxn' has no price in {CARD.path}; did you mean 'h100_sxm'?")


def test_a_missing_price_with_nothing_near_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"^hardware: 'zzz' has no price in .*; use one of cpu_2vcpu_8gb, h100_sxm, "):
        CARD.device_rate("zzz", "hardware")


def test_a_token_price_is_no_hourly_price() -> None:
    with pytest.raises(ConfigError) as caught:
        CARD.device_rate("qwen3_8b_tokens", "hardware")
    assert str(caught.value) == (
        f"hardware: 'qwen3_8b_tokens' is priced by the token and not by the hour in {CARD.path}; "
        "use one of cpu_2vcpu_8gb, h100_sxm, h200_sxm, b200, a100_80gb"
    )


def test_a_use_that_is_not_offered_has_no_price() -> None:
    with pytest.raises(ConfigError) as caught:
        CARD.token_rate("qwen3_8b_tokens", "sample", "reference")
    assert str(caught.value) == (
        f"reference: 'qwen3_8b_tokens' has no sample price in {CARD.path}; add the price and its source"
    )


RATE = "usd_per_device_hour: 2.0"
TRAIN = "usd_per_million_train: 1e-1"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (RATE, "usd_per_device_hour: 0", "4: devices.box.usd_per_device_hour: must be greater than 0, got 0"),
        (RATE, "usd_per_device_hour: -2", "4: devices.box.usd_per_device_hour: must be greater than 0, got -2"),
        (RATE, "usd_per_device_hour: .inf", "4: devices.box.usd_per_device_hour: must be a finite number, got .inf"),
        (RATE, "usd_per_device_hour: 1e999", "4: devices.box.usd_per_device_hour: must be a finite number, got 1e999"),
        (RATE, "usd_per_device_hour: .nan", "4: devices.box.usd_per_device_hour: must be a finite number, got .nan"),
        (RATE, "usd_per_device_hour: null", "4: devices.box.usd_per_device_hour: must be a number, got null"),
        (f"{RATE}, ", "", "4: devices.box.usd_per_device_hour: is missing"),
        (TRAIN, "usd_per_million_train: 0", "6: tokens.api.usd_per_million_train: must be greater than 0, got 0"),
        (
            TRAIN,
            "usd_per_million_train: .nan",
            "6: tokens.api.usd_per_million_train: must be a finite number, got .nan",
        ),
        (f", {TRAIN}", "", "6: tokens.api.usd_per_million_train: is missing"),
        (
            TRAIN,
            "usd_per_million_train: null",
            "6: tokens.api: has no price, got null for prefill, sample and train; give one or remove the item",
        ),
        ("low: 1.0", "low: 2.5", "4: devices.box: low <= usd_per_device_hour <= high must hold, got 2.5, 2.0, 3.0"),
        ("high: 3.0", "high: null, price: 1", "4: devices.box.price: is not a known key"),
        ("source: hand-made", "source: ''", '4: devices.box.source: must be text that is not empty, got ""'),
        (
            "2026-01-01",
            "soon",
            '2: as_of: must be a valid date in the format YYYY-MM-DD, input is too short, got "soon"',
        ),
        ('"2026-01-01"', "20260101", "2: as_of: must be a valid date, got 20260101"),
    ],
)
def test_a_card_that_cannot_be_trusted_is_refused_at_its_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    path = write(tmp_path, FILE.replace(old, new))
    with pytest.raises(InvalidFile) as caught:
        load_price_card(path)
    assert str(caught.value) == f"{path}:{fault}"


def test_two_prices_for_one_item_in_one_block(tmp_path: Path) -> None:
    again = "  box: {label: box, usd_per_device_hour: 9.0, low: null, high: null, source: another}\ntokens:"
    path = write(tmp_path, FILE.replace("tokens:", again))
    with pytest.raises(InvalidFile) as caught:
        load_price_card(path)
    assert str(caught.value) == f"{path}:5: devices.box: appears twice, first in line 4; keep one"


def test_two_prices_for_one_item_in_both_blocks(tmp_path: Path) -> None:
    path = write(tmp_path, FILE.replace("  api:", "  box:"))
    with pytest.raises(InvalidFile) as caught:
        load_price_card(path)
    assert str(caught.value) == (
        f"{path}:6: tokens.box: is a second price of 'box', first in line 4 under devices; keep one"
    )


def test_the_second_of_two_prices_is_the_later_one_in_the_file(tmp_path: Path) -> None:
    head, _, rest = FILE.partition("devices:")
    devices, _, tokens = rest.partition("tokens:")
    path = write(tmp_path, f"{head}tokens:{tokens.replace('api:', 'box:', 1)}devices:{devices}")
    with pytest.raises(InvalidFile) as caught:
        load_price_card(path)
    assert str(caught.value) == (
        f"{path}:6: devices.box: is a second price of 'box', first in line 4 under tokens; keep one"
    )


def test_a_card_of_tomorrow_has_a_negative_age(tmp_path: Path) -> None:
    assert load_price_card(write(tmp_path, FILE)).age_days(date(2025, 12, 31)) == -1


def test_a_card_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: .*; name a file that exists$"):
        load_price_card(tmp_path / "none.yaml")


def hours(devices: int, wall_hours: int) -> int:
    return devices * wall_hours * NS_PER_HOUR


def test_500_usd_in_train_tokens() -> None:
    # 500 / 4.40 = 113.636... million; 500 / 15.40 = 32.467... million
    short, long = (CARD.token_rate(f"kimi_k2_5_tokens_{context}", "train", "here") for context in ("32k", "128k"))
    assert price_tokens(113_636_363, short) < 500 < price_tokens(113_636_364, short)
    assert price_tokens(32_467_532, long) < 500 < price_tokens(32_467_533, long)


def test_device_hours_of_the_reference() -> None:
    h100, h200 = CARD.device_rate("h100_sxm", "here"), CARD.device_rate("h200_sxm", "here")
    assert price_device_time(hours(16, 10), h100) == 472
    assert price_device_time(hours(8, 10), h200) == 280
    assert price_device_time(hours(1, 10), h100) == Fraction("29.5")
    assert 500 / price_device_time(hours(64, 1), h100) == pytest.approx(2.65, abs=0.005)


def test_27_cents_for_a_million_tokens_at_40_percent_of_the_peak() -> None:
    # 1.28e11 x 1e6 / (0.4 x 989e12) = 323.6 s; x 2.95 / 3600 = 0.265
    usd = price_flops(
        128_000_000_000 * 10**6,
        peak_flops=989 * 10**12,
        utilisation=Fraction(2, 5),
        usd_per_device_hour=CARD.device_rate("h100_sxm", "here"),
    )
    assert round(usd, 2) == Fraction("0.27")
