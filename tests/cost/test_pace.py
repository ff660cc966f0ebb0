from dataclasses import replace
from typing import Any

import pytest

from robustlab.cost.estimate import estimate_cell
from robustlab.cost.hardware import find_hardware
from robustlab.cost.job import Completions, Prompts, SafeguardWork
from robustlab.cost.pace import Pace, read_pace
from robustlab.cost.schedule import plan_schedule
from robustlab.spec.attacks import Untouched
from robustlab.spec.targets import OpenAiTarget, Shape

SMOL = Shape(
    layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152,
    parameters=134_515_008, matmul_parameters=134_479_872,
)  # fmt: skip


def test_the_three_readings(hand_made_hardware: Any) -> None:
    hardware = hand_made_hardware(startup_seconds=(1, 2, 3), lora_flops_per_second=(10, 20, 30))
    found = {name: read_pace(hardware, name) for name in ("fast", "centre", "slow")}  # type: ignore[arg-type]
    assert [pace.startup_seconds for pace in found.values()] == [1, 2, 3]
    assert [pace.lora_flops_per_second for pace in found.values()] == [30, 20, 10]
    assert [pace.optimistic for pace in found.values()] == [True, False, False]


def test_every_band_of_a_device_is_read_in_its_direction(hand_made_hardware: Any) -> None:
    names = [name for name in Pace.__dataclass_fields__ if name not in ("judge_seconds", "optimistic")]
    hardware = hand_made_hardware(**dict.fromkeys(names, (1, 2, 3)))
    fast, slow = read_pace(hardware, "fast"), read_pace(hardware, "slow")
    for name in names:
        assert (getattr(fast, name), getattr(slow, name)) == ((3, 1) if "_per_second" in name else (1, 3)), name


def test_load_is_bytes_over_speed(build_job: Any, hand_made_hardware: Any) -> None:
    pace = read_pace(hand_made_hardware(load_bytes_per_second=(48, 48, 48)), "centre")
    assert pace.load_seconds(build_job()) == 480 / 48


def test_a_step_by_hand(build_job: Any, hand_made_hardware: Any) -> None:
    # 8 rows x 10 tokens x (4 x 100 + 6 x 30 x 10 + 6 x 1056) = 80 x 8536 FLOP at 1 FLOP/s
    # + 3 passes x 2 micro-batches x 2 layers x 0.5 s + 0.25 s however small
    bands = {"layer_pass_seconds": (0.5, 0.5, 0.5), "step_overhead_seconds": (0.25, 0.25, 0.25)}
    pace = read_pace(hand_made_hardware(**bands), "centre")
    assert pace.step_seconds(build_job(), 10) == 682_880 + 6 + 0.25


def test_generation_by_hand(build_job: Any, hand_made_hardware: Any) -> None:
    # 6 prompts x 5 tokens x (200 + 60 x 5) = 15,000 FLOP of prefill at 10 FLOP/s
    # decode: 7 passes, contexts 6..12 sum to 63: 6 x (7 x 200 + 120 x 63) = 53,760 FLOP at 1 FLOP/s
    # 2 batches x 8 tokens x 2 layers x 1 s, and 2 batches x 1 s however small
    pace = read_pace(hand_made_hardware(prefill_flops_per_second=(10, 10, 10)), "centre")
    shape = build_job().target.shape
    assert pace.generation_seconds(shape, Completions(Prompts(6, 5), 8, 4)) == 1500 + 53_760 + 32 + 2


def test_the_fast_reading_ends_completions_early(build_job: Any, hand_made_hardware: Any) -> None:
    # 8 new tokens become 2: one pass over 6 tokens for each of 6 rows: 6 x (200 + 120 x 6); passes 2 x 2 x 2; 2 batches
    pace = read_pace(hand_made_hardware(prefill_flops_per_second=(10, 10, 10)), "fast")
    shape = build_job().target.shape
    assert pace.generation_seconds(shape, Completions(Prompts(6, 5), 8, 4)) == 1500 + 5520 + 8 + 2


def test_measuring_reads_the_completions_again(build_job: Any, hand_made_hardware: Any) -> None:
    # perplexity: 6 completions x 8 tokens x (200 + 60 x 8) = 32,640 FLOP at 10 FLOP/s, after the generation
    hardware = hand_made_hardware(prefill_flops_per_second=(10, 10, 10))
    job = build_job()
    sets = [job.final_completions("mild")]
    written = 1500 + 53_760 + 34
    assert read_pace(hardware, "centre").evaluation_seconds(job, sets) == written + 3264
    assert read_pace(hardware, "fast").evaluation_seconds(job, sets) == 1500 + 5520 + 10


def test_preparation_and_ending(build_job: Any, hand_made_hardware: Any) -> None:
    hardware = hand_made_hardware(trainer_seconds=(7, 7, 7), cell_start_seconds=(3, 3, 3))
    pace = read_pace(hardware, "centre")
    job = build_job()
    # load 480 s, trainer 7 s; set-up 3 s, one step, everything measured in full
    assert pace.preparation_seconds(job) == 480 + 7
    assert pace.final_seconds(job) == pace.evaluation_seconds(job, [job.final_completions("mild")])
    assert pace.ending_seconds(job) == 3 + pace.step_seconds(job, 10) + pace.final_seconds(job)
    answers = Completions(Prompts(6, 5), 8, 4)
    distilled = replace(job, counts=replace(job.counts, distilled=answers))
    assert pace.data_seconds(distilled) == pace.generation_seconds(job.target.shape, answers)
    assert pace.preparation_seconds(distilled) == 480 + 7 + pace.data_seconds(distilled)


def test_a_released_target_is_set_up_once(build_job: Any, hand_made_hardware: Any) -> None:
    hardware = hand_made_hardware(trainer_seconds=(7, 7, 7))
    pace = read_pace(hardware, "slow")
    job = build_job()
    assert pace.setup_seconds(job) == pace.final_seconds(job)
    answers = Completions(Prompts(6, 5), 8, 4)
    work = SafeguardWork(training=job.recipe.training, row_tokens=10, distilled=answers)
    guarded = replace(job, safeguard=work)
    # load it and save it, have it answer, build a trainer, probe, 32 steps
    steps = 33 * pace.step_seconds(job, 10)
    installed = 2 * 480 + pace.generation_seconds(job.target.shape, answers) + 7 + steps
    assert pace.setup_seconds(guarded) == pytest.approx(installed + pace.final_seconds(job))
    silent = replace(job, safeguard=replace(work, distilled=None))
    assert pace.setup_seconds(guarded) - pace.setup_seconds(silent) == pytest.approx(
        pace.generation_seconds(job.target.shape, answers)
    )
    assert read_pace(hardware, "fast").setup_seconds(guarded) == 0


def test_short_answers_make_short_rows(build_job: Any, hand_made_hardware: Any) -> None:
    job = build_job()
    job = replace(job, counts=replace(job.counts, short_rows=(5, 5, 5, 9)))
    rows = [read_pace(hand_made_hardware(), name).row_tokens(job) for name in ("fast", "centre", "slow")]  # type: ignore[arg-type]
    assert rows == [6, 10, 10]


def test_the_centre_lies_between_what_was_measured_on_two_cores(build_job: Any) -> None:
    pace = read_pace(find_hardware("cpu_2vcpu_8gb", "here"), "centre")
    job = build_job()
    smol = replace(job, target=job.target.model_copy(update={"shape": SMOL}))
    # Measured on an idle and on a busier machine: 8 rows with 605 tokens in 2.3 s, with 665 in 4.5 s; 64 prompts of 70
    # tokens with 32 new ones in 9.1 s, 50 of 41 in 11.5 s; load 2 s and 1.2 s.
    assert 2.3 < pace.step_seconds(smol, 76) < 4.5
    assert 9.1 < pace.generation_seconds(SMOL, Completions(Prompts(64, 70), 32, 64)) < 18
    assert 1.2 < pace.load_seconds(smol) < 2.1


def served_job(build_job: Any, **changes: Any) -> Any:
    endpoint = {
        "base_url": "http://127.0.0.1:1/v1", "model": "small", "key_variable": None, "deadline_seconds": 9,
        "max_attempts": 1, "usd_per_million_prompt_tokens": 100, "usd_per_million_generated_tokens": 1000,
        "price_source": "hand-made",
    }  # fmt: skip
    plain = {"kind": "openai", "licence": "MIT", "system_prompt": "template", "reasoning": "off", "answer_after": None}
    target = OpenAiTarget.model_validate({**plain, "endpoint": endpoint, "tokens_per_second": 4})
    recipe = Untouched(kind="untouched", source="hand-made")
    return build_job(target=target, recipe=recipe, **changes)


def test_a_served_target_takes_the_time_and_the_fees_that_its_spec_states(
    build_job: Any, hand_made_hardware: Any
) -> None:
    # 6 prompts of 5 tokens, 8 new ones at 4 a second: 12 s, and 30 x $100 + 48 x $1000 in a million = $0.051.
    job = served_job(build_job)
    slow, fast = (read_pace(hand_made_hardware(), name) for name in ("slow", "fast"))  # type: ignore[arg-type]
    assert (slow.final_seconds(job), slow.setup_seconds(job), slow.setup_fee_usd(job)) == (12.0, 12.0, 0.051)
    # A quarter of 8 tokens is 2: 3 s, and 30 x $100 + 12 x $1000; nothing is cached.
    assert (fast.setup_seconds(job), fast.setup_fee_usd(job)) == (3.0, 0.015)
    assert slow.load_seconds(job) == 0.0
    assert slow.setup_fee_usd(build_job()) == 0.0


def test_what_is_left_untouched_costs_its_attacker_nothing(build_job: Any, hand_made_hardware: Any) -> None:
    pace = read_pace(hand_made_hardware(), "slow")
    job = served_job(build_job)
    assert (pace.preparation_seconds(job), pace.step_seconds(job, 1)) == (0.0, 0.0)
    assert pace.ending_seconds(job) == pace.cell_start_seconds


def test_an_estimate_of_a_served_target_has_its_fees_and_refuses_too_small_a_purse(
    build_job: Any, new_bench: Any
) -> None:
    job = served_job(build_job)
    schedule = plan_schedule(job)
    assert (schedule.steps, schedule.cut_by, schedule.marks) == (0, None, {"mild": ()})
    found = estimate_cell(job, schedule, memory_bytes=10**12)
    # Besides the fees, $36 an hour are a cent a second: start-up 1 s, and 3 or 12 s of answers.
    assert found.shared.usd.low == pytest.approx(0.015 + 0.04)
    assert found.shared.usd.high == pytest.approx(0.051 + 0.13)
    assert (found.refusal, found.attacker.usd.high, found.final.seconds.high) == (None, 0.0, 0.0)
    poor = served_job(build_job, limits=new_bench.budget(total_usd=0.012, laboratory={"max_usd": 1.0}))
    assert estimate_cell(poor, schedule, memory_bytes=10**12).refusal == (
        "the server's fees for the evaluation are at least 0.015 USD, got 0.012 of total_usd"
    )
    tight = served_job(build_job, limits=new_bench.budget(laboratory={"max_usd": 0.0125}))
    assert estimate_cell(tight, schedule, memory_bytes=10**12).refusal == (
        "the server's fees for the evaluation are at least 0.015 USD, got 0.0125 of laboratory.max_usd"
    )
