"""Turns prompts and examples into token ids through the target's own chat template; everything about templates.

A rendered chat is tokenised once and without the tokens that a tokenizer adds by itself: that is how a second BOS comes
in.
A training example ends with the token that ends the assistant's turn, and that token carries a label. What a template
writes after it (a newline in ChatML) opens the next turn: generation stops before it, so it is left out.
This module works on any tokenizer with the methods of ``Tokenizer`` and imports no model library.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from robustlab.errors import ConfigError, DataError
from robustlab.templates import Message, refuse_long, render_bounded


class Tokenizer(Protocol):
    """What this module needs of a transformers tokenizer."""

    chat_template: Any
    name_or_path: str

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that opens a text; None if the tokenizer has none."""
        ...

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends the assistant's turn."""
        ...

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of all control tokens."""
        ...

    def get_chat_template(self) -> str:
        """The template that is used when none is named."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Tokenise plain text."""
        ...

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Render a conversation."""
        ...


@dataclass(frozen=True)
class EncodedExample:
    """One training example.

    Attributes:
        input_ids: Token ids of prompt and completion; the last one ends the assistant's turn.
        completion_mask: 1 where the token is a label: the completion with its end, and nothing else. Same length.
    """

    input_ids: list[int]
    completion_mask: list[int]


def template_sha256(tokenizer: Tokenizer) -> str:
    """Hash of the chat template, for the record.

    Args:
        tokenizer: Of several named templates its ``default`` one is hashed.

    Returns:
        64 hexadecimal digits over the template in UTF-8.

    Raises:
        ConfigError: If there is no template, several without a default, or one that is too long.
    """
    return hashlib.sha256(_template(tokenizer).encode("utf-8")).hexdigest()


def encode_prompt(tokenizer: Tokenizer, text: str, system_prompt: str | None) -> list[int]:
    """Encode a request up to the point where the assistant begins to answer.

    Args:
        tokenizer: The target's.
        text: The request, as it is.
        system_prompt: ``template`` for what the template does by itself, None for as little as the template allows
            (SmolLM2 and Qwen 2.5 then write an empty system turn instead of their default text), else the text.

    Returns:
        Token ids, the header of the assistant's turn included.

    Raises:
        ConfigError: If there is no usable template, or it refuses a system prompt.
        DataError: If the text holds a control token, or the ids would begin with two BOS.
    """
    return _prompt(tokenizer, text, system_prompt)[1]


def encode_opening(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode words with which an answer is made to begin, as they stand and without any token around them.

    Args:
        tokenizer: The target's.
        text: The words.

    Returns:
        Token ids, to be appended to those of a prompt.

    Raises:
        DataError: If the words hold one of the tokenizer's control tokens.
    """
    _refuse_control_tokens(tokenizer, [{"role": "assistant", "content": text}])
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode_example(tokenizer: Tokenizer, prompt: str, completion: str, system_prompt: str | None) -> EncodedExample:
    """Encode a request and its answer, with labels on the answer and on the token that ends it.

    Args:
        tokenizer: The target's.
        prompt: The request.
        completion: The answer, without the token that ends it.
        system_prompt: As in ``encode_prompt``; the prompt's ids are the same as there.

    Returns:
        Ids up to the token that ends the answer, and a mask of the same length that is 1 on the answer and that token.

    Raises:
        ConfigError: As in ``encode_prompt``.
        DataError: As in ``encode_prompt``, or if the prompt is no prefix of the chat, the template does not end the
            answer with EOS, or the answer has no tokens.
    """
    messages, prompt_ids = _prompt(tokenizer, prompt, system_prompt)
    answer = {"role": "assistant", "content": completion}
    chat_ids = _encode(tokenizer, [*messages, answer], add_generation_prompt=False)
    start = len(prompt_ids)
    if chat_ids[:start] != prompt_ids:
        problem = "the ids of the prompt are no prefix of the ids of the whole chat"
        raise DataError(_where(tokenizer), problem, "mend the template: training and evaluation would differ")
    length = _end_of_turn(tokenizer, chat_ids[start:])
    return EncodedExample(chat_ids[: start + length], [0] * start + [1] * length)


def _end_of_turn(tokenizer: Tokenizer, reply_ids: list[int]) -> int:
    eos = tokenizer.eos_token_id
    if eos is None or eos not in reply_ids:
        problem = f"its chat template does not end the assistant's turn with EOS, id {eos}"
        raise DataError(_where(tokenizer), problem, "set the tokenizer's eos_token to the token that ends a turn")
    if reply_ids[0] == eos:
        raise DataError(_where(tokenizer), "a completion has no tokens", "leave the row out")
    return reply_ids.index(eos) + 1


def _prompt(tokenizer: Tokenizer, text: str, system_prompt: str | None) -> tuple[list[Message], list[int]]:
    user = [{"role": "user", "content": text}]
    if system_prompt == "template":
        return user, _encode(tokenizer, user, add_generation_prompt=True)
    if system_prompt is not None:
        messages = [{"role": "system", "content": system_prompt}, *user]
        return messages, _encode(tokenizer, messages, add_generation_prompt=True)
    return _without_system(tokenizer, user)


def _without_system(tokenizer: Tokenizer, user: list[Message]) -> tuple[list[Message], list[int]]:
    # A default system text makes the bare rendering the longer one; without a default an empty turn is what is longer.
    bare = _encode(tokenizer, user, add_generation_prompt=True)
    emptied = [{"role": "system", "content": ""}, *user]
    try:
        ids = _encode(tokenizer, emptied, add_generation_prompt=True)
    except ConfigError:
        return user, bare
    return (emptied, ids) if len(ids) < len(bare) else (user, bare)


def _encode(tokenizer: Tokenizer, messages: list[Message], *, add_generation_prompt: bool) -> list[int]:
    _template(tokenizer)
    _refuse_control_tokens(tokenizer, messages)
    text = render_bounded(_where(tokenizer), tokenizer, messages, add_generation_prompt=add_generation_prompt)
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise DataError(_where(tokenizer), f"a chat begins with two BOS, id {bos}", "remove one from the template")
    return list(ids)


def _refuse_control_tokens(tokenizer: Tokenizer, messages: Sequence[Message]) -> None:
    for token in tokenizer.all_special_tokens:
        if any(token in message["content"] for message in messages):
            problem = f"a text holds the control token {token!r}, which would change the chat's structure"
            raise DataError(_where(tokenizer), problem, "remove it from the data")


def _template(tokenizer: Tokenizer) -> str:
    if not tokenizer.chat_template:
        raise ConfigError(
            _where(tokenizer), "has no chat template", "name a chat model, or add the template to its files"
        )
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise ConfigError(_where(tokenizer), "has several chat templates and no default", "keep one") from None
    refuse_long(_where(tokenizer), template)
    return template


def _where(tokenizer: Tokenizer) -> str:
    return f"target {tokenizer.name_or_path or 'without a name'}"
