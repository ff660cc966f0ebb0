"""A resumable training state as safetensors and JSON, written whole or not at all.

Each state is a folder: it is staged, fsynced and renamed, with a manifest of sizes and hashes written last. Resuming
takes the newest folder whose manifest holds and that can be read; nothing is ever unpickled. The trainer's own
checkpoints are not used.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from robustlab.errors import RecordError
from robustlab.failpoints import reach
from robustlab.models.modification import tensors_digest
from robustlab.record.run_folder import sync_folder, write_atomic, write_error
from robustlab.record.states import (
    MANIFEST,
    META,
    OTHER_VERSION,
    STAGED,
    TENSORS,
    describe_files,
    find_damage,
    list_states,
    state_name,
)
from robustlab.train.generators import Generators

_SCHEMA = 2
_PARTS = ("modification", "optimizer", "generators")


@dataclass(frozen=True)
class TrainState:
    """Everything that the next step depends on; the order of the data and the rates follow from the step.

    Attributes:
        step: Steps that are done and settled.
        losses: Loss of each of them.
        modification: Tensors of the modification.
        optimizer: Tensors of the optimiser, named ``<parameter index>.<slot>``.
        generators: All random generators.
        logical: What the attacker's trajectory had used by then, as ``Quantities.to_dict`` writes it.
        digest: sha256 of the modification, by which custody names the artefact.
        ended_by: What ended the training at this step: a cap, or ``diverged``; None where it goes on.
        halvings: Times that the micro-batch was halved by then.
    """

    step: int
    losses: tuple[float, ...]
    modification: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    generators: Generators
    logical: Mapping[str, int]
    digest: str
    ended_by: str | None = None
    halvings: int = 0


def save_state(root: Path, state: TrainState, documents: Mapping[str, bytes] | None = None) -> Path:
    """Write a state to ``root/step-NNNNNN``.

    Args:
        root: Folder of the cell's states, made if it is not there (mode 0700).
        state: What to write.
        documents: Files that belong to the state, by name; None for none.

    Returns:
        The folder that was written.

    Raises:
        RecordError: If the disk is full or cannot be written; earlier states are intact.
    """
    final = root / state_name(state.step)
    staged = root / f"{STAGED}{state.step:06d}"
    try:
        with _named(final):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True, mode=0o700)
            reach("state.begun")
            _write(staged, state, documents or {})
            if final.exists():
                shutil.rmtree(final)
            reach("state.staged")
            staged.rename(final)
            reach("state.named")
            sync_folder(root)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return final


def read_state(folder: Path) -> TrainState:
    """Read one state.

    Args:
        folder: Its folder.

    Returns:
        The state, its modification held against its hash.

    Raises:
        RecordError: If it is not as it was written, cannot be read, or is of another version.
    """
    damage = find_damage(folder)
    if damage is not None:
        raise RecordError(str(folder), damage, "an older state is taken in its place")
    return read_sound(folder)


def read_sound(folder: Path) -> TrainState:
    """Read a state whose manifest was found to hold; arguments and result as for ``read_state``.

    Args:
        folder: Its folder.

    Returns:
        The state.

    Raises:
        RecordError: If the disk does not let it be read, or it is of another version.
    """
    try:
        return _read(folder)
    except OSError as error:
        remedy = "look at the file system, and resume the run; nothing was deleted"
        raise RecordError(str(folder), f"cannot be read: {error.strerror or error}", remedy) from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"holds no state of this version: {type(error).__name__}"
        raise RecordError(str(folder), problem, OTHER_VERSION) from None


def load_newest(root: Path) -> TrainState | None:
    """Read the newest state that holds; None when there is none."""
    for folder in list_states(root):
        try:
            return read_state(folder)
        except RecordError:
            continue
    return None


def find_misfit(state: TrainState, own: Mapping[str, Tensor]) -> str | None:
    """Hold a state against the modification that it would be put into.

    Args:
        state: The state.
        own: Tensors that the modification has now.

    Returns:
        The first tensor that is missing, too many, or of another shape or element type; None where all fit.
    """
    for name in sorted(own.keys() ^ state.modification.keys()):
        return f"tensor {name} is {'missing' if name in own else 'not of this modification'}"
    for name, tensor in own.items():
        found = state.modification[name]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            return (
                f"tensor {name} is {found.dtype} of {tuple(found.shape)}, not {tensor.dtype} of {tuple(tensor.shape)}"
            )
    return None


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


@contextmanager
def _named(final: Path) -> Iterator[None]:
    """Let an error of the disk name the state, not a file on its way there."""
    try:
        yield
    except RecordError as error:
        raise RecordError(str(final), error.problem, error.remedy) from error
    except OSError as error:
        raise write_error(final, error) from error


def _write(folder: Path, state: TrainState, documents: Mapping[str, bytes]) -> None:
    held = {
        "modification": state.modification,
        "optimizer": state.optimizer,
        "generators": state.generators.to_tensors(),
    }
    tensors = {f"{part}/{name}": tensor.contiguous() for part in _PARTS for name, tensor in held[part].items()}
    write_atomic(folder / TENSORS, save(tensors))
    reach("state.tensors_written")
    meta = {
        "schema": _SCHEMA,
        "step": state.step,
        "losses": list(state.losses),
        "logical": dict(state.logical),
        "digest": state.digest,
        "ended_by": state.ended_by,
        "halvings": state.halvings,
        "generators": state.generators.to_dict(),
    }
    write_atomic(folder / META, json.dumps(meta).encode("utf-8"))
    reach("state.meta_written")
    for name, data in documents.items():
        write_atomic(folder / name, data)
        reach("store.progress_written")
    write_atomic(folder / MANIFEST, describe_files(folder, (TENSORS, META, *documents)))


def _read(folder: Path) -> TrainState:
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    if meta["schema"] != _SCHEMA:
        raise ValueError(meta["schema"])
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, tensor in load_file(folder / TENSORS).items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    if tensors_digest(parts["modification"]) != meta["digest"]:
        raise ValueError("digest")
    return TrainState(
        step=meta["step"],
        losses=tuple(meta["losses"]),
        modification=parts["modification"],
        optimizer=parts["optimizer"],
        generators=Generators.from_parts(parts["generators"], meta["generators"]),
        logical=meta["logical"],
        digest=meta["digest"],
        ended_by=meta["ended_by"],
        halvings=meta["halvings"],
    )
