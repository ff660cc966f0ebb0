"""What `prices list` and `prices check` show, and when a card warns."""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest

from robustlab.cost.prices import STALE_DAYS, PriceCard, load_price_card
from robustlab.engine.doctor import Finding
from robustlab.engine.prices import check_prices, list_prices, stale_warning

CARD = load_price_card(None)
BORN = CARD.prices.as_of
OWN = """\
kind: prices
as_of: "2026-03-01"
devices:
  h100_sxm: {label: our H100, usd_per_device_hour: 2.0, low: null, high: 2.5, source: our invoice of February}
tokens:
  api: {label: api, usd_per_million_prefill: 0.5, usd_per_million_sample: null, usd_per_million_train: 3, source: x}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PriceCard:
    """A user's card in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    return load_price_card(Path("own.yaml"))


def test_every_rate_is_a_row(own: PriceCard) -> None:
    rows = list_prices(own, date(2026, 3, 11))
    assert [(row.item, row.kind, row.per, row.usd) for row in rows] == [
        ("h100_sxm", "device", "device-hour", 2.0),
        ("api", "tokens", "million prefill tokens", 0.5),
        ("api", "tokens", "million train tokens", 3.0),
    ]
    assert asdict(rows[0]) == {
        "item": "h100_sxm", "label": "our H100", "kind": "device", "per": "device-hour", "usd": 2.0, "low": None,
        "high": 2.5, "source": "our invoice of February", "as_of": "2026-03-01", "age_days": 10,
    }  # fmt: skip


def test_a_row_for_people(own: PriceCard) -> None:
    device, prefill, _ = list_prices(own, date(2026, 3, 11))
    assert device.to_columns() == {
        "item": "h100_sxm", "what": "our H100", "USD": "2.00", "per": "device-hour", "low-high": "2.00-2.50",
        "as of": "2026-03-01", "days old": 10, "source": "our invoice of February",
    }  # fmt: skip
    assert (prefill.to_columns()["USD"], prefill.to_columns()["low-high"]) == ("0.50", "")


def test_the_packaged_card_in_rows() -> None:
    rows = list_prices(CARD, BORN)
    # 5 devices; Kimi K2.5 twice by prefill, sample and train; Qwen3-8B by train.
    assert len(rows) == 5 + 2 * 3 + 1
    shown = {(row.item, row.per): row.to_columns() for row in rows}
    assert shown["cpu_2vcpu_8gb", "device-hour"]["USD"] == "0.0496"
    assert shown["h100_sxm", "device-hour"]["low-high"] == "1.99-5.00"
    assert shown["b200", "device-hour"]["low-high"] == "5.50-6.69"
    assert shown["kimi_k2_5_tokens_32k", "million sampled tokens"]["USD"] == "3.66"


def test_the_packaged_card_is_good() -> None:
    findings = check_prices(None, BORN)
    assert findings == [
        Finding("file", f"{CARD.path} is valid; devices: 5, items by the token: 3", True, ""),
        Finding("sha256", f"{CARD.sha256}, the packaged card's", True, ""),
        Finding("price card", "0 days old", True, ""),
    ]


def test_a_card_of_ones_own(own: PriceCard) -> None:
    findings = check_prices(own.path, date(2026, 3, 2))
    assert all(finding.ok for finding in findings)
    assert findings[:2] == [
        Finding("file", "own.yaml is valid; devices: 1, items by the token: 1", True, ""),
        Finding("sha256", f"{own.sha256}, the packaged card's is {CARD.sha256}", True, ""),
    ]
    assert findings[3:] == [
        Finding(f"device {key}", "is in hardware.yaml and has no price; budgets on it are refused", True, "")
        for key in ("cpu_2vcpu_8gb", "h200_sxm", "b200", "a100_80gb")
    ]


def test_a_device_that_is_not_known(own: PriceCard) -> None:
    own.path.write_text(OWN.replace("h100_sxm", "h100_smx"))
    assert Finding(
        "device h100_smx",
        "has a price and no entry in hardware.yaml",
        False,
        "use one of cpu_2vcpu_8gb, h100_sxm, h200_sxm, b200, a100_80gb; no run can be planned on another",
    ) in check_prices(own.path, date(2026, 3, 2))


def test_the_packaged_card_must_know_every_device(own: PriceCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustlab.cost.prices._PACKAGED", own.path)
    found = check_prices(None, date(2026, 3, 2))[-1]
    assert (found.name, found.ok, found.remedy) == ("device a100_80gb", False, "add the price and its source")


def test_a_broken_card_is_findings_with_lines(own: PriceCard) -> None:
    own.path.write_text(OWN.replace("2.0", "-2").replace("source: x", "source: ''"))
    assert check_prices(own.path, date(2026, 3, 2)) == [
        Finding(
            "own.yaml:4", "devices.h100_sxm.usd_per_device_hour: must be greater than 0, got -2", False, "mend the card"
        ),
        Finding("own.yaml:6", 'tokens.api.source: must be text that is not empty, got ""', False, "mend the card"),
    ]


def test_a_card_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert check_prices(path, BORN) == [
        Finding(str(path), "cannot be read: No such file or directory", False, "name a file that exists")
    ]


def test_a_card_warns_from_the_91st_day(own: PriceCard) -> None:
    # 31 - 1 days of March, 30 of April and 30 of May: 90 days after the 1st of March is the 30th of May.
    assert STALE_DAYS == 90
    assert stale_warning(own, date(2026, 3, 1)) is stale_warning(own, date(2026, 5, 30)) is None
    assert stale_warning(own, date(2026, 5, 31)) == (
        "own.yaml: is 91 days old, got as_of 2026-03-01; "
        "check the prices and bring the card up to date, or name another with --prices"
    )
    assert check_prices(own.path, date(2026, 5, 31))[2] == Finding(
        "price card", "91 days old", False, "check the prices and bring the card up to date"
    )


def test_a_card_of_tomorrow_warns_and_is_read(own: PriceCard) -> None:
    assert stale_warning(own, date(2026, 2, 28)) == (
        "own.yaml: is dated after today, 2026-02-28, got as_of 2026-03-01; "
        "mend its as_of, or this machine's clock, or name another with --prices"
    )
    assert check_prices(own.path, date(2025, 1, 1))[2] == Finding(
        "price card", "dated after today, 2025-01-01", False, "mend its as_of, or this machine's clock"
    )
