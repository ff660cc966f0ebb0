"""SIGTERM, Ctrl-C and a closed terminal in the middle of a run: settled, out in 5 s, resumed as if nothing had been."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.end_to_end.interruptions import Shop, note_moment, open_shop, signal_at

SECONDS = 5.0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("signals")) as opened:
        yield opened


def in_a_step(patch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    """In the backward pass of step 4, beyond the state of step 2."""
    import torch

    # One call each for the probe and for every step.
    signal_at(patch, torch.Tensor, "backward", 5, numbers)


def in_a_wave(patch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    """In the final measurement's generation, after the state of the last step."""
    from robustlab import lab
    from robustlab.models import generate

    real = lab._CellWork._measure_end

    def watched(self: Any, steps: int) -> Any:
        signal_at(patch, generate, "_decode", 1, numbers)
        return real(self, steps)

    patch.setattr(lab._CellWork, "_measure_end", watched)


def in_a_state(patch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    """Between the tensors of a state and its manifest."""
    from robustlab.train import state

    signal_at(patch, state, "describe_files", 3, numbers)


@pytest.mark.parametrize(
    ("moment", "numbers"),
    [
        (in_a_step, [signal.SIGTERM]),
        (in_a_step, [signal.SIGINT, signal.SIGINT, signal.SIGTERM]),
        (in_a_wave, [signal.SIGINT]),
        (in_a_wave, [signal.SIGHUP]),
        (in_a_state, [signal.SIGTERM]),
    ],
    ids=["step-term", "step-int-int-term", "wave-int", "wave-hup", "state-term"],
)
def test_a_signal_settles_and_a_resume_goes_on(
    shop: Shop, moment: Callable[[pytest.MonkeyPatch, list[int]], None], numbers: list[int]
) -> None:
    patch = pytest.MonkeyPatch()
    ended, took = shop.cut(lambda: moment(patch, numbers))
    assert ended.code == CODES[signal.Signals(numbers[0])], ended.output
    assert took < SECONDS
    assert ended.output.splitlines()[-1].startswith(f"{WORDS[signal.Signals(numbers[0])]}; `robustlab list runs`")
    assert "Traceback" not in ended.output
    # What was under way is booked: nothing is left open.
    records = [record for record in shop.records() if "record" in record]
    left_open = False
    for record in records:
        left_open = record["record"] == "reserve" or (left_open and record["record"] in ("impute", "rewind"))
    assert not left_open
    if moment is not in_a_state:
        assert any(record["record"] == "abandon" for record in records)
    shop.looks_whole()
    shop.resume()


def test_a_step_that_does_not_end_is_left_at_the_deadline(shop: Shop) -> None:
    """A forward pass may hold the main thread for longer than anybody waits; the open reservation is then charged."""

    def hang() -> None:
        import torch

        patch = pytest.MonkeyPatch()
        signal_at(patch, torch.Tensor, "backward", 5, [signal.SIGTERM])
        patch.setattr("robustlab.cli.signals._Watch._unwind", lambda self, number, frame: time.sleep(60))

    ended, took = shop.cut(hang)
    assert ended.code == 143
    assert 2.5 < took < SECONDS
    assert shop.records()[-1]["record"] == "reserve"
    shop.looks_whole()
    shop.resume()
    assert sum(record.get("record") == "crash" for record in shop.records()) == 1


def test_a_terminal_that_was_closed_costs_nothing(shop: Shop) -> None:
    """Whoever read the live line is gone; the run is paid for and goes on."""

    def close() -> None:
        import os
        import sys

        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        note_moment()

    ended, _ = shop.cut(close)
    assert ended.code == 0
    assert (shop.place.folder / "manifest.json").is_file()
