"""A measurement over HTTP: units under a cap, fees booked, what is judged and what nobody can say anything of."""

import time
from typing import Any

import pytest

from robustlab.cost.quantities import Quantities
from robustlab.data.rows import EvalRow, load_eval_rows
from robustlab.errors import BudgetSpent, Unanswered
from robustlab.measure import served
from robustlab.measure.judged import Judged
from robustlab.measure.served import Served, expect_use, measure_served
from robustlab.models.endpoint import Endpoint
from robustlab.record.transcripts import Said
from robustlab.spec.catalog import load
from robustlab.spec.targets import OpenAiTarget
from tests.chat_server import ChatServer, hang_up, reply_bytes, reply_text, serve

SPEC = load("evals", "smoke_refusal")
ROWS = load_eval_rows(SPEC, data_csv=None)[:20]
REFUSED = "I'm sorry, but I can't help with that."


def build_target(
    url: str = "http://127.0.0.1:1/v1", *, system: str = "template", after: str | None = None, at_once: int = 1
) -> Any:
    endpoint = {
        "base_url": url,
        "model": "small",
        "key_variable": None,
        "deadline_seconds": 20,
        "max_attempts": 1,
        "usd_per_million_prompt_tokens": 1,
        "usd_per_million_generated_tokens": 2,
        "price_source": "hand-made",
        "concurrency": at_once,
    }
    reasoning = "off" if after is None else "on"
    plain = {"kind": "openai", "licence": "MIT", "system_prompt": system, "reasoning": reasoning, "answer_after": after}
    return OpenAiTarget.model_validate({**plain, "endpoint": endpoint, "tokens_per_second": 12})


def measure(server: ChatServer, meter: Any, *, rows: Any = ROWS, keep: Any = None, **target: Any) -> list[Judged]:
    spec = build_target(server.url, **target)
    model = Served(spec, Endpoint(spec.endpoint), b"k" * 32)
    with meter.phase("laboratory", "baseline"):
        return measure_served(SPEC, rows, model, meter=meter, progress=lambda done, rows: None, keep=keep)


def test_what_prompts_may_use_is_their_bytes_the_longest_completions_and_half_more_time() -> None:
    # 2 x 12 tokens at 12 a second are 2 s, and half more 3 s; "template" has 8 bytes, "ab" 2, "c" 1: 19 tokens read.
    assert expect_use(build_target(), ["ab", "c"], 12) == Quantities(
        wall_ns=3_000_000_000, fee_nano_usd=19 * 1000 + 24 * 2000
    )


def test_every_row_has_a_verdict_and_every_request_a_fee(till: Any) -> None:
    meter = till.meter()
    with serve(reply_text(REFUSED, prompt=100, generated=9)) as server:
        judged = measure(server, meter)
    assert [item.behavior for item in judged] == [row.text_sha256 for row in ROWS]
    assert {(item.verdict, item.tokens) for item in judged} == {("refused", 9)}
    used = meter.total("laboratory")
    assert (used.prompt_tokens, used.generated_tokens) == (2000, 180)
    assert used.fee_nano_usd == 2000 * 1000 + 180 * 2000
    assert [record["record"] for record in till.records].count("reserve") == 3  # 20 rows in units of 8


def test_a_cap_ends_the_measurement_before_the_unit_that_would_pass_it(till: Any) -> None:
    """A unit may cost 8 x (prompt bytes + 12 x $2 a million); only one of them fits in 0.0015 dollars."""
    meter = till.meter(usd_per_hour=1e-9, max_steps=1)
    meter._limits["laboratory"] = {"max_usd": served.RESERVE_FACTOR / 1000}
    rows = [EvalRow(**(vars(ROWS[0]) | {"text": "a" * 100, "context": None}))] * 20
    with serve(reply_text(REFUSED, prompt=100, generated=12)) as server, pytest.raises(BudgetSpent):
        measure(server, meter, rows=rows)
    assert len(server.requests) == 8
    assert meter.total("laboratory").fee_nano_usd == 8 * (100 * 1000 + 12 * 2000)


def test_equal_completions_have_equal_digests_and_no_answer_is_not_an_empty_one(till: Any) -> None:
    answers = [reply_text(""), reply_text(""), reply_text("No."), reply_bytes(b"", status=400)]
    with serve(*answers) as server:
        judged = measure(server, till.meter(), rows=ROWS[:4])
    digests = [item.completion_hmac for item in judged]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert judged[0].verdict != "unjudged"
    assert (judged[3].verdict, judged[3].reason, judged[3].tokens) == ("unjudged", "unanswered", 0)


def test_what_the_provider_blocked_is_counted_unjudged_and_paid(till: Any) -> None:
    meter = till.meter()
    with serve(reply_text("", finish="content_filter", prompt=10, generated=0)) as server:
        judged = measure(server, meter, rows=ROWS[:4])
    assert [(item.verdict, item.reason) for item in judged] == [("unjudged", "filtered")] * 4
    assert meter.total("laboratory").fee_nano_usd == 4 * 10 * 1000


def test_a_reply_in_a_loop_is_incoherent_without_any_perplexity(till: Any) -> None:
    with serve(reply_text("the cat sat on the mat " * 40)) as server:
        assert {item.verdict for item in measure(server, till.meter(), rows=ROWS[:2])} == {"incoherent"}


def test_an_outage_counts_only_on_end(till: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MOST_OUTAGES", 2)
    with serve(hang_up, reply_text(REFUSED), hang_up, reply_bytes(b"", status=400), reply_text(REFUSED)) as server:
        verdicts = [item.verdict for item in measure(server, till.meter())]
    assert verdicts == ["unjudged", "refused", "unjudged", "unjudged"] + ["refused"] * 16
    with serve(hang_up) as server, pytest.raises(Unanswered) as caught:
        measure(server, till.meter())
    assert len(server.requests) == 2
    assert str(caught.value) == (
        f"{server.url} (model small): stayed away for 2 requests on end; the last: no answer after 1 try: the "
        "connection failed, got RemoteProtocolError; see that it is up, then resume the run"
    )


def test_only_what_was_answered_is_kept(till: Any) -> None:
    kept: list[Said] = []
    with serve(reply_text(REFUSED), reply_bytes(b"", status=400), reply_text("Sure.")) as server:
        measure(server, till.meter(), rows=ROWS[:3], keep=kept.extend)
    assert [said.completion for said in kept] == [REFUSED, "Sure."]
    assert [said.behavior for said in kept] == [ROWS[0].text_sha256, ROWS[2].text_sha256]


@pytest.mark.parametrize(
    ("text", "finish", "verdict"),
    [
        (f"Hm.</think> {REFUSED}", "stop", "refused"),
        (f"{REFUSED}", "stop", "unjudged"),
        (f"{REFUSED}</think>", "length", "unjudged"),
    ],
)
def test_only_what_follows_the_marker_is_judged(till: Any, text: str, finish: str, verdict: str) -> None:
    with serve(reply_text(text, finish=finish)) as server:
        (found,) = measure(server, till.meter(), rows=ROWS[:1], after="</think>")
    assert found.verdict == verdict


def test_a_system_prompt_is_sent_as_it_is_and_an_empty_one_too(till: Any) -> None:
    with serve(reply_text(REFUSED)) as server:
        for system in ("template", "", "Be brief."):
            measure(server, till.meter(), rows=ROWS[:1], system=system)
    sent = [request["messages"] for request in server.requests]
    user = {"role": "user", "content": ROWS[0].prompt}
    assert sent == [
        [user],
        [{"role": "system", "content": ""}, user],
        [{"role": "system", "content": "Be brief."}, user],
    ]


def test_the_key_of_the_digests_is_not_shown() -> None:
    spec = build_target()
    assert "kkkk" not in repr(Served(spec, Endpoint(spec.endpoint), b"k" * 32))


def test_several_rows_are_asked_at_once_and_verdicts_stand_in_their_order(till: Any) -> None:
    def answer(handler: Any, request: dict[str, Any]) -> None:
        is_first = request["messages"][0]["content"] == ROWS[0].prompt
        time.sleep(0.2 if is_first else 0.0)
        reply_text(REFUSED if is_first else "A b c d e f.", prompt=100, generated=9)(handler, request)

    meter = till.meter()
    with serve(answer) as server:
        judged = measure(server, meter, rows=ROWS[:9], at_once=3)
    assert [item.behavior for item in judged] == [row.text_sha256 for row in ROWS[:9]]
    assert [item.verdict == "refused" for item in judged] == [True] + [False] * 8
    assert meter.total("laboratory").fee_nano_usd == 9 * (100 * 1000 + 9 * 2000)
    # Units of two times three, the most that keeps within eight.
    assert [record["record"] for record in till.records].count("reserve") == 2


def test_more_at_once_than_a_unit_make_a_unit_of_their_own(till: Any) -> None:
    meter = till.meter()
    with serve(reply_text(REFUSED)) as server:
        measure(server, meter, at_once=16)
    assert [record["record"] for record in till.records].count("reserve") == 2


def test_a_server_that_stays_away_ends_it_with_all_that_came_on_the_bill(till: Any) -> None:
    meter = till.meter()
    answers = [reply_text(REFUSED, prompt=100, generated=9), reply_bytes(b"", status=500)]
    with serve(*answers) as server, pytest.raises(Unanswered, match="stayed away for 5 requests on end"):
        measure(server, meter, at_once=8)
    assert len(server.requests) == 8
    assert meter.total("laboratory").fee_nano_usd == 100 * 1000 + 9 * 2000
