"""Keys and values of a wave in one buffer: a new token is written into its place instead of copying all before it.

Only models whose every layer keeps all tokens can be read so; what a model with other layers needs stays as
transformers makes it. This module knows tensors and no text.
"""

from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_COUNTING_PLACES = frozenset({"mpt"})
_BY_LENGTH = frozenset({"dynamic", "longrope"})


class _Slab:
    """Buffers of one layer for a whole wave, made when its first keys and values come."""

    def __init__(self, rows: int, capacity: int) -> None:
        self._rows, self._capacity = rows, capacity
        self.sides: tuple[Tensor, ...] = ()

    def open_for(self, *states: Tensor) -> None:
        """Take memory, once. What lies before a short row is masked, yet must be a number: zeros."""
        if not self.sides:
            self.sides = tuple(
                state.new_zeros(self._rows, state.shape[1], self._capacity, state.shape[-1]) for state in states
            )


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # a hook of transformers has no types
    """Some rows of one layer of a wave, with room for the tokens that are still to come."""

    def __init__(self, slab: _Slab, first: int, rows: int, start: int, length: int = 0) -> None:
        """Look at a part of a layer.

        Args:
            slab: The layer's buffers.
            first: First of the rows.
            rows: How many.
            start: First place of theirs.
            length: Places from there on that are filled.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._slab, self._first, self._start = slab, first, start
        self._length = length
        if slab.sides:
            self._show(rows)

    def get_seq_length(self) -> int:
        """Places that are filled."""
        return self._length

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
        self._slab.open_for(key_states, value_states)
        rows, begin = len(key_states), self._start + self._length
        self._length += key_states.shape[-2]
        for side, new in zip(self._slab.sides, (key_states, value_states), strict=True):
            side[self._first : self._first + rows, :, begin : self._start + self._length] = new
        return self._show(rows)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, in the order in which they are named; a row that stays in its place is not copied.

        Args:
            indices: Places of the rows that stay.
        """
        places = torch.arange(len(indices), device=indices.device)
        moved = indices != places
        for side in self._slab.sides:
            side[self._first + places[moved]] = side[self._first + indices[moved]]
        self._show(len(indices))

    def _show(self, rows: int) -> tuple[Tensor, Tensor]:
        keys, values = (
            side[self._first : self._first + rows, :, self._start : self._start + self._length]
            for side in self._slab.sides
        )
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        return keys, values


class WaveCache:
    """Keys and values of all rows of a wave, into which its parts are read, aligned on the right."""

    def __init__(self, config: PreTrainedConfig, *, rows: int, places: int, room: int) -> None:
        """Plan the buffers; no memory is taken yet.

        Args:
            config: Of a model whose layers keep all tokens.
            rows: Rows of the wave.
            places: Tokens of its longest prompt.
            room: Tokens that will be added to each row.
        """
        self._config, self._rows, self._places = config, rows, places
        self._slabs = [_Slab(rows, places + room) for _ in DynamicCache(config=config).layers]

    def open_part(self, first: int, rows: int, length: int, known: DynamicCache | None) -> DynamicCache:
        """A cache for rows that are read together.

        Args:
            first: First of the rows.
            rows: How many.
            length: Tokens of their longest prompt.
            known: One row with what all of them begin with; it stays as it is. None for nothing.

        Returns:
            A cache that begins with what is known and writes into the wave's own.
        """
        cache = self._view(first, rows, self._places - length, 0)
        for index in range(0 if known is None else len(cache.layers)):
            keys, values = (side.expand(rows, -1, -1, -1) for side in _held(cast(DynamicCache, known), index))
            cache.update(keys, values, index)
        return cache

    def open_whole(self) -> DynamicCache:
        """A cache of all rows, after every part was read."""
        return self._view(0, self._rows, 0, self._places)

    def _view(self, first: int, rows: int, start: int, length: int) -> DynamicCache:
        cache = DynamicCache(config=self._config)
        for index, slab in enumerate(self._slabs):
            cache.layers[index] = GrowingLayer(slab, first, rows, start, length)
        return cache


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


def continue_cache(config: PreTrainedConfig, cache: DynamicCache) -> DynamicCache:
    """A cache that goes on from another, which stays as it is."""
    return DynamicCache([_held(cache, index) for index in range(len(cache.layers))], config=config)


def _held(cache: DynamicCache, index: int) -> tuple[Tensor, Tensor]:
    layer = cast(DynamicLayer, cache.layers[index])
    return cast(Tensor, layer.keys), cast(Tensor, layer.values)
