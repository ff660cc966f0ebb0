import json

import pytest

from robustlab.cost.entries import Entry
from robustlab.cost.quantities import Quantities
from robustlab.errors import RecordError

ENTRY = Entry(
    "settle", "cell-1", "laptop", "attacker", "train", {"step": 3, "eval": "x"},
    Quantities(wall_ns=5, steps=1), 7, "h100_sxm", "now",
)  # fmt: skip


def test_round_trip_through_json() -> None:
    assert Entry.from_dict(json.loads(json.dumps(ENTRY.to_dict()))) == ENTRY


def test_keys_of_the_ledger_are_left_alone() -> None:
    assert Entry.from_dict(ENTRY.to_dict() | {"previous": "00ff"}) == ENTRY


def test_names_of_the_record() -> None:
    assert list(ENTRY.to_dict()) == [
        "record", "node", "purse", "account", "phase", "tags", "quantities", "micro_usd", "price_key", "wall_clock",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"record": "refund"}, "record is wrong, got 'refund'"),
        ({"account": "user"}, "account is wrong, got 'user'"),
        ({"quantities": {"steps": -1}}, "quantities.steps is wrong, got -1"),
        ({"micro_usd": "many"}, "micro_usd is wrong, got 'many'"),
        ({"micro_usd": "7"}, "micro_usd is wrong, got '7'"),
        ({"micro_usd": True}, "micro_usd is wrong, got True"),
        ({"micro_usd": 7.0}, "micro_usd is wrong, got 7.0"),
        ({"micro_usd": -1}, "micro_usd is wrong, got -1"),
        ({"micro_usd": 2**63}, f"micro_usd is wrong, got {2**63}"),
        ({"micro_usd": 10**400}, "micro_usd is wrong, got 1000"),
        ({"quantities": {"steps": "1"}}, "quantities.steps is wrong, got '1'"),
        ({"quantities": {"steps": True}}, "quantities.steps is wrong, got True"),
        ({"quantities": {"wall_ns": 1.0}}, "quantities.wall_ns is wrong, got 1.0"),
        ({"quantities": {"device_ns": 2**63}}, "quantities.device_ns is wrong, got 9223"),
        ({"quantities": {"flops": 2**100 + 1}}, "quantities.flops is wrong, got 1267"),
        ({"tags": {"step": True}}, "tags.step."),
        ({"tags": {"step": 2.0}}, "tags.step."),
        ({"tags": {"jump_ns": -(10**400)}}, "tags.jump_ns."),
        ({"node": 5}, "node is wrong, got 5"),
    ],
)
def test_a_record_that_the_meter_cannot_have_written(change: dict[str, object], fault: str) -> None:
    with pytest.raises(RecordError) as caught:
        Entry.from_dict(ENTRY.to_dict() | change)
    assert str(caught.value).startswith(f"ledger: a record is not as the meter wrote it: {fault}")
    assert str(caught.value).endswith("; do not trust this run; repeat it")


def test_the_largest_figures() -> None:
    plain = ENTRY.to_dict() | {"micro_usd": 2**63 - 1, "quantities": {"steps": 2**63 - 1, "flops": 2**100}}
    entry = Entry.from_dict(plain | {"tags": {"jump_ns": 1 - 2**63}})
    assert (entry.micro_usd, entry.quantities) == (2**63 - 1, Quantities(steps=2**63 - 1, flops=2**100))


def test_a_record_with_a_field_missing() -> None:
    plain = ENTRY.to_dict()
    del plain["phase"]
    with pytest.raises(RecordError, match="phase is wrong, got"):
        Entry.from_dict(plain)
