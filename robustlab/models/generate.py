"""Greedy decoding in a deterministic batch plan, in waves.

The plan depends on the full set of prompts and on nothing else: prompts are sorted by length, then content, and cut
into waves of a fixed size in rows and in tokens. What all prompts begin with is read once, and a wave is read in parts
of similar length, so that little is computed on filler. Rows that have ended leave the batch, so short answers cost
little; which rows leave when depends only on the model and the wave. This module does not judge and does not bill: the
caller is told of each wave.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from robustlab.cost.job import WAVE_TOKENS
from robustlab.models.growing import gather_caches, keeps_all_tokens, repeat_cache

PART_TOKENS = 2_048
"""Tokens that are read at once, filler included: enough to keep a device busy."""


@dataclass(frozen=True)
class Completion:
    """What the model wrote after one prompt.

    Attributes:
        ids: New tokens, without the one that ended them.
        ended: Whether the model ended by itself within the limit.
    """

    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class Wave:
    """One unit of the batch plan.

    Attributes:
        rows: Indices of the prompts, in the order of the batch.
        prompt_tokens: Sum of the prompts' lengths.
    """

    rows: tuple[int, ...]
    prompt_tokens: int


def plan_waves(prompts: Sequence[Sequence[int]], batch_rows: int, *, max_new_tokens: int = 0) -> list[Wave]:
    """Cut prompts into waves, sorted by length, then content, then position.

    Args:
        prompts: Token ids of each.
        batch_rows: Most rows of one wave.
        max_new_tokens: Longest completion. A wave holds ``WAVE_TOKENS`` at most, or one row.

    Returns:
        The waves; every prompt is in one.
    """
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), tuple(prompts[row]), row))
    lengths = [len(prompts[row]) + max_new_tokens for row in order]
    chunks = [tuple(order[start:end]) for start, end in _cut(lengths, batch_rows, WAVE_TOKENS)]
    return [Wave(rows, sum(len(prompts[row]) for row in rows)) for rows in chunks]


def _cut(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[tuple[int, int]]:
    """Runs of rows, each as long as its rows times its longest one allow; lengths may go up and down."""
    start, longest = 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        rows = place - start + 1
        if rows > 1 and (rows > most_rows or rows * longest > most_tokens):
            yield start, place
            start, longest = place, length
    if lengths:
        yield start, len(lengths)


def count_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all of several prompts begin with and that are read once; each keeps one of its own at least."""
    if len(prompts) < 2:
        return 0
    # What the first and the last in order have in common, all between them have too.
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return min(next(differing, len(first)), min(len(prompt) for prompt in prompts) - 1)


def count_read_once(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> int:
    """The same for a model: 0 where its cache cannot be handed on."""
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
        ids = [prompts[row] for row in wave.rows]
        completions = _decode(model, ids, opening, max_new_tokens=max_new_tokens, eos_ids=eos_ids, pad_id=pad_id)
        done.update(zip(wave.rows, completions, strict=True))
        after_wave(wave, completions)
    return [done[row] for row in range(len(prompts))]


@dataclass(frozen=True)
class _Opening:
    """What all prompts begin with, read once.

    Attributes:
        tokens: Its length; 0 for none.
        cache: Its keys and values, in one row; None for none.
        in_parts: Whether a wave can be read in parts and put together.
    """

    tokens: int
    cache: DynamicCache | None
    in_parts: bool


@torch.inference_mode()
def _read_opening(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> _Opening:
    shared = count_read_once(model, prompts)
    if shared == 0:
        return _Opening(0, None, in_parts=keeps_all_tokens(model.config))
    cache = DynamicCache(config=model.config)
    ids_1_T = torch.tensor([prompts[0][:shared]], device=model.device)
    model(input_ids=ids_1_T, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return _Opening(shared, cache, in_parts=True)


@torch.inference_mode()
def _decode(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    opening: _Opening,
    *,
    max_new_tokens: int,
    eos_ids: frozenset[int],
    pad_id: int,
) -> list[Completion]:
    logits_B_V, mask_B_T, cache = _read_prompts(model, prompts, opening, room=max_new_tokens - 1, pad_id=pad_id)
    position_B_1 = mask_B_T.sum(-1, keepdim=True)
    written: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    live = list(range(len(prompts)))
    for new in range(1, max_new_tokens + 1):
        chosen_B = logits_B_V.argmax(-1)
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


def _read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], opening: _Opening, *, room: int, pad_id: int
) -> tuple[Tensor, Tensor, DynamicCache]:
    """Logits after every prompt of a wave, its attention mask, and its keys and values with room for more."""
    lengths = [len(prompt) - opening.tokens for prompt in prompts]
    cuts = list(_cut(lengths, len(prompts), PART_TOKENS)) if opening.in_parts else [(0, len(prompts))]
    parts = [_read_part(model, prompts[start:end], opening, pad_id) for start, end in cuts]
    width = max(mask.shape[1] for _, mask, _ in parts)
    mask_B_T = torch.cat([torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for _, mask, _ in parts])
    caches = [cache for _, _, cache in parts]
    cache = gather_caches(model.config, caches, room=room) if opening.in_parts else caches[0]
    return torch.cat([logits for logits, _, _ in parts]), mask_B_T, cache


def _read_part(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], opening: _Opening, pad_id: int
) -> tuple[Tensor, Tensor, DynamicCache]:
    shared, config = opening.tokens, model.config
    ids_B_T, mask_B_T = left_pad([prompt[shared:] for prompt in prompts], pad_id, model.device)
    mask_B_T = torch.cat([mask_B_T.new_ones(len(prompts), shared), mask_B_T], dim=1)
    cache = DynamicCache(config=config) if opening.cache is None else repeat_cache(config, opening.cache, len(prompts))
    logits_B_1_V = model(
        input_ids=ids_B_T,
        attention_mask=mask_B_T,
        position_ids=(mask_B_T.cumsum(-1) - 1).clamp(min=0)[:, shared:],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits_B_1_V[:, -1], mask_B_T, cache


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


@torch.inference_mode()
def mean_log_probabilities(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], *, start_id: int, batch_rows: int
) -> list[float | None]:
    """Mean log-probability of each token given those before it in the same text, without any prompt.

    Args:
        model: The model that scores, in eval mode.
        texts: Token ids; an empty one scores None.
        start_id: Token that stands before the first one.
        batch_rows: Rows that are scored together.

    Returns:
        Nats per token, at most 0; its negative exponential is the perplexity.
    """
    scores: list[float | None] = [None] * len(texts)
    order = sorted((row for row in range(len(texts)) if texts[row]), key=lambda row: (len(texts[row]), row))
    for start in range(0, len(order), batch_rows):
        rows = order[start : start + batch_rows]
        for row, score in zip(rows, _score(model, [texts[row] for row in rows], start_id), strict=True):
            scores[row] = score
    return scores


def _score(model: PreTrainedModel, texts: list[Sequence[int]], start_id: int) -> list[float]:
    width = max(len(text) for text in texts)
    ids_B_T = torch.tensor([[start_id, *text] + [start_id] * (width - len(text)) for text in texts])
    mask_B_T = torch.tensor([[1] * (len(text) + 1) + [0] * (width - len(text)) for text in texts])
    ids_B_T, mask_B_T = ids_B_T.to(model.device), mask_B_T.to(model.device)
    logits_B_T_V = model(input_ids=ids_B_T, attention_mask=mask_B_T, use_cache=False).logits[:, :-1].float()
    chosen_B_T = logits_B_T_V.gather(-1, ids_B_T[:, 1:, None])[..., 0] - logits_B_T_V.logsumexp(-1)
    kept_B_T = chosen_B_T * mask_B_T[:, 1:]
    return [float(total) / len(text) for total, text in zip(kept_B_T.sum(-1).tolist(), texts, strict=True)]
