from typing import Any

import pytest
from pydantic import ValidationError

from robustlab.cost import hardware as module
from robustlab.cost.hardware import (
    Band,
    Device,
    check_hardware,
    detect_cpu,
    find_hardware,
    load_hardware,
    match_device,
)
from robustlab.cost.prices import load_price_card
from robustlab.errors import ConfigError

CARD = load_price_card(None)
LAPTOP = Device("cpu", "A Laptop 7", 16 * 10**9, 8)
H100 = Device("gpu", "NVIDIA H100 80GB HBM3", 80 * 10**9, None)


def check(key: str, found: Device, shadow_price: str | None = None) -> str:
    return check_hardware(key, found, shadow_price=shadow_price, card=CARD, where="budgets/x.yaml:4")


def test_every_device_has_a_price_and_every_device_price_a_device() -> None:
    assert set(load_hardware()) == set(CARD.prices.devices)


def test_every_band_says_where_it_comes_from() -> None:
    bands = [value for hardware in load_hardware().values() for _, value in hardware if isinstance(value, Band)]
    assert len(bands) == 5 * 6
    assert all(band.source.startswith(("measured", "assumed")) for band in bands)


def test_no_gpu_is_faster_than_its_peak() -> None:
    for hardware in load_hardware().values():
        if hardware.kind == "gpu":
            assert hardware.lora_flops_per_second.high < hardware.peak_flops[hardware.dtype]


def test_the_dense_peak_of_the_reference() -> None:
    assert find_hardware("h100_sxm", "here").peak_flops["bfloat16"] == 989e12


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("nvidia h200", "h200_sxm"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-40GB", None),
        ("A Laptop 7", None),
    ],
)
def test_names_of_devices(name: str, key: str | None) -> None:
    assert match_device(name) == key


def test_this_processor() -> None:
    found = detect_cpu()
    assert found.kind == "cpu"
    assert found.name
    assert found.cores is not None and found.cores >= 1
    assert found.memory_bytes > 10**8


def test_a_machine_without_a_list_of_processors(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.setattr(module.platform, "machine", lambda: "arm64")
    assert detect_cpu().name == "arm64"


def test_a_list_of_processors_without_a_name(monkeypatch: Any, tmp_path: Any) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(module.platform, "machine", lambda: "aarch64")
    assert detect_cpu().name == "aarch64"


def test_any_processor_fits_the_shadow_price_of_a_laptop() -> None:
    assert check("cpu_2vcpu_8gb", LAPTOP) == "cpu_2vcpu_8gb"


def test_a_gpu_fits_its_own_key() -> None:
    assert check("h100_sxm", H100) == "h100_sxm"


@pytest.mark.parametrize(
    ("key", "found", "got"),
    [
        ("h100_sxm", LAPTOP, "the CPU 'A Laptop 7'"),
        ("h200_sxm", H100, "the GPU 'NVIDIA H100 80GB HBM3'"),
        ("cpu_2vcpu_8gb", H100, "the GPU 'NVIDIA H100 80GB HBM3'"),
    ],
)
def test_another_device_than_the_budgets_is_refused(key: str, found: Device, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(key, found)
    assert str(caught.value) == (
        f"budgets/x.yaml:4: hardware is '{key}', got {got}; "
        f"choose another budget, or bill it all the same with --shadow-price {key}"
    )


def test_a_shadow_price_overrides() -> None:
    assert check("h100_sxm", LAPTOP, shadow_price="a100_80gb") == "a100_80gb"


def test_a_shadow_price_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"^--shadow-price: 'h100' has no price in .*; did you mean 'h100_sxm'\?$"):
        check("cpu_2vcpu_8gb", LAPTOP, shadow_price="h100")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("h100_smx", "did you mean 'h100_sxm'?"),
        ("zzz", "use one of cpu_2vcpu_8gb, h100_sxm, h200_sxm, b200, a100_80gb"),
    ],
)
def test_an_unknown_device(key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(key, H100)
    assert str(caught.value) == f"budgets/x.yaml:4: {key!r} is not a known device; {hint}"


def test_a_band_out_of_order() -> None:
    with pytest.raises(ValidationError, match=r"low <= centre <= high must hold, got 2\.0, 1\.0, 3\.0"):
        Band(low=2.0, centre=1.0, high=3.0, source="x")
