"""What a program can ask of an answer: one closed type for each kind of check, with its numbers and its words.

These are facts that travel with a row; ``robustlab.measure.instructions`` says whether an answer meets one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Same:
    """The answer is this text and nothing else."""

    text: str


@dataclass(frozen=True)
class OneWord:
    """The answer is this word alone."""

    word: str


@dataclass(frozen=True)
class Begins:
    """The answer begins with these words and goes on."""

    text: str


@dataclass(frozen=True)
class Ends:
    """The answer ends with these words, after some of its own."""

    text: str


@dataclass(frozen=True)
class Contains:
    """The answer has this word in it."""

    word: str


@dataclass(frozen=True)
class Avoids:
    """The answer has not this word in it."""

    word: str


@dataclass(frozen=True)
class LowerCase:
    """No letter of the answer is a capital."""


@dataclass(frozen=True)
class Capitals:
    """Every letter of the answer is a capital."""


@dataclass(frozen=True)
class Bullets:
    """The answer has so many bullet points."""

    count: int


@dataclass(frozen=True)
class Numbered:
    """The answer has items numbered from 1 to this."""

    count: int


@dataclass(frozen=True)
class AtMostWords:
    """The answer has so many words at most."""

    count: int


@dataclass(frozen=True)
class AtLeastWords:
    """The answer has so many words at least."""

    count: int


@dataclass(frozen=True)
class Sentences:
    """The answer has so many sentences, each of them finished."""

    count: int


@dataclass(frozen=True)
class JsonObject:
    """The answer is a JSON object with these keys and no other."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Repeated:
    """The answer is this word so many times."""

    word: str
    count: int


@dataclass(frozen=True)
class Quoted:
    """The whole answer stands between double quotation marks."""


@dataclass(frozen=True)
class Titled:
    """The answer has one title between << and >>."""


@dataclass(frozen=True)
class WithoutCommas:
    """The answer has no comma."""


@dataclass(frozen=True)
class Paragraphs:
    """The answer has so many parts with *** between them."""

    count: int


@dataclass(frozen=True)
class Ordered:
    """The answer is these words in this order."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Counted:
    """The answer is this number alone, from 1 to 9."""

    number: int


Check = (
    Same
    | OneWord
    | Begins
    | Ends
    | Contains
    | Avoids
    | LowerCase
    | Capitals
    | Bullets
    | Numbered
    | AtMostWords
    | AtLeastWords
    | Sentences
    | JsonObject
    | Repeated
    | Quoted
    | Titled
    | WithoutCommas
    | Paragraphs
    | Ordered
    | Counted
)
