"""Resumable states: bit for bit, the newest valid one, and nothing lost to a full disk."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from robustlab.errors import RecordError
from robustlab.train import state as state_module
from robustlab.train.state import (
    TrainState,
    list_states,
    load_newest,
    load_optimizer,
    optimizer_tensors,
    remove_state,
    save_state,
)

FILES = ("manifest.json", "state.json", "state.safetensors")


@pytest.fixture
def state() -> TrainState:
    return TrainState(
        step=4,
        losses=(1.5, 0.1 + 0.2, 1e-300),
        modification={"a.lora_A": torch.randn(3, 5), "a.lora_B": torch.full((2, 3), -0.0)},
        optimizer={"0.exp_avg": torch.randn(3, 5).double(), "0.step": torch.tensor(4.0)},
        torch_rng=torch.get_rng_state(),
        logical={"steps": 4, "train_tokens": 77},
        digest="ab" * 32,
    )


def same(left: TrainState, right: TrainState) -> bool:
    plain = (left.step, left.losses, left.logical, left.digest) == (
        right.step,
        right.losses,
        right.logical,
        right.digest,
    )
    parts = [(left.modification, right.modification), (left.optimizer, right.optimizer)]
    parts.append(({"rng": left.torch_rng}, {"rng": right.torch_rng}))
    return plain and all(
        a.keys() == b.keys()
        and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a)
        and all(a[k].reshape(-1).view(torch.uint8).equal(b[k].reshape(-1).view(torch.uint8)) for k in a)
        for a, b in parts
    )


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, state: TrainState) -> None:
    folder = save_state(tmp_path / "states", state)
    assert folder == tmp_path / "states" / "step-000004"
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)
    found = load_newest(tmp_path / "states")
    assert found is not None and same(found, state)


def test_a_state_of_a_real_training_comes_back_bit_for_bit(tmp_path: Path, sample_state: TrainState) -> None:
    # Per tensor of the adapter AdamW keeps two moments and a step count.
    assert len(sample_state.optimizer) == 3 * len(sample_state.modification)
    save_state(tmp_path, sample_state)
    found = load_newest(tmp_path)
    assert found is not None and same(found, sample_state)


def test_no_states_are_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere") is None
    assert list_states(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "changed"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path: Path, state: TrainState, name: str, damage: str
) -> None:
    save_state(tmp_path, state)
    path = save_state(tmp_path, replace(state, step=8)) / name
    data = path.read_bytes()
    match damage:
        case "deleted":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-1])
        case "emptied":
            path.write_bytes(b"")
        case _:
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    found = load_newest(tmp_path)
    assert found is not None and found.step == 4
    path.unlink(missing_ok=True)
    (tmp_path / "step-000004" / name).unlink()
    assert load_newest(tmp_path) is None


def test_a_manifest_that_leaves_a_file_out_does_not_hold(tmp_path: Path, state: TrainState) -> None:
    folder = save_state(tmp_path, state)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({"state.json": manifest["state.json"]}))
    assert load_newest(tmp_path) is None


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', '["state.json", "state.safetensors"]'])
def test_a_manifest_that_is_none_does_not_hold(tmp_path: Path, state: TrainState, text: str) -> None:
    folder = save_state(tmp_path, state)
    (folder / "manifest.json").write_text(text)
    assert load_newest(tmp_path) is None


def test_a_step_that_was_repeated_takes_the_place_of_the_first(tmp_path: Path, state: TrainState) -> None:
    save_state(tmp_path, state)
    save_state(tmp_path, replace(state, digest="cd" * 32))
    found = load_newest(tmp_path)
    assert found is not None and found.digest == "cd" * 32
    assert len(list_states(tmp_path)) == 1


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Let the disk be full at the given fsync."""
    calls = iter(range(1, 1000))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


# One fsync for each of the three files and one for the folder, all before the name is given.
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_leaves_earlier_states_intact(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    save_state(tmp_path, state)
    fail_at(monkeypatch, call)
    with pytest.raises(RecordError) as caught:
        save_state(tmp_path, replace(state, step=8))
    assert str(caught.value) == (
        f"{tmp_path / 'step-000008'}: cannot be written: [Errno 28] No space left on device; "
        "make room and resume the run"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]
    found = load_newest(tmp_path)
    assert found is not None and same(found, state)


def test_safetensors_own_error_is_a_record_error(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(state_module, "save_file", fail)
    with pytest.raises(RecordError, match="step-000004: cannot be written: Error while serializing"):
        save_state(tmp_path, state)
    assert list(tmp_path.iterdir()) == []


def test_the_names_are_made_after_the_bytes_are_on_the_disk(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        assert sorted(path.name for path in self.iterdir()) == list(FILES)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RecordError, match="Input/output error"):
        save_state(tmp_path, state)
    assert load_newest(tmp_path) is None


def test_removing_a_state_gives_the_digest_that_custody_knows(tmp_path: Path, state: TrainState) -> None:
    folder = save_state(tmp_path, state)
    assert remove_state(folder) == "ab" * 32
    assert not folder.exists()
    damaged = save_state(tmp_path, state)
    (damaged / "manifest.json").unlink()
    assert remove_state(damaged) is None
    assert not damaged.exists()


def test_states_are_listed_newest_first(tmp_path: Path, state: TrainState) -> None:
    for step in (4, 100, 12):
        save_state(tmp_path, replace(state, step=step))
    assert [path.name for path in list_states(tmp_path)] == ["step-000100", "step-000012", "step-000004"]


def stepped(build: Callable[[list[Any]], torch.optim.Optimizer], times: int) -> tuple[list[Any], torch.optim.Optimizer]:
    parameters = [torch.nn.Parameter(torch.arange(3.0)), torch.nn.Parameter(torch.ones(2, 2))]
    optimizer = build(parameters)
    for time in range(times):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.1 * (time + 1))
        optimizer.step()
    return parameters, optimizer


def test_an_optimiser_goes_on_as_if_it_had_never_stopped() -> None:
    def build(parameters: list[Any]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.5)

    parameters, optimizer = stepped(build, 3)
    fresh = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    resumed = build(fresh)
    resumed.param_groups[0]["lr"] = 0.25
    load_optimizer(resumed, optimizer_tensors(optimizer))
    assert resumed.param_groups[0]["lr"] == 0.25
    resumed.param_groups[0]["lr"] = 0.5
    for owner, some in ((optimizer, parameters), (resumed, fresh)):
        for parameter in some:
            parameter.grad = torch.full_like(parameter, 0.7)
        owner.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, fresh, strict=True))


def test_slots_are_copies() -> None:
    _, optimizer = stepped(torch.optim.AdamW, 1)
    slots = optimizer_tensors(optimizer)
    assert set(slots) == {f"{index}.{slot}" for index in (0, 1) for slot in ("step", "exp_avg", "exp_avg_sq")}
    slots["0.exp_avg"].fill_(9)
    assert not optimizer_tensors(optimizer)["0.exp_avg"].equal(slots["0.exp_avg"])
