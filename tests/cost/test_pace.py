from dataclasses import replace
from typing import Any

import pytest

from robustlab.cost.hardware import find_hardware
from robustlab.cost.job import Completions, Prompts
from robustlab.cost.pace import read_pace
from robustlab.spec.targets import Shape

SMOL = Shape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152,
    parameters=134_515_008, matmul_parameters=134_479_872,
)  # fmt: skip


def test_the_three_readings(hand_made_hardware: Any) -> None:
    hardware = hand_made_hardware(startup_seconds=(1, 2, 3), lora_flops_per_second=(10, 20, 30))
    found = {name: read_pace(hardware, name) for name in ("fast", "centre", "slow")}  # type: ignore[arg-type]
    assert [pace.startup_seconds for pace in found.values()] == [1, 2, 3]
    assert [pace.lora_flops_per_second for pace in found.values()] == [30, 20, 10]
    assert [pace.completion_divisor for pace in found.values()] == [4, 1, 1]


def test_load_is_bytes_over_speed(build_job: Any, hand_made_hardware: Any) -> None:
    pace = read_pace(hand_made_hardware(load_bytes_per_second=(48, 48, 48)), "centre")
    assert pace.load_seconds(build_job()) == 480 / 48


def test_a_step_by_hand(build_job: Any, hand_made_hardware: Any) -> None:
    # 8 rows x 10 tokens x (4 x 100 + 6 x 30 x 10 + 6 x 1056) = 80 x 8536 FLOP at 1 FLOP/s
    # + 3 passes x 2 micro-batches x 2 layers x 0.5 s
    pace = read_pace(hand_made_hardware(layer_pass_seconds=(0.5, 0.5, 0.5)), "centre")
    assert pace.step_seconds(build_job(), 10) == 682_880 + 6


def test_generation_by_hand(build_job: Any, hand_made_hardware: Any) -> None:
    # 6 prompts x 5 tokens x (200 + 60 x 5) = 15,000 FLOP of prefill at 10 FLOP/s
    # decode: 7 passes, contexts 6..12 sum to 63: 6 x (7 x 200 + 120 x 63) = 53,760 FLOP at 1 FLOP/s
    # 2 batches x 8 tokens x 2 layers x 1 s
    pace = read_pace(hand_made_hardware(prefill_flops_per_second=(10, 10, 10)), "centre")
    shape = build_job().target.shape
    assert pace.generation_seconds(shape, Completions(Prompts(6, 5), 8, 4)) == 1500 + 53_760 + 32


def test_the_fast_reading_ends_completions_early(build_job: Any, hand_made_hardware: Any) -> None:
    # 8 new tokens become 2: one pass over 6 tokens for each of 6 rows: 6 x (200 + 120 x 6); passes 2 x 2 x 2
    pace = read_pace(hand_made_hardware(prefill_flops_per_second=(10, 10, 10)), "fast")
    shape = build_job().target.shape
    assert pace.generation_seconds(shape, Completions(Prompts(6, 5), 8, 4)) == 1500 + 5520 + 8


def test_preparation_and_ending(build_job: Any, hand_made_hardware: Any) -> None:
    pace = read_pace(hand_made_hardware(), "centre")
    job = build_job()
    final = pace.generation_seconds(job.target.shape, job.final_completions("mild"))
    assert pace.preparation_seconds(job) == 480
    assert pace.ending_seconds(job) == pace.step_seconds(job, 10) + final
    distilled = replace(job, counts=replace(job.counts, distilled=Completions(Prompts(6, 5), 8, 4)))
    assert pace.preparation_seconds(distilled) == 480 + final


def test_the_centre_is_what_was_measured_on_two_cores(build_job: Any) -> None:
    pace = read_pace(find_hardware("cpu_2vcpu_8gb", "here"), "centre")
    job = build_job()
    smol = replace(job, target=job.target.model_copy(update={"shape": SMOL}))
    # measured: 8 rows with 605 tokens in 2.3 s; 64 prompts of 70 tokens with 32 new ones in 9.1 s; load 2 s
    assert pace.step_seconds(smol, 76) == pytest.approx(2.4, abs=0.2)
    assert pace.generation_seconds(SMOL, Completions(Prompts(64, 70), 32, 64)) == pytest.approx(9.1, abs=0.4)
    assert pace.load_seconds(smol) == pytest.approx(2.0, abs=0.1)
