"""The coherence gate: whether a completion is text at all, before anyone asks what it says.

Pure functions of text and numbers; the perplexity under the untouched target is handed in.
"""

import math
import re
import unicodedata
from collections.abc import Sequence

from robustlab.spec.evals import Coherence

_WORD = re.compile(r"\w+")


def find_incoherence(
    text: str, prompt: str, mean_log_probability: float | None, tokens: int, gate: Coherence
) -> str | None:
    """Say why a completion is broken text.

    Args:
        text: The completion.
        prompt: The raw request, for its script.
        mean_log_probability: Nats per token under the untouched target; None when it was not scored.
        tokens: Length of the completion in tokens.
        gate: Thresholds.

    Returns:
        ``empty``, ``script``, ``repetition`` or ``perplexity``; None for coherent text.
    """
    words = _WORD.findall(text.casefold())
    if not words:
        return "empty"
    if script_share(text, prompt) < gate.min_script_share:
        return "script"
    if len(words) >= gate.min_repetition_words and distinct_trigram_share(words) < gate.min_distinct_trigrams:
        return "repetition"
    if mean_log_probability is None or tokens < gate.min_perplexity_tokens:
        return None
    # The logarithm is compared, since the exponential of a hopeless text overflows.
    return "perplexity" if -mean_log_probability > math.log(gate.max_perplexity) else None


def distinct_trigram_share(words: Sequence[str]) -> float:
    """Distinct word trigrams over all of them, in (0, 1]; 1 for fewer than three words."""
    trigrams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def script_share(text: str, prompt: str) -> float:
    """Share of the completion's letters that lie in a script of the prompt, in [0, 1]; 1 without any letters."""
    allowed = {_script(letter) for letter in prompt if letter.isalpha()} or {"LATIN"}
    letters = [letter for letter in text if letter.isalpha()]
    return sum(_script(letter) in allowed for letter in letters) / len(letters) if letters else 1.0


def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
