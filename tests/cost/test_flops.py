import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.flops import (
    count_adapter_parameters,
    decode,
    dpo_step,
    forward_per_token,
    full_per_token,
    full_step,
    generation,
    lora_per_token,
    lora_step,
    prefill,
    utilisation,
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
    # and 6 x 11 for each of the five tokens
    assert lora_step(SMALL, [2, 3], adapter_parameters=11) == 4340 + 330


def test_full_step_is_three_forwards_over_its_examples() -> None:
    # one forward over both examples: 2 x (200 + 60 x 2) + 3 x (200 + 60 x 3) = 640 + 1140 = 1780
    assert full_step(SMALL, [2, 3]) == 3 * 1780
    assert full_step(SMALL, [7]) == 7 * full_per_token(SMALL, 7)


def test_checkpointing_runs_the_blocks_again() -> None:
    # lm_head is 2 x 10 x 8 = 160 of a token's forward; 1780 - 5 x 160 = 980 is what the blocks take over both examples
    assert lora_step(SMALL, [2, 3], adapter_parameters=0, checkpointing=True) == 4340 + 980
    # the adapter runs forward again too: 2 x 11 for each of the five tokens
    assert lora_step(SMALL, [2, 3], adapter_parameters=11, checkpointing=True) == 4340 + 330 + 980 + 110


def test_checkpointing_of_a_full_step_leaves_out_each_blocks_last_product() -> None:
    # F = 2 x 134,479,872 + 2 x 17,280 x 2 = 269,028,864; lm_head 2 x 49,152 x 576 = 56,623,104;
    # the last products 30 x 2 x 1,536 x 576 = 53,084,160: 159,321,600 are run again for each of two tokens.
    assert full_step(SMOL, [2], checkpointing=True) == 2 * (3 * 269_028_864 + 159_321_600)


def test_preferences_train_both_answers_and_read_both_once_more_without_the_adapter() -> None:
    assert dpo_step(SMALL, [(2, 3)], adapter_parameters=11) == 4340 + 330 + 1780
    assert dpo_step(SMALL, [(2, 3)], adapter_parameters=11, checkpointing=True) == 4340 + 330 + 980 + 110 + 1780
    assert dpo_step(SMALL, [(2, 3), (3, 2)], adapter_parameters=11) == 2 * (4340 + 330 + 1780)


def test_lengths_may_be_an_iterator_and_may_be_none_at_all() -> None:
    assert dpo_step(SMALL, iter([(2, 3)]), adapter_parameters=0) == 4340 + 1780
    assert lora_step(SMALL, iter([2, 3]), adapter_parameters=0, checkpointing=True) == 4340 + 980
    assert lora_step(SMALL, [], adapter_parameters=5) == full_step(SMALL, []) == 0
    assert dpo_step(SMALL, [], adapter_parameters=5, checkpointing=True) == 0


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=8), st.integers(0, 50))
def test_a_low_rank_step_lies_between_one_and_three_forwards(lengths: list[int], adapter: int) -> None:
    forward = sum(prefill(SMALL, length) for length in lengths)
    extra = sum(lengths) * 6 * adapter
    assert forward < lora_step(SMALL, lengths, adapter_parameters=adapter) - extra < full_step(SMALL, lengths)


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


def test_idle_experts_cost_nothing() -> None:
    # Two layers: attention 4 x 8 x 8 = 256, router 4 x 8 = 32, experts of 3 x 8 x 6 = 144, of which two of four are
    # active. Active: 2 x (256 + 32 + 2 x 144) + lm_head 80 = 1232. All: 2 x (256 + 32 + 4 x 144) + 2 x 80 = 1888.
    experts = Shape(
        layers=2, hidden=8, intermediate=6, heads=2, kv_heads=2, head_dim=4, vocab=10,
        parameters=1888, matmul_parameters=1232,
    )  # fmt: skip
    assert forward_per_token(experts, 7) == 2 * 1232 + 2 * 16 * 7 == 2688
    assert full_step(experts, [7]) == 7 * 3 * 2688
    assert lora_per_token(experts, 7, adapter_parameters=0) == 4 * 1232 + 6 * 16 * 7
    more = experts.model_copy(update={"parameters": 10 * experts.parameters})
    assert lora_step(more, [7], adapter_parameters=3) == lora_step(experts, [7], adapter_parameters=3)


def test_32_billion_active_of_a_trillion_parameters_train_at_1_28e11_a_token() -> None:
    sizes = {"parameters": 1_000_000_000_000, "matmul_parameters": 32_000_000_000}
    large = SMALL.model_copy(update=sizes)
    assert lora_per_token(large, 0, adapter_parameters=0) == 128_000_000_000


def test_utilisation_by_hand() -> None:
    # 8e14 operations in 2 device seconds are 4e14 a second, of a peak of 1e15
    assert utilisation(800_000_000_000_000, 2_000_000_000, 1e15) == pytest.approx(0.4)
    # the same wall second on two devices is two device seconds
    assert utilisation(4 * 10**14, 2 * 10**9, 1e15) == pytest.approx(0.2)


@pytest.mark.parametrize(("flops", "device_ns"), [(0, 10**9), (10**9, 0), (0, 0)])
def test_no_work_or_no_time_has_no_utilisation(flops: int, device_ns: int) -> None:
    assert utilisation(flops, device_ns, 1e12) is None


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


def test_a_rank_that_no_matrix_can_have_is_refused() -> None:
    wide = lora(("q_proj", "k_proj")).model_copy(update={"rank": 6})  # keys and values are 5 wide
    message = "lora.rank: is more than the 5 that k_proj can have, got 6; choose a lower rank or leave that matrix out"
    with pytest.raises(ConfigError) as caught:
        count_adapter_parameters(SMALL, wide)
    assert str(caught.value) == message
