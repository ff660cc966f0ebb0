"""Every generator goes on where it was, after JSON and safetensors; accelerators are played by a fake."""

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustlab.errors import RecordError
from robustlab.train.generators import Generators, read_generators, restore_generators


class Accelerators:
    """As many accelerators as are wanted, behind torch's own functions."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int) -> None:
        self.states = [torch.full((16,), index, dtype=torch.uint8) for index in range(count)]
        patch.setattr(torch.cuda, "is_available", lambda: bool(self.states))
        patch.setattr(torch.cuda, "device_count", lambda: len(self.states))
        patch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone() for state in self.states])
        patch.setattr(torch.cuda, "set_rng_state_all", self.put)

    def put(self, states: list[Tensor]) -> None:
        self.states = [state.clone() for state in states]


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    Accelerators(monkeypatch, 0)


def draw() -> list[object]:
    # A normal number leaves a second one waiting in Python's and in numpy's generator.
    return [random.gauss(0, 1), random.random(), *numpy.random.normal(size=1), torch.rand(3).tolist()]


def through_files(states: Generators, folder: Path) -> Generators:
    save_file(states.to_tensors(), folder / "a.safetensors")
    (folder / "a.json").write_text(json.dumps(states.to_dict(), allow_nan=False))
    return Generators.from_parts(load_file(folder / "a.safetensors"), json.loads((folder / "a.json").read_text()))


@pytest.mark.usefixtures("no_accelerator")
def test_all_generators_go_on_where_they_were(tmp_path: Path) -> None:
    draw()
    kept = through_files(read_generators(), tmp_path)
    first = draw()
    assert draw() != first
    restore_generators(kept)
    assert draw() == first


def test_every_accelerator_gets_its_own_state_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Accelerators(monkeypatch, 12)
    kept = through_files(read_generators(), tmp_path)
    devices.states = [torch.zeros(16, dtype=torch.uint8)] * 12
    restore_generators(kept)
    assert [int(state[0]) for state in devices.states] == list(range(12))


@pytest.mark.parametrize(("then", "now"), [(2, 1), (1, 2), (0, 1), (2, 0)])
def test_another_number_of_accelerators_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: int, now: int
) -> None:
    Accelerators(monkeypatch, then)
    kept = read_generators()
    Accelerators(monkeypatch, now)
    before = torch.get_rng_state()
    torch.rand(1)
    moved = torch.get_rng_state()
    with pytest.raises(RecordError) as caught:
        restore_generators(kept)
    problem = f"hold those of {then} accelerators, got {now} on this machine"
    assert str(caught.value) == f"generators of a resumable state: {problem}; resume where the run was started"
    assert torch.equal(torch.get_rng_state(), moved) and not torch.equal(before, moved)


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("lost", ["python", "numpy"])
def test_a_missing_generator_is_a_key_error(lost: str) -> None:
    states = read_generators()
    plain = {name: value for name, value in states.to_dict().items() if name != lost}
    with pytest.raises(KeyError, match=lost):
        Generators.from_parts(states.to_tensors(), plain)
