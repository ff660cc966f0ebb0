"""A run's own price card is found in one way, whoever asks."""

import os
from pathlib import Path

import pytest

from robustlab.cost.prices import load_price_card
from robustlab.engine.cards import find_card, find_card_of
from robustlab.errors import ConfigError, RecordError
from robustlab.record.run_folder import RunFolder

RUN_ID = "20261122T021733Z-a1b2c3"


def test_a_run_that_goes_on_has_its_copy(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RUN_ID)
    folder.prices.write_bytes(load_price_card(None).path.read_bytes() + b"# mine\n")
    assert find_card(folder, None) == find_card_of(tmp_path, RUN_ID)
    assert find_card(folder, None).path == folder.prices


def test_a_run_that_goes_on_without_one_says_so(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RUN_ID)
    with pytest.raises(ConfigError) as caught:
        find_card_of(tmp_path, RUN_ID)
    problem = "is not there: money cannot be computed again; put the card that the run was priced with back"
    assert str(caught.value) == f"{folder.prices}: {problem}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["pipe", "link", "folder"])
def test_a_copy_that_is_no_plain_file_is_not_waited_for(tmp_path: Path, make: str) -> None:
    prices = RunFolder.create(tmp_path, RUN_ID).prices
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("nowhere"), "folder": os.mkdir}[make](prices)
    with pytest.raises(RecordError) as caught:
        find_card_of(tmp_path, RUN_ID)
    assert str(caught.value) == f"{prices}: is not a plain file; do not trust this run; repeat it"


def test_a_copy_that_is_damaged_is_not_to_be_mended(tmp_path: Path) -> None:
    prices = RunFolder.create(tmp_path, RUN_ID).prices
    prices.write_text("kind: plan\n")
    with pytest.raises(RecordError) as caught:
        find_card_of(tmp_path, RUN_ID)
    assert str(caught.value).startswith(f"{prices}: is not the card that the run was priced with: ")
    assert str(caught.value).endswith("; do not trust this run; repeat it")
