"""A resumable training state as safetensors and JSON, written whole or not at all.

Each state is a folder: it is staged, fsynced and renamed, with a manifest of sizes and hashes written last. Resuming
takes the newest folder whose manifest holds; nothing is ever unpickled. The trainer's own checkpoints are not used.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustlab.errors import RecordError

TENSORS, META, MANIFEST = "state.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on.

    Attributes:
        step: Steps that are done and settled.
        losses: Loss of each of them.
        modification: Tensors of the modification.
        optimizer: Tensors of the optimiser, named ``<parameter index>.<slot>``.
        torch_rng: State of torch's generator.
        logical: What the attacker's trajectory had used by then, as ``Quantities.to_dict`` writes it.
        digest: sha256 of the modification, by which custody names the artefact.
        ended_by: What ended the training at this step: a cap, or ``diverged``; None where it goes on.
        halvings: Times that the micro-batch was halved by then.
    """

    step: int
    losses: tuple[float, ...]
    modification: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    torch_rng: Tensor
    logical: Mapping[str, int]
    digest: str
    ended_by: str | None = None
    halvings: int = 0


def save_state(root: Path, state: TrainState) -> Path:
    """Write a state to ``root/step-NNNNNN``.

    Args:
        root: Folder of the cell's states, made if it is not there (mode 0700).
        state: What to write.

    Returns:
        The folder that was written.

    Raises:
        RecordError: If the disk is full or cannot be written; earlier states are intact.
    """
    final = root / f"step-{state.step:06d}"
    staged = root / f".staged-{state.step:06d}"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True, mode=0o700)
        _write(staged, state)
        if final.exists():
            shutil.rmtree(final)
        staged.rename(final)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise RecordError(str(final), f"cannot be written: {error}", "make room and resume the run") from error
    return final


def remove_state(folder: Path) -> str | None:
    """Remove one state.

    Args:
        folder: A ``step-NNNNNN`` folder; all that is in it goes.

    Returns:
        The digest of the modification that it held; None when the folder was not a valid state.
    """
    digest = json.loads((folder / META).read_text(encoding="utf-8"))["digest"] if _is_valid(folder) else None
    shutil.rmtree(folder)
    return digest


def load_newest(root: Path) -> TrainState | None:
    """Read the newest state whose manifest holds; None when there is none."""
    for folder in list_states(root):
        if _is_valid(folder):
            return _read(folder)
    return None


def list_states(root: Path) -> list[Path]:
    """Folders of states, the newest first, valid or not."""
    return sorted(root.glob("step-*"), reverse=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of an optimiser's slots by ``<parameter index>.<slot>``."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{slot}": value.detach().clone()
        for index, slots in state.items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put slots back that ``optimizer_tensors`` gave; the groups' settings stay as they are."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _write(folder: Path, state: TrainState) -> None:
    tensors = {f"modification/{name}": tensor for name, tensor in state.modification.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    tensors["torch_rng"] = state.torch_rng
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    meta = {
        "schema": 1,
        "step": state.step,
        "losses": list(state.losses),
        "logical": dict(state.logical),
        "digest": state.digest,
        "ended_by": state.ended_by,
        "halvings": state.halvings,
    }
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")
    manifest = {name: _sha256(folder / name) for name in (TENSORS, META)}
    for name in (TENSORS, META):
        _sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _read(folder: Path) -> TrainState:
    tensors = load_file(folder / TENSORS)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    parts: dict[str, dict[str, Tensor]] = {"modification": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if rest:
            parts[part][rest] = tensor
    return TrainState(
        step=meta["step"],
        losses=tuple(meta["losses"]),
        modification=parts["modification"],
        optimizer=parts["optimizer"],
        torch_rng=tensors["torch_rng"],
        logical=meta["logical"],
        digest=meta["digest"],
        ended_by=meta["ended_by"],
        halvings=meta["halvings"],
    )


def _is_valid(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest == {name: _sha256(folder / name) for name in (TENSORS, META)})
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
