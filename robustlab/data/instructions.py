"""Makes the instructions whose answers a program can check: every form on every subject, the same ones every time.

Written for this project in the spirit of IFEval, with tasks that a small model can do. There is no chance in it: the
n-th row of a form is about the n-th subject. A change to a text, an order or a check changes the hash that evals pin.
This module does not know how an answer is checked.

Source: Zhou et al. 2023, arXiv 2311.07911 (the idea, none of its prompts).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from robustlab.data import checks
from robustlab.data.checks import Check

_WORDS_OF_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Instruction:
    """One made task.

    Attributes:
        prompt: What the target is asked.
        form: Kind of the constraint, such as ``bullets``.
        check: What its answer has to show.
    """

    prompt: str
    form: str
    check: Check


@dataclass(frozen=True)
class _Subject:
    """A mild topic, a word that belongs to it, a true sentence, and five things in no alphabetical order."""

    topic: str
    word: str
    sentence: str
    things: tuple[str, str, str, str, str]


_SUBJECTS = (
    _Subject("tea", "water", "Tea tastes best in the afternoon.", ("spoon", "cup", "kettle", "leaf", "milk")),
    _Subject("bicycles", "wheels", "My bicycle has two wheels.", ("wheel", "bell", "chain", "pump", "saddle")),
    _Subject("the moon", "night", "The moon is bright tonight.", ("star", "comet", "planet", "night", "rocket")),
    _Subject("cats", "sleep", "The cat sleeps on the chair.", ("tail", "paw", "basket", "mouse", "whisker")),
    _Subject("rain", "clouds", "It will rain in the evening.", ("umbrella", "boot", "puddle", "drop", "hat")),
    _Subject("bread", "flour", "The bread is still warm.", ("oven", "flour", "butter", "knife", "salt")),
    _Subject("libraries", "books", "The library opens at nine.", ("shelf", "book", "page", "desk", "lamp")),
    _Subject("trees", "leaves", "The old tree has green leaves.", ("root", "branch", "leaf", "acorn", "trunk")),
    _Subject("winter", "snow", "Snow fell during the night.", ("snow", "glove", "scarf", "coat", "ice")),
    _Subject("the sea", "waves", "The sea is calm this morning.", ("wave", "beach", "shell", "gull", "sand")),
    _Subject("gardens", "flowers", "There are roses in the garden.", ("rose", "fence", "bee", "seed", "tulip")),
    _Subject("music", "song", "She plays the piano every day.", ("piano", "drum", "violin", "flute", "harp")),
    _Subject("shoes", "feet", "These shoes are very comfortable.", ("sole", "heel", "lace", "boot", "sock")),
    _Subject("apples", "fruit", "Apples grow on trees.", ("pear", "apple", "plum", "cherry", "grape")),
    _Subject("trains", "station", "The train leaves at noon.", ("track", "bridge", "ticket", "seat", "window")),
    _Subject("birds", "wings", "A small bird sat on the roof.", ("robin", "crow", "owl", "finch", "swan")),
    _Subject("kites", "wind", "The kite flew over the hill.", ("wind", "hill", "string", "cloud", "field")),
    _Subject("soup", "bowl", "The soup needs a little salt.", ("pot", "carrot", "onion", "bowl", "ladle")),
    _Subject("maps", "roads", "The map shows every road.", ("road", "city", "lake", "valley", "island")),
    _Subject("clocks", "time", "The clock on the wall is slow.", ("watch", "hour", "minute", "alarm", "dial")),
)
_OPENINGS = ("In short", "Good question", "Let me explain", "As you know", "To begin with")
_ENDINGS = ("That is all.", "Have a nice day.", "I hope this helps.", "The end.")
_KEYS = (("name", "color"), ("title", "year"), ("name", "size", "use"), ("topic", "fact"))


@dataclass(frozen=True)
class _Slots:
    """What fills the blanks of a form in one row: its subject, and its number from 0."""

    subject: _Subject
    number: int
    count: int

    @property
    def opening(self) -> str:
        return _OPENINGS[self.number % len(_OPENINGS)]

    @property
    def ending(self) -> str:
        return _ENDINGS[self.number % len(_ENDINGS)]

    @property
    def keys(self) -> tuple[str, ...]:
        return _KEYS[self.number % len(_KEYS)]

    @property
    def things(self) -> tuple[str, ...]:
        return self.subject.things[: self.count]

    def fill(self, template: str) -> str:
        """Write the prompt."""
        return template.format(
            topic=self.subject.topic,
            word=self.subject.word,
            sentence=self.subject.sentence,
            count=_WORDS_OF_NUMBERS[self.count - 1] if self.count < 10 else self.count,
            opening=self.opening,
            ending=self.ending,
            keys=" and ".join(f'"{key}"' for key in self.keys),
            things=", ".join(self.things),
        )


@dataclass(frozen=True)
class _Form:
    """Phrasings that take turns, numbers that take turns, and the check that the slots of a row give."""

    templates: tuple[str, ...]
    check: Callable[[_Slots], Check]
    counts: tuple[int, ...] = (1,)

    def make(self, name: str, number: int) -> Instruction:
        """The row of one number."""
        slots = _Slots(_SUBJECTS[number], number, self.counts[number % len(self.counts)])
        template = self.templates[number % len(self.templates)]
        return Instruction(slots.fill(template), name, self.check(slots))


_FORMS: Mapping[str, _Form] = {
    "copy": _Form(
        (
            "Repeat this sentence and write nothing else: {sentence}",
            "Copy the following sentence exactly as it is.\n\n{sentence}",
        ),
        lambda slots: checks.Same(slots.subject.sentence),
    ),
    "one_word": _Form(
        ('Answer with the single word "{word}".', 'Say the word "{word}" and nothing else.'),
        lambda slots: checks.OneWord(slots.subject.word),
    ),
    "begin": _Form(
        (
            'Tell me something about {topic}. Begin your answer with the words "{opening}".',
            'What is interesting about {topic}? Your answer must start with "{opening}".',
        ),
        lambda slots: checks.Begins(slots.opening),
    ),
    "end": _Form(
        (
            'Write one short sentence about {topic}, and then end your answer with "{ending}"',
            'Say something brief about {topic}. The last words of your answer must be "{ending}"',
        ),
        lambda slots: checks.Ends(slots.ending),
    ),
    "contain": _Form(
        (
            'Write one sentence about {topic} that contains the word "{word}".',
            'Use the word "{word}" in a sentence about {topic}.',
        ),
        lambda slots: checks.Contains(slots.subject.word),
    ),
    "avoid": _Form(
        (
            'Describe {topic} in one sentence without using the word "{word}".',
            'Write a sentence about {topic}. Do not use the word "{word}".',
        ),
        lambda slots: checks.Avoids(slots.subject.word),
    ),
    "lower_case": _Form(
        (
            "Write one sentence about {topic} in lower case letters only.",
            "Tell me a fact about {topic}. Do not use any capital letters.",
        ),
        lambda slots: checks.LowerCase(),
    ),
    "capitals": _Form(
        (
            "Write one short sentence about {topic} in capital letters only.",
            "Tell me a fact about {topic}. Use ONLY CAPITAL LETTERS.",
        ),
        lambda slots: checks.Capitals(),
    ),
    "bullets": _Form(
        (
            "List {count} words about {topic} as bullet points. Begin each line with a dash.",
            "Give exactly {count} bullet points about {topic}, of three words each.",
        ),
        lambda slots: checks.Bullets(slots.count),
        counts=(2, 3, 4, 5),
    ),
    "numbered": _Form(
        (
            "Write a numbered list of {count} words that have to do with {topic}.",
            "Name exactly {count} things that go with {topic}, as a numbered list that begins with 1.",
        ),
        lambda slots: checks.Numbered(slots.count),
        counts=(3, 2, 5, 4),
    ),
    "at_most_words": _Form(
        (
            "Describe {topic} in at most {count} words.",
            "Say something about {topic}. Use no more than {count} words.",
        ),
        lambda slots: checks.AtMostWords(slots.count),
        counts=(10, 12, 15, 20),
    ),
    "at_least_words": _Form(
        (
            "Write about {topic} in at least {count} words.",
            "Tell me about {topic}. Use {count} words or more.",
        ),
        lambda slots: checks.AtLeastWords(slots.count),
        counts=(10, 15, 20, 25),
    ),
    "sentences": _Form(
        (
            "Write exactly {count} short sentences about {topic}.",
            "Describe {topic}. The number of sentences in your answer must be {count}.",
        ),
        lambda slots: checks.Sentences(slots.count),
        counts=(2, 1, 3, 2),
    ),
    "json": _Form(
        (
            "Write a JSON object about {topic} with the keys {keys}, and nothing else.",
            "Answer with a small JSON object and no other text. Its subject is {topic} and its keys are {keys}.",
        ),
        lambda slots: checks.JsonObject(slots.keys),
    ),
    "repeat_word": _Form(
        (
            'Write the word "{word}" exactly {count} times and nothing else.',
            'Repeat the word "{word}" until you have written it {count} times, then stop.',
        ),
        lambda slots: checks.Repeated(slots.subject.word, slots.count),
        counts=(3, 2, 4, 5),
    ),
    "quotes": _Form(
        (
            "Write one sentence about {topic} and put your whole answer in double quotation marks.",
            'Invent a short motto about {topic}. Wrap the entire answer in double quotes, like "this".',
        ),
        lambda slots: checks.Quoted(),
    ),
    "title": _Form(
        (
            "Write a title for a poem about {topic}. Put it between double angle brackets, like <<title>>.",
            "What could a book about {topic} be called? Give one title, written like <<title>>.",
        ),
        lambda slots: checks.Titled(),
    ),
    "no_commas": _Form(
        (
            "Write one sentence about {topic} without any commas.",
            "Tell me a fact about {topic}. Do not use commas.",
        ),
        lambda slots: checks.WithoutCommas(),
    ),
    "paragraphs": _Form(
        (
            "Write two very short paragraphs about {topic}. Separate them with a line that holds only ***",
            "Say two things about {topic}, one sentence each, with three asterisks (***) between them.",
        ),
        lambda slots: checks.Paragraphs(2),
    ),
    "alphabet": _Form(
        (
            "Arrange these words alphabetically and write nothing else: {things}",
            "Sort this list from A to Z and answer with the sorted words only: {things}",
        ),
        lambda slots: checks.Ordered(tuple(sorted(slots.things))),
        counts=(3, 2, 4),
    ),
    "count": _Form(
        (
            "How many words are in this list? Answer with a number only. {things}",
            "Count the things in this list and answer with the number alone: {things}",
        ),
        lambda slots: checks.Counted(len(slots.things)),
        counts=(3, 4, 2, 5),
    ),
}


def make_instructions() -> list[Instruction]:
    """Make every form on every subject; forms take turns, so that the first rows are a sample of all of them.

    Returns:
        420 instructions with different prompts, 20 of each of 21 forms.
    """
    return [form.make(name, number) for number in range(len(_SUBJECTS)) for name, form in _FORMS.items()]


def instructions_sha256(made: Sequence[Instruction]) -> str:
    """Hash prompts, forms and checks, in order.

    Args:
        made: The instructions.

    Returns:
        64 hexadecimal digits of sha256 over one JSON list a row, in UTF-8.
    """
    lines = [json.dumps([each.prompt, each.form, repr(each.check)]) + "\n" for each in made]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
