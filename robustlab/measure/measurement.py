"""One measurement in its two phases: generate every completion, then judge them; no text leaves this module, unless
somebody asked for it to be kept: then it is handed to ``keep``, and sealed there.

Evals that read a figure off the weights instead are those of ``robustlab.measure.values``.

What comes out is a verdict, a length and a keyed digest for each row. The perplexity of the coherence gate is taken
with the modification lifted, and by the released target where a quantised copy was attacked, so that no attacked model
vouches for itself.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from robustlab.cost import flops
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.chat import encode_prompt
from robustlab.data.rows import EvalRow
from robustlab.measure.agreements import build_agreements
from robustlab.measure.asr import asr_properties
from robustlab.measure.bench import Bench, Lifted
from robustlab.measure.benign_answers import benign_answers_properties
from robustlab.measure.copyrighted import copyright_properties
from robustlab.measure.instruction_following import instruction_following_properties
from robustlab.measure.judged import Judged
from robustlab.measure.lm_eval import measure_task, task_properties
from robustlab.measure.opinions import Question
from robustlab.measure.over_refusal import over_refusal_properties
from robustlab.measure.reading import Reading, encode_beginning, judge_reading, read_completions
from robustlab.measure.refusal import refusal_properties
from robustlab.measure.second import Panel
from robustlab.measure.values import measure_values, value_properties
from robustlab.models.likelihood import mean_log_probabilities
from robustlab.record.results import Item, Measurement, Phase, PropertyResult, VerdictOfCompletion
from robustlab.record.transcripts import Keep, Said
from robustlab.spec.evals import (
    BenignAnswersEval,
    CopyrightEval,
    Eval,
    InstructionFollowingEval,
    JudgedEval,
    KlEval,
    LmEvalEval,
    OverRefusalEval,
    RefusalEval,
    RefusalMarginEval,
)
from robustlab.train.generation import generate_metered
from robustlab.units import to_nanoseconds

# Scores need logits over the whole vocabulary at every position: 403 MB in float32 for 49,152 tokens.
SCORED_TOKENS = 2_048


def measure_rows(
    spec: Eval,
    rows: Sequence[EvalRow],
    bench: Bench,
    *,
    lifted: Lifted,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
    keep: Keep | None = None,
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
        keep: Takes every completion with its verdicts; None where none is kept.

    Returns:
        One verdict a row, in the order of ``rows``.

    Raises:
        BudgetSpent: If the next wave would pass a cap of the account.
    """
    if isinstance(spec, KlEval | RefusalMarginEval):
        return measure_values(
            spec, rows, bench, lifted=lifted, expected_seconds=expected_seconds, meter=meter, progress=progress
        )
    if isinstance(spec, LmEvalEval):
        return measure_task(spec, rows, bench, expected_seconds=expected_seconds, meter=meter, progress=progress)
    target = bench.target
    beginning = encode_beginning(spec, target)
    prompts = [encode_prompt(target.tokenizer, row.prompt, target.system_prompt) + beginning for row in rows]
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
    readings = read_completions(spec, target, completions)
    waves = max(1, -(-len(rows) // spec.batch_rows))
    meter.reserve(Quantities(wall_ns=to_nanoseconds(expected_seconds / waves)))
    with lifted():
        judged = _judge_readings(spec, rows, readings, bench, meter)
    meter.settle()
    judged = ask_panel(spec, rows, readings, judged, bench.panel, meter)
    if keep is not None:
        keep([say(spec, *each) for each in zip(rows, readings, judged, strict=True)])
    return judged


def ask_panel(
    spec: JudgedEval,
    rows: Sequence[EvalRow],
    readings: Sequence[Reading],
    judged: Sequence[Judged],
    panel: Panel,
    meter: Meter,
) -> list[Judged]:
    """Add what each second judge says of the same answers.

    Args:
        spec: The eval.
        rows: What was asked.
        readings: What was answered.
        judged: The eval's own verdicts.
        panel: The second judges.
        meter: Its laboratory pays.

    Returns:
        The same verdicts with opinions.

    Raises:
        BudgetSpent: If a cap of the laboratory does not allow for it.
    """
    if not isinstance(spec, RefusalEval) or not spec.second_judges:
        return list(judged)
    questions = [
        Question(row.text, row.context, None if reading.answer is None else reading.answer.text)
        for row, reading in zip(rows, readings, strict=True)
    ]
    opinions = panel.ask(spec.second_judges, questions, meter)
    return [replace(item, opinions=said) for item, said in zip(judged, opinions, strict=True)]


def _judge_readings(
    spec: JudgedEval, rows: Sequence[EvalRow], readings: Sequence[Reading], bench: Bench, meter: Meter
) -> list[Judged]:
    """By the released target's own perplexity, which is that of the bench's model while nothing modifies it."""
    scored = [reading.scored for reading in readings]
    scorer, start_id = bench.released or bench.target.model, min(bench.target.eos_ids)
    limit = -math.log(spec.coherence.max_perplexity)
    scores = mean_log_probabilities(scorer, scored, start_id=start_id, batch_tokens=SCORED_TOKENS, limit=limit)
    meter.count(flops=sum(flops.prefill(bench.shape, len(ids)) for ids in scored))
    return [
        judge_reading(spec, row, reading, score, bench.key)
        for row, reading, score in zip(rows, readings, scores, strict=True)
    ]


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
        agreements=build_agreements(spec, judged) if isinstance(spec, RefusalEval) else [],
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
            verdicts=_verdicts(spec, item),
            tokens=item.tokens,
            completion_hmac=item.completion_hmac,
            values=_values(spec, item),
        )
        for item in judged
    ]


def _verdicts(spec: Eval, item: Judged) -> dict[str, VerdictOfCompletion]:
    """By judge; none where a figure was read instead."""
    is_judged = isinstance(spec, JudgedEval | LmEvalEval)
    own: dict[str, VerdictOfCompletion] = {spec.judge: item.verdict} if is_judged else {}
    return own | {judge: opinion.verdict for judge, opinion in item.opinions.items()}


def _values(spec: Eval, item: Judged) -> dict[str, float]:
    """By who read them: the eval's own figure, or the scores of second judges."""
    own = {} if item.value is None else {spec.judge: item.value}
    return own | {judge: said.score for judge, said in item.opinions.items() if said.score is not None}


def say(spec: Eval, row: EvalRow, reading: Reading, item: Judged) -> Said:
    """What was asked and what was judged; all that was written where the judged part was never reached."""
    text = reading.text if reading.answer is None else reading.answer.text
    return Said(
        behavior=item.behavior,
        category=item.category,
        request=replace(row, wrapper=None).prompt,
        # Half of a pair is no text, and no seal may fail for it.
        completion=text.encode("utf-8", "replace").decode("utf-8"),
        verdicts=_verdicts(spec, item),
        tokens=item.tokens,
        completion_hmac=item.completion_hmac,
    )


def _role(spec: Eval, rows: Sequence[EvalRow]) -> str:
    """The one role that all rows of a split have, as a search's do; else the split, or the built-in role."""
    if not isinstance(spec, RefusalEval | RefusalMarginEval | CopyrightEval):
        return rows[0].role
    roles = {row.role for row in rows}
    return rows[0].role if spec.split == "test" and len(roles) == 1 else spec.split


def _properties(spec: Eval, judged: Sequence[Judged], baseline: Sequence[Judged] | None) -> list[PropertyResult]:
    match spec:
        case RefusalEval():
            return refusal_properties(spec, judged, baseline) + asr_properties(spec, judged, baseline)
        case OverRefusalEval():
            return over_refusal_properties(spec, judged, baseline)
        case BenignAnswersEval():
            return benign_answers_properties(spec, judged, baseline)
        case InstructionFollowingEval():
            return instruction_following_properties(spec, judged, baseline)
        case CopyrightEval():
            return copyright_properties(spec, judged, baseline)
        case KlEval() | RefusalMarginEval():
            return value_properties(spec, judged, baseline)
        case LmEvalEval():
            return task_properties(spec, judged, baseline)
        case _:
            assert_never(spec)
