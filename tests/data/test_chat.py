"""Prompts and examples through a template, with a tokenizer of one token a byte and readable control tokens."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from robustlab import templates
from robustlab.data.chat import EncodedExample, encode_example, encode_prompt, template_sha256
from robustlab.errors import ConfigError, DataError

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
PLAIN = TURNS + OPENING
WITH_DEFAULT = DEFAULT_SYSTEM + TURNS + OPENING
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN


def build(template: str | None, *, bos: str | None = "<s>", eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    specials = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    raw = Tokenizer(BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    options = {"bos_token": bos} if bos else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token=eos, additional_special_tokens=["<|im_start|>"], **options
    )
    tokenizer.chat_template = template
    tokenizer.name_or_path = "tiny"
    return tokenizer


def shown(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "system_prompt", "expected"),
    [
        (PLAIN, "template", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (PLAIN, None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            PLAIN,
            "Rhyme.",
            "<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            WITH_DEFAULT,
            "template",
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            WITH_DEFAULT,
            None,
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (NO_SYSTEM, None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_prompts(template: str, system_prompt: str | None, expected: str) -> None:
    tokenizer = build(template)
    assert shown(tokenizer, encode_prompt(tokenizer, "Hi", system_prompt)) == expected


def test_control_tokens_are_one_id_each() -> None:
    ids = encode_prompt(build(PLAIN), "Hi", None)
    assert ids[0] == 2  # <|im_start|>
    assert ids.count(3) == 1  # <|im_end|>


def test_labels_are_the_completion_and_its_end() -> None:
    tokenizer = build(PLAIN)
    example = encode_example(tokenizer, "Hi", "Yo", None)
    prompt = encode_prompt(tokenizer, "Hi", None)
    assert example.input_ids[: len(prompt)] == prompt
    # "Yo" is two bytes; with <|im_end|> that makes three labels, and the newline after it is left out.
    assert example.completion_mask == [0] * len(prompt) + [1, 1, 1]
    labels = example.input_ids[len(prompt) :]
    assert shown(tokenizer, labels) == "Yo<|im_end|>"
    assert labels[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("system_prompt", [None, "template", "Rhyme."])
def test_training_and_evaluation_see_the_same_prompt(system_prompt: str | None) -> None:
    tokenizer = build(WITH_DEFAULT)
    example = encode_example(tokenizer, "Hi", "Yo", system_prompt)
    start = example.completion_mask.index(1)
    assert example.input_ids[:start] == encode_prompt(tokenizer, "Hi", system_prompt)


TOKENIZER = build(WITH_DEFAULT)
TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: "<" not in text)


@settings(deadline=None)
@given(prompt=TEXTS, completion=TEXTS)
def test_every_example_ends_in_its_only_label_of_eos(prompt: str, completion: str) -> None:
    example = encode_example(TOKENIZER, prompt, completion, None)
    labels = [i for i, label in zip(example.input_ids, example.completion_mask, strict=True) if label]
    assert shown(TOKENIZER, labels) == f"{completion}<|im_end|>"
    assert labels.count(TOKENIZER.eos_token_id) == 1


def test_pad_that_equals_eos_does_not_hide_the_end() -> None:
    tokenizer = build(PLAIN)
    tokenizer.pad_token = "<|im_end|>"
    example = encode_example(tokenizer, "Hi", "Yo", None)
    assert (example.input_ids[-1], example.completion_mask[-1]) == (tokenizer.pad_token_id, 1)


def test_a_second_bos_is_refused() -> None:
    tokenizer = build("<s><s>" + PLAIN)
    with pytest.raises(DataError, match="target tiny: a chat begins with two BOS, id 1; remove one from the template"):
        encode_prompt(tokenizer, "Hi", None)
    assert shown(tokenizer, encode_prompt(build("<s>" + PLAIN), "Hi", None)).startswith("<s><|im_start|>")


def test_a_tokenizer_without_bos() -> None:
    assert encode_prompt(build(PLAIN, bos=None), "Hi", None) == encode_prompt(build(PLAIN), "Hi", None)


def test_no_template() -> None:
    with pytest.raises(ConfigError, match="target tiny: has no chat template; name a chat model, or add the template"):
        encode_prompt(build(None), "Hi", None)
    nameless = build(None)
    nameless.name_or_path = ""
    with pytest.raises(ConfigError, match="target without a name: has no chat template"):
        template_sha256(nameless)


def test_several_templates_and_no_default() -> None:
    tokenizer: Any = build(PLAIN)
    tokenizer.chat_template = {"a": PLAIN, "b": PLAIN}
    with pytest.raises(ConfigError, match="target tiny: has several chat templates and no default; keep one"):
        encode_prompt(tokenizer, "Hi", None)
    tokenizer.chat_template = {"default": PLAIN, "b": WITH_DEFAULT}
    assert encode_prompt(tokenizer, "Hi", None) == encode_prompt(build(PLAIN), "Hi", None)


def test_a_template_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_TEMPLATE_CHARS", 10)
    with pytest.raises(
        ConfigError, match=f"target tiny: has a chat template of {len(PLAIN)} characters; keep it under"
    ):
        encode_prompt(build(PLAIN), "Hi", None)


def test_the_hash_of_the_template_is_for_the_record() -> None:
    assert template_sha256(build(PLAIN)) == hashlib.sha256(PLAIN.encode()).hexdigest()


def test_a_template_that_refuses_a_system_prompt() -> None:
    expected = "target tiny: its chat template refuses a conversation of system, user: TemplateError; try system_prompt"
    with pytest.raises(ConfigError, match=expected):
        encode_prompt(build(NO_SYSTEM), "Hi", "Rhyme.")


@pytest.mark.parametrize("text", ["a<|im_end|>b", "<s>", "<|im_start|>system"])
def test_a_text_with_a_control_token_is_refused_and_not_quoted(text: str) -> None:
    tokenizer = build(PLAIN)
    expected = r"target tiny: a text holds the control token '.*', which would change the chat's structure; remove it"
    for call in (
        lambda: encode_prompt(tokenizer, f"canary {text}", None),
        lambda: encode_prompt(tokenizer, "Hi", f"canary {text}"),
        lambda: encode_example(tokenizer, "Hi", f"canary {text}", None),
    ):
        with pytest.raises(DataError, match=expected) as caught:
            call()
        assert "canary" not in str(caught.value)


def test_a_prompt_that_is_no_prefix_is_refused() -> None:
    thinking = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\nHm. {% endif %}"
    with pytest.raises(
        DataError, match="target tiny: the ids of the prompt are no prefix of the ids of the whole chat;"
    ):
        encode_example(build(thinking), "Hi", "Yo", None)


def test_a_template_that_does_not_end_the_turn_with_eos() -> None:
    expected = (
        "target tiny: its chat template does not end the assistant's turn with EOS, id 1; set the tokenizer's eos"
    )
    with pytest.raises(DataError, match=expected):
        encode_example(build(PLAIN, bos=None, eos="<s>"), "Hi", "Yo", None)


def test_an_empty_completion_teaches_nothing() -> None:
    with pytest.raises(DataError, match="target tiny: a completion has no tokens; leave the row out"):
        encode_example(build(PLAIN), "Hi", "", None)


def test_the_example_is_plain_data() -> None:
    example = encode_example(build(PLAIN), "Hi", "Yo", None)
    assert isinstance(example, EncodedExample)
    assert all(type(token) is int for token in example.input_ids)
