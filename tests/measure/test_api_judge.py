"""A judge behind a server that answers, fails or says nothing: what it costs, and that nobody waits for it for ever."""

import time
from typing import Any

import pytest

from robustlab.errors import BudgetSpent
from robustlab.measure.api_judge import PATIENCE, Answers, ask, prepare
from robustlab.measure.opinions import Opinion, Question
from robustlab.models.endpoint import Endpoint
from robustlab.spec.judges import ApiJudge
from tests.chat_server import Answer, hang, reply_bytes, reply_json, reply_text, serve
from tests.measure.injections import REQUEST
from tests.measure.second_judges import api_judge

WRONG = reply_json({"error": "no"}, status=401)
BUSY = reply_bytes(b"", status=429)
BROKEN = reply_bytes(b"", status=500)
GARBAGE = reply_bytes(b"<html>")


def questions(rows: int) -> list[Question]:
    return [Question(REQUEST, None, f"reply number {row}") for row in range(rows)]


async def no_pause(seconds: float) -> None:
    """Tests do not wait."""


def listen(judge: ApiJudge, asked: list[Question], till: Any, **options: Any) -> tuple[Answers, Any]:
    meter = till.meter()
    endpoint = Endpoint(judge.endpoint, sleep=no_pause)
    with meter.phase("laboratory", "second_judge"):
        answers = ask(judge, endpoint, prepare(judge, asked), meter, **options)
    return answers, meter.total("laboratory")


def says(answers: Answers) -> list[str]:
    return [opinion.says for opinion in answers.opinions]


def test_each_completion_is_asked_about_once_and_paid_for(till: Any) -> None:
    with serve(reply_text("yes"), reply_text("no"), reply_text("", prompt=7, generated=0)) as server:
        asked = [*questions(2), Question(REQUEST, None, None), *questions(1)]
        answers, used = listen(api_judge(server.url), asked, till)
    assert says(answers) == ["yes", "no", "unread", "unparsable"]
    # 10 + 10 + 7 tokens read at 2 USD a million, 5 + 5 + 0 written at 10: 2,000 and 10,000 nano-USD a token.
    assert (used.prompt_tokens, used.generated_tokens) == (27, 10)
    assert used.fee_nano_usd == 27 * 2_000 + 10 * 10_000
    assert answers.completions == 3
    sent = [request["messages"] for request in server.requests]
    assert answers.size == sum(len(message["content"].encode()) for messages in sent for message in messages)
    assert all(REQUEST in messages[1]["content"] for messages in sent)
    nonces = {messages[1]["content"].split()[2] for messages in sent}
    assert len(nonces) == 3 and all(len(nonce) == 16 for nonce in nonces)
    assert server.requests[0]["max_tokens"] == 8


@pytest.mark.parametrize("failure", [WRONG, BROKEN, BUSY, GARBAGE])
def test_what_never_answers_is_given_up_and_never_reads_as_safe(failure: Answer, till: Any) -> None:
    with serve(failure) as server:
        answers, used = listen(api_judge(server.url), questions(10), till)
    assert answers.opinions == [Opinion("unanswered")] * 10
    assert {opinion.verdict for opinion in answers.opinions} == {"unjudged"}
    assert len(server.requests) == answers.completions == PATIENCE
    assert used.fee_nano_usd == 0


def test_one_answer_renews_the_patience(till: Any) -> None:
    with serve(GARBAGE, GARBAGE, reply_text("no"), GARBAGE, GARBAGE, reply_text("yes")) as server:
        answers, _ = listen(api_judge(server.url), questions(7), till)
    unanswered = ["unanswered"] * 2
    assert says(answers) == [*unanswered, "no", *unanswered, "yes", "yes"]


def test_a_busy_server_is_asked_again(till: Any) -> None:
    with serve(BUSY, BROKEN, reply_text("yes")) as server:
        answers, _ = listen(api_judge(server.url, endpoint={"max_attempts": 3}), questions(1), till)
    assert (says(answers), len(server.requests)) == (["yes"], 3)


def test_a_server_that_says_nothing_is_not_waited_for(till: Any) -> None:
    with serve(hang) as server:
        begun = time.monotonic()
        answers, _ = listen(api_judge(server.url, endpoint={"deadline_seconds": 0.2}), questions(50), till)
        waited = time.monotonic() - begun
    assert says(answers) == ["unanswered"] * 50
    # Three deadlines of 0.2 s, not fifty.
    assert 0.6 <= waited < 5


def test_a_measurement_has_a_deadline_of_its_own(till: Any) -> None:
    moments = iter([0.0, 1.0, 59.0, 60.0, 60.0])
    with serve(reply_text("yes")) as server:
        answers, _ = listen(api_judge(server.url), questions(4), till, clock=lambda: next(moments))
    # It begins at 0 and may take 60 s: completions are begun at 1 and 59, and none at 60.
    assert says(answers) == ["yes", "yes", "unanswered", "unanswered"]


def test_a_fee_that_a_cap_does_not_allow_is_not_incurred(till: Any) -> None:
    judge = api_judge("http://127.0.0.1:9/v1", endpoint={"usd_per_million_prompt_tokens": 1e6})
    meter = till.meter(max_usd=1.0)
    # A byte may be a token of one dollar: nothing is sent, so nobody needs to listen.
    with pytest.raises(BudgetSpent, match="max_usd"), meter.phase("attacker", "trial"):
        ask(judge, Endpoint(judge.endpoint), prepare(judge, questions(1)), meter)


def test_no_text_shows_in_what_is_asked() -> None:
    judge = api_judge("http://127.0.0.1:9/v1")
    shown = f"{questions(1)} {prepare(judge, questions(1))}"
    assert "reply number" not in shown and REQUEST not in shown


def test_several_are_asked_at_once_and_opinions_stand_in_their_order(till: Any) -> None:
    def answer(handler: Any, request: dict[str, Any]) -> None:
        is_odd = "reply number 1" in str(request) or "reply number 3" in str(request)
        time.sleep(0.0 if is_odd else 0.1)
        reply_text("yes" if is_odd else "no")(handler, request)

    with serve(answer) as server:
        judge = api_judge(server.url, endpoint={"concurrency": 4})
        answers, used = listen(judge, [*questions(3), Question(REQUEST, None, None), *questions(4)[3:]], till)
    assert says(answers) == ["no", "yes", "no", "unread", "yes"]
    assert (answers.completions, used.fee_nano_usd) == (4, 4 * (10 * 2_000 + 5 * 10_000))
    assert [record["record"] for record in till.records].count("reserve") == 1


def test_of_those_under_way_together_all_are_counted_before_patience_ends(till: Any) -> None:
    with serve(GARBAGE) as server:
        judge = api_judge(server.url, endpoint={"concurrency": 4})
        answers, _ = listen(judge, questions(10), till)
    assert (says(answers), answers.completions) == (["unanswered"] * 10, 4)
    assert len(server.requests) == 4


def test_a_cap_stops_before_the_next_unit_and_what_was_under_way_is_paid_for(till: Any) -> None:
    """Two at once may cost $0.0035 and half more, 0.0052; they cost 0.0042: 0.009 does not allow for four."""
    with serve(reply_text("yes", prompt=1000, generated=8)) as server:
        judge = api_judge(server.url, endpoint={"concurrency": 2})
        meter = till.meter(usd_per_hour=1e-9, max_usd=0.009)
        with pytest.raises(BudgetSpent), meter.phase("attacker", "trial"):
            ask(judge, Endpoint(judge.endpoint), prepare(judge, questions(6)), meter)
    assert len(server.requests) == 2
    assert meter.total("attacker").fee_nano_usd == 2 * (1000 * 2_000 + 8 * 10_000)
