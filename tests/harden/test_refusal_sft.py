"""The safeguard's refusals: every improper request, the same every time."""

from typing import Any

from robustlab.data.chat import encode_prompt
from robustlab.data.rows import load_builtin
from robustlab.harden.refusal_sft import build_refusals
from robustlab.harden.rows import mild_requests
from robustlab.train.order import Example

REFUSALS = {row.completion for row in load_builtin("refusals")}


def reply(example: Example, tiny: Any) -> str:
    return str(tiny.tokenizer.decode([label for label in example.labels if label != -100], skip_special_tokens=True))


def test_every_mild_request_is_refused_as_often_as_the_spec_says(plain_spec: Any, tiny: Any) -> None:
    examples = build_refusals(plain_spec.model_copy(update={"mild_repeats": 2}), tiny)
    for request, example in zip(mild_requests() * 2, examples, strict=True):
        prompt = encode_prompt(tiny.tokenizer, request, None)
        assert list(example.ids[: len(prompt)]) == prompt
        assert set(example.labels[: len(prompt)]) == {-100}
        assert example.labels[len(prompt) :] == example.ids[len(prompt) :]
        assert reply(example, tiny) in REFUSALS
        assert example.ids[-1] == tiny.tokenizer.eos_token_id


def test_a_repeated_request_gets_another_refusal(plain_spec: Any, tiny: Any) -> None:
    refused = build_refusals(plain_spec.model_copy(update={"mild_repeats": 2}), tiny)
    n = len(mild_requests())
    pairs = list(zip(refused[:n], refused[n:], strict=True))
    # Drawn by hash, so that a request meets the same reply again about once in as many times as there are replies.
    assert sum(first.ids == second.ids for first, second in pairs) <= 3 * n / len(REFUSALS) + 3


def test_the_rows_are_the_same_every_time(plain_spec: Any, tiny: Any) -> None:
    assert build_refusals(plain_spec, tiny) == build_refusals(plain_spec, tiny)


def test_no_mild_requests_leave_nothing(plain_spec: Any, tiny: Any) -> None:
    assert build_refusals(plain_spec.model_copy(update={"mild_repeats": 0}), tiny) == []
