"""One measurement in its two phases: generate every completion, then judge them; no text leaves this module.

What comes out is a verdict, a length and a keyed digest for each row. The perplexity of the coherence gate is taken
with the modification lifted, and by the released target where a quantised copy was attacked, so that no attacked model
vouches for itself.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import assert_never

from transformers import PreTrainedModel

from robustlab.cost import flops
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.chat import encode_opening, encode_prompt
from robustlab.data.rows import EvalRow
from robustlab.measure.benign_answers import benign_answers_properties
from robustlab.measure.instruction_following import instruction_following_properties, judge_instruction
from robustlab.measure.judge import Judgement, declines, judge_completion
from robustlab.measure.judged import Judged
from robustlab.measure.over_refusal import over_refusal_properties
from robustlab.measure.refusal import refusal_properties
from robustlab.models.generate import Completion, mean_log_probabilities
from robustlab.models.load import LoadedTarget
from robustlab.record.results import Item, Measurement, Phase, PropertyResult
from robustlab.spec.evals import BenignAnswersEval, Eval, InstructionFollowingEval, OverRefusalEval, RefusalEval
from robustlab.spec.targets import Shape
from robustlab.train.generation import generate_metered
from robustlab.units import to_nanoseconds

# Scores need logits over the whole vocabulary at every position; this keeps them under 300 MB.
SCORED_ROWS = 16
Lifted = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Bench:
    """What every measurement of one released target shares.

    Attributes:
        target: The resident target; a modification on it changes what it generates.
        shape: Its sizes, for the FLOP count.
        key: Key of the digests of completions; equal completions have equal digests under one key.
        released: The released target's own model where ``target`` is a quantised copy of it; None where it is that.
    """

    target: LoadedTarget
    shape: Shape
    key: bytes
    released: PreTrainedModel | None = None


def measure_rows(
    spec: Eval,
    rows: Sequence[EvalRow],
    bench: Bench,
    *,
    lifted: Lifted,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Judged]:
    """Generate a completion for every row and judge it.

    Args:
        spec: The eval.
        rows: What is asked, in the eval's own order.
        bench: The target and the key.
        lifted: Context in which the target is untouched.
        expected_seconds: What generating should take.
        meter: Its current account pays; a wave is one unit, and so is scoring.
        progress: Told of the rows done and of all rows.

    Returns:
        One verdict a row, in the order of ``rows``.

    Raises:
        BudgetSpent: If the next wave would pass a cap of the account.
    """
    target = bench.target
    opening = _encode_opening(spec, target)
    prompts = [encode_prompt(target.tokenizer, row.prompt, target.system_prompt) + opening for row in rows]
    completions = generate_metered(
        target,
        bench.shape,
        prompts,
        batch_rows=spec.batch_rows,
        max_new_tokens=spec.max_new_tokens,
        expected_seconds=expected_seconds,
        meter=meter,
        progress=progress,
    )
    texts = [str(target.tokenizer.decode(list(c.ids), skip_special_tokens=True)) for c in completions]
    # A reply that declines in plain words needs no perplexity to be read, and half of the forward passes are saved.
    scored = [() if declines(text) else completion.ids for text, completion in zip(texts, completions, strict=True)]
    waves = max(1, -(-len(rows) // spec.batch_rows))
    meter.reserve(Quantities(wall_ns=to_nanoseconds(expected_seconds / waves)))
    with lifted():
        scorer = bench.released or target.model
        scores = mean_log_probabilities(scorer, scored, start_id=min(target.eos_ids), batch_rows=SCORED_ROWS)
    meter.count(flops=sum(flops.prefill(bench.shape, len(ids)) for ids in scored))
    judged = [
        _judge(spec, row, text, score, completion, bench.key)
        for row, text, score, completion in zip(rows, texts, scores, completions, strict=True)
    ]
    meter.settle()
    return judged


def build_measurement(
    eval_id: str,
    spec: Eval,
    rows: Sequence[EvalRow],
    judged: Sequence[Judged],
    *,
    baseline: Sequence[Judged] | None,
    phase: Phase,
    step: int,
    attacker_micro_usd: int,
) -> Measurement:
    """Turn verdicts into properties, with the verdict on the paired change where there is a baseline.

    Args:
        eval_id: Id of the eval.
        spec: Its spec.
        rows: What was asked.
        judged: One verdict a row.
        baseline: Verdicts of the same rows before the attack; None at the baseline itself.
        phase: When it was made.
        step: Steps of the attack so far.
        attacker_micro_usd: What the attacker had spent by then.

    Returns:
        The entry of the eval in ``results.json``; what a property cost to break is not known yet and None.
    """
    return Measurement(
        eval=eval_id,
        role=_role(spec, rows),
        variant=spec.variant,
        phase=phase,
        step=step,
        attacker_micro_usd=attacker_micro_usd,
        properties=_properties(spec, judged, baseline),
        completions_sha256=hashlib.sha256("".join(item.completion_hmac for item in judged).encode()).hexdigest(),
    )


def build_items(
    cell_id: str, eval_id: str, spec: Eval, judged: Sequence[Judged], *, phase: Phase, step: int, seed: int
) -> list[Item]:
    """Write verdicts as lines of ``items.jsonl``."""
    return [
        Item(
            cell_id=cell_id,
            eval=eval_id,
            phase=phase,
            step=step,
            behavior=item.behavior,
            category=item.category,
            seed=seed,
            verdicts={spec.judge: item.verdict},
            tokens=item.tokens,
            completion_hmac=item.completion_hmac,
        )
        for item in judged
    ]


def _role(spec: Eval, rows: Sequence[EvalRow]) -> str:
    """The one role that all rows of a split have, as a search's do; else the split, or the built-in role."""
    if not isinstance(spec, RefusalEval):
        return rows[0].role
    roles = {row.role for row in rows}
    return rows[0].role if spec.split == "test" and len(roles) == 1 else spec.split


def _encode_opening(spec: Eval, target: LoadedTarget) -> list[int]:
    """Tokens with which every answer is made to begin; what follows them is the completion that is judged."""
    if not isinstance(spec, RefusalEval) or spec.prefill is None:
        return []
    return encode_opening(target.tokenizer, spec.prefill)


def _judge(spec: Eval, row: EvalRow, text: str, score: float | None, completion: Completion, key: bytes) -> Judged:
    judgement = _read(spec, row, text, score, completion)
    return Judged(
        behavior=row.text_sha256,
        category=row.category,
        verdict=judgement.verdict,
        reason=judgement.reason,
        tokens=len(completion.ids),
        completion_hmac=hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest(),
    )


def _read(spec: Eval, row: EvalRow, text: str, score: float | None, completion: Completion) -> Judgement:
    """By the check that the row came with, or by the rules where it has none."""
    tokens, gate = len(completion.ids), spec.coherence
    if row.check is None:
        return judge_completion(row.text, text, mean_log_probability=score, tokens=tokens, gate=gate)
    return judge_instruction(
        row.check, row.text, text, mean_log_probability=score, tokens=tokens, is_cut=not completion.ended, gate=gate
    )


def _properties(spec: Eval, judged: Sequence[Judged], baseline: Sequence[Judged] | None) -> list[PropertyResult]:
    match spec:
        case RefusalEval():
            return refusal_properties(spec, judged, baseline)
        case OverRefusalEval():
            return over_refusal_properties(spec, judged, baseline)
        case BenignAnswersEval():
            return benign_answers_properties(spec, judged, baseline)
        case InstructionFollowingEval():
            return instruction_following_properties(spec, judged, baseline)
        case _:
            assert_never(spec)
