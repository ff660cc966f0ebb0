"""All weights of a target as one modification: trained in place, with the target's own kept beside them in memory.

The attack works on a copy; the tensors that the target was loaded into are set aside, never written, and put back as
they are. Nothing here ever reaches the disk. Tied weights are one parameter and are held once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from robustlab.models.modification import tensors_digest


class FullModification:
    """Every parameter of the target, trainable; right after it was made it changes nothing, byte for byte."""

    def __init__(self, base: PreTrainedModel) -> None:
        """Set the target's own weights aside and let a copy of them be trained.

        Args:
            base: The target; it takes its weights' memory once more until ``dispose``.
        """
        self._base = base
        self._released = {name: parameter.data for name, parameter in base.named_parameters()}
        for parameter in base.parameters():
            parameter.data = parameter.data.clone()
        base.requires_grad_(True)

    @property
    def model(self) -> torch.nn.Module:
        """The module to run forward and to train."""
        return self._base

    @property
    def base(self) -> PreTrainedModel:
        """The same module: nothing is wrapped around the target."""
        return self._base

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """A context in which the target has its own weights, byte for byte; no backward pass may cross its edge."""
        attacked = {name: parameter.data for name, parameter in self._base.named_parameters()}
        self._point_to(self._released)
        try:
            yield
        finally:
            self._point_to(attacked)

    def digest(self) -> str:
        """sha256 over names, shapes and bytes of all weights."""
        return tensors_digest(dict(self._base.named_parameters()))

    def state(self) -> dict[str, Tensor]:
        """Copies of all weights."""
        return {name: parameter.detach().clone() for name, parameter in self._base.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put weights back that ``state`` gave."""
        with torch.no_grad():
            for name, parameter in self._base.named_parameters():
                parameter.copy_(state[name])

    def dispose(self) -> None:
        """Give the target its own weights back, frozen; the attacked ones and their gradients are let go."""
        self._point_to(self._released)
        self._released = {}
        self._base.zero_grad(set_to_none=True)
        self._base.requires_grad_(False)

    def _point_to(self, weights: Mapping[str, Tensor]) -> None:
        parameters = dict(self._base.named_parameters())
        for name, tensor in weights.items():
            parameters[name].data = tensor
