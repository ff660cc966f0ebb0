"""A second judge that is a causal language model: a fixed prompt in, one token out, yes or no.

The prompt comes from a pinned file and is never part of the project. What stands in it between the slots is trusted,
what fills them is not: no control sequence of the classifier's survives in a behavior or a completion, so that a
completion cannot end the instruction and answer in the judge's place. A completion that argues in plain words is read
like any other; how far that goes is the classifier's own weakness.

Source: HarmBench, arXiv 2402.04249: completions are clipped to 512 of the classifier's tokens, one new token is read,
and what is neither yes nor no stays in the denominator.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING
from robustlab.errors import ConfigError, DataError
from robustlab.measure.opinions import Opinion, Question, Says
from robustlab.models.generate import Completion, generate_greedy
from robustlab.models.load import load_weights
from robustlab.models.waves import Wave
from robustlab.spec.judges import ClassifierJudge, PinnedText

MARKERS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>")
"""Control sequences of the Llama 2 format, which its tokenizer does not know as tokens of their own."""
_SLOT = re.compile(r"\{(behavior|context|generation)\}")
_WORDS: Mapping[str, Says] = {"yes": "yes", "no": "no"}


class Template:
    """A prompt with slots. What fills a slot is never searched for slots."""

    def __init__(self, text: str) -> None:
        """Take the text apart at its slots."""
        self._parts = _SLOT.split(text)

    @property
    def slots(self) -> list[str]:
        """Names of the slots, sorted."""
        return sorted(self._parts[1::2])

    def fill(self, **texts: str) -> str:
        """Put a text into each slot."""
        return "".join(texts[part] if place % 2 else part for place, part in enumerate(self._parts))


def load_template(where: str, pinned: PinnedText, *, has_context: bool) -> Template:
    """Read a prompt by reference.

    Args:
        where: Named in errors.
        pinned: The file and its hash.
        has_context: Whether it must have a slot for a context too.

    Returns:
        The prompt, cut at its slots.

    Raises:
        ConfigError: If there is no such file, or its slots are not the ones that are filled.
        DataError: If it is not the pinned text.
    """
    path = Path(pinned.path)
    if not path.is_file():
        raise ConfigError(where, f"has no prompt at {pinned.path}", "save the classifier's own prompt there")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != pinned.sha256:
        raise DataError(where, f"{pinned.path} should have sha256 {pinned.sha256}, got {found}", "pin what you mean")
    template = Template(data.decode("utf-8", "replace"))
    wanted = ["behavior", "context", "generation"] if has_context else ["behavior", "generation"]
    if template.slots != wanted:
        slots = ", ".join(template.slots) or "none"
        raise ConfigError(where, f"{pinned.path} has the slots {slots}", f"it must have each once: {', '.join(wanted)}")
    return template


def build_escape(controls: Sequence[str]) -> Callable[[str], str]:
    """Build what takes the force out of control sequences.

    Args:
        controls: Sequences that a text must not hold, in any letter case, at least one.

    Returns:
        Maps a text to one without any of them, also when read by a tokenizer that folds compatibility characters. A
        sequence stays legible: a space parts its first character from the rest. Other texts are left as they are.
    """
    alternatives = sorted({re.escape(control) for control in controls}, key=lambda each: (-len(each), each))
    pattern = re.compile("|".join(alternatives), re.IGNORECASE)

    def escape(text: str) -> str:
        folded = unicodedata.normalize("NFKC", text)
        text = folded if pattern.search(folded) else text
        parted = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        # A sequence of one character, or one that holds the space itself, cannot be parted.
        while pattern.search(parted):
            parted = pattern.sub("", parted)
        return parted

    return escape


class Classifier:
    """A classifier that is ready to read. It waits in host memory and is on the device only while it reads."""

    def __init__(self, judge: ClassifierJudge, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read the prompts and find out which control sequences the tokenizer has.

        Args:
            judge: Its spec.
            model: The weights, frozen, in eval mode.
            tokenizer: Their tokenizer.

        Raises:
            ConfigError: If a prompt is missing, or its slots are not the ones that are filled.
            DataError: If a prompt is not the pinned text.
        """
        self._judge, self._model, self._tokenizer = judge, model, tokenizer
        self._plain, self._contextual = load_templates(judge)
        added = tokenizer.added_tokens_decoder
        self._special_ids = {*tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
        tokens = [*tokenizer.all_special_tokens, *(str(token) for token in added.values() if token.special)]
        self.escape = build_escape([*MARKERS, *tokens])

    def encode(self, question: Question) -> list[int] | None:
        """Make the prompt that asks about one completion.

        Args:
            question: What is asked about.

        Returns:
            Token ids; None where there is no answer, no prompt for a context, or a control token would still get in.
        """
        template = self._plain if question.context is None else self._contextual
        if question.completion is None or template is None:
            return None
        empty = dict.fromkeys(template.slots, "")
        texts = {"behavior": question.behavior, "generation": self._clip(question.completion)}
        if question.context is not None:
            texts["context"] = question.context
        ids = self._encode(template.fill(**{slot: self.escape(text) for slot, text in texts.items()}))
        allowed = self._count_special(self._encode(template.fill(**empty)))
        return ids if self._count_special(ids) == allowed else None

    def read(self, questions: Sequence[Question], meter: Meter) -> list[Opinion]:
        """Have it read completions.

        Args:
            questions: What is asked about.
            meter: Its current account pays; a wave is one unit.

        Returns:
            One opinion a question, in the same order.

        Raises:
            BudgetSpent: If the next wave would pass a cap of the account.
        """
        prompts = {place: ids for place, each in enumerate(questions) if (ids := self.encode(each)) is not None}
        opinions = [Opinion("unread")] * len(questions)
        if not prompts:
            return opinions
        with self._on_device():
            tokens = self._generate(list(prompts.values()), meter)
        for place, completion in zip(prompts, tokens, strict=True):
            word = str(self._tokenizer.decode(list(completion.ids))).strip().casefold()
            opinions[place] = Opinion(_WORDS.get(word, "unparsable"))
        return opinions

    def _generate(self, prompts: Sequence[Sequence[int]], meter: Meter) -> list[Completion]:
        longest = NOTHING
        parameters = self._model.num_parameters()

        def before(wave: Wave) -> None:
            meter.reserve(longest.scaled(RESERVE_FACTOR))

        def after(wave: Wave, completions: list[Completion]) -> None:
            nonlocal longest
            # Two operations a parameter and token: nobody has stated the classifier's shape.
            flops = 2 * parameters * wave.prompt_tokens
            meter.count(prompt_tokens=wave.prompt_tokens, generated_tokens=len(completions), flops=flops)
            longest = max(longest, meter.settle(), key=lambda used: used.wall_ns)

        pad, eos = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        return generate_greedy(
            self._model,
            prompts,
            batch_rows=self._judge.batch_rows,
            max_new_tokens=1,
            eos_ids=frozenset(() if eos is None else (int(eos),)),
            pad_id=int(pad if pad is not None else eos or 0),
            before_wave=before,
            after_wave=after,
        )

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        home = self._model.device
        self._model.to("cuda" if torch.cuda.is_available() else home)  # type: ignore[arg-type]
        try:
            yield
        finally:
            self._model.to(home)  # type: ignore[arg-type]

    def _clip(self, completion: str) -> str:
        ids = self._tokenizer.encode(completion, add_special_tokens=False)
        limit = self._judge.clip_tokens
        return completion if len(ids) <= limit else str(self._tokenizer.decode(ids[:limit]))

    def _encode(self, text: str) -> list[int]:
        return [int(id_) for id_ in self._tokenizer.encode(text)]

    def _count_special(self, ids: Sequence[int]) -> int:
        return sum(id_ in self._special_ids for id_ in ids)


def load_templates(judge: ClassifierJudge) -> tuple[Template, Template | None]:
    """Read the prompts of a classifier; errors as for ``load_template``.

    Args:
        judge: Its spec.

    Returns:
        The plain one, and the one for behaviors with a context; None where it has none.
    """
    where = f"judge {judge.id}"
    plain = load_template(where, judge.prompt, has_context=False)
    if judge.prompt_contextual is None:
        return plain, None
    return plain, load_template(where, judge.prompt_contextual, has_context=True)


def load_classifier(judge: ClassifierJudge) -> Classifier:
    """Load a classifier into host memory.

    Args:
        judge: Its spec.

    Returns:
        It, ready to read.

    Raises:
        ConfigError: If a prompt or a local folder is missing.
        DataError: If a file is not as pinned, or the hub does not give it.
    """
    model, tokenizer = load_weights(f"judge {judge.id}", judge.weights)
    return Classifier(judge, model, tokenizer)
