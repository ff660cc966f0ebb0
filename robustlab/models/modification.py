"""One protocol for whatever an attack changes: adapters today, hooks and full weights later.

A modification is lifted and put back, never merged, and never saved and loaded again between two stages.
"""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Modification(Protocol):
    """What train and measure need of a modified target."""

    @property
    def model(self) -> torch.nn.Module:
        """The module to run forward and to train."""
        ...

    @property
    def base(self) -> PreTrainedModel:
        """The target underneath, with the modification still applied."""
        ...

    def lifted(self) -> AbstractContextManager[None]:
        """A context in which the target is untouched, byte for byte."""
        ...

    def digest(self) -> str:
        """sha256 over names, shapes and bytes of the state."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Copies of the tensors that make the modification."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put tensors back that ``state`` gave."""
        ...

    def dispose(self) -> None:
        """Take the modification off the target for good; the target is as it was."""
        ...


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, element types, shapes and bytes, in the order of the names: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
