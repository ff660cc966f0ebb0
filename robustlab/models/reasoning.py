"""Models that think before they answer: the switch in their chat template, and where the answer begins.

A template that has a switch gets it set once, at the head of its own text, so that every caller renders the same chat
in training and in evaluation. This module does not judge, and does not know what a marker should be for which model.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from robustlab.errors import ConfigError
from robustlab.templates import FAILURES, SWITCHES, render_limited


@dataclass(frozen=True)
class Answer:
    """What a model says after its thinking.

    Attributes:
        text: The answer without control tokens.
        ids: Its tokens.
    """

    text: str = field(repr=False)
    ids: tuple[int, ...]


def set_switch(tokenizer: PreTrainedTokenizerBase, reasoning: Literal["off", "on"]) -> None:
    """Set the switch for thinking in a tokenizer's chat template; a template without one is left as it is.

    Args:
        tokenizer: Its template is changed in place; doing it twice changes nothing more.
        reasoning: As the target's YAML has it.

    Raises:
        ConfigError: If the template, which was tried before, takes too long or writes too much now.
    """
    for name in SWITCHES:
        thinking, plain = (_render(tokenizer, {name: value}) for value in (True, False))
        if thinking is not None and thinking != plain:
            value = "true" if reasoning == "on" else "false"
            tokenizer.chat_template = f"{{%- set {name} = {value} -%}}{tokenizer.get_chat_template()}"


def find_answer(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, marker: str | None, ended: bool
) -> Answer | None:
    """Cut the thinking off a completion.

    Args:
        tokenizer: The target's.
        ids: The completion.
        marker: What ends the thinking; its first occurrence counts. None where nothing is thought.
        ended: Whether the completion ended by itself.

    Returns:
        What follows the marker, all of it without a marker; None where the limit came before the answer did, and then
        nothing is known of it. A completion that ended by itself without the marker has no answer either.
    """
    if marker is None:
        return Answer(_decode(tokenizer, ids), tuple(ids))
    # Control tokens are kept while looking, since the marker may be one.
    end = bisect_left(range(len(ids) + 1), True, key=lambda n: marker in _decode(tokenizer, ids[:n], skip=False))
    if end > len(ids):
        return None
    # One token may hold the end of the marker and the first letters of the answer.
    head = _decode(tokenizer, ids[:end], skip=False).partition(marker)[2]
    answer = Answer((head + _decode(tokenizer, ids[end:])).lstrip(), tuple(ids[end:]))
    return answer if answer.text or ended else None


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip: bool = True) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip))


def _render(tokenizer: PreTrainedTokenizerBase, switch: dict[str, bool]) -> str | None:
    """A short chat as the template writes it; None where it cannot, which whoever encodes a prompt is told."""
    chat = [{"role": "user", "content": "Hello."}]
    try:
        where = f"target {tokenizer.name_or_path}"
        return render_limited(where, tokenizer, chat, add_generation_prompt=True, **switch)
    except ConfigError:
        raise
    except FAILURES:
        return None
