"""A second judge behind a server: asked about one completion at a time, on a bill, and never waited for without end.

Who bounds what: the endpoint bounds one completion, ``max_seconds`` of the spec bounds a measurement (one completion
that is under way is let finish), and after ``PATIENCE`` completions in a row without an answer no more are asked about.
What has no answer then has no verdict; it never reads as safe. This module does not know whether completions may leave
this machine; ``robustlab.measure.second`` does.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.fees import fee_of, most_fee
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.errors import Unanswered
from robustlab.measure.opinions import Opinion, Question
from robustlab.measure.rubrics import build_messages, measure_messages, read_answer
from robustlab.models.endpoint import Endpoint, Reply
from robustlab.spec.judges import ApiJudge

PATIENCE = 3
NONCE_BYTES = 8
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Asked:
    """What a measurement puts to a judge.

    Attributes:
        messages: By the place of the completion; those without an answer are not among them.
        rows: All completions.
    """

    messages: dict[int, Messages] = field(repr=False)
    rows: int

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return sum(measure_messages(each) for each in self.messages.values())


@dataclass(frozen=True)
class Answers:
    """What a measurement got.

    Attributes:
        opinions: One a completion, in order.
        completions: How many were sent.
        size: Bytes of the messages that held them.
    """

    opinions: list[Opinion]
    completions: int
    size: int


def prepare(judge: ApiJudge, questions: Sequence[Question]) -> Asked:
    """Write the messages of a measurement, each with a nonce of its own."""
    messages = {
        place: build_messages(judge.rubric, each, secrets.token_hex(NONCE_BYTES))
        for place, each in enumerate(questions)
        if each.completion is not None
    }
    return Asked(messages, len(questions))


def ask(
    judge: ApiJudge,
    endpoint: Endpoint,
    asked: Asked,
    meter: Meter,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Answers:
    """Have a server read completions.

    Args:
        judge: Its rubric and its bounds.
        endpoint: The server.
        asked: What is put to it.
        meter: Its current account pays the fees and the time; what is asked at once is one unit.
        clock: Monotonic seconds.

    Returns:
        Its opinions and what was sent for them.

    Raises:
        BudgetSpent: If the next completions would pass a cap of the account; none of them is sent then.
    """
    opinions = [Opinion("unread")] * asked.rows
    end, silent, sent, size, longest = clock() + judge.max_seconds, 0, 0, 0, NOTHING
    places, at_once = list(asked.messages), judge.endpoint.concurrency
    for start in range(0, len(places), at_once):
        unit = {place: asked.messages[place] for place in places[start : start + at_once]}
        if silent >= PATIENCE or clock() >= end:
            opinions = [Opinion("unanswered") if place in unit else said for place, said in enumerate(opinions)]
            continue
        contents = ["".join(message["content"] for message in messages) for messages in unit.values()]
        fee = most_fee(judge.endpoint, contents, judge.max_new_tokens)
        meter.reserve(Quantities(wall_ns=longest.wall_ns, fee_nano_usd=fee).scaled(RESERVE_FACTOR))
        replies = endpoint.complete_all(list(unit.values()), max_new_tokens=judge.max_new_tokens)
        for place, reply in zip(unit, replies, strict=True):
            opinions[place] = _read(judge, reply, meter)
            silent = silent + 1 if opinions[place].says == "unanswered" else 0
        longest = max(longest, meter.settle(), key=lambda used: used.wall_ns)
        sent, size = sent + len(unit), size + sum(map(measure_messages, unit.values()))
    return Answers(opinions, sent, size)


def _read(judge: ApiJudge, reply: Reply | Unanswered, meter: Meter) -> Opinion:
    """What a reply says; its tokens and its fee are booked in the open segment."""
    if isinstance(reply, Unanswered):
        return Opinion("unanswered")
    meter.count(
        prompt_tokens=reply.prompt_tokens,
        generated_tokens=reply.generated_tokens,
        fee_nano_usd=fee_of(judge.endpoint, reply.prompt_tokens, reply.generated_tokens),
    )
    return read_answer(judge.rubric, reply.text, judge.min_score)
