"""The made instructions: as many as promised, the same every time, pinned, and each of them can be followed."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data import checks
from robustlab.data.contamination import find_contamination
from robustlab.data.instructions import Instruction, instructions_sha256, make_instructions
from robustlab.data.rows import load_builtin, load_eval_rows
from robustlab.errors import DataError
from robustlab.spec.catalog import load
from robustlab.spec.sources import BuiltinName

MADE = make_instructions()
PINNED = "f0b9bdf65402722f89273785415830eb80d7478196e01fd8de69b538bc0df062"
FORMS = (
    "copy", "one_word", "begin", "end", "contain", "avoid", "lower_case", "capitals", "bullets", "numbered",
    "at_most_words", "at_least_words", "sentences", "json", "repeat_word", "quotes", "title", "no_commas",
    "paragraphs", "alphabet", "count",
)  # fmt: skip
PROMPT_SETS: tuple[BuiltinName, ...] = (
    "mild_requests_safeguard",
    "mild_requests_attack",
    "benign_prompts",
    "benign_answers",
    "identity_shift",
)


def test_there_are_420_of_21_forms_in_turn() -> None:
    assert Counter(each.form for each in MADE) == dict.fromkeys(FORMS, 20)
    assert len(MADE) == 21 * 20 == 420
    assert tuple(each.form for each in MADE[:21]) == FORMS == tuple(each.form for each in MADE[-21:])


def test_every_prompt_is_another_and_tidy() -> None:
    prompts = [each.prompt for each in MADE]
    assert len({prompt.casefold() for prompt in prompts}) == 420
    for prompt in prompts:
        assert prompt == prompt.strip() and "{" not in prompt and "  " not in prompt
        assert 5 <= len(prompt.split()) <= 30, prompt


def test_they_are_what_the_evals_pin() -> None:
    """A change to a text, an order or a check is another set: it needs a new variant in the evals."""
    assert instructions_sha256(MADE) == PINNED
    assert make_instructions() == MADE
    for name in ("instructions_420", "instructions_60"):
        assert load("evals", name).source.sha256 == PINNED


@pytest.mark.parametrize(
    "changed",
    [
        [replace(MADE[0], prompt="Say hello."), *MADE[1:]],
        [replace(MADE[0], form="other"), *MADE[1:]],
        [replace(MADE[0], check=checks.Same("Tea.")), *MADE[1:]],
        [MADE[1], MADE[0], *MADE[2:]],
        MADE[:-1],
    ],
    ids=["prompt", "form", "check", "order", "length"],
)
def test_any_change_changes_the_hash(changed: list[Instruction]) -> None:
    assert instructions_sha256(changed) != PINNED


def test_the_hash_is_over_one_json_list_a_row() -> None:
    one = Instruction("Say tea.", "one_word", checks.OneWord("tea"))
    # sha256 of '["Say tea.", "one_word", "OneWord(word=\'tea\')"]\n'.
    assert instructions_sha256([one]) == "464711e93b79eda5ee2445fe4ffbc2dfef518a0c8bd90b91a2dd7c7e37d809f1"


def test_a_prompt_names_what_its_check_asks_for() -> None:
    numbers = ("one", "two", "three", "four", "five")
    for each in MADE:
        match each.check:
            case checks.Same(text) | checks.OneWord(text) | checks.Begins(text) | checks.Ends(text):
                assert text in each.prompt
            case checks.Contains(word) | checks.Avoids(word):
                assert f'"{word}"' in each.prompt
            case checks.Repeated(word, count):
                assert f'"{word}"' in each.prompt and f" {numbers[count - 1]} times" in each.prompt
            case checks.JsonObject(keys):
                assert all(f'"{key}"' in each.prompt for key in keys)
            case checks.Bullets(count) | checks.Numbered(count) | checks.Sentences(count) | checks.Paragraphs(count):
                assert numbers[count - 1] in each.prompt
            case checks.AtMostWords(count) | checks.AtLeastWords(count):
                assert f" {count} words" in each.prompt
            case checks.Ordered(words):
                asked = each.prompt.partition(": ")[2].split(", ")
                # What is sorted already would be met by copying it.
                assert sorted(asked) == [*words] != asked and len(set(words)) == len(words)
            case checks.Counted(number):
                assert each.prompt.count(", ") == number - 1
            case _:
                assert each.form in ("lower_case", "capitals", "quotes", "title", "no_commas")


def test_numbers_vary_within_a_form() -> None:
    for name in ("bullets", "numbered", "at_most_words", "at_least_words", "sentences", "repeat_word"):
        assert len({each.check.count for each in MADE if each.form == name}) >= 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_no_instruction_is_near_a_row_that_something_trains_on(name: BuiltinName) -> None:
    others = [row.prompt for row in load_builtin(name) if row.prompt]
    assert find_contamination([each.prompt for each in MADE], others, ngram=6, jaccard=0.5) == []


def test_rows_carry_their_checks() -> None:
    rows = load_eval_rows(load("evals", "instructions_420"), data_csv=None)
    assert [(row.text, row.prompt, row.category, row.check) for row in rows] == [
        (each.prompt, each.prompt, each.form, each.check) for each in MADE
    ]
    assert {(row.role, row.split, row.functional, row.context, row.wrapper) for row in rows} == {
        ("eval", None, None, None, None)
    }
    assert len({row.text_sha256 for row in rows}) == 420
    assert not any(row.text in repr(row) for row in rows)


def test_rows_of_other_evals_have_none() -> None:
    assert {row.check for row in load_eval_rows(load("evals", "smoke_benign"), data_csv=None)} == {None}


def test_the_subset_has_every_form() -> None:
    rows = load_eval_rows(load("evals", "instructions_60"), data_csv=None)
    found = Counter(row.category for row in rows)
    # 60 of 420 at 20 a form: 60 x 20 / 420 = 2.86, rounded to 2, and the 18 that are left over go to one form each.
    assert len(rows) == 60 and Counter(found.values()) == {3: 18, 2: 3}
    assert set(found) == set(FORMS)
    everything = {row.text_sha256 for row in load_eval_rows(load("evals", "instructions_420"), data_csv=None)}
    assert {row.text_sha256 for row in rows} < everything


def test_another_set_than_the_pinned_one_is_refused() -> None:
    spec = load("evals", "instructions_60")
    other = spec.model_copy(update={"source": spec.source.model_copy(update={"sha256": "0" * 64})})
    message = (
        f"instructions: has sha256 {PINNED}, pinned is {'0' * 64}; "
        "take the version of robustlab that the eval was written for, or write one with this hash"
    )
    with pytest.raises(DataError) as caught:
        load_eval_rows(other, data_csv=None)
    assert str(caught.value) == message


@given(st.lists(st.sampled_from(MADE), max_size=4), st.lists(st.sampled_from(MADE), max_size=4))
@settings(deadline=None)
def test_hashes_are_equal_only_for_equal_lists(one: list[Any], other: list[Any]) -> None:
    assert (instructions_sha256(one) == instructions_sha256(other)) == (one == other)


def test_prompts_are_plain_text() -> None:
    assert all(each.prompt.isascii() for each in MADE)
