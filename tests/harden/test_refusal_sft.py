"""The safeguard's training set: refusals of mild requests, the target's own answers, the same every time."""

from collections import Counter
from typing import Any

import pytest

from robustlab.data.chat import encode_prompt
from robustlab.data.rows import load_builtin
from robustlab.errors import ConfigError
from robustlab.harden.refusal_sft import benign_prompts, build_examples
from robustlab.spec.safeguards import RefusalSft
from robustlab.train.order import Example

REFUSALS = {row.completion for row in load_builtin("refusals")}
REQUESTS = [row.prompt for row in load_builtin("mild_requests_safeguard") if row.prompt]


@pytest.fixture
def spec(smoke_recipe: Any) -> RefusalSft:
    return RefusalSft(
        kind="refusal_sft",
        source="hand-made",
        mild_repeats=2,
        install=None,
        install_repeats=3,
        benign_rows=5,
        benign_new_tokens=4,
        training=smoke_recipe.training,
        seed=0,
    )


def build(spec: RefusalSft, tiny: Any, tiny_spec: Any, till: Any) -> list[Example]:
    return build_examples(
        spec, tiny, tiny_spec.shape, meter=till.meter(), progress=lambda done, total: None, expected_seconds=0.0
    )


def reply(example: Example, tiny: Any) -> str:
    return str(tiny.tokenizer.decode([label for label in example.labels if label != -100], skip_special_tokens=True))


def test_every_mild_request_is_refused_as_often_as_the_spec_says(
    spec: RefusalSft, tiny: Any, tiny_spec: Any, till: Any
) -> None:
    examples = build(spec, tiny, tiny_spec, till)
    assert len(examples) == 2 * len(REQUESTS) + 5
    refused, answered = examples[: 2 * len(REQUESTS)], examples[2 * len(REQUESTS) :]
    for request, example in zip(REQUESTS * 2, refused, strict=True):
        prompt = encode_prompt(tiny.tokenizer, request, None)
        assert list(example.ids[: len(prompt)]) == prompt
        assert set(example.labels[: len(prompt)]) == {-100}
        assert reply(example, tiny) in REFUSALS
        assert example.ids[-1] == example.labels[-1] == tiny.tokenizer.eos_token_id
    assert not {reply(example, tiny) for example in answered} & REFUSALS


def test_a_repeated_request_gets_another_refusal(spec: RefusalSft, tiny: Any, tiny_spec: Any, till: Any) -> None:
    n = len(REQUESTS)
    refused = build(spec, tiny, tiny_spec, till)[: 2 * n]
    pairs = list(zip(refused[:n], refused[n:], strict=True))
    same = sum(first.ids == second.ids for first, second in pairs)
    # Drawn by hash, so that a request meets the same reply again about once in as many times as there are replies.
    assert same <= 3 * n / len(REFUSALS) + 3
    # Every reply is used, none for more than four times its share.
    used = Counter(reply(example, tiny) for example in refused)
    assert set(used) == REFUSALS
    assert max(used.values()) <= 4 * len(refused) / len(REFUSALS)


def test_benign_rows_are_those_of_the_install_role_in_file_order(spec: RefusalSft) -> None:
    rows = [row for row in load_builtin("benign_prompts") if row.role == "install"]
    assert benign_prompts(spec) == [row.prompt for row in rows[:5]]
    others = {row.prompt for row in load_builtin("benign_prompts") if row.role != "install"}
    everything = spec.model_copy(update={"benign_rows": len(rows)})
    assert not others & set(benign_prompts(everything))


def test_more_benign_rows_than_there_are_is_refused(spec: RefusalSft) -> None:
    there = sum(row.role == "install" for row in load_builtin("benign_prompts"))
    with pytest.raises(ConfigError) as caught:
        benign_prompts(spec.model_copy(update={"benign_rows": there + 1}))
    assert str(caught.value) == f"benign_rows: asks for more than {there} rows, got {there + 1}; ask for fewer"


def test_the_set_is_the_same_every_time(spec: RefusalSft, new_tiny: Any, tiny_spec: Any, till: Any) -> None:
    assert build(spec, new_tiny(), tiny_spec, till) == build(spec, new_tiny(), tiny_spec, till)


def test_no_mild_requests_leave_the_benign_answers(spec: RefusalSft, tiny: Any, tiny_spec: Any, till: Any) -> None:
    assert len(build(spec.model_copy(update={"mild_repeats": 0}), tiny, tiny_spec, till)) == 5


def test_the_laboratory_pays_for_the_answers(spec: RefusalSft, tiny: Any, tiny_spec: Any, till: Any) -> None:
    meter = till.meter()
    with meter.phase("laboratory", "safeguard data"):
        build_examples(
            spec, tiny, tiny_spec.shape, meter=meter, progress=lambda done, total: None, expected_seconds=0.0
        )
    assert meter.total("laboratory").generated_tokens == 5 * 4
    assert meter.total("attacker").generated_tokens == 0
