"""Weights of linear layers laid out once as the matrix library multiplies with them, instead of in every product.

Decoding multiplies a few rows by the same weights again and again, and MKL rearranges the weights each time. The
products are the same to the last bit. It takes the weights' memory once more, so that only small models have it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from robustlab.cost.memory import PACKED_BYTES


@contextmanager
def pack_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Multiply so many rows at a time faster; any other number is multiplied as before.

    Args:
        model: In inference; its weights must not change inside.
        rows: Rows of a batch, one token each.

    Yields:
        None: Afterwards the packed copies are gone. A model that is not float32 on a processor with MKL, or is too
            large, is left as it is.
    """
    layers = [module for module in model.modules() if _may_pack(module)]
    if not _has_operators() or sum(layer.weight.nbytes for layer in layers) > PACKED_BYTES:
        layers = []
    try:
        for layer in layers:
            layer.forward = _multiplier(layer, rows)  # type: ignore[assignment, method-assign]  # on this one object
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _has_operators() -> bool:
    """Whether torch was built with both libraries that its packed product needs."""
    return bool(torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _may_pack(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a plain linear layer whose products are MKL's."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    return module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _multiplier(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    packed = torch.ops.mkl._mkl_reorder_linear_weight(layer.weight.detach(), rows)

    def multiply(states: Tensor) -> Tensor:
        if states.numel() != rows * layer.in_features:
            return nn.functional.linear(states, layer.weight, layer.bias)
        product: Tensor = torch.ops.mkl._mkl_linear(states, packed, layer.weight, layer.bias, rows)
        return product

    return multiply
