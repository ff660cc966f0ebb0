"""What a run happens on: the device that torch can use, named and counted by its driver, with enough memory."""

from io import StringIO
from pathlib import Path

import pytest
import torch

from robustlab.cost.hardware import Device
from robustlab.cost.prices import load_price_card
from robustlab.engine import launch
from robustlab.engine.launch import find_device, launch_plan
from robustlab.errors import CannotFit, DataError
from robustlab.report.live import LiveLine
from robustlab.spec.plan import Plan

PLAN = Plan(
    kind="plan", targets=("tiny",), safeguards=("none",), attacks=("lora_sft_smoke",), budgets=("smoke",),
    evals=("smoke_refusal",), seeds=(0,),
)  # fmt: skip


@pytest.mark.parametrize("shadow_price", [None, "h100_sxm"])
def test_a_run_needs_the_memory_of_the_device_that_it_happens_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shadow_price: str | None
) -> None:
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(launch, "find_device", lambda: Device("cpu", "small box", 1000, 2))
    with pytest.raises(CannotFit) as caught:
        launch_plan(
            PLAN,
            runs=tmp_path / "runs",
            data_csv=None,
            shadow_price=shadow_price,
            card=load_price_card(None),
            line=LiveLine(StringIO(), quiet=True),
        )
    assert "GB of memory, got 1e-06 GB" in str(caught.value)
    assert not (tmp_path / "runs").exists()


def simulate(monkeypatch: pytest.MonkeyPatch, count: int, driver: Device) -> None:
    """Simulated accelerators, since there are none here: torch finds ``count``, the driver says what it says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Example {index}")
    monkeypatch.setattr(launch, "detect_devices", lambda: driver)


def test_the_driver_names_and_counts_what_torch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Device("gpu", "NVIDIA H200", 141_000_000_000, None, 8)
    simulate(monkeypatch, 8, driver)
    assert find_device() == driver


def test_without_cuda_the_processor_is_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, 0, Device("gpu", "NVIDIA H200", 141_000_000_000, None, 8))
    assert find_device().kind == "cpu"


@pytest.mark.parametrize(
    "driver", [Device("cpu", "box", 1, 2), Device("gpu", "NVIDIA H200", 1, None, 1)], ids=["no driver", "other count"]
)
def test_accelerators_that_nobody_can_price_are_refused(monkeypatch: pytest.MonkeyPatch, driver: Device) -> None:
    simulate(monkeypatch, 2, driver)
    with pytest.raises(DataError, match=r"^device: torch finds Example 0, Example 1, got 1 x .* from the driver; see"):
        find_device()
