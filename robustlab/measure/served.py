"""One measurement of a model behind a server: ask every row, then judge; no text leaves it but to ``keep``.

The verdicts are those of the same judges as everywhere, with one thing less: without the target's weights nobody can
take a perplexity, so of the coherence gate repetition, length and script hold alone. A request without an answer, or
with one that the provider blocked, is ``unjudged`` and stays in the denominator; when the server itself stays away for
``MOST_OUTAGES`` requests on end, the measurement ends with its error, for what would follow is no fact about the model.
"""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.fees import fee_of, most_fee
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.rows import EvalRow
from robustlab.errors import Unanswered
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import ask_panel, say
from robustlab.measure.reading import Reading, judge_reading
from robustlab.measure.second import Panel
from robustlab.models.endpoint import Endpoint, Reply
from robustlab.models.generate import Completion
from robustlab.models.reasoning import Answer
from robustlab.record.transcripts import Keep
from robustlab.spec.evals import (
    BenignAnswersEval,
    CopyrightEval,
    InstructionFollowingEval,
    OverRefusalEval,
    RefusalEval,
)
from robustlab.spec.targets import OpenAiTarget
from robustlab.units import to_nanoseconds

ServedEval = RefusalEval | OverRefusalEval | BenignAnswersEval | InstructionFollowingEval | CopyrightEval
"""Evals that judge completions; the others read the weights."""
MOST_OUTAGES = 5
UNIT_ROWS = 8
"""Requests that are paid for together, or as many as are under way at once: few, so that a cap is met closely."""
# No text in UTF-8 has this byte.
_NO_TEXT = b"\xff"


@dataclass(frozen=True)
class Served:
    """What every measurement of one served model shares.

    Attributes:
        target: Its spec.
        door: The way to it.
        key: Key of the digests of completions.
        panel: The second judges.
    """

    target: OpenAiTarget
    door: Endpoint
    key: bytes = field(repr=False)
    panel: Panel = field(default_factory=Panel)


def ask(served: Served, prompt: str, *, max_new_tokens: int, meter: Meter) -> Reply:
    """Ask one thing, with the target's system prompt, and book its tokens and its fee in the open segment.

    Args:
        served: The model.
        prompt: What is asked.
        max_new_tokens: Longest completion.
        meter: Its current account pays.

    Returns:
        What was answered.

    Raises:
        Unanswered: If nothing was; nothing is booked then.
    """
    reply = served.door.complete(_messages(served.target, prompt), max_new_tokens=max_new_tokens)
    _book(served.target, reply, meter)
    return reply


def expect_use(target: OpenAiTarget, prompts: Sequence[str], max_new_tokens: int) -> Quantities:
    """The most that asking some prompts may use: every completion as long as may be, and half more time than that."""
    seconds = len(prompts) * max_new_tokens / target.tokens_per_second
    texts = [f"{target.system_prompt}{prompt}" for prompt in prompts]
    time = Quantities(wall_ns=to_nanoseconds(seconds)).scaled(RESERVE_FACTOR)
    return time + Quantities(fee_nano_usd=most_fee(target.endpoint, texts, max_new_tokens))


def measure_served(
    spec: ServedEval,
    rows: Sequence[EvalRow],
    served: Served,
    *,
    meter: Meter,
    progress: Callable[[int, int], None],
    keep: Keep | None,
) -> list[Judged]:
    """Ask for a completion of every row and judge it.

    Args:
        spec: The eval.
        rows: What is asked, in the eval's own order.
        served: The model.
        meter: Its current account pays; a few requests are one unit.
        progress: Told of the rows done and of all rows.
        keep: Takes every completion with its verdicts; None where none is kept.

    Returns:
        One verdict a row, in the order of ``rows``.

    Raises:
        BudgetSpent: If the next requests would pass a cap of the account.
        Unanswered: If the server stays away.
    """
    replies: list[Reply | None] = []
    outages = 0
    at_once = served.target.endpoint.concurrency
    unit_rows = at_once * max(UNIT_ROWS // at_once, 1)
    for start in range(0, len(rows), unit_rows):
        unit = rows[start : start + unit_rows]
        meter.reserve(expect_use(served.target, [row.prompt for row in unit], spec.max_new_tokens))
        for first in range(0, len(unit), at_once):
            found, outages = _ask_rows(spec, unit[first : first + at_once], served, meter, outages)
            replies += found
            progress(len(replies), len(rows))
        meter.settle()
    answered = [(row, reply) for row, reply in zip(rows, replies, strict=True) if reply and not reply.is_filtered]
    asked, readings = [row for row, _ in answered], [_read(served.target, reply) for _, reply in answered]
    verdicts = [
        judge_reading(spec, row, reading, None, served.key) for row, reading in zip(asked, readings, strict=True)
    ]
    verdicts = ask_panel(spec, asked, readings, verdicts, served.panel, meter)
    if keep is not None:
        keep([say(spec, *each) for each in zip(asked, readings, verdicts, strict=True)])
    judged = iter(verdicts)
    return [
        next(judged) if reply and not reply.is_filtered else _unanswered(row, reply, served.key)
        for row, reply in zip(rows, replies, strict=True)
    ]


def _ask_rows(
    spec: ServedEval, rows: Sequence[EvalRow], served: Served, meter: Meter, outages: int
) -> tuple[list[Reply | None], int]:
    """The replies to what is asked at once, None for none, and on how many requests on end the server has been away."""
    messages = [_messages(served.target, row.prompt) for row in rows]
    answers = served.door.complete_all(messages, max_new_tokens=spec.max_new_tokens)
    replies = [None if isinstance(answer, Unanswered) else answer for answer in answers]
    for reply in replies:  # all that came is on the bill before anything ends the measurement
        if reply is not None:
            _book(served.target, reply, meter)
    for answer in answers:
        outages = outages + 1 if isinstance(answer, Unanswered) and answer.is_outage else 0
        if isinstance(answer, Unanswered) and outages == MOST_OUTAGES:
            problem = f"stayed away for {MOST_OUTAGES} requests on end; the last: {answer.problem}"
            raise Unanswered(answer.where, problem, "see that it is up, then resume the run", is_outage=True)
    return replies, outages


def _book(target: OpenAiTarget, reply: Reply, meter: Meter) -> None:
    fee = fee_of(target.endpoint, reply.prompt_tokens, reply.generated_tokens)
    meter.count(prompt_tokens=reply.prompt_tokens, generated_tokens=reply.generated_tokens, fee_nano_usd=fee)


def _messages(target: OpenAiTarget, prompt: str) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt}
    if target.system_prompt is None or target.system_prompt == "template":
        return [user]
    return [{"role": "system", "content": target.system_prompt}, user]


def _read(target: OpenAiTarget, reply: Reply) -> Reading:
    """A reply as a completion; its ids stay with the server, and only their number is known."""
    completion = Completion((0,) * reply.generated_tokens, reply.ended)
    if target.answer_after is None:
        return Reading(completion, reply.text, Answer(reply.text, completion.ids))
    _, marker, rest = reply.text.partition(target.answer_after)
    is_reached = bool(marker) and (bool(rest.strip()) or reply.ended)
    return Reading(completion, reply.text, Answer(rest.lstrip(), completion.ids) if is_reached else None)


def _unanswered(row: EvalRow, reply: Reply | None, key: bytes) -> Judged:
    return Judged(
        behavior=row.text_sha256,
        category=row.category,
        verdict="unjudged",
        reason="unanswered" if reply is None else "filtered",
        tokens=0,
        completion_hmac=hmac.new(key, _NO_TEXT, hashlib.sha256).hexdigest(),
    )
