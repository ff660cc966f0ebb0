"""A wave's keys and values in one buffer: what a concatenated cache holds, wherever its rows and parts came from."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig, MptConfig

from robustlab.models.growing import WaveCache, continue_cache, keeps_all_tokens

CONFIG = LlamaConfig(
    num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8, vocab_size=9
)


def filled(rows: int, places: int, *, start: int) -> DynamicCache:
    """A cache whose numbers count up from ``start``, layer by layer; values are the keys' negatives."""
    cache, size = DynamicCache(config=CONFIG), rows * places * 4
    for index in range(2):
        first = float(start + index * size)
        keys = torch.arange(first, first + size).reshape(rows, 1, places, 4)
        cache.update(keys, -keys, index)
    return cache


def whole_of(rows: int, places: int, *, room: int) -> DynamicCache:
    """A wave of one part: row r holds r0, r1, ... in every number of its keys, and the negatives as values."""
    wave = WaveCache(CONFIG, rows=rows, places=places, room=room)
    part = wave.open_part(0, rows, places, None)
    keys = torch.tensor([[10.0 * row + place for place in range(places)] for row in range(rows)])
    for index in range(2):
        part.update(
            keys[:, None, :, None].expand(rows, 1, places, 4), -keys[:, None, :, None].expand(-1, 1, -1, 4), index
        )
    return wave.open_whole()


def numbers(layer: Any) -> list[list[float]]:
    """The first number of each row's keys, after seeing that values are their negatives."""
    assert torch.equal(layer.values, -layer.keys)
    return layer.keys[:, 0, :, 0].tolist()


def test_new_places_stand_behind_the_old_ones_and_nothing_is_copied() -> None:
    whole = whole_of(2, 3, room=2)
    before = whole.layers[1].keys.data_ptr()
    new = torch.tensor([[[[7.0] * 4]], [[[8.0] * 4]]])
    keys, values = whole.update(new, -new, 1)
    assert numbers(whole.layers[1]) == [[0, 1, 2, 7], [10, 11, 12, 8]] and torch.equal(values, -keys)
    assert keys.data_ptr() == before and whole.layers[1].get_seq_length() == 4
    assert numbers(whole.layers[0]) == [[0, 1, 2], [10, 11, 12]] and whole.get_seq_length() == 3


def test_rows_that_stay_are_kept_in_the_order_that_is_named() -> None:
    whole = whole_of(4, 2, room=1)
    whole.batch_select_indices(torch.tensor([0, 3, 2]))
    assert numbers(whole.layers[0]) == numbers(whole.layers[1]) == [[0, 1], [30, 31], [20, 21]]
    nine = torch.full((3, 1, 1, 4), 9.0)
    whole.update(nine, -nine, 0)
    whole.batch_select_indices(torch.tensor([2, 0]))
    assert numbers(whole.layers[0]) == [[20, 21, 9], [0, 1, 9]]


def test_parts_are_read_into_the_wave_on_the_right_with_room_behind() -> None:
    wave = WaveCache(CONFIG, rows=3, places=3, room=2)
    narrow, wide = wave.open_part(0, 1, 1, None), wave.open_part(1, 2, 3, None)
    assert narrow.get_seq_length() == wide.get_seq_length() == 0
    for part, rows, places, start in ((wide, 2, 3, 50.0), (narrow, 1, 1, 5.0)):
        for index in range(2):
            keys = torch.arange(start, start + rows * places * 4).reshape(rows, 1, places, 4)
            part.update(keys, -keys, index)
    whole = wave.open_whole()
    assert whole.layers[1].keys[0, 0].tolist() == [[0] * 4, [0] * 4, [5, 6, 7, 8]]
    assert whole.layers[1].keys[2, 0, 2].tolist() == [70, 71, 72, 73]
    assert torch.equal(whole.layers[0].values, -whole.layers[0].keys)
    assert whole.get_seq_length() == 3
    whole.update(torch.ones(3, 1, 2, 4), torch.ones(3, 1, 2, 4), 0)
    assert whole.layers[0].keys.shape == (3, 1, 5, 4)


def test_a_part_begins_with_copies_of_what_is_known_and_leaves_it_as_it_is() -> None:
    known = filled(1, 2, start=0)
    wave = WaveCache(CONFIG, rows=3, places=4, room=0)
    part = wave.open_part(1, 2, 3, known)
    assert part.get_seq_length() == 2
    part.update(torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4), 0)
    # One place stays empty before two known ones and the new one.
    found = wave.open_whole().layers[0].keys[:, 0]
    assert found[0].eq(0).all() and found[2, 0].eq(0).all() and found[2, 3].eq(1).all()
    assert torch.equal(found[1, 1:3], known.layers[0].keys[0, 0]) and torch.equal(found[1], found[2])
    assert known.get_seq_length() == 2


def test_a_cache_that_goes_on_leaves_the_first_as_it_is() -> None:
    one = filled(1, 2, start=0)
    more = continue_cache(CONFIG, one)
    more.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4), 0)
    found = more.layers[0].keys
    assert found.shape == (1, 1, 3, 4) and torch.equal(found[0, :, :2], one.layers[0].keys[0])
    assert one.get_seq_length() == 2


def test_only_caches_that_keep_every_token_are_gathered() -> None:
    assert keeps_all_tokens(CONFIG)
    assert not keeps_all_tokens(MistralConfig(num_hidden_layers=2, sliding_window=4))


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "linear"])
def test_keys_that_depend_on_what_else_is_read_are_not(kind: str) -> None:
    config = LlamaConfig(num_hidden_layers=2)
    config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    assert keeps_all_tokens(config) == (kind == "linear")
    config.rope_parameters = {"full_attention": {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}}
    assert keeps_all_tokens(config) == (kind == "linear")


def test_biases_that_count_filler_are_not() -> None:
    assert not keeps_all_tokens(MptConfig(n_layers=2, d_model=8, n_heads=2))
