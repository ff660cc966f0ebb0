import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from robustlab.cost.bill import PricedCell, RunEstimate, estimate_run
from robustlab.cost.estimate import estimate_cell
from robustlab.cost.job import Completions, Prompts, SafeguardWork
from robustlab.cost.pace import Range, read_pace
from robustlab.cost.schedule import plan_schedule
from robustlab.spec.attacks import WithheldData
from robustlab.spec.plan import Cell

# Twice and half as fast; one second for 1,000 FLOP and 480 bytes.
SPEED = (500.0, 1000.0, 2000.0)
BANDS = {
    "lora_flops_per_second": SPEED, "prefill_flops_per_second": SPEED, "decode_flops_per_second": SPEED,
    "load_bytes_per_second": (240.0, 480.0, 960.0), "startup_seconds": (5.0, 10.0, 20.0),
    "record_seconds": (1.0, 2.0, 4.0), "cell_start_seconds": (1.0, 2.0, 4.0), "trainer_seconds": (1.0, 2.0, 4.0),
    "layer_pass_seconds": (1e-9, 1e-9, 1e-9), "step_overhead_seconds": (1e-9, 1e-9, 1e-9),
    "wave_seconds": (1e-9, 1e-9, 1e-9),
}  # fmt: skip
DATA = WithheldData(mode="withheld", attack_rows=4, benign_share=0.5, benign_new_tokens=8)
ANSWERS = Completions(Prompts(6, 5), 8, 4)


@pytest.fixture
def price(build_job: Any, hand_made_hardware: Any) -> Any:
    """Builder of priced cells: target, safeguard and budget by name, an attack that has answers written."""

    def build(
        limits: Any = None, *, safeguard: str = "none", budget: str = "purse", rows: int = 4, **changes: Any
    ) -> Any:
        job = build_job(hand_made_hardware(**BANDS), limits, **changes)
        if safeguard != "none":
            job = replace(job, safeguard=SafeguardWork(job.recipe.training, row_tokens=10, distilled=ANSWERS))
        recipe = job.recipe.model_copy(update={"data": DATA.model_copy(update={"attack_rows": rows})})
        job = replace(job, recipe=recipe, counts=replace(job.counts, distilled=ANSWERS))
        schedule = plan_schedule(job)
        cell = Cell.model_construct(
            target_id="tiny", safeguard_id=safeguard, budget_id=budget, recipe=recipe, schedule=schedule
        )
        return PricedCell(cell, job, estimate_cell(job, schedule, memory_bytes=10**9))

    return build


def middle(found: RunEstimate) -> tuple[float, float, float]:
    return found.attacker.seconds.centre, found.laboratory.seconds.centre, found.wall_seconds.centre


def test_one_cell_by_hand(price: Any) -> None:
    priced = price()
    alone, found = priced.estimate, estimate_run([priced])
    # shared work once, 2 s of record; the attacker's load of 1 s is billed and not waited for
    laboratory = alone.shared.seconds.centre + alone.laboratory.seconds.centre + 2
    attacker = alone.attacker.seconds.centre
    assert middle(found) == pytest.approx((attacker, laboratory, laboratory + attacker - 1))
    assert found.total_usd.centre == pytest.approx(0.01 * (attacker + laboratory))
    assert found.laboratory.usd.centre == pytest.approx(0.01 * laboratory)
    assert found.purses["purse"].cells == 1


def test_answers_that_an_earlier_cell_had_written_are_billed_and_not_waited_for(price: Any) -> None:
    one, other, longer = price(), price(), price(rows=5)
    data = read_pace(one.job.hardware, "centre").data_seconds(one.job)
    alone, twice, apart = (estimate_run(cells) for cells in ([one], [one, other], [one, longer]))
    attacker, laboratory = one.estimate.attacker.seconds.centre, one.estimate.laboratory.seconds.centre
    assert twice.attacker.seconds.centre == pytest.approx(2 * attacker)
    assert twice.laboratory.seconds.centre - alone.laboratory.seconds.centre == pytest.approx(laboratory)
    assert twice.wall_seconds.centre - alone.wall_seconds.centre == pytest.approx(laboratory + attacker - 1 - data)
    assert apart.wall_seconds.centre - alone.wall_seconds.centre == pytest.approx(laboratory + attacker - 1)


def test_every_released_target_is_set_up_once(price: Any) -> None:
    plain, guarded = price(), price(safeguard="refusal")
    pace = read_pace(plain.job.hardware, "centre")
    both = estimate_run([plain, guarded])
    shared = 10 + 2 + 2 * 1 + pace.setup_seconds(plain.job) + pace.setup_seconds(guarded.job)
    cells = plain.estimate.laboratory.seconds.centre + guarded.estimate.laboratory.seconds.centre
    assert both.laboratory.seconds.centre == pytest.approx(shared + cells)


def test_the_second_purse_finds_the_target_in_the_cache(price: Any) -> None:
    first, second = price(safeguard="refusal", budget="a"), price(safeguard="refusal", budget="b")
    found = estimate_run([first, second])
    one, other = found.purses["a"], found.purses["b"]
    pace, cell = read_pace(first.job.hardware, "centre"), first.estimate.laboratory.seconds.centre
    # the first starts the process and installs; the second loads, and as the last one writes the record
    assert one.laboratory.seconds.centre == pytest.approx(10 + 1 + pace.setup_seconds(first.job) + cell)
    assert other.laboratory.seconds.centre == pytest.approx(1 + cell + 2)
    assert found.total_usd.centre == pytest.approx(one.total_usd.centre + other.total_usd.centre)
    assert found.wall_seconds.high == pytest.approx(one.wall_seconds.high + other.wall_seconds.high)


def test_low_is_what_is_left_when_everything_is_cached(price: Any) -> None:
    priced = price(safeguard="refusal")
    found = estimate_run([priced])
    data = read_pace(priced.job.hardware, "fast").data_seconds(priced.job)
    laboratory = 5 + 0.5 + priced.estimate.laboratory.seconds.low + 1
    assert found.laboratory.seconds.low == pytest.approx(laboratory)
    assert found.wall_seconds.low == pytest.approx(laboratory + priced.estimate.attacker.seconds.low - 0.5 - data)


def test_the_laboratorys_caps_hold_over_all_cells(bench: Any, price: Any) -> None:
    caps = {"max_usd": 25, "max_wall_hours": 1000, "max_device_hours": 3, "max_train_tokens": 2000, "max_steps": 40}
    limits = bench.budget(laboratory=caps | {"max_trials": 1}, total_usd=10**6)
    one = price(limits, safeguard="refusal", devices=2)
    found = estimate_run([one, one]).purses["purse"]
    seconds = found.laboratory.seconds
    assert list(found.caps) == [*(f"laboratory.{name}" for name in [*caps, "max_trials"]), "total_usd"]
    assert found.caps["laboratory.max_usd"].use == found.laboratory.usd
    assert found.caps["laboratory.max_wall_hours"].use.high == pytest.approx(seconds.high / 3600)
    assert found.caps["laboratory.max_device_hours"].use.centre == pytest.approx(2 * seconds.centre / 3600)
    # 32 steps of 8 rows of 10 tokens, installed once
    assert found.caps["laboratory.max_steps"].use == Range(0, 32, 32)
    assert found.caps["laboratory.max_steps"].reason == "its safeguards have 32 steps"
    assert found.caps["laboratory.max_train_tokens"].use == Range(0, 2560, 2560)
    assert found.caps["laboratory.max_train_tokens"].status == "binds"
    assert found.caps["laboratory.max_trials"].reason == "the laboratory runs no trials"


def test_which_of_the_laboratorys_caps_can_bind(bench: Any, price: Any) -> None:
    limits = bench.budget(laboratory={"max_usd": 500, "max_wall_hours": 10}, total_usd=1000)
    found = estimate_run([price(limits, usd_per_device_hour=Fraction("2.95"))]).purses["purse"].caps
    reason = found["laboratory.max_usd"].reason
    assert reason is not None and reason.startswith(
        "10 h at $2.95 are $29.50, its installations and measurements are expected"
    )
    tight = bench.budget(laboratory={"max_usd": 8.5}, total_usd=1000)
    found = estimate_run([price(tight)]).purses["purse"].caps
    assert found["laboratory.max_usd"].status == "binds"
    between = bench.budget(laboratory={"max_usd": 12}, total_usd=1000)
    laboratory = estimate_run([price(between)]).laboratory.usd
    assert laboratory.centre < 12 < laboratory.high
    assert estimate_run([price(between)]).purses["purse"].caps["laboratory.max_usd"].status == "can bind"


def test_the_total_is_what_both_can_reach(bench: Any, price: Any) -> None:
    limits = bench.budget(max_usd=3, laboratory={"max_usd": 20}, total_usd=500)
    one = price(limits)
    found = estimate_run([one, one]).purses["purse"].caps["total_usd"]
    # two attackers of $3 and one laboratory of $20
    assert (found.reach, found.reason) == (26, "attacker and laboratory together use at most $26.00")
    tight = bench.budget(max_usd=3, laboratory={"max_usd": 20}, total_usd=10)
    one = price(tight)
    assert estimate_run([one]).purses["purse"].caps["total_usd"].status == "can bind"
    assert estimate_run([one] * 3).purses["purse"].caps["total_usd"].status == "binds"


def test_a_total_that_ends_the_training_binds(bench: Any, price: Any) -> None:
    # 8 steps of 682.88 s at 0.01 USD/s are $54.63; what is held back for the laboratory, $7.86, leaves none for a ninth
    one = price(bench.budget(total_usd=66))
    assert one.estimate.binding_cap == "total_usd"
    found = estimate_run([one]).purses["purse"]
    assert found.total_usd.centre < 66
    assert found.caps["total_usd"].status == "binds"


# At best a cell needs 355 s or so of the laboratory, $3.53: one of two fits where both together do not.
@pytest.mark.parametrize(
    ("caps", "refusal"),
    [
        ({"laboratory": {"max_usd": 5}}, "7.05 of laboratory.max_usd, got 5"),
        ({"laboratory": {"max_wall_hours": 0.15}}, "0.196 of laboratory.max_wall_hours, got 0.15"),
        ({"total_usd": 8}, "10.3 of total_usd, got 8"),
    ],
)
def test_cells_that_cannot_fit_together_are_refused(bench: Any, price: Any, caps: Any, refusal: str) -> None:
    one = price(bench.budget(**caps))
    assert one.estimate.refusal is None
    assert estimate_run([one]).purses["purse"].refusal is None
    assert estimate_run([one, one]).purses["purse"].refusal == (
        f"load, one step and the final evaluation of all 2 cells of budget 'purse' need at least {refusal}"
    )


def test_purses_are_not_added_up(bench: Any, price: Any) -> None:
    limits = bench.budget(total_usd=8)
    found = estimate_run([price(limits, budget="a"), price(limits, budget="b")])
    assert [purse.refusal for purse in found.purses.values()] == [None, None]


def test_it_can_be_written(price: Any) -> None:
    found = estimate_run([price()])
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["purses"]["purse"]["total_usd"]["centre"] == found.total_usd.centre


def test_a_4_bit_copy_is_made_and_measured_once(price: Any) -> None:
    plain, copied = price(), price()
    recipe = copied.cell.recipe.model_copy(update={"quantization": "nf4"})
    job = replace(copied.job, recipe=recipe)
    copied = replace(copied, cell=copied.cell.model_copy(update={"recipe": recipe}), job=job)
    pace = read_pace(job.hardware, "centre")
    without, once, twice = (estimate_run(cells) for cells in ([plain], [plain, copied], [plain, copied, copied]))
    # One more load while it is quantised, and one measurement of every eval.
    alone = copied.estimate.laboratory.seconds.centre
    more = once.laboratory.seconds.centre - without.laboratory.seconds.centre
    assert more == pytest.approx(alone + pace.load_seconds(job) + pace.final_seconds(job))
    assert twice.laboratory.seconds.centre - once.laboratory.seconds.centre == pytest.approx(alone)
