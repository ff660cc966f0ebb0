import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from robustlab.cost.estimate import estimate_cell, require_fit
from robustlab.cost.job import Completions, Prompts, SafeguardWork, TokenCounts
from robustlab.cost.pace import Range
from robustlab.cost.schedule import plan_schedule
from robustlab.errors import CannotFit

GB = 10**9
# One second for 1,000 FLOP and 480 bytes; passes, steps and waves as such cost next to nothing.
BANDS = {
    "lora_flops_per_second": (500.0, 1000.0, 2000.0), "prefill_flops_per_second": (500.0, 1000.0, 2000.0),
    "decode_flops_per_second": (500.0, 1000.0, 2000.0), "load_bytes_per_second": (240.0, 480.0, 960.0),
    "layer_pass_seconds": (1e-9, 1e-9, 1e-9), "startup_seconds": (5.0, 10.0, 20.0),
    "step_overhead_seconds": (1e-9, 1e-9, 1e-9), "wave_seconds": (1e-9, 1e-9, 1e-9),
    "trainer_seconds": (1.0, 2.0, 4.0), "cell_start_seconds": (1.5, 3.0, 6.0),
}  # fmt: skip
STEP = 682.88
DATA = 15.0 + 53.76
FINAL = DATA + 32.64  # the perplexity of 6 completions of 8 tokens
MILD = {"mild": Prompts(6, 5)}
READY = 1 + 2  # load and trainer


@pytest.fixture
def estimate(build_job: Any, hand_made_hardware: Any) -> Any:
    def make(limits: Any = None, memory_bytes: int = GB, **changes: Any) -> Any:
        job = build_job(hand_made_hardware(**BANDS), limits, **changes)
        return estimate_cell(job, plan_schedule(job), memory_bytes=memory_bytes)

    return make


def test_the_attackers_bill_by_hand(estimate: Any) -> None:
    found = estimate()
    # load 1 s, trainer 2 s + 32 steps; half and twice as fast for low and high; 0.01 USD/s
    assert found.attacker.seconds.centre == pytest.approx(READY + 32 * STEP)
    assert found.attacker.seconds.low == pytest.approx((READY + 32 * STEP) / 2)
    assert found.attacker.seconds.high == pytest.approx((READY + 32 * STEP) * 2)
    assert found.attacker.usd.centre == pytest.approx(0.01 * (READY + 32 * STEP))


def test_the_laboratorys_bill_by_hand(estimate: Any) -> None:
    # set-up 3 s + probe step + final + marks at 3 and 10 of 4 of the 6 rows each
    found = estimate()
    assert found.laboratory.seconds.centre == pytest.approx(3 + STEP + FINAL + 2 * FINAL * 4 / 6)
    assert found.final.seconds.centre == pytest.approx(FINAL)
    assert found.final.usd.centre == pytest.approx(0.01 * FINAL)


def test_what_cells_share_by_hand(estimate: Any, build_job: Any) -> None:
    # start 10 s, load 1 s, baseline; twice that at the slowest; half of start and load when everything is cached
    found = estimate().shared.seconds
    assert (found.low, found.centre, found.high) == pytest.approx((5.5, 11 + FINAL, 2 * (11 + FINAL)))
    answers = Completions(Prompts(6, 5), 8, 4)
    work = SafeguardWork(training=build_job().recipe.training, row_tokens=10, distilled=answers)
    guarded = estimate(safeguard=work).shared.seconds
    # load and save 2 s, answers, trainer 2 s, probe and 32 steps
    assert guarded.low == pytest.approx(5.5)
    assert guarded.centre == pytest.approx(11 + FINAL + 2 + DATA + 2 + 33 * STEP)


def test_an_attack_may_draw_any_rows_and_answers_of_any_length(build_job: Any, hand_made_hardware: Any) -> None:
    job = build_job(hand_made_hardware(**BANDS))
    counts = replace(job.counts, short_rows=(5, 5, 7, 11), long_rows=(5, 5, 10, 20))
    recipe = job.recipe.model_copy(
        update={"training": job.recipe.training.model_copy(update={"steps": 1, "batch_rows": 6})}
    )
    odd = replace(job, counts=counts, recipe=recipe)
    found = estimate_cell(odd, plan_schedule(odd), memory_bytes=GB)
    # an epoch of four, then the shortest or the longest two; 6 rows of the mean, 10, in between
    assert found.train_tokens == Range(28 + 5 + 5, 60, 40 + 20 + 10)


def test_steps_tokens_and_flops(estimate: Any) -> None:
    found = estimate()
    assert found.steps == Range(32, 32, 32)
    assert found.train_tokens == Range(2560, 2560, 2560)
    assert found.flops == 32 * 682_880


def test_tokens_never_pass_their_cap(bench: Any, estimate: Any) -> None:
    # 430 of 80 a step are 5 steps by the mean; 10 by the shortest rows, whose 20 epochs of 40 would be 800
    found = estimate(bench.budget(max_train_tokens=430), counts=TokenCounts((5,) * 4, (5, 5, 10, 20), None, MILD))
    assert found.steps == Range(5, 5, 10)
    assert found.train_tokens == Range(200, 400, 430)


def test_nothing_binds_without_caps(estimate: Any) -> None:
    found = estimate()
    assert (found.binding_cap, found.caps_reached, found.refusal) == (None, {}, None)


def test_the_cap_that_binds_and_what_the_others_reach(bench: Any, estimate: Any) -> None:
    limits = bench.budget(
        total_usd=1000,
        laboratory={"max_wall_hours": 10},
        max_wall_hours=(READY + 8.5 * STEP) / 3600,
        max_train_tokens=6400,
    )
    found = estimate(limits)
    # by the centre 8 of 32 steps; by the fastest 8.5 x 2 = 17, by the slowest 4
    assert found.binding_cap == "max_wall_hours"
    assert found.steps == Range(4, 8, 17)
    assert found.train_tokens == Range(320, 640, 1360)
    laboratory = 3 + STEP + FINAL + FINAL * 4 / 6
    assert found.caps_reached == {
        "max_wall_hours": pytest.approx((READY + 8 * STEP) / (READY + 8.5 * STEP)),
        "max_train_tokens": pytest.approx(0.1),
        "total_usd": pytest.approx(0.01 * (READY + 8 * STEP + laboratory) / 1000),
        "laboratory.max_wall_hours": pytest.approx(laboratory / 36_000),
    }


def test_a_schedule_that_was_cut_says_by_what(bench: Any, estimate: Any) -> None:
    found = estimate(bench.budget(max_steps=5))
    assert (found.steps.centre, found.binding_cap) == (5, "max_steps")


def test_ten_hours_of_one_h100_never_reach_500_usd(bench: Any, estimate: Any) -> None:
    # 10 h x 2.95 USD = 29.50 of 500 USD
    limits = bench.budget(max_usd=500, max_wall_hours=10)
    found = estimate(limits, usd_per_device_hour=Fraction("2.95"))
    assert found.caps_reached["max_wall_hours"] * 29.5 / 500 == pytest.approx(found.caps_reached["max_usd"])
    assert found.caps_reached["max_usd"] <= 0.059
    assert found.caps["max_usd"].status == "cannot bind"
    assert found.caps["max_usd"].reason == "10 h at $2.95 are $29.50"
    assert found.caps["max_usd"].reach == pytest.approx(29.5)
    assert found.caps["max_wall_hours"].status == "can bind"


def test_it_can_be_written(estimate: Any) -> None:
    found = estimate()
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["attacker"]["usd"]["centre"] == found.attacker.usd.centre
    assert plain["binding_cap"] is None
    assert {"attacker", "laboratory", "final", "shared", "steps", "train_tokens", "flops"} <= plain.keys()
    assert {"memory_bytes", "device_memory_bytes", "binding_cap", "caps_reached", "caps", "refusal"} <= plain.keys()


def test_what_fits_may_proceed(estimate: Any) -> None:
    require_fit(estimate(), "tiny / none / mild / seed 0")


# At best: load 0.5 s; trainer 1 s; a step of the shortest rows 305.44 / 2 = 152.72 s; set-up 1.5 s; the probe
# 341.44 s; the final measurement 7.5 s of prefill and 6 x (200 + 720) / 2000 = 2.76 s of decoding: 353.2 s for the
# laboratory, 507.42 s in all.
@pytest.mark.parametrize(
    ("caps", "needs"),
    [
        ({"max_wall_hours": 153 / 3600}, "0.0428 of max_wall_hours, got 0.0425"),
        ({"max_usd": 1.5}, "1.54 of max_usd, got 1.5"),
        ({"max_train_tokens": 39}, "40 of max_train_tokens, got 39"),
        ({"total_usd": 5.0}, "5.07 of total_usd, got 5"),
        ({"laboratory": {"max_usd": 3.5}}, "3.53 of laboratory.max_usd, got 3.5"),
    ],
)
def test_what_cannot_fit_even_at_best_is_refused(bench: Any, estimate: Any, caps: dict[str, Any], needs: str) -> None:
    with pytest.raises(CannotFit) as caught:
        require_fit(estimate(bench.budget(**caps)), "tiny / none / mild / seed 0")
    assert str(caught.value) == (
        f"tiny / none / mild / seed 0: load, one step and the final evaluation need at least {needs}; "
        "raise the cap, shorten the evaluation or choose a smaller target"
    )


@pytest.mark.parametrize(
    "caps",
    [
        {"max_wall_hours": 155 / 3600},
        {"max_train_tokens": 40},
        {"total_usd": 5.1},
        {"laboratory": {"max_usd": 3.6}},
    ],
)
def test_what_fits_at_best_is_not_refused(bench: Any, estimate: Any, caps: dict[str, Any]) -> None:
    assert estimate(bench.budget(**caps)).refusal is None


def test_memory_that_cannot_hold_the_weights_is_refused(estimate: Any) -> None:
    # libraries 300,000,000 + weights 480 + adapter 16,896 bytes
    refused = estimate(memory_bytes=300_017_375).refusal
    assert refused == "libraries, weights and what is trained need 0.3 GB of memory, got 0.3 GB"
    assert estimate(memory_bytes=300_017_376).refusal is None


def test_distilled_answers_are_the_attackers(build_job: Any, hand_made_hardware: Any) -> None:
    job = build_job(hand_made_hardware(**BANDS))
    more = replace(job, counts=replace(job.counts, distilled=job.final_completions("mild")))
    schedule = plan_schedule(job)
    plain, distilled = (estimate_cell(j, schedule, memory_bytes=GB) for j in (job, more))
    assert distilled.attacker.seconds.centre - plain.attacker.seconds.centre == pytest.approx(DATA)
