import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.cost.schedule import list_learning_rates, list_marks, plan_schedule
from robustlab.spec.training import Optimizer


def optimizer(curve: Any, warmup_steps: int, learning_rate: float = 8.0) -> Optimizer:
    return Optimizer(
        learning_rate=learning_rate, curve=curve, warmup_steps=warmup_steps, weight_decay=0.0, max_grad_norm=1.0
    )


def test_32_steps_with_two_marks_a_decade() -> None:
    assert list_marks(32, 2) == (3, 10)


@pytest.mark.parametrize(
    ("steps", "per_decade", "marks"),
    [
        (33, 2, (3, 10, 32)),
        (32, 1, (10,)),
        (10, 1, ()),
        (1, 3, ()),
        (0, 3, ()),
        (1000, 1, (10, 100)),
        # 10 ** (i / 8): 1.33, 1.78, 2.37, 3.16, 4.22, 5.62, 7.50, 10
        (9, 8, (2, 3, 4, 6, 7)),
    ],
)
def test_marks(steps: int, per_decade: int, marks: tuple[int, ...]) -> None:
    assert list_marks(steps, per_decade) == marks


@given(st.integers(0, 5000), st.integers(1, 20))
def test_marks_rise_strictly_inside_the_schedule(steps: int, per_decade: int) -> None:
    marks = list_marks(steps, per_decade)
    assert list(marks) == sorted(set(marks))
    assert all(1 < mark < steps for mark in marks)


def test_warm_up_then_constant() -> None:
    # 8 x 1/4, 2/4, 3/4, then 8
    assert list_learning_rates(optimizer("constant", 3), 5) == (2, 4, 6, 8, 8)


def test_linear() -> None:
    assert list_learning_rates(optimizer("linear", 1), 5) == (4, 8, 6, 4, 2)


def test_cosine() -> None:
    # progress 0, 1/4, 1/2, 3/4 of half a wave
    quarter = 8 * (1 + math.sqrt(0.5)) / 2
    assert list_learning_rates(optimizer("cosine", 0), 4) == pytest.approx((8, quarter, 4, 8 - quarter))


def test_a_control_never_moves() -> None:
    assert set(list_learning_rates(optimizer("cosine", 2, learning_rate=0.0), 9)) == {0}


def test_a_warm_up_longer_than_the_schedule() -> None:
    assert list_learning_rates(optimizer("linear", 7), 3) == (1, 2, 3)


@given(st.sampled_from(["constant", "linear", "cosine"]), st.integers(0, 40), st.integers(0, 60))
def test_every_step_moves_and_none_beyond_the_peak(curve: str, warmup: int, steps: int) -> None:
    rates = list_learning_rates(optimizer(curve, warmup), steps)
    assert len(rates) == steps
    assert all(0 < rate <= 8 for rate in rates)


def test_the_recipe_as_it_is(build_job: Any) -> None:
    schedule = plan_schedule(build_job())
    assert (schedule.steps, schedule.cut_by, schedule.marks) == (32, None, {"mild": (3, 10)})
    assert len(schedule.learning_rates) == 32


def test_an_eval_without_milestones_has_no_marks(build_job: Any) -> None:
    assert plan_schedule(build_job(milestones=False)).marks == {}


def test_a_cap_on_steps_cuts_the_curve_too(bench: Any, build_job: Any) -> None:
    schedule = plan_schedule(build_job(limits=bench.budget(max_steps=5), optimizer={"warmup_steps": 1}))
    assert (schedule.steps, schedule.cut_by, schedule.marks) == (5, "max_steps", {"mild": (3,)})
    assert schedule.learning_rates == pytest.approx((0.0005, 0.001, 0.00075, 0.0005, 0.00025))


def test_tokens_cut_only_what_the_shortest_rows_could_not_afford(bench: Any, build_job: Any) -> None:
    # 8 rows x 5 tokens = 40 at least per step; 400 tokens may reach 10 steps though the mean row allows 5
    schedule = plan_schedule(build_job(limits=bench.budget(max_train_tokens=400)))
    assert (schedule.steps, schedule.cut_by) == (10, "max_train_tokens")


def test_time_cuts_by_the_fastest_reading_alone(bench: Any, build_job: Any, hand_made_hardware: Any) -> None:
    # 40 tokens x (400 + 6 x 30 x 5 + 6336) = 305,440 FLOP; fastest 305,440 FLOP/s and 1e-9 s a pass: 1 s a step
    hardware = hand_made_hardware(
        lora_flops_per_second=(1, 10, 305_440),
        layer_pass_seconds=(1e-9, 1, 1),
        load_bytes_per_second=(1, 1, 480),
        step_overhead_seconds=(1e-9, 1, 1),
    )
    schedule = plan_schedule(build_job(hardware, bench.budget(max_wall_hours=21.5 / 3600)))
    # 21.5 s - 1 s of loading - 1 s for the trainer
    assert (schedule.steps, schedule.cut_by) == (19, "max_wall_hours")


def test_no_step_can_be_afforded(bench: Any, build_job: Any) -> None:
    schedule = plan_schedule(build_job(limits=bench.budget(max_usd=0.01)))
    assert (schedule.steps, schedule.cut_by, schedule.learning_rates) == (0, "max_usd", ())
