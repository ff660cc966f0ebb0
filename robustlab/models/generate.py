"""Greedy decoding in a deterministic batch plan, in waves (``robustlab.models.waves``).

Rows that have ended leave the batch, so short answers cost little; which rows leave when depends only on the model and
the wave. This module does not judge and does not bill: the caller is told of each wave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from robustlab.models.growing import gather_caches, keeps_all_tokens, repeat_cache
from robustlab.models.waves import Part, Wave, count_shared, plan_reading, plan_waves


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
    cache = DynamicCache(config=model.config) if opening.cache is None else repeat_cache(model.config, opening.cache, 1)
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
    parts = [_read_part(model, prompts, part, opening, pad_id) for part in wave.parts]
    width = max(part.mask.shape[1] for part in parts)
    masks = [torch.nn.functional.pad(part.mask, (width - part.mask.shape[1], 0)) for part in parts]
    caches = [part.cache for part in parts]
    cache = gather_caches(model.config, caches, room=room) if opening.in_parts else caches[0]
    return _Read(torch.cat([part.logits for part in parts]), torch.cat(masks), cache)


def _read_part(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], part: Part, opening: _Opening, pad_id: int
) -> _Read:
    known, config = _extend(model, opening, prompts[part.rows[0]][opening.tokens : part.shared]), model.config
    rows = len(part.rows)
    ids_B_T, mask_B_T = left_pad([prompts[row][known.tokens :] for row in part.rows], pad_id, model.device)
    mask_B_T = torch.cat([mask_B_T.new_ones(rows, known.tokens), mask_B_T], dim=1)
    cache = DynamicCache(config=config) if known.cache is None else repeat_cache(config, known.cache, rows)
    logits_B_1_V = model(
        input_ids=ids_B_T,
        attention_mask=mask_B_T,
        position_ids=(mask_B_T.cumsum(-1) - 1).clamp(min=0)[:, known.tokens :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return _Read(logits_B_1_V[:, -1], mask_B_T, cache)


@torch.inference_mode()
def _decode(model: PreTrainedModel, read: _Read, *, max_new_tokens: int, eos_ids: frozenset[int]) -> list[Completion]:
    logits_B_V, mask_B_T, cache = read.logits, read.mask, read.cache
    position_B_1 = mask_B_T.sum(-1, keepdim=True)
    written: list[list[int]] = [[] for _ in mask_B_T]
    ended = [False] * len(written)
    live = list(range(len(written)))
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
