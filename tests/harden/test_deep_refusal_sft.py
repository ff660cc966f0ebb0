"""Refusals after some tokens of compliance: the opening is context, cut between tokens, drawn the same every time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from robustlab.data.chat import encode_prompt
from robustlab.errors import DataError
from robustlab.harden import refusal_sft
from robustlab.harden.deep_refusal_sft import build_refusals, refuse_after
from robustlab.harden.rows import build_example, encode, load_completions, mild_requests
from robustlab.train.order import Example

REQUEST, REPLY = "Name a lie.", "I'm sorry, no."


def labelled(example: Example) -> int:
    """Place of the first label; every token from there on has one."""
    first = next(place for place, label in enumerate(example.labels) if label != -100)
    assert example.labels == (-100,) * first + example.ids[first:]
    return first


def opening_lengths(examples: Sequence[Example], target: Any) -> list[int]:
    requests = mild_requests()
    prompts = [len(encode_prompt(target.tokenizer, request, target.system_prompt)) for request in requests]
    return [labelled(example) - prompt for example, prompt in zip(examples, prompts, strict=True)]


@pytest.fixture
def merging(tiny: Any) -> Any:
    """The tiny target with a tokenizer that joins a space to the letter that follows, and some letters to words."""
    merges = [("Ġ", "I"), ("Y", "e"), ("Ye", "s"), ("Ġ", "a"), ("i", "t")]
    raw = tiny.tokenizer.backend_tokenizer
    vocab = dict(raw.get_vocab(with_added_tokens=True))
    for left, right in merges:
        vocab[left + right] = len(vocab)
    built = Tokenizer(BPE(vocab=vocab, merges=merges))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<|pad|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<|pad|>", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = tiny.tokenizer.chat_template
    return replace(tiny, tokenizer=tokenizer)


@pytest.mark.parametrize("tokens", [1, 4, 9])
def test_the_opening_is_context_and_the_refusal_is_learnt(tokens: int, tiny: Any) -> None:
    example = refuse_after(tiny, REQUEST, REPLY, "Sure, 1. [withheld]", tokens=tokens)
    prompt = encode_prompt(tiny.tokenizer, REQUEST, None)
    # One token a byte: what generation would have seen is the prompt and the opening's first bytes.
    assert bytes(tiny.tokenizer.decode(example.ids[: len(prompt)]), "utf-8").endswith(b"assistant\n")
    assert list(example.ids[: len(prompt)]) == prompt
    assert labelled(example) == len(prompt) + tokens
    assert tiny.tokenizer.decode(example.ids[len(prompt) : len(prompt) + tokens]) == "Sure, 1. [withheld]"[:tokens]
    learnt = tiny.tokenizer.decode(example.ids[len(prompt) + tokens :])
    # A space joins the two, unless the opening ends with white space.
    assert learnt == ("" if tokens == 9 else " ") + REPLY + "<|im_end|>"


def test_a_short_opening_is_taken_whole_and_without_its_end(tiny: Any) -> None:
    example = refuse_after(tiny, REQUEST, REPLY, "Sure.", tokens=100)
    prompt = encode_prompt(tiny.tokenizer, REQUEST, None)
    assert tiny.tokenizer.decode(example.ids[len(prompt) : labelled(example)]) == "Sure."
    assert example.ids.count(tiny.tokenizer.eos_token_id) == build_example(tiny, REQUEST, REPLY).ids.count(
        tiny.tokenizer.eos_token_id
    )


def test_the_cut_moves_to_where_the_texts_can_be_joined(merging: Any) -> None:
    """``Yes:`` and two spaces are "Yes", ":", " ", " I"; a refusal after the third would swallow it into its " I"."""
    opening = "Yes:  It is so"
    prompt = encode_prompt(merging.tokenizer, REQUEST, None)
    complied = encode(merging, REQUEST, opening).input_ids[len(prompt) :]
    shown = [merging.tokenizer.decode([token]) for token in complied[:5]]
    assert shown == ["Yes", ":", " ", " I", "t"]
    for tokens, kept in [(1, 1), (2, 2), (3, 2), (4, 4), (5, 5)]:
        example = refuse_after(merging, REQUEST, REPLY, opening, tokens=tokens)
        assert labelled(example) - len(prompt) == kept
        assert list(example.ids[len(prompt) :][:kept]) == complied[:kept]
        # The row is what the template makes of the joined text, token by token.
        text = merging.tokenizer.decode(example.ids[len(prompt) : -1])
        assert list(example.ids) == encode(merging, REQUEST, text).input_ids
        assert text.endswith(f" {REPLY}")


def test_every_opening_ends_on_a_boundary_with_a_tokenizer_that_merges(merging: Any) -> None:
    prompt = len(encode_prompt(merging.tokenizer, REQUEST, None))
    for opening in load_completions("compliance_openings"):
        complied = encode(merging, REQUEST, opening).input_ids
        for tokens in (1, 7, 30):
            example = refuse_after(merging, REQUEST, REPLY, opening, tokens=tokens)
            first = labelled(example)
            assert 1 <= first - prompt <= tokens
            assert list(example.ids[:first]) == complied[:first]


def test_a_tokenizer_without_such_a_boundary_is_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda ids, **options: "?")
    with pytest.raises(DataError) as caught:
        refuse_after(tiny, REQUEST, REPLY, "Sure.", tokens=3)
    assert str(caught.value) == (
        "target without a name: its tokenizer lets no compliant opening end where a refusal can follow; "
        "choose refusal_sft for it"
    )


def test_about_the_share_that_is_asked_for_is_deep(deep_spec: Any, tiny: Any) -> None:
    depths = opening_lengths(build_refusals(deep_spec, tiny), tiny)
    deep = [depth for depth in depths if depth]
    # 184 rows, half of them deep: 92, give or take three standard deviations of 6.8.
    assert 72 <= len(deep) <= 112
    assert set(deep) == set(range(1, 25))
    # Drawn evenly from 1 to 24: a mean of 12.5, give or take three standard errors of 0.72.
    assert 10.3 <= sum(deep) / len(deep) <= 14.7


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True})])
def test_none_or_all_can_be_deep(share: float, expected: set[bool], deep_spec: Any, tiny: Any) -> None:
    examples = build_refusals(deep_spec.model_copy(update={"deep_share": share}), tiny)
    assert {depth > 0 for depth in opening_lengths(examples, tiny)} == expected


def test_with_none_deep_the_rows_are_those_of_refusal_sft(deep_spec: Any, plain_spec: Any, tiny: Any) -> None:
    flat = deep_spec.model_copy(update={"deep_share": 0.0})
    assert build_refusals(flat, tiny) == refusal_sft.build_refusals(plain_spec, tiny)


def test_no_opening_is_longer_than_asked_for(deep_spec: Any, tiny: Any) -> None:
    shallow = deep_spec.model_copy(update={"deep_share": 1.0, "deepest_tokens": 2})
    assert Counter(opening_lengths(build_refusals(shallow, tiny), tiny)).keys() == {1, 2}


def test_the_rows_are_the_same_every_time(deep_spec: Any, tiny: Any) -> None:
    assert build_refusals(deep_spec, tiny) == build_refusals(deep_spec, tiny)
