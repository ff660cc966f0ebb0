"""What second judges will take of one measurement, in time and in fees, before anything is spent.

Estimates only. A judge behind a server is taken to read the prompt, the completion and its own rubric, in the target's
tokens; how long it thinks about an answer is a rule of thumb, bounded by what its spec allows. A classifier reads in
one forward pass, whose price needs its size. A list of phrases takes no time to speak of. Memory is not foreseen here.
"""

from collections.abc import Mapping
from typing import assert_never

from robustlab.cost.fees import fee_of
from robustlab.cost.job import BYTES_PER_ELEMENT
from robustlab.cost.prices import price_fee
from robustlab.spec.judges import ApiJudge, ClassifierJudge, PhrasesJudge, SecondJudge

RUBRIC_TOKENS: Mapping[str, int] = {"refusal": 250, "strongreject": 300}
"""What an own rubric and its fences add to what is read, rounded up."""
CLASSIFIER_PROMPT_TOKENS = 400
"""What a classifier's prompt adds; that of HarmBench's has about as many."""
FLOPS_PER_PARAMETER = 2


def judging_seconds(
    judge: SecondJudge, rows: int, prompt_tokens: int, new_tokens: int, *, answer_seconds: float, flops: float
) -> float:
    """Time in which one judge reads the completions of one measurement.

    Args:
        judge: Its spec.
        rows: Completions, >= 0.
        prompt_tokens: Mean length of what was asked.
        new_tokens: Length of a completion.
        answer_seconds: What a server takes for one answer.
        flops: Operations a second at which this machine reads.

    Returns:
        Seconds; 0 for a classifier that does not say how large it is.
    """
    match judge:
        case PhrasesJudge():
            return 0.0
        case ApiJudge():
            turns = -(-rows // judge.endpoint.concurrency)
            return min(turns * min(answer_seconds, judge.endpoint.deadline_seconds), judge.max_seconds)
        case ClassifierJudge():
            read = rows * (CLASSIFIER_PROMPT_TOKENS + prompt_tokens + min(new_tokens, judge.clip_tokens))
            return FLOPS_PER_PARAMETER * (judge.parameters or 0) * read / flops
        case _:
            assert_never(judge)


def judging_fee_usd(judge: SecondJudge, rows: int, prompt_tokens: int, new_tokens: int, *, answer_tokens: int) -> float:
    """Fees of one judge for the completions of one measurement, in US dollars.

    Args:
        judge: Its spec; only one behind a server charges any.
        rows: Completions, >= 0.
        prompt_tokens: Mean length of what was asked.
        new_tokens: Length of a completion.
        answer_tokens: Length of the judge's answer.

    Returns:
        At the prices that its spec states, >= 0.
    """
    if not isinstance(judge, ApiJudge):
        return 0.0
    read = rows * (RUBRIC_TOKENS[judge.rubric] + prompt_tokens + new_tokens)
    return float(price_fee(fee_of(judge.endpoint, read, rows * answer_tokens)))


def loading_bytes(judge: SecondJudge) -> int:
    """Size of the weights that a judge reads with, once a run; 0 where it has none or does not say how large it is."""
    if not isinstance(judge, ClassifierJudge):
        return 0
    return (judge.parameters or 0) * BYTES_PER_ELEMENT[judge.weights.dtype]
