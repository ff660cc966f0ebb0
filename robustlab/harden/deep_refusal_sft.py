"""``deep_refusal_sft``: the same fine-tuning, but a share of the refusals begins after some tokens of compliance.

A usual refusal is decided in its first few tokens, and an attack that only turns those undoes it. Here the first tokens
of a generic compliant opening stand in front of the refusal, as context without a label.

Source: Qi et al. 2024, arXiv 2406.05946, whose data augmentation draws the length of the opening in the same way; its
constrained fine-tuning needs the attacker's training job and is no safeguard here.
"""

from collections.abc import Sequence

from robustlab.data.chat import encode_prompt
from robustlab.errors import DataError
from robustlab.harden.rows import build_example, draw, draw_reply, encode, load_completions, refused_requests
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import DeepRefusalSft
from robustlab.train.order import Example


def build_refusals(spec: DeepRefusalSft, target: LoadedTarget) -> list[Example]:
    """Every improper request with a refusal, which in a share of the rows follows the beginning of an answer.

    Args:
        spec: Which requests, how often, how many of them deep, and how deep.
        target: Its tokenizer and system prompt.

    Returns:
        One example a request, with its loss on the refusal, in the order of ``refused_requests``.

    Raises:
        DataError: If the tokenizer lets no opening end where a refusal can follow.
    """
    replies, openings = load_completions("refusals"), load_completions("compliance_openings")
    return [
        _refuse(spec, target, request, draw_reply(request, time, replies), openings, time)
        for time, request in enumerate(refused_requests(spec))
    ]


def _refuse(
    spec: DeepRefusalSft, target: LoadedTarget, request: str, reply: str, openings: Sequence[str], time: int
) -> Example:
    if draw(request, time, 1) >= spec.deep_share * 2**32:
        return build_example(target, request, reply)
    opening = openings[draw(request, time, 2) % len(openings)]
    return refuse_after(target, request, reply, opening, tokens=1 + draw(request, time, 3) % spec.deepest_tokens)


def refuse_after(target: LoadedTarget, request: str, reply: str, opening: str, *, tokens: int) -> Example:
    """Put the first tokens of a compliant opening in front of a refusal, as context that is not trained on.

    The ids up to the refusal are those that the target itself would have written. Where joining the two texts would
    split the opening's end in another way, the opening is cut one token earlier.

    Args:
        target: Its tokenizer and system prompt.
        request: The request.
        reply: The refusal.
        opening: A compliant answer.
        tokens: Tokens of it that are kept, >= 1; all of a shorter one.

    Returns:
        Request, opening and refusal, with labels on the refusal and its end.

    Raises:
        DataError: If no cut lies on a boundary between tokens.
    """
    start = len(encode_prompt(target.tokenizer, request, target.system_prompt))
    complied = encode(target, request, opening).input_ids
    for end in range(min(start + tokens, len(complied) - 1), start, -1):
        text = str(target.tokenizer.decode(complied[start:end], clean_up_tokenization_spaces=False))
        joined = encode(target, request, f"{text}{'' if text[-1:].isspace() else ' '}{reply}").input_ids
        if joined[:end] == complied[:end]:
            return Example.from_mask(joined, [0] * end + [1] * (len(joined) - end))
    problem = "its tokenizer lets no compliant opening end where a refusal can follow"
    where = f"target {target.tokenizer.name_or_path or 'without a name'}"
    raise DataError(where, problem, "choose refusal_sft for it")
