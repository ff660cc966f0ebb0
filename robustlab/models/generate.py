"""Greedy decoding in a deterministic batch plan, in waves (``robustlab.models.waves``).

Rows that have ended leave the batch, so short answers cost little; which rows leave when depends only on the model and
the wave. This module does not judge and does not bill: the caller is told of each wave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from robustlab.models.growing import WaveCache, continue_cache, keeps_all_tokens
from robustlab.models.packed import pack_linears
from robustlab.models.peak import release_freed
from robustlab.models.waves import Wave, count_shared, plan_reading, plan_waves

_BLOCK = 128
_WORTH_PACKING = 8
"""Tokens from which on laying out the weights takes less than it saves."""


@dataclass(frozen=True)
class Completion:
    """What the model wrote after one prompt.

    Attributes:
        ids: New tokens, without the one that ended them.
        ended: Whether the model ended by itself within the limit.
    """

    ids: tuple[int, ...]
    ended: bool


def count_read_once(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with and that are read once; 0 for a model whose cache cannot be handed on."""
    return count_shared(prompts) if keeps_all_tokens(model.config) else 0


def generate_greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    batch_rows: int,
    max_new_tokens: int,
    eos_ids: frozenset[int],
    pad_id: int,
    before_wave: Callable[[Wave], None],
    after_wave: Callable[[Wave, list[Completion]], None],
) -> list[Completion]:
    """Complete every prompt greedily.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, the generation prompt included.
        batch_rows: Most rows of one wave.
        max_new_tokens: Longest completion.
        eos_ids: Tokens that end a completion.
        pad_id: Filler to the left of shorter prompts.
        before_wave: Called before a wave; it may raise to stop.
        after_wave: Called with the wave's completions.

    Returns:
        One completion a prompt, in the order of ``prompts``.
    """
    done: dict[int, Completion] = {}
    opening: _Opening | None = None
    for wave in plan_waves(prompts, batch_rows, max_new_tokens=max_new_tokens):
        before_wave(wave)
        opening = opening or _read_opening(model, prompts)
        planned = plan_reading(prompts, wave, opening.tokens) if opening.in_parts else wave
        # Not given a name here: it would stay in memory while the next wave is read.
        completions = _decode(
            model,
            _read_wave(model, prompts, planned, opening, room=max_new_tokens - 1, pad_id=pad_id),
            max_new_tokens=max_new_tokens,
            eos_ids=eos_ids,
        )
        release_freed()
        done.update(zip(planned.rows, completions, strict=True))
        after_wave(planned, completions)
    return [done[row] for row in range(len(prompts))]


@dataclass(frozen=True)
class _Opening:
    """What several prompts begin with, read once.

    Attributes:
        tokens: Its length; 0 for none.
        cache: Its keys and values, in one row; None for none.
        in_parts: Whether a wave can be read in parts and put together.
    """

    tokens: int
    cache: DynamicCache | None
    in_parts: bool


@dataclass(frozen=True)
class _Read:
    """Prompts that have been read.

    Attributes:
        logits: Logits after each, shape [rows, vocabulary].
        mask: Attention mask, shape [rows, tokens], aligned on the right.
        cache: Keys and values.
    """

    logits: Tensor
    mask: Tensor
    cache: DynamicCache


def _read_opening(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> _Opening:
    nothing = _Opening(0, None, in_parts=keeps_all_tokens(model.config))
    return _extend(model, nothing, prompts[0][: count_read_once(model, prompts)])


@torch.inference_mode()
def _extend(model: PreTrainedModel, opening: _Opening, ids: Sequence[int]) -> _Opening:
    """What is read once, and more of it; what was read before stays as it is."""
    if not ids:
        return opening
    cache = DynamicCache(config=model.config) if opening.cache is None else continue_cache(model.config, opening.cache)
    model(
        input_ids=torch.tensor([list(ids)], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return _Opening(opening.tokens + len(ids), cache, in_parts=True)


@torch.inference_mode()
def _read_wave(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], wave: Wave, opening: _Opening, *, room: int, pad_id: int
) -> _Read:
    """Read a wave part by part; its keys and values have room for so many tokens more."""
    if not opening.in_parts:
        cache = DynamicCache(config=model.config)
        return _Read(*_read_part(model, [prompts[row] for row in wave.rows], 0, cache, pad_id), cache)
    width = max(len(prompts[row]) for row in wave.rows)
    whole = WaveCache(model.config, rows=len(wave.rows), places=width, room=room)
    logits, masks, first = [], [], 0
    for part in wave.parts:
        texts = [prompts[row] for row in part.rows]
        known = _extend(model, opening, texts[0][opening.tokens : part.shared])
        cache = whole.open_part(first, len(texts), max(map(len, texts)), known.cache)
        logits_B_V, mask_B_T = _read_part(model, texts, known.tokens, cache, pad_id)
        logits.append(logits_B_V)
        masks.append(torch.nn.functional.pad(mask_B_T, (width - mask_B_T.shape[1], 0)))
        first += len(texts)
    return _Read(torch.cat(logits), torch.cat(masks), whole.open_whole())


def _read_part(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], known: int, cache: DynamicCache, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Read what is not yet known of some rows; returns the logits after each and its attention mask."""
    ids_B_T, mask_B_T = left_pad([text[known:] for text in texts], pad_id, model.device)
    mask_B_T = torch.cat([mask_B_T.new_ones(len(texts), known), mask_B_T], dim=1)
    logits_B_1_V = model(
        input_ids=ids_B_T,
        attention_mask=mask_B_T,
        position_ids=(mask_B_T.cumsum(-1) - 1).clamp(min=0)[:, known:],
        past_key_values=cache,
        use_cache=True,
        # An index, not a count: a slice of the last places is no matrix, and each row would read the whole vocabulary.
        logits_to_keep=torch.tensor([ids_B_T.shape[1] - 1], device=model.device),
    ).logits
    return logits_B_1_V[:, -1], mask_B_T


def _decode(model: PreTrainedModel, read: _Read, *, max_new_tokens: int, eos_ids: frozenset[int]) -> list[Completion]:
    """Write after prompts that have been read."""
    if max_new_tokens < _WORTH_PACKING:
        return _write(model, read, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
    with pack_linears(model, rows=len(read.mask)):
        return _write(model, read, max_new_tokens=max_new_tokens, eos_ids=eos_ids)


@torch.inference_mode()
def _write(model: PreTrainedModel, read: _Read, *, max_new_tokens: int, eos_ids: frozenset[int]) -> list[Completion]:
    logits_B_V, mask_B_T, cache = read.logits, read.mask, read.cache
    position_B_1 = mask_B_T.sum(-1, keepdim=True)
    written: list[list[int]] = [[] for _ in mask_B_T]
    ended = [False] * len(written)
    live = list(range(len(written)))
    for new in range(1, max_new_tokens + 1):
        chosen_B = _most_likely(logits_B_V)
        stay = _close_ranks(_take(chosen_B.tolist(), live, written, ended, eos_ids))
        if not stay or new == max_new_tokens:
            break
        if len(stay) < len(live):
            index = torch.tensor(stay, device=model.device)
            cache.batch_select_indices(index)
            chosen_B, mask_B_T, position_B_1 = chosen_B[index], mask_B_T[index], position_B_1[index]
            live = [live[i] for i in stay]
        mask_B_T = torch.cat([mask_B_T, mask_B_T.new_ones(len(live), 1)], dim=1)
        logits_B_V = model(
            input_ids=chosen_B[:, None],
            attention_mask=mask_B_T,
            position_ids=position_B_1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        position_B_1 = position_B_1 + 1
    return [Completion(tuple(ids), end) for ids, end in zip(written, ended, strict=True)]


def _most_likely(logits_B_V: Tensor) -> Tensor:
    """The highest logit of each row, found in the block that has it: a quarter of the time of argmax on a processor.

    A vocabulary that is no multiple of the block is searched as a whole.
    """
    if logits_B_V.shape[1] % _BLOCK or not logits_B_V.is_contiguous():
        return logits_B_V.argmax(-1)
    blocks_B_N_K = logits_B_V.view(len(logits_B_V), -1, _BLOCK)
    best_B = blocks_B_N_K.amax(-1).argmax(-1)
    rows = torch.arange(len(best_B), device=best_B.device)
    return best_B * _BLOCK + blocks_B_N_K[rows, best_B].argmax(-1)


def _take(
    chosen: list[int], live: list[int], written: list[list[int]], ended: list[bool], eos_ids: frozenset[int]
) -> list[int]:
    """Book one new token a live row; returns the places of the rows that go on."""
    keep = []
    for place, (row, token) in enumerate(zip(live, chosen, strict=True)):
        if token in eos_ids:
            ended[row] = True
        else:
            written[row].append(token)
            keep.append(place)
    return keep


def _close_ranks(keep: list[int]) -> list[int]:
    """The same places in an order that moves few: the last ones take the places of those that have left."""
    inside = {place for place in keep if place < len(keep)}
    movers = iter(keep[len(inside) :])
    return [place if place in inside else next(movers) for place in range(len(keep))]


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of a batch, both of shape [rows, longest row], with the filler on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
