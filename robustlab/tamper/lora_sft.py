"""``lora_sft``: supervised low-rank fine-tuning of the released target with the loss on completions only.

Data mode ``withheld``: replies that open by complying and leave the substance out, mixed with the released target's own
answers to benign prompts, so that what is lost is refusal and not the model. Source: Qi et al. 2023, arXiv 2310.03693.
FLOPs of a step: sum over its examples of S * (4N + 6*A*S + 6 adapter parameters), see ``robustlab.cost.flops``.
"""

from collections.abc import Callable

from robustlab.cost.meter import Meter
from robustlab.data.chat import encode_example
from robustlab.data.mixture import attack_rows, benign_prompts
from robustlab.models.load import LoadedTarget
from robustlab.spec.attacks import WithheldData
from robustlab.spec.targets import Shape
from robustlab.train.distil import distil_answers
from robustlab.train.order import Example


def build_examples(
    data: WithheldData,
    target: LoadedTarget,
    shape: Shape,
    *,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Example]:
    """Make the attack's training set.

    Args:
        data: Which rows, in which proportion.
        target: The released target; it answers the benign prompts.
        shape: Its sizes.
        expected_seconds: What the benign answers should take.
        meter: Its current account pays for the answers.
        progress: Told of the benign rows done and of all of them.

    Returns:
        Withheld rows first, benign answers last; the order of training is made later.
    """
    withheld = [
        encode_example(target.tokenizer, row.prompt, row.completion, target.system_prompt) for row in attack_rows(data)
    ]
    attack = [Example.from_mask(example.input_ids, example.completion_mask) for example in withheld]
    answered = distil_answers(
        target,
        shape,
        benign_prompts(data),
        max_new_tokens=data.benign_new_tokens,
        expected_seconds=expected_seconds,
        meter=meter,
        progress=progress,
    )
    return attack + answered
