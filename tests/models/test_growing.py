"""A wave's keys and values in one buffer: what a concatenated cache holds, wherever its rows and parts came from."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig, MptConfig

from robustlab.models.growing import GrowingLayer, gather_caches, keeps_all_tokens, repeat_cache

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


def layer_of(rows: int, places: int, capacity: int) -> GrowingLayer:
    keys = torch.zeros(rows, 1, capacity, 1)
    keys[:, :, :places, 0] = torch.arange(rows * places, dtype=torch.float32).reshape(rows, 1, places)
    return GrowingLayer(keys, keys + 100, places)


def test_new_places_stand_behind_the_old_ones_and_nothing_is_copied() -> None:
    layer = layer_of(2, 3, 5)
    before = layer.keys.data_ptr()
    keys, values = layer.update(torch.tensor([[[[7.0]]], [[[8.0]]]]), torch.tensor([[[[1.0]]], [[[2.0]]]]))
    assert keys[..., 0].tolist() == [[[0, 1, 2, 7]], [[3, 4, 5, 8]]]
    assert values[..., 0].tolist() == [[[100, 101, 102, 1]], [[103, 104, 105, 2]]]
    assert keys.data_ptr() == before and layer.get_seq_length() == 4


def test_rows_that_stay_are_kept_in_the_order_that_is_named() -> None:
    layer = layer_of(4, 2, 3)
    layer.batch_select_indices(torch.tensor([0, 3, 2]))
    assert layer.keys[..., 0].tolist() == [[[0, 1]], [[6, 7]], [[4, 5]]]
    layer.update(torch.full((3, 1, 1, 1), 9.0), torch.full((3, 1, 1, 1), 9.0))
    layer.batch_select_indices(torch.tensor([2, 0]))
    assert layer.keys[..., 0].tolist() == [[[4, 5, 9]], [[0, 1, 9]]]
    assert layer.values[..., 0].tolist() == [[[104, 105, 9]], [[100, 101, 9]]]


def test_parts_are_gathered_on_the_right_with_room_behind() -> None:
    narrow, wide = filled(1, 1, start=1), filled(2, 3, start=50)
    whole = gather_caches(CONFIG, [narrow, wide], room=2)
    # Layer 1: the narrow part's numbers begin at 1 + 4, the wide one's at 50 + 24.
    assert whole.layers[1].keys[0, 0].tolist() == [[0] * 4, [0] * 4, [5, 6, 7, 8]]
    assert whole.layers[1].keys[2, 0, 2].tolist() == [94, 95, 96, 97]
    assert torch.equal(whole.layers[0].values, -whole.layers[0].keys)
    assert whole.get_seq_length() == 3
    whole.update(torch.ones(3, 1, 2, 4), torch.ones(3, 1, 2, 4), 0)
    assert whole.layers[0].keys.shape == (3, 1, 5, 4)


def test_copies_of_a_row_leave_it_as_it_is() -> None:
    one = filled(1, 2, start=0)
    many = repeat_cache(CONFIG, one, 3)
    many.update(torch.ones(3, 1, 1, 4), torch.ones(3, 1, 1, 4), 0)
    found = many.layers[0].keys
    assert found.shape == (3, 1, 3, 4) and torch.equal(found[2, :, :2], one.layers[0].keys[0])
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
