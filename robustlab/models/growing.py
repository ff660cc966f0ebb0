"""Keys and values of a wave in one buffer: a new token is written into its place instead of copying all before it.

Only caches whose every layer keeps all tokens can be gathered so; what a model with other layers needs stays as
transformers makes it. This module knows tensors and no text.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_COUNTING_PLACES = frozenset({"mpt"})
_BY_LENGTH = frozenset({"dynamic", "longrope"})


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # a hook of transformers has no types
    """One layer of a wave, with room for the tokens that are still to come."""

    def __init__(self, keys_B_H_C_D: Tensor, values_B_H_C_D: Tensor, length: int) -> None:
        """Take over buffers of which the first ``length`` places of the third axis are filled.

        Args:
            keys_B_H_C_D: Keys, with room up to the capacity C.
            values_B_H_C_D: Values alike.
            length: Places that are filled.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device = keys_B_H_C_D.dtype, keys_B_H_C_D.device
        self._buffers = (keys_B_H_C_D, values_B_H_C_D)
        self._length = length
        self.is_initialized = True
        self._show(len(keys_B_H_C_D))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write new places behind the filled ones.

        Args:
            key_states: Shape [rows, heads, new places, width].
            value_states: Alike.
            *args: What other kinds of layer need; unused.
            **kwargs: Alike.

        Returns:
            All keys and values so far, as views.
        """
        rows, start = len(key_states), self._length
        self._length += key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start : self._length] = new
        return self._show(rows)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, in the order in which they are named; a row that stays in its place is not copied.

        Args:
            indices: Places of the rows that stay.
        """
        places = torch.arange(len(indices), device=indices.device)
        moved = indices != places
        for buffer in self._buffers:
            buffer[places[moved]] = buffer[indices[moved]]
        self._show(len(indices))

    def _show(self, rows: int) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:rows, :, : self._length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def keeps_all_tokens(config: PreTrainedConfig) -> bool:
    """Whether every layer of a model's cache holds the keys and values of all tokens, and nothing else.

    Args:
        config: The model's.

    Returns:
        False too where a key depends on more than its own token and position: on the length of what is read at once
        (dynamic rotary scaling), or on its place in the batch, filler counted (MPT's linear biases).
    """
    layers = DynamicCache(config=config).layers
    is_plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return is_plain and config.model_type not in _COUNTING_PLACES and not _rope_types(config) & _BY_LENGTH


def _rope_types(config: PreTrainedConfig) -> set[object]:
    """Kinds of rotary scaling that a config names, for all layers together or for each kind of layer."""
    named = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    parts = [named, *(part for part in named.values() if isinstance(part, dict))]
    return {part.get("rope_type") for part in parts}


def repeat_cache(config: PreTrainedConfig, cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache that begins as ``rows`` copies of the only row of another, which stays as it is."""
    data = [tuple(side.expand(rows, -1, -1, -1) for side in _held(cache, index)) for index in range(len(cache.layers))]
    return DynamicCache(data, config=config)


def gather_caches(config: PreTrainedConfig, parts: Sequence[DynamicCache], *, room: int) -> DynamicCache:
    """Put the caches of parts of a wave together, aligned on the right; the parts are emptied on the way.

    Args:
        config: The model's.
        parts: Caches of consecutive rows, whose layers keep all tokens.
        room: Tokens that will be added to each row.

    Returns:
        One cache for all rows. What lies to the left of a narrow part is zero, and must be masked.
    """
    gathered = DynamicCache(config=config)
    for index in range(len(gathered.layers)):
        held = [_held(part, index) for part in parts]
        for part in parts:
            part.layers[index].reset()
        length = max(keys.shape[-2] for keys, _ in held)
        keys, values = (_gather([pair[side] for pair in held], length, length + room) for side in (0, 1))
        gathered.layers[index] = GrowingLayer(keys, values, length)
    return gathered


def _held(cache: DynamicCache, index: int) -> tuple[Tensor, Tensor]:
    layer = cast(DynamicLayer, cache.layers[index])
    return cast(Tensor, layer.keys), cast(Tensor, layer.values)


def _gather(parts: Sequence[Tensor], length: int, capacity: int) -> Tensor:
    _, heads, _, width = parts[0].shape
    whole = parts[0].new_zeros(sum(map(len, parts)), heads, capacity, width)
    row = 0
    for part in parts:
        whole[row : row + len(part), :, length - part.shape[-2] : length] = part
        row += len(part)
    return whole
