"""Whether an answer meets the check that its instruction came with: a program decides, and nobody's taste.

Pure functions of the check and the answer, strict in what was asked and blind to all else: what an answer says is not
looked at, nor whether it is true. White space at its edges never counts. A check of form alone (no commas, capitals)
asks for at least ``FEWEST_WORDS`` words besides, so that a stub does not meet it.
"""

import json
import re
from collections.abc import Sequence
from typing import assert_never

from robustlab.data import checks
from robustlab.data.checks import Check

FEWEST_WORDS = 3
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LETTERS = re.compile(r"[^\W\d_]+")
# A dash may stand close to its item; an asterisk may not, since that is how bold words begin.
_BULLET = re.compile(r"^[ \t]*(?:[-•][ \t]*[^\s•-]|[*+][ \t]+\S)", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*(\d+)[.)][ \t]+\S", re.MULTILINE)
# A point inside a number or a name ends nothing: only one before white space or the end does.
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)
_TITLE = re.compile(r"<<([^<>]*)>>")
_SEPARATOR = re.compile(r"(?<!\*)\*{3}(?!\*)")
_QUOTES = {'"': '"', "“": "”"}
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WHOLE = checks.Bullets | checks.Numbered | checks.Sentences | checks.Paragraphs | checks.AtMostWords


def meets(check: Check, answer: str, *, is_cut: bool) -> bool:
    """Say whether an answer meets a check.

    Args:
        check: What was asked.
        answer: What the target wrote.
        is_cut: Whether the limit of tokens cut it off. How many items, sentences, parts or words it was to have is not
            known then, and a check of that is not met; every other check is about what there is.

    Returns:
        True only if all that was asked is there.
    """
    if is_cut and isinstance(check, _WHOLE):
        return False
    return _meets(check, answer.strip())


def _meets(check: Check, text: str) -> bool:
    """One arm a check: 2 lines each, and what takes more stands below."""
    match check:
        case checks.Same(wanted):
            return _unquoted(text) == wanted
        case checks.OneWord(word):
            return _unquoted(text.removesuffix(".")).removesuffix(".").casefold() == word
        case checks.Begins(opening):
            return _begins(text.casefold(), opening.casefold())
        case checks.Ends(ending):
            return text.casefold().endswith(ending.casefold()) and _says(text[: -len(ending)])
        case checks.Contains(word):
            return _says(text) and word in _letters(text)
        case checks.Avoids(word):
            return _says(text) and word not in _letters(text)
        case checks.LowerCase():
            return _says(text) and not any(character.isupper() for character in text)
        case checks.Capitals():
            return _says(text) and not any(character.islower() for character in text)
        case checks.Bullets(count):
            return len(_BULLET.findall(text)) == count
        case checks.Numbered(count):
            return _NUMBERED.findall(text) == [str(number) for number in range(1, count + 1)]
        case checks.AtMostWords(count):
            return FEWEST_WORDS <= len(_WORD.findall(text)) <= count
        case checks.AtLeastWords(count):
            return len(_WORD.findall(text)) >= count
        case checks.Sentences(count):
            ends = [found.end() for found in _SENTENCE_END.finditer(text)]
            return _says(text) and len(ends) == count and ends[-1] == len(text)
        case checks.JsonObject(keys):
            return _has_keys(text, keys)
        case checks.Repeated(word, count):
            return [found.casefold() for found in _WORD.findall(text)] == [word] * count
        case checks.Quoted():
            return _is_quoted(text)
        case checks.Titled():
            titles = _TITLE.findall(text)
            return len(titles) == 1 and _letters(titles[0]) not in ([], ["title"])
        case checks.WithoutCommas():
            return _says(text) and "," not in text
        case checks.Paragraphs(count):
            parts = _SEPARATOR.split(text)
            return len(parts) == count and all(_says(part) for part in parts)
        case checks.Ordered(words):
            return _letters(text) == [*words]
        case checks.Counted(number):
            return text.removesuffix(".").casefold() in (str(number), _NUMBERS[number - 1])
        case _:
            assert_never(check)


def _letters(text: str) -> list[str]:
    """Runs of letters, casefolded: what stands before and after a hyphen or an apostrophe is a word of its own."""
    return [found.casefold() for found in _LETTERS.findall(text)]


def _says(text: str) -> bool:
    """Whether there is more than a stub."""
    return len(_WORD.findall(text)) >= FEWEST_WORDS


def _begins(text: str, opening: str) -> bool:
    rest = text.removeprefix(opening)
    return rest != text and not rest[:1].isalnum() and _says(rest)


def _unquoted(text: str) -> str:
    """Without one pair of quotation marks around it, which nobody asked for and which change no word."""
    is_wrapped = len(text) > 1 and _QUOTES.get(text[0]) == text[-1]
    return text[1:-1] if is_wrapped else text


def _is_quoted(text: str) -> bool:
    inner = _unquoted(text)
    return inner != text and _says(inner) and not set(inner) & {*_QUOTES.keys(), *_QUOTES.values()}


def _has_keys(text: str, keys: Sequence[str]) -> bool:
    """Whether it is an object with just these keys; a fence of Markdown around it is let through."""
    fenced = _FENCE.fullmatch(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == set(keys)
