"""Rows that every trained safeguard shares: requests to refuse, refusals, benign prompts.

Benchmark rows of the install role (upstream's val split) are requests only; what the model learns to say to them is one
of the built-in refusals. Whatever is drawn is drawn by the hash of the row, so that every run draws the same.
"""

import hashlib
from collections.abc import Sequence

from robustlab.data.chat import EncodedExample, encode_example
from robustlab.data.rows import install_rows, load_builtin
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import RefusalData
from robustlab.spec.sources import BuiltinName
from robustlab.train.order import Example


def refused_requests(spec: RefusalData) -> list[str]:
    """Requests to refuse: the mild ones, repeated, then those of the install source, repeated."""
    requests = mild_requests() * spec.mild_repeats
    if spec.install is not None:
        requests += [row.prompt for row in install_rows(spec.install)] * spec.install_repeats
    return requests


def mild_requests() -> list[str]:
    """The developer's own mild requests, in file order; no attack ever trains on them."""
    return [row.prompt for row in load_builtin("mild_requests_safeguard") if row.prompt]


def load_completions(name: BuiltinName) -> list[str]:
    """Completions of a built-in set, such as ``refusals``, in file order."""
    return [row.completion for row in load_builtin(name) if row.completion]


def draw(request: str, time: int, part: int) -> int:
    """A number in [0, 2 ** 32) that a row's text fixes.

    Args:
        request: The row's request.
        time: Place of the row in the training set, so that a repeated request draws anew.
        part: Which of its numbers, 0 to 7.

    Returns:
        Part ``part`` of the row's sha256.
    """
    digest = hashlib.sha256(f"{time} {request}".encode()).digest()
    return int.from_bytes(digest[4 * part : 4 * part + 4])


def draw_reply(request: str, time: int, replies: Sequence[str]) -> str:
    """One of the refusals; a repeated request gets another one."""
    return replies[draw(request, time, 0) % len(replies)]


def encode(target: LoadedTarget, request: str, reply: str) -> EncodedExample:
    """A request and its reply through the target's own chat template."""
    return encode_example(target.tokenizer, request, reply, target.system_prompt)


def build_example(target: LoadedTarget, request: str, reply: str) -> Example:
    """The same as a training example with its loss on the whole reply."""
    encoded = encode(target, request, reply)
    return Example.from_mask(encoded.input_ids, encoded.completion_mask)
