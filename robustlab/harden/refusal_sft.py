"""``refusal_sft``: low-rank fine-tuning on refusals of improper requests and on the target's own benign answers.

Benchmark rows of the install role (upstream's val split) are requests only; what the model learns to say to them is one
of the built-in refusals. Source: the usual safety fine-tuning, as in Bianchi et al. 2023, arXiv 2309.07875.
"""

import hashlib
from collections.abc import Callable, Sequence

from robustlab.cost.meter import Meter
from robustlab.data.chat import encode_example
from robustlab.data.rows import install_rows, load_builtin
from robustlab.errors import ConfigError
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import RefusalSft
from robustlab.spec.targets import Shape
from robustlab.train.distil import distil_answers
from robustlab.train.order import Example


def build_examples(
    spec: RefusalSft,
    target: LoadedTarget,
    shape: Shape,
    *,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Example]:
    """Make the safeguard's training set: every improper request with a refusal, benign ones with their own answers.

    Args:
        spec: Which rows, how often.
        target: The target before the safeguard; it answers the benign prompts.
        shape: Its sizes.
        expected_seconds: What the benign answers should take.
        meter: Its current account pays for the answers.
        progress: Told of the benign rows done and of all of them.

    Returns:
        Refusals first (the mild requests, repeated, then those of the install source, repeated), benign answers last.
    """
    refused = [row.prompt for row in load_builtin("mild_requests_safeguard") if row.prompt] * spec.mild_repeats
    if spec.install is not None:
        refused += [row.prompt for row in install_rows(spec.install)] * spec.install_repeats
    replies = [row.completion for row in load_builtin("refusals") if row.completion]
    answered = distil_answers(
        target,
        shape,
        benign_prompts(spec),
        max_new_tokens=spec.benign_new_tokens,
        expected_seconds=expected_seconds,
        meter=meter,
        progress=progress,
    )
    return [_refusal(target, request, replies, time) for time, request in enumerate(refused)] + answered


def benign_prompts(spec: RefusalSft) -> list[str]:
    """Benign prompts of the install role, in file order.

    Args:
        spec: How many.

    Returns:
        ``benign_rows`` prompts.

    Raises:
        ConfigError: If the safeguard asks for more rows than there are.
    """
    prompts = [row.prompt for row in load_builtin("benign_prompts") if row.prompt and row.role == "install"]
    if spec.benign_rows > len(prompts):
        problem = f"asks for more than {len(prompts)} rows, got {spec.benign_rows}"
        raise ConfigError("benign_rows", problem, "ask for fewer")
    return prompts[: spec.benign_rows]


def _refusal(target: LoadedTarget, request: str, replies: Sequence[str], time: int) -> Example:
    """A request with one of the refusals; a repeated request gets another one, the same in every run."""
    digest = hashlib.sha256(f"{time} {request}".encode()).digest()
    reply = replies[int.from_bytes(digest[:4]) % len(replies)]
    encoded = encode_example(target.tokenizer, request, reply, target.system_prompt)
    return Example.from_mask(encoded.input_ids, encoded.completion_mask)
