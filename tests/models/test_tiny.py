"""The tiny target: its tokenizer loses nothing, its weights come from its seed and from nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from robustlab.data.chat import encode_example, encode_prompt
from robustlab.models.modification import tensors_digest
from robustlab.models.tiny import SPECIALS, build_tiny_model, build_tiny_tokenizer
from robustlab.spec.targets import TinyTarget

TOKENIZER = build_tiny_tokenizer()
TEXTS = st.text(st.characters(exclude_categories=("Cs",)))


def plain(text: str) -> bool:
    return not any(token in text for token in SPECIALS)


@pytest.mark.parametrize("text", ["", "plain", "two\n\nlines\t", " in front", "Grüße, 你好, 🙂🏽‍🚀", "\x00\x7f\ufeff"])
def test_text_comes_back_and_takes_one_token_a_byte(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert len(ids) == len(text.encode("utf-8"))


@given(TEXTS.filter(plain))
@hypothesis_settings(deadline=None, max_examples=60)
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_control_tokens_have_the_ids_that_the_model_names(tiny: Any) -> None:
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
    assert tiny.eos_ids == {2} and tiny.pad_id == 0
    assert len(TOKENIZER) == 3 + 256 == tiny.model.config.vocab_size


@given(TEXTS.filter(plain), TEXTS.filter(lambda text: bool(text) and plain(text)))
@hypothesis_settings(deadline=None, max_examples=30)
def test_the_prompt_is_a_prefix_of_the_chat(prompt: str, answer: str) -> None:
    ids = encode_prompt(TOKENIZER, prompt, None)
    example = encode_example(TOKENIZER, prompt, answer, None)
    assert example.input_ids[: len(ids)] == ids
    assert example.input_ids[-1] == TOKENIZER.eos_token_id
    assert example.completion_mask == [0] * len(ids) + [1] * (len(answer.encode("utf-8")) + 1)


def test_equal_seeds_give_equal_weights_and_others_do_not(tiny_spec: TinyTarget) -> None:
    digests = [
        tensors_digest(build_tiny_model(spec).state_dict())
        for spec in (tiny_spec, tiny_spec, tiny_spec.model_copy(update={"seed": 1}))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_global_generator_is_left_alone(tiny_spec: TinyTarget) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_tiny_model(tiny_spec)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_shape_that_a_plan_prices_is_the_model_s(tiny_spec: TinyTarget, new_tiny: Callable[[], Any]) -> None:
    model = new_tiny().model
    assert sum(parameter.numel() for parameter in model.parameters()) == tiny_spec.shape.parameters
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    # Every matrix takes part in a product, the tied embedding as lm_head; the five norms do not: 5 x 64 = 320.
    assert tiny_spec.shape.matmul_parameters == tiny_spec.shape.parameters - 5 * 64
