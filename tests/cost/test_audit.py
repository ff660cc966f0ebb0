"""What a ledger's records add up to, and whether their money follows."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.audit import (
    AccountUse,
    Mismatch,
    PhaseUse,
    PriceRow,
    find_mismatches,
    find_open,
    find_overshoots,
    number_entries,
    price_entries,
    read_entries,
    sum_accounts,
    sum_phases,
)
from robustlab.cost.prices import DevicePrice, PriceCard, TokenPrice
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.errors import BudgetSpent, ConfigError, RecordError

SECOND = 1_000_000_000
MADE = datetime(2026, 1, 1, tzinfo=UTC)


def work(meter: Any, bench: Any, seconds: float, *, planned: float | None = None) -> None:
    meter.reserve(Quantities(wall_ns=round((planned or seconds) * SECOND), steps=1))
    bench.wait(seconds)
    meter.count(steps=1, train_tokens=10)
    meter.settle()


@pytest.fixture
def worked(bench: Any) -> Any:
    """A node with a start, a load, an imputed one, two steps, a rewind and a stall, and another purse's node."""
    meter = bench.build(bench.budget(max_wall_hours=1))
    bench.wait(0.01)
    with meter.phase("laboratory", "load"):
        bench.wait(36)
    meter.impute("attacker", "load", Quantities(wall_ns=36 * SECOND))
    with pytest.raises(BudgetSpent), meter.phase("attacker", "train", step=1):
        work(meter, bench, 36)
        mark = meter.logical("attacker")
        work(meter, bench, 72)
        meter.rewind("attacker", mark)
        work(meter, bench, 3600, planned=100)
    meter.close()
    other = bench.build(bench.budget(), node="cell-2", purse="other")
    bench.wait(36)
    other.close()
    return bench


def test_only_records_of_money_are_entries(worked: Any) -> None:
    records = [{"kind": "session"}, *worked.records, {"kind": "custody"}]
    numbers = [number for number, _ in number_entries(records)]
    assert numbers == list(range(2, len(records)))
    assert [entry.to_dict() for entry in read_entries(records)] == worked.records


def test_phases_are_summed_in_the_order_of_their_first_record(worked: Any) -> None:
    # $1 an hour is 277.7 micro-USD a second. 36 s cost 10,000; the attacker's 36 + 36 + 72 s cost 40,000.
    uses = sum_phases(read_entries(worked.records))
    start, load, imputed, train = uses
    assert (start.account, start.phase, start.quantities.wall_ns) == ("laboratory", "start", 36_010_000_000)
    assert start.micro_usd == 3 + 10_000
    assert load == PhaseUse("laboratory", "load", Quantities(36 * SECOND, 36 * SECOND), 10_000, 0)
    assert imputed == PhaseUse("attacker", "load", Quantities(36 * SECOND, 36 * SECOND), 10_000, 0)
    assert (train.quantities.steps, train.quantities.train_tokens, train.quantities.wall_ns) == (3, 30, 3708 * SECOND)
    assert (train.micro_usd, train.overshoot_micro_usd) == (1_030_000, 1_000_000)


def test_accounts_are_summed_by_node_and_by_purse(worked: Any) -> None:
    entries = read_entries(worked.records)
    by_node = sum_accounts(entries, "node")
    assert list(by_node) == [("cell-1", "laboratory"), ("cell-1", "attacker"), ("cell-2", "laboratory")]
    attacker = by_node["cell-1", "attacker"]
    assert (attacker.billed.steps, attacker.logical.steps, attacker.overshoot_micro_usd) == (3, 1, 1_000_000)
    assert attacker.micro_usd == worked.billed_micro_usd("attacker")
    assert sum_accounts(entries, "purse")["other", "laboratory"] == AccountUse(
        Quantities(36 * SECOND, 36 * SECOND), Quantities(36 * SECOND, 36 * SECOND), 10_000, 0
    )


def test_a_rewind_of_more_than_there_was_is_damage(worked: Any) -> None:
    [rewind] = [entry for entry in read_entries(worked.records) if entry.record == "rewind"]
    with pytest.raises(RecordError) as caught:
        sum_accounts([rewind], "node")
    assert str(caught.value) == (
        "ledger: a resume took back more than 'cell-1' had done; do not trust this run; repeat it"
    )


def test_the_money_of_a_real_meter_follows(worked: Any) -> None:
    assert find_mismatches(number_entries(worked.records), worked.card()) == []


def test_each_purse_of_a_node_is_rounded_up_by_itself(bench: Any) -> None:
    for purse in ("cent", "dollar"):
        meter = bench.build(bench.budget(), usd_per_hour=0.0496, purse=purse)
        bench.wait(0.01)
        meter.close()
    # 10 ms cost 0.14 micro-USD: 1 on each bill, though one bill for both would be 1 in all
    assert [record["micro_usd"] for record in bench.records] == [1, 1]
    assert find_mismatches(number_entries(bench.records), bench.card(0.0496)) == []


def test_a_crash_and_a_resume_keep_the_rounding(bench: Any) -> None:
    meter = bench.build(bench.budget(), usd_per_hour=0.0496)
    context = meter.phase("attacker", "train")
    context.__enter__()
    for _ in range(5):
        work(meter, bench, 0.01)
    meter.reserve(Quantities(wall_ns=SECOND))
    again = bench.build(bench.budget(), usd_per_hour=0.0496)
    again.restore(list(bench.records))
    bench.wait(0.01)
    again.close()
    bench.context = context
    assert find_mismatches(number_entries(bench.records), bench.card(0.0496)) == []
    # 5 x 10 ms and the crash's 1 s: 1.05 s x 0.0496 / 3600 = 14.47 micro-USD, on the bill as 15
    assert sum_accounts(read_entries(bench.records), "node")["cell-1", "attacker"].micro_usd == 15


@given(st.integers(0, 11), st.sampled_from([-1, 1, 10_000]))
def test_any_other_amount_is_found_by_number(new_bench: Any, place: int, change: int) -> None:
    bench = new_bench()
    meter = bench.build(bench.budget())
    with meter.phase("attacker", "train"):
        for _ in range(6):
            work(meter, bench, 1)
    records = bench.records
    due = records[place]["micro_usd"]
    records[place]["micro_usd"] = due + change
    assert find_mismatches(number_entries(records), bench.card()) == [Mismatch(place + 1, due + change, due)]


@pytest.mark.parametrize("kind", ["rewind", "clock_jump"])
def test_a_record_that_bills_nothing_costs_nothing(worked: Any, kind: str) -> None:
    forged = worked.records[1] | {"record": kind, "quantities": NOTHING.to_dict(), "micro_usd": 5}
    assert find_mismatches([(7, read_entries([forged])[0])], worked.card()) == [Mismatch(7, 5, 0)]


def test_a_cheaper_item_in_the_middle_of_an_account_is_found(worked: Any) -> None:
    card = with_devices(worked.card(), cheap=0.5)
    number = next(n for n, e in number_entries(worked.records) if e.record == "settle" and e.account == "attacker")
    worked.records[number - 1]["price_key"] = "cheap"
    assert find_mismatches(number_entries(worked.records), card)[0].record == number


def test_a_record_whose_item_has_no_price_is_named(worked: Any) -> None:
    worked.records[0]["price_key"] = "boxx"
    with pytest.raises(ConfigError) as caught:
        find_mismatches(number_entries(worked.records), worked.card())
    assert str(caught.value) == "ledger record 1: 'boxx' has no price in prices.yaml; did you mean 'box'?"


def test_a_record_of_an_older_version_says_so(worked: Any) -> None:
    del worked.records[1]["purse"]
    with pytest.raises(RecordError) as caught:
        read_entries(worked.records)
    assert str(caught.value) == (
        "ledger record 2: was made by an older version: it names no purse; "
        "read it with the version of robustlab that made it"
    )


def test_a_record_that_no_meter_wrote_is_named(worked: Any) -> None:
    worked.records[1]["quantities"]["wall_ns"] = "long"
    with pytest.raises(RecordError, match=r"^ledger record 2: a record is not as the meter wrote it: quantities"):
        read_entries(worked.records)


def test_a_crash_leaves_one_reservation_open(bench: Any) -> None:
    meter = bench.build(bench.budget())
    with meter.phase("attacker", "train"):
        work(meter, bench, 1)
        meter.reserve(Quantities(wall_ns=SECOND))
        entries = number_entries(bench.records)
    assert find_open(entries) == ([entries[-1]], [])
    assert find_open(number_entries(bench.records)) == ([], [])
    # Without the settlement in between, the second reservation has buried the first.
    assert find_open([entries[0], entries[2]]) == ([entries[2]], [entries[0]])


def test_an_overshoot_is_found_as_a_unit_and_as_a_mere_segment(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with pytest.raises(BudgetSpent), meter.phase("attacker", "train"):
        work(meter, bench, 10)
        work(meter, bench, 4000, planned=10)
    with meter.phase("attacker", "checkpoint"):
        bench.wait(1)
    found = find_overshoots(number_entries(bench.records))
    assert [(over.record, over.is_unit, over.followed_by) for over in found] == [(4, True, None), (5, False, None)]
    assert [over.entry.phase for over in found] == ["train", "checkpoint"]


def test_a_unit_after_an_overshoot_is_found(bench: Any) -> None:
    meter = bench.build(bench.budget(max_wall_hours=1))
    with pytest.raises(BudgetSpent), meter.phase("attacker", "train"):
        work(meter, bench, 4000, planned=10)
    entries = number_entries(bench.records)
    laboratory = replace(entries[0][1], account="laboratory")
    assert [over.followed_by for over in find_overshoots([*entries, (8, laboratory), (9, entries[0][1])])] == [9]


def with_devices(card: PriceCard, **rates: float) -> PriceCard:
    added = {
        name: DevicePrice(label=name, usd_per_device_hour=rate, low=None, high=None, source="hand-made")
        for name, rate in rates.items()
    }
    tokens = TokenPrice(
        label="by token",
        usd_per_million_prefill=1.0,
        usd_per_million_sample=None,
        usd_per_million_train=None,
        source="hand-made",
    )
    devices = dict(card.prices.devices) | added
    return replace(card, prices=card.prices.model_copy(update={"devices": devices, "tokens": {"hosted": tokens}}))


def test_the_same_card_gives_the_same_bill(worked: Any) -> None:
    rows = price_entries(number_entries(worked.records), worked.card(), hardware=None)
    assert [(row.purse, row.node, row.account) for row in rows] == [
        ("test", "cell-1", "laboratory"),
        ("test", "cell-1", "attacker"),
        ("other", "cell-2", "laboratory"),
        (None, None, "laboratory"),
        (None, None, "attacker"),
        (None, None, None),
    ]
    assert all(row.old_micro_usd == row.new_micro_usd for row in rows)
    assert rows[-1].old_micro_usd == 3 + 10_000 + 1_040_000 + 10_000


def test_another_device_is_priced_by_the_same_time(worked: Any) -> None:
    card = with_devices(worked.card(), cluster=36.0)
    rows = price_entries(number_entries(worked.records), card, hardware="cluster")
    # 36.01 s at $36 an hour is one cent a second: $0.3601, rounded up once
    assert rows[0] == PriceRow("test", "cell-1", "laboratory", 36_010_000_000, 10_003, 360_100)
    assert rows[-1].new_micro_usd == 360_100 + 37_440_000 + 360_000
    assert rows[-1].device_ns == 36_010_000_000 + 3_744 * SECOND + 36 * SECOND


def test_a_new_bill_is_rounded_up_once_per_account(bench: Any) -> None:
    meter = bench.build(bench.budget())
    for _ in range(10):
        bench.wait(0.01)
        meter.settle()
    # 100 ms at $0.0496 an hour are 1.378 micro-USD; ten roundings would make 10
    rows = price_entries(number_entries(bench.records), bench.card(0.0496), hardware=None)
    assert [row.new_micro_usd for row in rows] == [2, 2, 2]


def test_nothing_costs_nothing(bench: Any) -> None:
    assert price_entries([], bench.card(), hardware=None) == [PriceRow(None, None, None, 0, 0, 0)]


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ("boxes", "--shadow-price: 'boxes' has no price in prices.yaml; did you mean 'box'?"),
        (
            "hosted",
            "--shadow-price: 'hosted' is priced by the token and not by the hour in prices.yaml; use one of box",
        ),
    ],
)
def test_an_item_without_an_hourly_price_is_refused(worked: Any, hardware: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        price_entries(number_entries(worked.records), with_devices(worked.card()), hardware=hardware)
    assert str(caught.value) == message


def test_a_card_that_lacks_the_item_of_a_record_is_refused(worked: Any) -> None:
    worked.records[2]["price_key"] = "gone"
    with pytest.raises(ConfigError, match=r"^ledger record 3: 'gone' has no price in prices\.yaml; use one of box$"):
        price_entries(number_entries(worked.records), worked.card(), hardware=None)
