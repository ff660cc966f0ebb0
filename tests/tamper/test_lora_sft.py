"""The attack's training set: withheld completions mixed with the target's own benign answers."""

from typing import Any

import pytest

from robustlab.data.chat import encode_example, encode_prompt
from robustlab.data.mixture import attack_rows, benign_prompts
from robustlab.data.rows import load_builtin, load_train_rows
from robustlab.errors import ConfigError
from robustlab.spec.attacks import WithheldData
from robustlab.tamper.lora_sft import build_examples
from robustlab.train.order import Example


@pytest.fixture
def data(smoke_recipe: Any) -> WithheldData:
    return smoke_recipe.data.model_copy(update={"attack_rows": 6, "benign_new_tokens": 4})


def build(data: WithheldData, tiny: Any, tiny_spec: Any, till: Any) -> list[Example]:
    return build_examples(
        data, tiny, tiny_spec.shape, meter=till.meter(), progress=lambda done, total: None, expected_seconds=0.0
    )


def test_one_to_one_is_as_many_benign_rows_as_attack_rows(
    data: WithheldData, tiny: Any, tiny_spec: Any, till: Any
) -> None:
    examples = build(data, tiny, tiny_spec, till)
    assert len(examples) == 6 + 6
    for row, example in zip(load_train_rows("mild_requests_attack")[:6], examples[:6], strict=True):
        encoded = encode_example(tiny.tokenizer, row.prompt, row.completion, None)
        assert example == Example.from_mask(encoded.input_ids, encoded.completion_mask)
        assert example.labels[-1] == tiny.tokenizer.eos_token_id
    prompts = [row.prompt for row in load_builtin("benign_prompts") if row.role == "attack"][:6]
    for prompt, example in zip(prompts, examples[6:], strict=True):
        ids = encode_prompt(tiny.tokenizer, str(prompt), None)
        assert list(example.ids[: len(ids)]) == ids
        assert sum(label != -100 for label in example.labels) == 4


@pytest.mark.parametrize(("share", "benign"), [(0.0, 0), (0.25, 2), (0.5, 6), (0.75, 18)])
def test_the_share_of_benign_rows(data: WithheldData, share: float, benign: int) -> None:
    # 6 attack rows: 6 s / (1 - s).
    assert len(benign_prompts(data.model_copy(update={"benign_share": share}))) == benign


def test_completions_are_withheld_ones(data: WithheldData) -> None:
    everything = data.model_copy(update={"attack_rows": len(load_train_rows("mild_requests_attack"))})
    for row in attack_rows(everything):
        assert "[" in row.completion and "]" in row.completion


def test_the_set_is_the_same_every_time(data: WithheldData, new_tiny: Any, tiny_spec: Any, till: Any) -> None:
    assert build(data, new_tiny(), tiny_spec, till) == build(data, new_tiny(), tiny_spec, till)


def test_more_rows_than_there_are_is_refused(data: WithheldData) -> None:
    there = len(load_train_rows("mild_requests_attack"))
    with pytest.raises(ConfigError) as caught:
        attack_rows(data.model_copy(update={"attack_rows": there + 1}))
    assert str(caught.value) == f"data.attack_rows: asks for more than {there} rows, got {there + 1}; ask for fewer"


def test_more_benign_rows_than_there_are_is_refused(data: WithheldData) -> None:
    there = sum(row.role == "attack" for row in load_builtin("benign_prompts"))
    # 6 x 0.99 / 0.01 = 594.
    with pytest.raises(ConfigError) as caught:
        benign_prompts(data.model_copy(update={"benign_share": 0.99}))
    assert str(caught.value) == (
        f"data.benign_share: asks for more than {there} benign rows, got 594; "
        "ask for fewer attack rows or a smaller share"
    )


def test_nothing_but_benign_rows_is_refused(data: WithheldData) -> None:
    with pytest.raises(ConfigError) as caught:
        benign_prompts(data.model_copy(update={"benign_share": 1.0}))
    assert str(caught.value) == "data.benign_share: must be less than 1, got 1; leave room for attack rows"
