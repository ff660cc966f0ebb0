"""Contamination check between two sets of short texts: shared word n-grams and near-duplicates.

A result on a benchmark means nothing if its rows were trained on. This module compares candidate texts (built-in
requests, attack data) with protected ones (eval behaviors) and names the offending pairs by index. It holds and
returns indices and scores, never texts, so that a finding can be logged although the benchmark must not be copied.

What it does not know: meaning. A paraphrase, a translation or a homoglyph spelling goes unseen, and so does a
protected text shorter than the n-gram that lies inside a long candidate. Scripts written without spaces count as one
word per run of letters, so only the character shingles compare them. A finding is a reason to look, not a proof of
copying: a stock phrase as long as the n-gram is reported too.
"""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

SHINGLE_CHARS = 5
"""Length of a character shingle in `near_duplicate`, in characters of the normalised text."""

_APOSTROPHES = frozenset("'\u2018\u2019\u02bc\u02b9\u2032`\u00b4")
"""Characters that join a word instead of ending it: "don't" is one word however it is typed."""

_Gram = TypeVar("_Gram", bound=Hashable)


@dataclass(frozen=True, slots=True, order=True)
class Contamination:
    """One finding: a candidate that shares too much with a protected text."""

    candidate_index: int
    """Position in the candidates, from 0."""
    protected_index: int
    """Position in the protected texts, from 0."""
    kind: Literal["ngram", "near_duplicate"]
    """Which of the two checks found it."""
    score: float
    """For `ngram` the count of distinct word n-grams that both hold, >= 1; for `near_duplicate` the Jaccard similarity
    of the character shingles, in (0, 1]."""


def normalise_words(text: str) -> tuple[str, ...]:
    """Words of a text as they are compared: NFKC, casefolded, without punctuation.

    Letters, digits and combining marks make words. Apostrophes and invisible format characters (zero-width space,
    soft hyphen) vanish; everything else, hyphens included, separates words.

    Args:
        text: Any text; may be empty.

    Returns:
        The words in reading order; empty if the text holds none.
    """
    # Casefolding can undo NFKC, hence the second pass. It comes after NFKC, since full-width capitals need it first.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _fold_apostrophes(text)).casefold())
    return tuple("".join(_comparable(char) for char in folded).split())


def shared_ngrams(a: str, b: str, *, n: int) -> int:
    """Count of distinct word n-grams that occur in both texts.

    Args:
        a: One text.
        b: The other; the count is symmetric.
        n: Words per n-gram, >= 1. A text of fewer words has none.

    Returns:
        Count of distinct n-grams, >= 0; repetitions within a text count once.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n: must be at least 1 word, got {n}; 6 is usual for prompts")
    return len(_word_ngrams(normalise_words(a), n) & _word_ngrams(normalise_words(b), n))


def near_duplicate(a: str, b: str) -> float:
    """Jaccard similarity of the character 5-shingles of the normalised texts.

    A text shorter than a shingle counts as one shingle, itself. A text without any word resembles nothing, not even
    another such text.

    Args:
        a: One text.
        b: The other; the similarity is symmetric.

    Returns:
        Shared shingles over all distinct shingles, in [0, 1]; 1 for texts that are equal once normalised.

    Source: Broder, "On the resemblance and containment of documents" (1997), with characters for words.
    """
    shingles_a, shingles_b = _shingles(normalise_words(a)), _shingles(normalise_words(b))
    return _jaccard(len(shingles_a & shingles_b), len(shingles_a), len(shingles_b))


def find_contamination(
    candidates: Sequence[str], protected: Sequence[str], *, ngram: int, jaccard: float
) -> list[Contamination]:
    """All pairs in which a candidate shares a word n-gram with, or nearly duplicates, a protected text.

    Equal to `shared_ngrams` and `near_duplicate` on every pair, through an inverted index: time grows with the
    shared n-grams and shingles, not with the number of pairs times their length.

    Args:
        candidates: Texts under suspicion, e.g. training prompts.
        protected: Texts that must not be among them, e.g. eval behaviors.
        ngram: Words per n-gram, >= 1; one shared n-gram is a finding.
        jaccard: Similarity in (0, 1] from which on (inclusive) a pair is a near-duplicate.

    Returns:
        Findings sorted by candidate, protected text and kind; a pair found by both checks is listed twice.

    Raises:
        TypeError: `candidates` or `protected` is one text instead of a sequence of texts.
        ValueError: `ngram` is below 1, or `jaccard` lies outside (0, 1].
    """
    if ngram < 1:
        raise ValueError(f"ngram: must be at least 1 word, got {ngram}; 6 is usual for prompts")
    if not 0.0 < jaccard <= 1.0:
        raise ValueError(f"jaccard: must lie in (0, 1], got {jaccard!r}; 0 would report every pair")
    for name, texts in (("candidates", candidates), ("protected", protected)):
        # A str is itself a Sequence[str], so the type checker lets it pass and every letter would be a text.
        if isinstance(texts, str):
            raise TypeError(f"{name}: must be a sequence of texts, got one text; wrap it in a list")
    candidate_words = [normalise_words(text) for text in candidates]
    protected_words = [normalise_words(text) for text in protected]
    return sorted(
        [
            *_ngram_findings(candidate_words, protected_words, ngram),
            *_shingle_findings(candidate_words, protected_words, jaccard),
        ]
    )


def _ngram_findings(
    candidates: Sequence[tuple[str, ...]], protected: Sequence[tuple[str, ...]], n: int
) -> Iterator[Contamination]:
    candidate_grams = [_word_ngrams(words, n) for words in candidates]
    protected_grams = [_word_ngrams(words, n) for words in protected]
    for i, j, shared in _overlaps(candidate_grams, protected_grams):
        yield Contamination(i, j, "ngram", float(shared))


def _shingle_findings(
    candidates: Sequence[tuple[str, ...]], protected: Sequence[tuple[str, ...]], threshold: float
) -> Iterator[Contamination]:
    candidate_shingles = [_shingles(words) for words in candidates]
    protected_shingles = [_shingles(words) for words in protected]
    for i, j, shared in _overlaps(candidate_shingles, protected_shingles):
        score = _jaccard(shared, len(candidate_shingles[i]), len(protected_shingles[j]))
        if score >= threshold:
            yield Contamination(i, j, "near_duplicate", score)


def _overlaps(
    candidates: Sequence[frozenset[_Gram]], protected: Sequence[frozenset[_Gram]]
) -> Iterator[tuple[int, int, int]]:
    """Yield (candidate index, protected index, shared grams) for every pair that shares one."""
    holders: dict[_Gram, list[int]] = {}
    for j, grams in enumerate(protected):
        for gram in grams:
            holders.setdefault(gram, []).append(j)
    for i, grams in enumerate(candidates):
        shared = Counter(j for gram in grams for j in holders.get(gram, ()))
        for j, count in shared.items():
            yield i, j, count


def _word_ngrams(words: tuple[str, ...], n: int) -> frozenset[tuple[str, ...]]:
    return frozenset(words[start : start + n] for start in range(len(words) - n + 1))


def _shingles(words: tuple[str, ...]) -> frozenset[str]:
    text = " ".join(words)
    if not text:
        return frozenset()
    last = max(len(text) - SHINGLE_CHARS, 0)
    return frozenset(text[start : start + SHINGLE_CHARS] for start in range(last + 1))


def _jaccard(shared: int, size_a: int, size_b: int) -> float:
    union = size_a + size_b - shared
    return shared / union if union else 0.0


def _fold_apostrophes(text: str) -> str:
    # Before NFKC: it would turn the acute accent, much used as an apostrophe, into a space and a combining mark.
    return "".join(char for char in text if char not in _APOSTROPHES)


def _comparable(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    return char if category[0] in "LNM" else " "
