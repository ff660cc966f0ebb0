"""Resumable states: bit for bit, the newest valid one, and nothing lost to a full disk."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustlab.errors import RecordError
from robustlab.models.modification import tensors_digest
from robustlab.record.states import describe_files, list_states
from robustlab.train.generators import read_generators
from robustlab.train.state import (
    TrainState,
    find_misfit,
    load_newest,
    load_optimizer,
    optimizer_tensors,
    read_state,
    save_state,
)

FILES = ("manifest.json", "state.json", "state.safetensors")


@pytest.fixture
def state() -> TrainState:
    modification = {"a.lora_A": torch.randn(3, 5), "a.lora_B": torch.full((2, 3), -0.0)}
    return TrainState(
        step=4,
        losses=(1.5, 0.1 + 0.2, 1e-300),
        modification=modification,
        optimizer={"0.exp_avg": torch.randn(3, 5).double(), "0.step": torch.tensor(4.0)},
        generators=read_generators(),
        logical={"steps": 4, "train_tokens": 77},
        digest=tensors_digest(modification),
    )


def same(left: TrainState, right: TrainState) -> bool:
    plain = (left.step, left.losses, left.logical, left.digest) == (
        right.step,
        right.losses,
        right.logical,
        right.digest,
    )
    parts = [(left.modification, right.modification), (left.optimizer, right.optimizer)]
    parts.append((left.generators.to_tensors(), right.generators.to_tensors()))
    return (
        plain
        and left.generators.to_dict() == right.generators.to_dict()
        and all(
            a.keys() == b.keys()
            and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape for k in a)
            and all(a[k].reshape(-1).view(torch.uint8).equal(b[k].reshape(-1).view(torch.uint8)) for k in a)
            for a, b in parts
        )
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


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Let a file say something else, with a manifest that holds."""
    (folder / name).write_bytes(data)
    (folder / "manifest.json").write_bytes(describe_files(folder, FILES[1:]))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError"),
        (b'{"schema": 1}', "ValueError"),
        (b'{"schema": 2}', "KeyError"),
        (b"[" * 100_000, "RecursionError"),
        (b"\xff", "UnicodeDecodeError"),
    ],
)
def test_numbers_that_cannot_be_read_are_passed_over_though_their_hash_holds(
    tmp_path: Path, state: TrainState, data: bytes, error: str
) -> None:
    save_state(tmp_path, state)
    newest = save_state(tmp_path, replace(state, step=8))
    rewrite(newest, "state.json", data)
    with pytest.raises(RecordError) as caught:
        read_state(newest)
    remedy = "resume with the version that wrote it, or start a new run; nothing was deleted"
    assert str(caught.value) == f"{newest}: holds no state of this version: {error}; {remedy}"
    found = load_newest(tmp_path)
    assert found is not None and found.step == 4


def change(tensors: dict[str, Any], what: str) -> None:
    match what:
        case "element type":
            tensors["modification/a.lora_A"] = tensors["modification/a.lora_A"].double()
        case "shape":
            tensors["modification/a.lora_A"] = tensors["modification/a.lora_A"].reshape(5, 3)
        case "value":
            tensors["modification/a.lora_A"][0, 0] += 1
        case "missing":
            del tensors["modification/a.lora_A"]
        case "generator":
            del tensors["generators/cpu"]
        case "unknown part":
            tensors["other/a"] = tensors["modification/a.lora_A"].clone()
        case _:
            tensors["no part"] = tensors["modification/a.lora_A"].clone()


@pytest.mark.parametrize(
    "what", ["element type", "shape", "value", "missing", "generator", "unknown part", "no part at all"]
)
def test_tensors_that_are_not_the_states_are_passed_over_though_their_hash_holds(
    tmp_path: Path, state: TrainState, what: str
) -> None:
    save_state(tmp_path, state)
    newest = save_state(tmp_path, replace(state, step=8))
    tensors = {name: tensor.clone() for name, tensor in load_file(newest / "state.safetensors").items()}
    change(tensors, what)
    save_file(tensors, tmp_path / "changed")
    rewrite(newest, "state.safetensors", (tmp_path / "changed").read_bytes())
    found = load_newest(tmp_path)
    assert found is not None and found.step == 4


def test_tensors_that_are_none_are_passed_over_though_their_hash_holds(tmp_path: Path, state: TrainState) -> None:
    save_state(tmp_path, state)
    newest = save_state(tmp_path, replace(state, step=8))
    rewrite(newest, "state.safetensors", (newest / "state.safetensors").read_bytes()[:40])
    found = load_newest(tmp_path)
    assert found is not None and found.step == 4


def test_a_file_that_somebody_put_there_costs_no_state(tmp_path: Path, state: TrainState) -> None:
    folder = save_state(tmp_path, state)
    (folder / ".nfs0001").write_bytes(b"what a file system leaves")
    assert load_newest(tmp_path) is not None


def test_documents_belong_to_the_state(tmp_path: Path, state: TrainState) -> None:
    save_state(tmp_path, state, {"more.json": b"{}"})
    newest = save_state(tmp_path, replace(state, step=8), {"more.json": b"{}"})
    (newest / "more.json").unlink()
    found = load_newest(tmp_path)
    assert found is not None and found.step == 4


def test_what_does_not_fit_is_named(state: TrainState) -> None:
    own = dict(state.modification)
    assert find_misfit(state, own) is None
    assert find_misfit(state, own | {"b": torch.zeros(1)}) == "tensor b is missing"
    assert find_misfit(state, {"a.lora_B": own["a.lora_B"]}) == "tensor a.lora_A is not of this modification"
    half = own | {"a.lora_A": own["a.lora_A"].half()}
    assert find_misfit(state, half) == "tensor a.lora_A is torch.float32 of (3, 5), not torch.float16 of (3, 5)"
    turned = own | {"a.lora_A": own["a.lora_A"].T}
    assert find_misfit(state, turned) == "tensor a.lora_A is torch.float32 of (3, 5), not torch.float32 of (5, 3)"


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', '["state.json", "state.safetensors"]'])
def test_a_manifest_that_is_none_does_not_hold(tmp_path: Path, state: TrainState, text: str) -> None:
    folder = save_state(tmp_path, state)
    (folder / "manifest.json").write_text(text)
    assert load_newest(tmp_path) is None


def test_a_step_that_was_repeated_takes_the_place_of_the_first(tmp_path: Path, state: TrainState) -> None:
    save_state(tmp_path, state)
    save_state(tmp_path, replace(state, losses=(0.5,)))
    found = load_newest(tmp_path)
    assert found is not None and found.losses == (0.5,)
    assert len(list_states(tmp_path)) == 1


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, number: int) -> None:
    """Let the disk refuse the given fsync."""
    calls = iter(range(1, 1000))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


# Two fsyncs for each of the three files, itself and its name, all before the state has its name.
@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "No space left on device; free some space and resume the run"),
        (errno.EROFS, "Read-only file system; make the folder writable, or choose another one"),
        (errno.EDQUOT, "Disk quota exceeded; free some space and resume the run"),
        (errno.EIO, "Input/output error; look at the file system"),
    ],
)
def test_a_full_disk_leaves_earlier_states_intact(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch, call: int, number: int, told: str
) -> None:
    save_state(tmp_path, state)
    fail_at(monkeypatch, call, number)
    with pytest.raises(RecordError) as caught:
        save_state(tmp_path, replace(state, step=8))
    assert str(caught.value) == f"{tmp_path / 'step-000008'}: cannot be written: {told}"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]
    found = load_newest(tmp_path)
    assert found is not None and same(found, state)


def test_a_signal_leaves_no_half_state(tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, state)
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_made_after_the_bytes_are_on_the_disk(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        assert sorted(path.name for path in self.iterdir()) == list(FILES)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RecordError, match="Input/output error"):
        save_state(tmp_path, state)
    assert load_newest(tmp_path) is None


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
