"""What one step of each kind of attack takes, read off its recipe: rows, tokens, parameters, FLOPs.

An ablation has no optimiser: it is one step that reads its prompts, once for the direction and once more for each
candidate depth, and trains on no token. What is left untouched has no step at all. This module does not know hardware,
prices or measured time.
"""

from typing import assert_never

from robustlab.cost.flops import count_adapter_parameters, dpo_step, full_step, lora_step, prefill
from robustlab.spec.attacks import Ablation, FullSft, LoraDpo, LoraSft, TrainedAttack, Untouched
from robustlab.spec.targets import Shape
from robustlab.spec.training import Optimizer
from robustlab.units import Flops

ABLATION_STEPS = 1


def count_steps(recipe: TrainedAttack) -> int:
    """Steps of the recipe's whole schedule."""
    if isinstance(recipe, Untouched):
        return 0
    return ABLATION_STEPS if isinstance(recipe, Ablation) else recipe.training.steps


def count_step_rows(recipe: TrainedAttack) -> int:
    """Rows that one step reads: examples, pairs, or an ablation's prompts."""
    if isinstance(recipe, Ablation):
        return recipe.harmful_rows + recipe.harmless_rows
    return 0 if isinstance(recipe, Untouched) else recipe.training.batch_rows


def count_trained_rows(recipe: TrainedAttack) -> int:
    """Rows of one step whose tokens count as trained on."""
    return 0 if isinstance(recipe, Ablation | Untouched) else recipe.training.batch_rows


def count_micro_rows(recipe: TrainedAttack) -> int:
    """Rows that are forwarded at once in training; 0 for an ablation, which keeps nothing for a backward pass."""
    return 0 if isinstance(recipe, Ablation | Untouched) else recipe.training.micro_batch_rows


def count_trainable(shape: Shape, recipe: TrainedAttack) -> int:
    """Parameters that the optimiser moves."""
    match recipe:
        case LoraSft() | LoraDpo():
            return count_adapter_parameters(shape, recipe.training.lora)
        case FullSft():
            return shape.parameters
        case Ablation() | Untouched():
            return 0
        case _:
            assert_never(recipe)


def find_optimizer(recipe: TrainedAttack) -> Optimizer | None:
    """The recipe's optimiser; None where nothing is trained."""
    return None if isinstance(recipe, Ablation | Untouched) else recipe.training.optimizer


def checkpoint_steps(recipe: TrainedAttack) -> int | None:
    """Steps between two resumable states; None where none is ever written."""
    return recipe.checkpoint_steps if isinstance(recipe, LoraSft | LoraDpo) else None


def is_quantised(recipe: TrainedAttack) -> bool:
    """Whether the recipe works on a 4-bit copy of the released target."""
    return isinstance(recipe, LoraSft | LoraDpo) and recipe.quantization is not None


def step_flops(shape: Shape, recipe: TrainedAttack, row_tokens: int) -> Flops:
    """FLOPs of one step on rows of equal length, for an estimate.

    Args:
        shape: The target's sizes.
        recipe: The attack.
        row_tokens: Length of every row; of a pair both sides together, taken to be equally long.

    Returns:
        Operations of all rows of the step.
    """
    match recipe:
        case LoraSft():
            lengths = [row_tokens] * recipe.training.batch_rows
            return lora_step(shape, lengths, adapter_parameters=count_trainable(shape, recipe))
        case LoraDpo():
            sides = (row_tokens // 2, row_tokens - row_tokens // 2)
            pairs = [sides] * recipe.training.batch_rows
            return dpo_step(shape, pairs, adapter_parameters=count_trainable(shape, recipe))
        case FullSft():
            return full_step(shape, [row_tokens] * recipe.training.batch_rows)
        case Ablation():
            return Flops(_ablation_passes(recipe) * prefill(shape, row_tokens))
        case Untouched():
            return Flops(0)
        case _:
            assert_never(recipe)


def _ablation_passes(recipe: Ablation) -> int:
    """Prompts that are read at most: all of them once, the harmful ones again for each candidate depth; the harmless
    ones too, and once more before, where a bound holds for them."""
    again = 0 if recipe.max_harmless_kl is None else 1 + len(recipe.depths)
    return recipe.harmless_rows * (1 + again) + recipe.harmful_rows * (1 + len(recipe.depths))
