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
        ({"quantities": {"steps": -1}}, "quantities is wrong, got"),
        ({"micro_usd": "many"}, "micro_usd is wrong, got 'many'"),
    ],
)
def test_a_record_that_the_meter_cannot_have_written(change: dict[str, object], fault: str) -> None:
    with pytest.raises(RecordError) as caught:
        Entry.from_dict(ENTRY.to_dict() | change)
    assert str(caught.value).startswith(f"ledger: a record is not as the meter wrote it: {fault}")
    assert str(caught.value).endswith("; do not trust this run; repeat it")


def test_a_record_with_a_field_missing() -> None:
    plain = ENTRY.to_dict()
    del plain["phase"]
    with pytest.raises(RecordError, match="phase is wrong, got"):
        Entry.from_dict(plain)
