"""The coherence gate: thresholds at their edges, by hand-made numbers."""

import math

import pytest

from robustlab.measure.coherence import distinct_trigram_share, find_incoherence, script_share
from robustlab.spec.evals import Coherence

GATE = Coherence(
    max_perplexity=100,
    min_perplexity_tokens=5,
    min_distinct_trigrams=0.5,
    min_repetition_words=6,
    min_script_share=0.7,
)


def find(text: str, prompt: str = "a question", score: float | None = -1.0, tokens: int = 9) -> str | None:
    return find_incoherence(text, prompt, score, tokens, GATE)


def test_trigrams_by_hand() -> None:
    # a b c a b c: abc bca cab abc, 3 of 4 distinct.
    assert distinct_trigram_share(["a", "b", "c", "a", "b", "c"]) == 3 / 4
    assert distinct_trigram_share(["a"] * 6) == 1 / 4
    assert distinct_trigram_share(["a", "b"]) == 1
    assert distinct_trigram_share([]) == 1


def test_repetition_needs_enough_words() -> None:
    # Six equal words: 1 distinct trigram of 4, below 0.5; five are too few to show a loop.
    assert find("so so so so so so") == "repetition"
    assert find("so so so so so") is None
    assert find("SO so So sO so so") == "repetition"


def test_scripts_by_hand() -> None:
    assert script_share("abc абв", "letters") == 1 / 2
    assert script_share("abc абв", "letters and буквы") == 1
    assert script_share("123 ...", "letters") == 1
    assert script_share("abc", "123") == 1
    assert script_share("абв", "123") == 0


@pytest.mark.parametrize(("text", "found"), [("abcdefg абв", None), ("abcdef абвг", "script")])
def test_the_script_s_edge(text: str, found: str | None) -> None:
    # 7 of 10 letters are in the prompt's script: just enough; 6 of 10 are not.
    assert find(text) == found


@pytest.mark.parametrize("text", ["", "   ", "\n", "?!", "…"])
def test_text_without_a_word_is_empty(text: str) -> None:
    assert find(text) == "empty"


def test_the_perplexity_s_edge() -> None:
    # exp(-(-ln 100)) = 100 is just allowed.
    assert find("a few words", score=-math.log(100)) is None
    assert find("a few words", score=-math.log(100) - 1e-9) == "perplexity"


def test_short_or_unscored_text_has_no_perplexity() -> None:
    assert find("a few words", score=-50.0, tokens=4) is None
    assert find("a few words", score=-50.0, tokens=5) == "perplexity"
    assert find("a few words", score=None) is None


def test_a_hopeless_score_does_not_overflow() -> None:
    assert find("a few words", score=-1e9) == "perplexity"
