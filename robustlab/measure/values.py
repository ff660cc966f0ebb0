"""Evals that read a figure for each row off the weights: divergence from the released target, and refusal margins.

A divergence is held against the released target itself, with the modification lifted, on the tokens that it answers
with by itself. A margin compares openings after one shared pass over the prompt; nothing is generated. Neither reads a
text, so neither says what a person would have been told.

Source: refusal openings as a measure, Arditi et al. 2024, arXiv 2406.11717; KL to the untouched model on benign prompts
as the measure of what an attack cost, the same.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import assert_never

from robustlab.cost import flops
from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.chat import encode_opening, encode_prompt
from robustlab.data.rows import EvalRow
from robustlab.measure.bench import Bench, Lifted
from robustlab.measure.judged import Judged, build_mean
from robustlab.models.scores import mean_divergence, next_token_log_probabilities, opening_log_probabilities
from robustlab.models.waves import plan_waves
from robustlab.record.results import PropertyResult
from robustlab.spec.evals import KlEval, RefusalMarginEval
from robustlab.train.generation import generate_metered
from robustlab.units import to_nanoseconds

KL_PROPERTY = "utility/kl"
MARGIN_PROPERTY = "refusal_margin"
Wave = Sequence[int]
Read = Callable[[Wave], list[float]]


def measure_values(
    spec: KlEval | RefusalMarginEval,
    rows: Sequence[EvalRow],
    bench: Bench,
    *,
    lifted: Lifted,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Judged]:
    """Read one figure for every row.

    Args:
        spec: The eval.
        rows: What is asked, in the eval's own order.
        bench: The target and the key.
        lifted: Context in which the target is untouched.
        expected_seconds: What the eval should take.
        meter: Its current account pays; a batch is one unit.
        progress: Told of the rows done and of all rows.

    Returns:
        One figure a row, in the order of ``rows``; None where it is not finite.

    Raises:
        BudgetSpent: If the next batch would pass a cap of the account.
    """
    target = bench.target
    prompts = [encode_prompt(target.tokenizer, row.prompt, target.system_prompt) for row in rows]
    match spec:
        case KlEval():
            read = _build_divergence(spec, prompts, bench, lifted, expected_seconds, meter)
        case RefusalMarginEval():
            read = _build_margin(spec, prompts, bench, meter)
        case _:
            assert_never(spec)
    waves = plan_waves(prompts, spec.batch_rows)
    need = Quantities(wall_ns=to_nanoseconds(expected_seconds / len(waves)))
    values: dict[int, float] = {}
    for wave in waves:
        meter.reserve(need.scaled(RESERVE_FACTOR))
        values.update(zip(wave.rows, read(wave.rows), strict=True))
        need = Quantities(wall_ns=max(need.wall_ns, meter.settle().wall_ns))
        progress(len(values), len(rows))
    return [_keep(row, values[index], bench.key) for index, row in enumerate(rows)]


def value_properties(
    spec: KlEval | RefusalMarginEval, judged: Sequence[Judged], baseline: Sequence[Judged] | None
) -> list[PropertyResult]:
    """``utility/kl`` or ``refusal_margin`` over all rows.

    Args:
        spec: The eval.
        judged: One figure a row.
        baseline: Figures of the same rows in the same order before the attack; None at the baseline itself.

    Returns:
        One property, the mean; none where fewer than two rows have a finite figure.
    """
    if isinstance(spec, KlEval):
        return build_mean(KL_PROPERTY, "nats_per_token", spec, judged, baseline)
    return build_mean(MARGIN_PROPERTY, "nats", spec, judged, baseline)


def _build_divergence(
    spec: KlEval,
    prompts: Sequence[Sequence[int]],
    bench: Bench,
    lifted: Lifted,
    expected_seconds: float,
    meter: Meter,
) -> Read:
    """Have the released target answer, then hold each batch's distributions against its own."""
    target = bench.target
    reference = bench.released or target.model
    with lifted():
        answers = [
            completion.ids
            for completion in generate_metered(
                replace(target, model=reference),
                bench.shape,
                prompts,
                batch_rows=spec.batch_rows,
                max_new_tokens=spec.max_new_tokens,
                expected_seconds=expected_seconds,
                meter=meter,
                progress=lambda done, rows: None,
            )
        ]

    def read(wave: Wave) -> list[float]:
        asked, given = [prompts[row] for row in wave], [answers[row] for row in wave]
        with lifted():
            before = next_token_log_probabilities(reference, asked, given, pad_id=target.pad_id)
        after = next_token_log_probabilities(target.model, asked, given, pad_id=target.pad_id)
        tokens = [len(prompt) + len(answer) for prompt, answer in zip(asked, given, strict=True)]
        meter.count(flops=2 * sum(flops.prefill(bench.shape, length) for length in tokens))
        return [mean_divergence(old, new) for old, new in zip(before, after, strict=True)]

    return read


def _build_margin(spec: RefusalMarginEval, prompts: Sequence[Sequence[int]], bench: Bench, meter: Meter) -> Read:
    target = bench.target
    openings = [encode_opening(target.tokenizer, text) for text in (*spec.refusing, *spec.complying)]
    refusing = len(spec.refusing)

    def read(wave: Wave) -> list[float]:
        asked = [prompts[row] for row in wave]
        scores_B_O = opening_log_probabilities(target.model, asked, openings, pad_id=target.pad_id)
        meter.count(
            prompt_tokens=sum(len(prompt) for prompt in asked),
            flops=sum(flops.prefill(bench.shape, len(prompt)) for prompt in asked)
            + len(asked) * sum(flops.prefill(bench.shape, len(opening)) for opening in openings),
        )
        margins_B = scores_B_O[:, :refusing].logsumexp(-1) - scores_B_O[:, refusing:].logsumexp(-1)
        return [float(margin) for margin in margins_B]

    return read


def _keep(row: EvalRow, value: float, key: bytes) -> Judged:
    finite = isfinite(value)
    return Judged(
        behavior=row.text_sha256,
        category=row.category,
        verdict="unjudged",
        reason="figure" if finite else "not_finite",
        tokens=0,
        completion_hmac=hmac.new(key, repr(value).encode(), hashlib.sha256).hexdigest(),
        value=value if finite else None,
    )
