"""The target's own greedy answers as training data, token by token: no outside data, and nothing to pay a teacher for.

An answer that was cut at the limit has no end token in its labels, so that no model learns to stop in mid-sentence.
"""

from collections.abc import Callable, Sequence

from robustlab.cost.meter import Meter
from robustlab.data.chat import encode_prompt
from robustlab.models.generate import Completion
from robustlab.models.load import LoadedTarget
from robustlab.spec.targets import Shape
from robustlab.train.counts import DISTIL_BATCH_ROWS
from robustlab.train.generation import generate_metered
from robustlab.train.order import Example


def distil_answers(
    target: LoadedTarget,
    shape: Shape,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Example]:
    """Let the target answer prompts and make training examples of the answers.

    Args:
        target: The resident target.
        shape: Its sizes, for the FLOP count.
        prompts: Benign requests.
        max_new_tokens: Longest answer.
        expected_seconds: What all of it should take.
        meter: Its current account pays; a wave is one unit.
        progress: Told of the rows done and of all rows.

    Returns:
        One example a prompt that got any answer, in the order of ``prompts``.

    Raises:
        BudgetSpent: If the next wave would pass a cap of the account.
    """
    encoded = [encode_prompt(target.tokenizer, prompt, target.system_prompt) for prompt in prompts]
    completions = generate_metered(
        target,
        shape,
        encoded,
        batch_rows=DISTIL_BATCH_ROWS,
        max_new_tokens=max_new_tokens,
        expected_seconds=expected_seconds,
        meter=meter,
        progress=progress,
    )
    pairs = zip(encoded, completions, strict=True)
    return [_example(prompt, answer, target) for prompt, answer in pairs if answer.ids]


def _example(prompt: Sequence[int], answer: Completion, target: LoadedTarget) -> Example:
    end = (int(target.tokenizer.eos_token_id),) if answer.ended else ()
    labels = (*answer.ids, *end)
    return Example(ids=(*prompt, *labels), labels=(*(-100 for _ in prompt), *labels))
