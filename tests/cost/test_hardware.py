from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from robustlab.cost import hardware as module
from robustlab.cost.hardware import (
    Band,
    Device,
    Hardware,
    check_hardware,
    detect_cpu,
    detect_devices,
    find_hardware,
    load_hardware,
    match_device,
)
from robustlab.cost.prices import load_price_card
from robustlab.errors import ConfigError
from tests.cost.simulated_nvml import GB, NVMLErrorLibraryNotFound, SimulatedGpu, SimulatedNvml, rack

CARD = load_price_card(None)
LAPTOP = Device("cpu", "A Laptop 7", 16 * 10**9, 8)
H100 = Device("gpu", "NVIDIA H100 80GB HBM3", 80 * GB, None)
EIGHT_H200 = Device("gpu", "NVIDIA H200", 141 * GB, None, 8)


def check(key: str, found: Device, shadow_price: str | None = None) -> str:
    return check_hardware(key, found, shadow_price=shadow_price, card=CARD, where="budgets/x.yaml:4")


def test_every_device_has_a_price_and_every_device_price_a_device() -> None:
    assert set(load_hardware()) == set(CARD.prices.devices)


def test_every_band_says_where_it_comes_from() -> None:
    bands = [value for hardware in load_hardware().values() for _, value in hardware if isinstance(value, Band)]
    assert len(bands) == 5 * sum(field.annotation is Band for field in Hardware.model_fields.values()) > 0
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


@pytest.fixture
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine of the test hides, the simulated machines hide nothing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("all_visible")
@pytest.mark.parametrize(
    "nvml",
    [rack(), SimulatedNvml(rack("h100").gpus, fault=NVMLErrorLibraryNotFound("Not Found"))],
    ids=["no GPU", "no library"],
)
def test_without_a_gpu_the_processor_is_found(nvml: SimulatedNvml) -> None:
    assert detect_devices(nvml) == detect_cpu()


@pytest.mark.usefixtures("all_visible")
def test_gpus_of_one_kind_are_counted() -> None:
    assert detect_devices(rack("h100")) == H100
    assert detect_devices(rack(*["h200"] * 8)) == EIGHT_H200


def test_hidden_gpus_are_not_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert detect_devices(rack("h100")).kind == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert detect_devices(rack(*["h200"] * 8)).count == 2


@pytest.mark.usefixtures("all_visible")
def test_of_several_devices_the_smallest_memory_counts() -> None:
    nvml = rack("h100", "h100")
    nvml.gpus[1].memory_bytes = 79 * GB
    assert detect_devices(nvml).memory_bytes == 79 * GB


def test_gpus_of_several_kinds_have_no_one_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = rack("h100", "a100", "h100")
    with pytest.raises(ConfigError) as caught:
        detect_devices(nvml)
    assert str(caught.value) == (
        "CUDA_VISIBLE_DEVICES: shows GPUs of several kinds, "
        "got 1 x NVIDIA A100-SXM4-80GB, 2 x NVIDIA H100 80GB HBM3; "
        "choose one kind with CUDA_VISIBLE_DEVICES, by UUID (`nvidia-smi -L`)"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a0,GPU-c2")
    assert detect_devices(nvml) == Device("gpu", "NVIDIA H100 80GB HBM3", 80 * GB, None, 2)


@pytest.mark.usefixtures("all_visible")
def test_a_slice_has_no_price_of_its_own() -> None:
    found = detect_devices(SimulatedNvml([SimulatedGpu("h100", "GPU-a0", mig=[SimulatedGpu("slice", "MIG-one")])]))
    assert found == Device("gpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GB, None)
    assert match_device(found.name) is None


def test_any_processor_fits_the_shadow_price_of_a_laptop() -> None:
    assert check("cpu_2vcpu_8gb", LAPTOP) == "cpu_2vcpu_8gb"


def test_a_gpu_fits_its_own_key() -> None:
    assert check("h100_sxm", H100) == "h100_sxm"


def test_several_devices_of_one_kind_fit_its_key() -> None:
    assert check("h200_sxm", EIGHT_H200) == "h200_sxm"


def test_a_known_device_without_a_price_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        'kind: prices\nas_of: "2026-01-01"\ntokens: {}\ndevices:\n'
        "  h200_sxm: {label: x, usd_per_device_hour: 3.0, low: null, high: null, source: an invoice}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check_hardware("h100_sxm", H100, shadow_price=None, card=load_price_card(path), where="budgets/x.yaml:4")
    assert str(caught.value) == f"budgets/x.yaml:4: 'h100_sxm' has no price in {path}; did you mean 'h200_sxm'?"


@pytest.mark.parametrize(
    ("key", "found", "got"),
    [
        ("h100_sxm", LAPTOP, "the CPU 'A Laptop 7'"),
        ("h200_sxm", H100, "the GPU 'NVIDIA H100 80GB HBM3'"),
        ("cpu_2vcpu_8gb", H100, "the GPU 'NVIDIA H100 80GB HBM3'"),
        ("h100_sxm", EIGHT_H200, "8 GPUs 'NVIDIA H200'"),
        (
            "h100_sxm",
            Device("gpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GB, None),
            "the GPU 'NVIDIA H100 80GB HBM3 MIG 1g.10gb'",
        ),
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
