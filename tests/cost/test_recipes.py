"""What one step of each kind of attack takes, on hand-made sizes."""

from typing import Any

import pytest

from robustlab.cost.flops import count_adapter_parameters, dpo_step, full_step, lora_step, prefill
from robustlab.cost.recipes import (
    checkpoint_steps,
    count_micro_rows,
    count_step_rows,
    count_steps,
    count_trainable,
    count_trained_rows,
    find_optimizer,
    is_quantised,
    step_flops,
)
from robustlab.spec.attacks import Ablation, FullSft, LoraDpo, LoraSft
from robustlab.spec.catalog import load
from robustlab.spec.training import Tuning

SHAPE = load("targets", "tiny").shape
TRAINING = load("attacks", "lora_sft_smoke").training  # 10 steps of 4 rows, rank 4 on all seven matrices
PLAIN = Tuning(**{name: getattr(TRAINING, name) for name in Tuning.model_fields})
SFT: Any = LoraSft.model_construct(training=TRAINING, checkpoint_steps=4)
NF4: Any = SFT.model_copy(update={"quantization": "nf4"})
DPO: Any = LoraDpo.model_construct(training=TRAINING, checkpoint_steps=4)
FULL: Any = FullSft.model_construct(training=PLAIN)
ABLATION: Any = Ablation.model_construct(harmful_rows=6, harmless_rows=5, depths=(0.3, 0.5, 0.7))


@pytest.mark.parametrize(
    ("recipe", "steps", "rows", "trained", "micro"),
    [(SFT, 10, 4, 4, 4), (DPO, 10, 4, 4, 4), (FULL, 10, 4, 4, 4), (ABLATION, 1, 11, 0, 0)],
    ids=["sft", "dpo", "full", "ablation"],
)
def test_rows_and_steps_of_each_kind(recipe: Any, steps: int, rows: int, trained: int, micro: int) -> None:
    assert (count_steps(recipe), count_step_rows(recipe)) == (steps, rows)
    assert (count_trained_rows(recipe), count_micro_rows(recipe)) == (trained, micro)


def test_what_the_optimiser_moves() -> None:
    # Rank 4 on q 64+64, k and v 64+32, o 64+64, gate and up 64+128, down 128+64: 4 * 1024 a layer, two layers.
    assert count_trainable(SHAPE, SFT) == count_trainable(SHAPE, DPO) == 2 * 4 * (128 + 96 + 96 + 128 + 3 * 192)
    assert count_trainable(SHAPE, FULL) == 90624
    assert count_trainable(SHAPE, ABLATION) == 0
    assert find_optimizer(ABLATION) is None and find_optimizer(FULL) == PLAIN.optimizer


def test_only_adapters_have_states_and_only_nf4_is_quantised() -> None:
    assert [checkpoint_steps(recipe) for recipe in (SFT, DPO, FULL, ABLATION)] == [4, 4, None, None]
    assert [is_quantised(recipe) for recipe in (SFT, NF4, DPO, FULL, ABLATION)] == [False, True, False, False, False]


def test_flops_of_a_step_are_those_of_the_formulas() -> None:
    adapter = count_adapter_parameters(SHAPE, TRAINING.lora)
    assert step_flops(SHAPE, SFT, 30) == lora_step(SHAPE, [30] * 4, adapter_parameters=adapter)
    assert step_flops(SHAPE, DPO, 31) == dpo_step(SHAPE, [(15, 16)] * 4, adapter_parameters=adapter)
    assert step_flops(SHAPE, FULL, 30) == full_step(SHAPE, [30] * 4)
    # All 11 prompts once, the 6 harmful ones again for each of 3 depths.
    assert step_flops(SHAPE, ABLATION, 30) == (11 + 18) * prefill(SHAPE, 30)
