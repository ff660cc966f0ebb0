import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.flops import (
    count_adapter_parameters,
    decode,
    forward_per_token,
    full_per_token,
    generation,
    lora_per_token,
    lora_step,
    prefill,
)
from robustlab.errors import ConfigError
from robustlab.spec.targets import Shape
from robustlab.spec.training import Lora

# Hand-made: N = 100, A = layers x heads x head_dim = 2 x 3 x 5 = 30.
SMALL = Shape(
    layers=2, hidden=8, intermediate=12, heads=3, kv_heads=1, head_dim=5, vocab=10,
    parameters=120, matmul_parameters=100,
)  # fmt: skip
# SmolLM2-135M: blocks 106.2 M + lm_head 28.3 M = 134.5 M matmul parameters.
SMOL = Shape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152,
    parameters=134_515_008, matmul_parameters=134_479_872,
)  # fmt: skip


def test_forward_by_hand() -> None:
    assert forward_per_token(SMALL, 7) == 2 * 100 + 2 * 30 * 7 == 620


def test_full_fine_tuning_is_three_forwards() -> None:
    assert full_per_token(SMALL, 7) == 1860


def test_lora_by_hand() -> None:
    assert lora_per_token(SMALL, 7, adapter_parameters=11) == 4 * 100 + 6 * 30 * 7 + 6 * 11 == 1726


def test_lora_step_sums_over_its_examples() -> None:
    # 2 tokens x (400 + 180 x 2) + 3 tokens x (400 + 180 x 3) = 1520 + 2820
    assert lora_step(SMALL, [2, 3], adapter_parameters=0) == 4340


def test_checkpointing_and_reference_add_one_forward_each() -> None:
    # one forward over both examples: 2 x (200 + 60 x 2) + 3 x (200 + 60 x 3) = 640 + 1140 = 1780
    assert lora_step(SMALL, [2, 3], adapter_parameters=0, checkpointing=True) == 4340 + 1780
    assert lora_step(SMALL, [2, 3], adapter_parameters=0, reference=True) == 4340 + 1780
    assert lora_step(SMALL, [2, 3], adapter_parameters=0, checkpointing=True, reference=True) == 4340 + 2 * 1780


def test_prefill_by_hand() -> None:
    assert prefill(SMALL, 4) == 4 * (200 + 60 * 4) == 1760


def test_decode_by_hand() -> None:
    # 3 new tokens after 4: the first is the prefill's; two passes over 5 and 6 tokens: 2 x 200 + 4 x 30 x (5 + 6)
    assert decode(SMALL, 4, 3) == 400 + 1320
    assert generation(SMALL, 4, 3) == 1760 + 1720


@pytest.mark.parametrize("new_tokens", [0, 1])
def test_the_first_token_comes_with_the_prefill(new_tokens: int) -> None:
    assert decode(SMALL, 4, new_tokens) == 0


@given(st.integers(1, 300), st.integers(1, 60))
def test_decoding_costs_what_a_loop_over_its_passes_costs(prompt: int, new: int) -> None:
    passes = [2 * 100 + 4 * 30 * (prompt + i) for i in range(1, new)]
    assert decode(SMALL, prompt, new) == sum(passes)


def test_smollm2_trains_at_about_0_54_gflop_a_token() -> None:
    blocks = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert SMOL.matmul_parameters == blocks + 49152 * 576
    assert lora_per_token(SMOL, 0, adapter_parameters=0) == pytest.approx(0.54e9, rel=0.01)


def test_32_billion_active_parameters_train_at_1_28e11_a_token() -> None:
    large = SMALL.model_copy(update={"matmul_parameters": 32_000_000_000})
    assert lora_per_token(large, 0, adapter_parameters=0) == 128_000_000_000


def lora(modules: object) -> Lora:
    return Lora.model_validate({"rank": 4, "alpha": 8, "dropout": 0.0, "modules": modules})


def test_adapter_parameters_by_hand() -> None:
    # in + out: q 8+15, k 8+5, v 8+5, o 15+8, gate 8+12, up 8+12, down 12+8 = 132; x rank 4 x 2 layers
    assert count_adapter_parameters(SMALL, lora("all-linear")) == 132 * 4 * 2
    assert count_adapter_parameters(SMALL, lora(("q_proj", "v_proj"))) == (23 + 13) * 4 * 2


def test_a_matrix_of_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        count_adapter_parameters(SMALL, lora(("q_proj", "experts")))
    assert str(caught.value) == (
        "lora.modules: names a matrix of unknown size, got 'experts'; "
        "use all-linear or some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )
