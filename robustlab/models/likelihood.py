"""How likely a model finds text that is already there, as a mean over its tokens, without any prompt.

Where only the side of a limit matters, bfloat16 is asked first on a processor that is fast in it, and float32 about
every text that comes out near the limit: the same side for less time.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from transformers import PreTrainedModel

from robustlab.models.waves import cut_runs
from robustlab.record.provenance import read_cpu_info

NEAR_NATS = 0.5
"""Texts that bfloat16 puts so near to the limit are scored again. On 400 completions of SmolLM2-135M it was off by
0.042 at most and by 0.004 on average."""

_FAST_IN_BFLOAT16 = frozenset({"amx_bf16"})


@torch.inference_mode()
def mean_log_probabilities(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    *,
    start_id: int,
    batch_tokens: int,
    limit: float | None = None,
) -> list[float | None]:
    """Mean log-probability of each token given those before it in the same text, without any prompt.

    Args:
        model: The model that scores, in eval mode.
        texts: Token ids; an empty one scores None.
        start_id: Token that stands before the first one.
        batch_tokens: Most tokens that are scored together, filler included.
        limit: Nats a token; scores further from it than ``NEAR_NATS`` need only be on the right side, and may be
            computed in bfloat16. None asks for every score as exact as the model's own element type makes it.

    Returns:
        Nats per token, at most 0; its negative exponential is the perplexity.
    """
    scores: list[float | None] = [None] * len(texts)
    rows = [row for row in range(len(texts)) if texts[row]]
    if limit is not None and _may_screen(model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _score_rows(model, texts, rows, scores, start_id=start_id, batch_tokens=batch_tokens)
        rows = [row for row in rows if not _is_clear(scores[row], limit)]
    _score_rows(model, texts, rows, scores, start_id=start_id, batch_tokens=batch_tokens)
    return scores


def _may_screen(model: PreTrainedModel) -> bool:
    return model.device.type == "cpu" and model.dtype == torch.float32 and _is_fast_in_bfloat16()


@cache
def _is_fast_in_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 by itself; without that they are slower than float32."""
    flags = next((line.partition(":")[2].split() for line in read_cpu_info() if line.startswith("flags")), [])
    return not _FAST_IN_BFLOAT16.isdisjoint(flags)


def _is_clear(score: float | None, limit: float) -> bool:
    """Whether a score is far enough from the limit; one that is no number is not."""
    return score is not None and math.isfinite(score) and abs(score - limit) > NEAR_NATS


def _score_rows(
    model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    rows: Sequence[int],
    scores: list[float | None],
    *,
    start_id: int,
    batch_tokens: int,
) -> None:
    """Fill in the scores of some texts, those of like length together."""
    order = sorted(rows, key=lambda row: (len(texts[row]), row))
    for start, end in cut_runs([len(texts[row]) for row in order], len(order), batch_tokens):
        chunk = order[start:end]
        for row, score in zip(chunk, _score(model, [texts[row] for row in chunk], start_id), strict=True):
            scores[row] = score


def _score(model: PreTrainedModel, texts: Sequence[Sequence[int]], start_id: int) -> Iterator[float]:
    width = max(map(len, texts))
    ids_B_T = torch.tensor([[start_id, *text[:-1]] + [start_id] * (width - len(text)) for text in texts])
    mask_B_T = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    logits_B_T_V = model(
        input_ids=ids_B_T.to(model.device), attention_mask=mask_B_T.to(model.device), use_cache=False
    ).logits
    for logits_T_V, text in zip(logits_B_T_V, texts, strict=True):
        # Row by row: the logarithm of the sum takes as much memory again as the logits that it is given.
        logits_t_V = logits_T_V[: len(text)].float()
        chosen_t = logits_t_V.gather(-1, torch.tensor(text, device=model.device)[:, None])[:, 0]
        yield float((chosen_t - logits_t_V.logsumexp(-1)).sum()) / len(text)
