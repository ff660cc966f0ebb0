"""A few thousand of the inputs of `make fuzz`, and that the fuzzer finds what it looks for."""

from pathlib import Path

import pytest

from robustlab.errors import DataError
from tests.hostile import fuzz
from tests.hostile.fuzz import READERS, Tally, feed, mutations


@pytest.mark.parametrize("name", READERS)
def test_nothing_but_errors_of_our_own(name: str, tmp_path: Path) -> None:
    tally = feed(name, 500, 1, tmp_path)
    assert tally.faults == []
    assert tally.inputs == 500 == tally.read + sum(tally.errors.values())
    assert tally.read > 10, "the inputs are too far from sound ones to test anything"


def test_the_inputs_follow_from_the_seed(tmp_path: Path) -> None:
    import random

    first, again, other = (mutations([b"a: 1\n" * 40], random.Random(seed)) for seed in (0, 0, 1))
    drawn = [[next(source) for _ in range(50)] for source in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 30


def test_a_crash_and_a_hang_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(path: Path, data: bytes) -> object:
        if len(data) % 3 == 0:
            raise KeyError("x")
        if len(data) % 3 == 1:
            raise DataError("where", "what", "then")
        return data

    monkeypatch.setitem(READERS, "broken", (reader, lambda: [b"a", b"bb", b"ccc"]))
    monkeypatch.setattr(fuzz, "SLOW_SECONDS", 1e9)
    tally = feed("broken", 100, 0, tmp_path)
    assert tally.faults and all("KeyError: 'x'" in fault for fault in tally.faults)
    assert tally.read and set(tally.errors) == {"DataError"}
    monkeypatch.setattr(fuzz, "SLOW_SECONDS", -1.0)
    slow = feed("broken", 10, 0, tmp_path)
    assert isinstance(slow, Tally) and len([fault for fault in slow.faults if " s for " in fault]) == 10
