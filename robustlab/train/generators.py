"""The random generators that a training step may draw from: read, put back, and written as numbers, never pickled.

They are Python's own, numpy's, torch's on the processor and torch's on every accelerator. This module does not know
what draws from them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
from torch import Tensor

from robustlab.errors import RecordError

_CPU, _CUDA = "cpu", "cuda."


@dataclass(frozen=True)
class Generators:
    """States of all generators at one moment.

    Attributes:
        cpu: Bytes of torch's on the processor.
        cuda: Bytes of torch's on each accelerator, in order; empty without one.
        python: As ``random.getstate`` gives it.
        numbers: As ``numpy.random.get_state`` gives it.
    """

    cpu: Tensor
    cuda: tuple[Tensor, ...]
    python: tuple[Any, ...]
    numbers: tuple[Any, ...]

    def to_tensors(self) -> dict[str, Tensor]:
        """Torch's states by name."""
        return {_CPU: self.cpu} | {f"{_CUDA}{index}": state for index, state in enumerate(self.cuda)}

    def to_dict(self) -> dict[str, object]:
        """The other states, as JSON can hold them."""
        version, words, gauss = self.python
        name, keys, *rest = self.numbers
        return {"python": [version, list(words), gauss], "numpy": [name, [int(key) for key in keys], *rest]}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> "Generators":
        """Put together what ``to_tensors`` and ``to_dict`` gave.

        Args:
            tensors: Torch's states by name.
            plain: The other states.

        Returns:
            States that equal those that were written.

        Raises:
            KeyError: If one is missing.
            ValueError: If one is not of the right form.
        """
        version, words, gauss = plain["python"]
        name, keys, *rest = plain["numpy"]
        cuda = tuple(tensors[f"{_CUDA}{index}"] for index in range(len(tensors) - 1))
        return cls(tensors[_CPU], cuda, (version, tuple(words), gauss), (name, numpy.array(keys, numpy.uint32), *rest))


def read_generators() -> Generators:
    """States of all generators now."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numbers = cast(tuple[Any, ...], numpy.random.get_state())
    return Generators(torch.get_rng_state(), tuple(cuda), random.getstate(), numbers)


def restore_generators(states: Generators) -> None:
    """Put all generators back to where they were.

    Args:
        states: What ``read_generators`` gave, in this process or in another.

    Raises:
        RecordError: If there were more or fewer accelerators then; no generator was touched.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found != len(states.cuda):
        problem = f"hold those of {len(states.cuda)} accelerators, got {found} on this machine"
        raise RecordError("generators of a resumable state", problem, "resume where the run was started")
    random.setstate(states.python)
    numpy.random.set_state(states.numbers)
    torch.set_rng_state(states.cpu)
    if states.cuda:
        torch.cuda.set_rng_state_all(list(states.cuda))
