from typing import Any

import pytest

from robustlab.cost.outlay import Outlay, find_binding, list_laboratory_outlays, list_outlays, usd_of
from robustlab.cost.pace import read_pace


@pytest.mark.parametrize(
    ("outlay", "steps"),
    [
        (Outlay(limit=10, fixed=1, per_step=3), 3),
        (Outlay(limit=10, fixed=1, per_step=0.1), 32),
        (Outlay(limit=10, fixed=11, per_step=3), 0),
        (Outlay(limit=10, fixed=11, per_step=0), 0),
        (Outlay(limit=10, fixed=10, per_step=0), 32),
    ],
)
def test_affordable_steps(outlay: Outlay, steps: int) -> None:
    assert outlay.affordable(32) == steps


def test_outlays_by_hand(bench: Any, build_job: Any) -> None:
    limits = bench.budget(
        total_usd=9, max_usd=1, max_wall_hours=2, max_device_hours=3, max_train_tokens=4, max_steps=5, max_trials=6
    )
    job = build_job(limits=limits, devices=2)
    pace = read_pace(job.hardware, "centre")
    outlays = list_outlays(job, pace, 10)
    # load 480 s, trainer 1 s; a step 682,880 + 12 + 1 s; 2 devices x 36 USD/h = 0.02 USD/s
    step = 682_893
    assert list(outlays) == [
        "max_usd", "max_wall_hours", "max_device_hours", "max_train_tokens", "max_steps", "max_trials", "total_usd"
    ]  # fmt: skip
    assert outlays["max_usd"] == Outlay(1, pytest.approx(9.62), pytest.approx(0.02 * step))
    assert outlays["max_wall_hours"] == Outlay(2, 481 / 3600, step / 3600)
    assert outlays["max_device_hours"] == Outlay(3, 962 / 3600, 2 * step / 3600)
    assert outlays["max_train_tokens"] == Outlay(4, 0, 80)
    assert outlays["max_steps"] == Outlay(5, 0, 1)
    assert outlays["max_trials"] == Outlay(6, 1, 0)
    assert outlays["total_usd"].fixed == pytest.approx(0.02 * (481 + pace.ending_seconds(job)))


def test_caps_that_do_not_exist_have_no_outlay(build_job: Any) -> None:
    job = build_job()
    assert list_outlays(job, read_pace(job.hardware, "centre"), 10) == {}


def test_the_laboratorys_outlays(bench: Any, build_job: Any) -> None:
    job = build_job(limits=bench.budget(laboratory={"max_usd": 5, "max_wall_hours": 7, "max_steps": 3}), devices=2)
    assert list_laboratory_outlays(job, 3600, 1.5) == {
        "laboratory.max_usd": Outlay(5, 73.5, 0), "laboratory.max_wall_hours": Outlay(7, 1, 0)
    }  # fmt: skip


def test_the_first_cap_that_allows_fewest_steps_binds() -> None:
    outlays = {"a": Outlay(20, 0, 1), "b": Outlay(10, 0, 1), "c": Outlay(10, 0, 1)}
    assert find_binding(outlays, 32) == (10, "b")
    assert find_binding(outlays, 10) == (10, None)
    assert find_binding({}, 32) == (32, None)


def test_usd(build_job: Any) -> None:
    assert usd_of(build_job(), 100) == pytest.approx(1.0)
