"""Three estimates of one ledger, their bands, and every number of the published reference's arithmetic."""

from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.audit import PhaseUse
from robustlab.cost.flops import lora_per_token
from robustlab.cost.hardware import Band, find_hardware
from robustlab.cost.prices import DevicePrice, PriceCard, PriceList, TokenPrice, load_price_card
from robustlab.cost.purchases import (
    fleet_usd,
    hours_until,
    lora_flops,
    million_tokens_usd,
    most_devices,
    tokens_for,
    trainer_overcount,
)
from robustlab.cost.quantities import Quantities
from robustlab.cost.reconcile import (
    Factor,
    Reckoning,
    Rig,
    Spread,
    added_idle,
    assumed_mfu,
    build_rig,
    hourly_rate,
    idle_share,
    implied_mfu,
    project_flops,
    project_tokens,
    reckon_devices,
    reckon_flops,
    reckon_tokens,
    sum_training,
    train_price,
)
from robustlab.cost.references import find_projection
from robustlab.errors import ConfigError
from robustlab.spec.targets import Shape

CARD = load_price_card(None)
H100 = CARD.device_rate("h100_sxm", "here")
SECOND = 10**9


def box_card(**ends: float | None) -> PriceCard:
    prices: dict[str, Any] = {"low": None, "high": None} | ends
    box = DevicePrice(label="box", usd_per_device_hour=36.0, source="hand-made", **prices)
    rates = {"usd_per_million_prefill": 1.0, "usd_per_million_sample": 2.0, "usd_per_million_train": 4.0}
    short = TokenPrice(label="short", source="hand-made", **rates)
    long = TokenPrice(label="long", source="hand-made", **{name: 3 * rate for name, rate in rates.items()})
    bare = TokenPrice(label="bare", source="hand-made", **(rates | {"usd_per_million_prefill": None}))
    tokens = {"short": short, "long": long, "bare": bare}
    listed = PriceList(kind="prices", as_of=date(2026, 1, 1), devices={"box": box}, tokens=tokens)
    return PriceCard(listed, Path("prices.yaml"), "0" * 64)


def _of(name: str, low: Fraction | int, centre: Fraction | int, high: Fraction | int) -> Factor:
    return Factor(name, "share", "assumed", Spread(Fraction(low), Fraction(centre), Fraction(high)), "hand-made")


def use(phase: str, seconds: int, **quantities: int) -> PhaseUse:
    return PhaseUse("attacker", phase, Quantities(device_ns=seconds * SECOND, **quantities), 0, 0)


# 10 s of load, 30 s of data, 60 s of training on a device of $36 an hour, one cent a second: $1, a tenth of it idle.
USES = [
    use("load", 10),
    use("data", 30, flops=300, prompt_tokens=2_000_000, generated_tokens=1_000_000),
    use("train", 60, flops=1_200, train_tokens=5_000_000, steps=2),
]
RIG = Rig("box", "float32", 40, hourly_rate("box", box_card(low=18.0, high=72.0), "here"), _of("MFU", *[
    Fraction(1, 4), Fraction(1, 2), Fraction(1)
]))  # fmt: skip


def usd(reckoning: Reckoning | None) -> tuple[Fraction, Fraction, Fraction]:
    assert reckoning is not None
    return reckoning.usd.low, reckoning.usd.centre, reckoning.usd.high


def swings(reckoning: Reckoning | None) -> dict[str, tuple[Fraction, Fraction]]:
    assert reckoning is not None
    return {swing.factor.name: (swing.at_low, swing.at_high) for swing in reckoning.swings}


def test_a_is_device_time_by_the_hour() -> None:
    found = reckon_devices(USES, RIG)
    assert found.route == "A device-billed"
    # Half the rate without the tenth that is idle: 0.5 x 0.9; twice the rate with it: 2.
    assert usd(found) == (Fraction(45, 100), 1, 2)
    assert swings(found) == {"price": (Fraction(1, 2), 2), "idle share": (Fraction(9, 10), 1)}
    assert [swing.factor.basis for swing in found.swings] == ["assumed", "measured"]


def test_b_is_tokens_by_the_million() -> None:
    found = reckon_tokens(USES, "short", "long", box_card(), "here")
    # 5 M x $4 + 2 M x $1 + 1 M x $2 = $24, and three times that at the long context.
    assert (found.route, *usd(found)) == ("B token-billed", 24, 24, 72)
    assert swings(found) == {"price": (24, 72)}


def test_b_asks_only_for_prices_that_it_needs() -> None:
    assert usd(reckon_tokens(USES[2:], "bare", "bare", box_card(), "here")) == (20, 20, 20)
    with pytest.raises(ConfigError) as caught:
        reckon_tokens(USES, "bare", "bare", box_card(), "run 'x'")
    assert str(caught.value) == "run 'x': 'bare' has no prefill price in prices.yaml; add the price and its source"


def test_c_is_operations_at_an_assumed_mfu() -> None:
    found = reckon_flops(USES, RIG)
    # 1,500 FLOPs / (1/2 x 40 a second) = 75 s = $0.75. Least: MFU 1 at half the rate; most: 1/4, twice, 1/0.9 idle.
    assert usd(found) == (Fraction(3, 16), Fraction(3, 4), Fraction(3) / Fraction(9, 10))
    assert swings(found) == {
        "price": (Fraction(3, 8), Fraction(3, 2)),
        "MFU": (Fraction(3, 2), Fraction(3, 8)),
        "idle share": (Fraction(3, 4), Fraction(3, 4) / Fraction(9, 10)),
    }
    assert reckon_flops(USES, replace(RIG, peak_flops=None)) is None


def test_work_without_operations_costs_c_nothing() -> None:
    assert usd(reckon_flops(USES[:1], RIG)) == (0, 0, 0)
    assert usd(reckon_devices([], RIG)) == (0, 0, 0)


def test_idle_time_is_start_load_and_what_counts_no_operations() -> None:
    assert idle_share(USES) == Fraction(1, 10)
    assert idle_share([*USES, use("start", 50, flops=7), use("undo", 50)]) == Fraction(110, 200)
    assert idle_share([]) == 0


def test_the_implied_mfu_is_that_of_training() -> None:
    assert implied_mfu(USES, RIG) == pytest.approx(1_200 / (60 * 40))
    assert sum_training(USES).device_ns == 60 * SECOND
    assert implied_mfu(USES[:2], RIG) is None
    assert implied_mfu(USES, replace(RIG, peak_flops=None)) is None


def test_a_rig_reads_the_card_and_the_hardware_list() -> None:
    rig = build_rig("h100_sxm", find_hardware("h100_sxm", "here"), CARD, dtype="bfloat16", where="here")
    assert rig.peak_flops == 989 * 10**12
    assert rig.rate.spread == Spread(Fraction("1.99"), Fraction("2.95"), Fraction(5))
    # 5e13, 3e14 and 5.4e14 of 9.89e14.
    assert rig.utilisation.spread == Spread(Fraction(50, 989), Fraction(300, 989), Fraction(540, 989))
    assert (
        build_rig("h100_sxm", find_hardware("h100_sxm", "x"), CARD, dtype="float32", where="x").peak_flops
        == 67 * 10**12
    )


def test_a_rig_never_passes_its_peak_and_may_not_know_it() -> None:
    hardware = find_hardware("cpu_2vcpu_8gb", "here")
    rig = build_rig("cpu_2vcpu_8gb", hardware, CARD, dtype="float32", where="here")
    assert rig.utilisation.spread.high == 1
    assert rig.rate.spread.is_point
    assert rig.rate.source == "price card, cpu_2vcpu_8gb; the card has no band"
    blind = hardware.model_copy(update={"peak_flops": {"float32": 2.9e11}})
    assert build_rig("cpu_2vcpu_8gb", blind, CARD, dtype="bfloat16", where="here").peak_flops is None


def test_a_projection_is_measured_tokens_at_assumed_prices() -> None:
    tokens = Factor(
        "tokens to break", "tokens", "measured", Spread.across([3_000_000, 1_000_000, 2_000_000]), "3 seeds"
    )
    by_token = project_tokens(tokens, train_price("short", "long", box_card(), "here"))
    # 1 M x $4, 2 M x $4, 3 M x $12.
    assert usd(by_token) == (4, 8, 36)
    assert swings(by_token) == {"tokens to break": (4, 12), "price": (8, 24)}
    assert [swing.factor.basis for swing in by_token.swings] == ["measured", "assumed"]
    rate, mfu = _of("price", 36, 36, 36), _of("MFU", Fraction(1, 2), 1, 1)
    by_flops = project_flops(tokens, active=10, peak=4_000_000, rate=rate, mfu=mfu, idle=Fraction(1, 2))
    # 40 FLOPs a token: 1 M tokens take 10 s at the peak, $0.10. Most: 3 M at half the MFU, half the time idle.
    assert usd(by_flops) == (Fraction(1, 10), Fraction(2, 10), Fraction(3, 10) * 2 * 2)
    assert [swing.factor.basis for swing in by_flops.swings] == ["measured", "assumed", "assumed", "measured"]


def test_one_seed_has_no_band() -> None:
    assert Spread.across([7]).is_point
    assert Spread.across([1, 2, 5, 8]) == Spread(Fraction(1), Fraction(7, 2), Fraction(8))


def test_an_assumed_mfu_says_so_once_and_never_passes_1() -> None:
    factor = assumed_mfu(Band(low=0.05, centre=0.4, high=1.5, source="assumed: a guess"))
    assert (factor.spread.high, factor.source, factor.basis) == (1, "a guess", "assumed")
    assert added_idle(Fraction(1, 4)).spread == Spread(Fraction(0), Fraction(0), Fraction(1, 4))


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9), st.booleans()), max_size=6),
    st.integers(1, 99),
)
def test_every_band_holds_its_centre_and_its_swings(parts: list[tuple[int, int, bool]], percent: int) -> None:
    uses = [use("load" if load else "train", seconds, flops=0 if load else flops) for seconds, flops, load in parts]
    rig = replace(RIG, utilisation=_of("MFU", Fraction(percent, 200), Fraction(percent, 100), 1))
    for found in (reckon_devices(uses, rig), reckon_flops(uses, rig)):
        low, centre, high = usd(found)
        assert low <= centre <= high
        assert all(low <= end <= high for ends in swings(found).values() for end in ends)


class TestReferenceArithmetic:
    """Every number that the design states of the $500 / 10 h reference."""

    KIMI = find_projection("kimi_k25_audit")
    PURSE = Fraction(500)

    @pytest.mark.parametrize(("item", "millions"), [("kimi_k2_5_tokens_32k", 113.6), ("kimi_k2_5_tokens_128k", 32.5)])
    def test_tokens_that_500_dollars_buy(self, item: str, millions: float) -> None:
        tokens = tokens_for(self.PURSE, CARD.token_rate(item, "train", "here"))
        assert round(float(tokens / 10**6), 1) == millions

    @pytest.mark.parametrize(
        ("devices", "item", "bill"), [(16, "h100_sxm", 472), (8, "h200_sxm", 280), (1, "h100_sxm", Fraction("29.5"))]
    )
    def test_devices_for_10_hours(self, devices: int, item: str, bill: Fraction) -> None:
        assert fleet_usd(devices, Fraction(10), CARD.device_rate(item, "here")) == bill

    def test_64_devices_reach_500_dollars_in_less_than_3_hours(self) -> None:
        assert round(float(hours_until(self.PURSE, 64, H100)), 2) == 2.65

    def test_500_dollars_pay_for_16_devices_over_10_hours(self) -> None:
        assert most_devices(self.PURSE, Fraction(10), H100) == 16
        assert most_devices(Fraction(1), Fraction(10), H100) == 0

    def test_operations_of_a_token(self) -> None:
        assert lora_flops(self.KIMI.active_parameters) == 1.28e11

    def test_a_million_tokens_at_40_percent(self) -> None:
        peak = int(find_hardware("h100_sxm", "here").peak_flops["bfloat16"])
        price = million_tokens_usd(
            self.KIMI.active_parameters, peak_flops=peak, utilisation=Fraction(2, 5), usd_per_device_hour=H100
        )
        # 1.28e11 x 1e6 / (0.4 x 989e12) = 323.6 s at $2.95 an hour.
        assert price == Fraction(128 * 10**15) / (Fraction(2, 5) * 989 * 10**12) / 3600 * Fraction("2.95")
        assert round(float(price), 2) == 0.27

    def test_smollm2_takes_half_a_gigaflop_a_token(self) -> None:
        # 30 layers of 576 x (576 + 192 + 192) + 576 x 576 + 3 x 576 x 1536 = 106.2 M, and lm_head of 49,152 x 576.
        layers = 30 * (576 * (576 + 192 + 192) + 576 * 576 + 3 * 576 * 1536)
        head = 49_152 * 576
        assert (round(layers / 1e6, 1), round(head / 1e6, 1)) == (106.2, 28.3)
        shape = Shape(
            layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocab=49_152,
            parameters=134_515_008, matmul_parameters=layers + head,
        )  # fmt: skip
        assert lora_per_token(shape, 0, adapter_parameters=0) == lora_flops(layers + head) == 537_919_488
        assert round(lora_flops(layers + head) / 1e9, 2) == 0.54

    def test_a_trainer_counts_49_times_too_many(self) -> None:
        # 6 x 1.04e12 / (4 x 3.2e10) = 48.75.
        assert trainer_overcount(self.KIMI.parameters, self.KIMI.active_parameters) == Fraction("48.75")
        assert round(trainer_overcount(self.KIMI.parameters, self.KIMI.active_parameters)) == 49

    def test_the_card_and_the_preset_hold_the_stated_figures(self) -> None:
        assert self.KIMI.utilisation.centre == 0.40
        assert (self.KIMI.parameters, self.KIMI.active_parameters) == (1_040 * 10**9, 32 * 10**9)
        assert hourly_rate("h100_sxm", CARD, "here").spread == Spread(Fraction("1.99"), Fraction("2.95"), Fraction(5))
        for context, rates in (("32k", ("1.47", "3.66", "4.4")), ("128k", ("5.15", "12.81", "15.4"))):
            item = f"kimi_k2_5_tokens_{context}"
            found = tuple(CARD.token_rate(item, which, "here") for which in ("prefill", "sample", "train"))
            assert found == tuple(map(Fraction, rates))
