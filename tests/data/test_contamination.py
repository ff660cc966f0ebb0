"""Contamination check on hand-made texts, with the arithmetic in the comments."""

import dataclasses
import random
import time

import pytest

from robustlab.data.contamination import (
    Contamination,
    find_contamination,
    near_duplicate,
    normalise_words,
    shared_ngrams,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Beat the EGGS, then rest!", ("beat", "the", "eggs", "then", "rest")),
        ("step-by-step", ("step", "by", "step")),
        ("Don't don\u2019t don\u00b4t", ("dont", "dont", "dont")),
        ("\ufb01ne \uff21\uff22\uff23", ("fine", "abc")),  # a ligature and full-width capitals: NFKC
        ("Stra\u00dfe STRASSE", ("strasse", "strasse")),  # casefold, where lower() would keep two spellings
        ("cafe\u0301 caf\u00e9", ("caf\u00e9", "caf\u00e9")),  # combining and composed accent
        ("to\u200bmato to\u00admato", ("tomato", "tomato")),  # zero-width space, soft hyphen
        ("snake_case\tand\n\nlines", ("snake", "case", "and", "lines")),
        ("24 apples", ("24", "apples")),
        ("?! --- \u2026", ()),
        ("", ()),
    ],
)
def test_normalise_words(text: str, words: tuple[str, ...]) -> None:
    assert normalise_words(text) == words


@pytest.mark.parametrize("text", ["Don't PANIC\u2014it's \ufb01ne", "\u0130stanbul \u1e9e", "\u0345\u03b1"])
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_words(text)
    assert normalise_words(" ".join(once)) == once


@pytest.mark.parametrize(
    ("n", "shared"),
    [
        (1, 3),  # b, c, d
        (2, 2),  # bc, cd
        (3, 1),  # bcd
        (4, 0),  # abcd against xbcd and bcdy
        (9, 0),  # neither text has nine words
    ],
)
def test_shared_ngrams_counts_distinct_runs_of_words(n: int, shared: int) -> None:
    assert shared_ngrams("A b, c d!", "x b c d y", n=n) == shared
    assert shared_ngrams("x b c d y", "A b, c d!", n=n) == shared


def test_shared_ngrams_counts_a_repeated_run_once() -> None:
    # The bigrams of the first are {ab, ba}, those of the second {ab, bx, xa}.
    assert shared_ngrams("a b a b", "a b x a b", n=2) == 1


def test_shared_ngrams_of_empty_texts_is_zero() -> None:
    assert shared_ngrams("", "", n=1) == 0


def test_shared_ngrams_refuses_an_empty_ngram() -> None:
    with pytest.raises(ValueError, match=r"^n: must be at least 1 word, got 0; 6 is usual for prompts$"):
        shared_ngrams("a", "a", n=0)


@pytest.mark.parametrize(
    ("a", "b", "similarity"),
    [
        ("abcdef", "abcdeg", 1 / 3),  # {abcde, bcdef} and {abcde, bcdeg}: 1 shared of 3
        ("abcdefg", "abcdefgh", 3 / 4),  # {abcde, bcdef, cdefg} within the same and defgh
        ("Bake a cake.", "bake  a CAKE", 1.0),
        ("abcdef", "uvwxyz", 0.0),
        ("ab cd", "abcd", 0.0),  # the space counts: {"ab cd"} and {"abcd"}
        ("ab", "ab", 1.0),  # shorter than a shingle: the text itself is the only one
        ("ab", "abc", 0.0),
        ("", "abc", 0.0),
        ("", "", 0.0),  # nothing resembles nothing, or two blank cells would be duplicates
        ("...", "!", 0.0),
    ],
)
def test_near_duplicate_is_the_jaccard_of_character_shingles(a: str, b: str, similarity: float) -> None:
    assert near_duplicate(a, b) == pytest.approx(similarity)
    assert near_duplicate(b, a) == pytest.approx(similarity)


def test_find_contamination_names_pairs_by_index_and_kind() -> None:
    candidates = ["Plant the bulbs before the first frost comes", "abcdef", "nothing in common here"]
    protected = ["uvwxyz", "abcdeg", "Why plant the bulbs before the rain?"]
    found = find_contamination(candidates, protected, ngram=4, jaccard=0.3)
    assert found == [
        # "plant the bulbs before" and "the bulbs before the": 2 four-grams. Of m characters there are m - 4
        # shingles, and " the " comes twice in each text, so they have 44 - 4 - 1 = 39 and 35 - 4 - 1 = 30 distinct
        # ones. They share the run "plant the bulbs before the ": 27 - 4 - 1 = 22. 22 / (39 + 30 - 22) = 22 / 47.
        Contamination(0, 2, "near_duplicate", 22 / 47),
        Contamination(0, 2, "ngram", 2.0),
        Contamination(1, 1, "near_duplicate", 1 / 3),
    ]


def test_the_threshold_itself_is_a_near_duplicate() -> None:
    assert len(find_contamination(["abcdef"], ["abcdeg"], ngram=6, jaccard=1 / 3)) == 1
    assert find_contamination(["abcdef"], ["abcdeg"], ngram=6, jaccard=0.34) == []


def test_an_equal_text_too_short_for_an_ngram_is_still_found() -> None:
    assert find_contamination(["Peel garlic"], ["peel garlic!"], ngram=6, jaccard=1.0) == [
        Contamination(0, 0, "near_duplicate", 1.0)
    ]


@pytest.mark.parametrize(("candidates", "protected"), [([], ["a b"]), (["a b"], []), ([""], [""]), (["?"], ["!"])])
def test_nothing_to_compare_is_no_finding(candidates: list[str], protected: list[str]) -> None:
    assert find_contamination(candidates, protected, ngram=1, jaccard=0.1) == []


def test_the_index_agrees_with_the_pairwise_functions() -> None:
    rng = random.Random(20)
    vocabulary = ["oak", "elm", "ash", "beech", "willow", "hazel"]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(0, 9))) for _ in range(60)]
    candidates, protected = texts[:25], texts[25:]
    expected = []
    for i, a in enumerate(candidates):
        for j, b in enumerate(protected):
            if near_duplicate(a, b) >= 0.4:
                expected.append(Contamination(i, j, "near_duplicate", near_duplicate(a, b)))
            if shared_ngrams(a, b, n=3):
                expected.append(Contamination(i, j, "ngram", float(shared_ngrams(a, b, n=3))))
    assert len(expected) > 20  # or the comparison below would prove little
    assert find_contamination(candidates, protected, ngram=3, jaccard=0.4) == expected


@pytest.mark.parametrize("jaccard", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_outside_its_range_is_refused(jaccard: float) -> None:
    with pytest.raises(ValueError, match=rf"^jaccard: must lie in \(0, 1\], got {jaccard}; 0 would report every pair$"):
        find_contamination(["a"], ["a"], ngram=6, jaccard=jaccard)


def test_an_empty_ngram_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ngram: must be at least 1 word, got -1;"):
        find_contamination(["a"], ["a"], ngram=-1, jaccard=0.5)


def test_one_text_in_place_of_a_sequence_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^candidates: must be a sequence of texts, got one text; wrap it in a list$"):
        find_contamination("a b c", ["a"], ngram=6, jaccard=0.5)
    with pytest.raises(TypeError, match=r"^protected: must be a sequence of texts, got one text"):
        find_contamination(["a"], "a b c", ngram=6, jaccard=0.5)


def test_a_finding_is_frozen_and_holds_no_text() -> None:
    finding = find_contamination(["abcdef"], ["abcdef"], ngram=6, jaccard=0.5)[0]
    fields = {field.name for field in dataclasses.fields(finding)}
    assert fields == {"candidate_index", "protected_index", "kind", "score"}
    assert "abcdef" not in repr(finding)
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.score = 0.0  # type: ignore[misc]


def test_four_hundred_by_a_thousand_texts_take_seconds() -> None:
    rng = random.Random(7)
    vocabulary = [f"word{number}" for number in range(2000)]
    texts = [" ".join(rng.choices(vocabulary, k=15)) for _ in range(1400)]
    texts[1100] = texts[100]
    started = time.process_time()
    found = find_contamination(texts[:400], texts[400:], ngram=6, jaccard=0.5)
    assert [(f.candidate_index, f.protected_index, f.kind) for f in found] == [
        (100, 700, "near_duplicate"),
        (100, 700, "ngram"),
    ]
    assert time.process_time() - started < 10.0  # seconds of CPU time; 0.8 when written
