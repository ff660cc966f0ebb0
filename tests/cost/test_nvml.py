"""Which GPUs are visible, on a simulated library and on the real one where there is no driver."""

import os
import subprocess
import sys

import pynvml
import pytest

from robustlab.cost.nvml import Gpu, list_gpus
from robustlab.errors import ConfigError, DataError
from tests.cost.simulated_nvml import (
    GB,
    NVMLError,
    NVMLErrorDriverNotLoaded,
    NVMLErrorLibraryNotFound,
    SimulatedGpu,
    SimulatedNvml,
    rack,
)

H100 = Gpu("NVIDIA H100 80GB HBM3", 80 * GB, "GPU-a0")


def visible(nvml: SimulatedNvml, chosen: str | None = None, **more: str) -> list[str]:
    environment = more if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen, **more}
    return [gpu.uuid for gpu in list_gpus(nvml, environment)]


def test_the_simulation_has_the_names_of_the_real_library() -> None:
    names = [name for name in dir(SimulatedNvml) if name.lower().startswith("nvml")]
    assert len(names) == 18
    assert [name for name in names if not hasattr(pynvml, name)] == []
    errors = [name for name in names if name.startswith("NVMLError_")]
    assert len(errors) == 6
    assert all(issubclass(getattr(pynvml, name), pynvml.NVMLError) for name in errors)


def test_one_gpu() -> None:
    nvml = rack("h100")
    assert list_gpus(nvml, {}) == (H100,)
    assert (nvml.asked, nvml.open_count) == (True, 0)


def test_a_driver_without_a_gpu() -> None:
    assert visible(rack()) == []


@pytest.mark.parametrize("fault", [NVMLErrorLibraryNotFound("Not Found"), NVMLErrorDriverNotLoaded("Not Loaded")])
def test_without_library_or_driver_there_is_no_gpu(fault: NVMLError) -> None:
    nvml = SimulatedNvml(rack("h100").gpus, fault=fault)
    assert visible(nvml) == []
    assert nvml.open_count == 0


@pytest.mark.parametrize(("fault", "later"), [(NVMLError("Unknown Error"), None), (None, NVMLError("Unknown Error"))])
def test_a_driver_that_does_not_answer_is_an_error(fault: NVMLError | None, later: NVMLError | None) -> None:
    nvml = SimulatedNvml(rack("h100").gpus, fault=fault, later=later)
    with pytest.raises(DataError) as caught:
        list_gpus(nvml, {})
    assert str(caught.value) == (
        "NVML: the GPU driver does not answer, got 'Unknown Error'; "
        "see whether `nvidia-smi` works, or hide the GPUs with CUDA_VISIBLE_DEVICES=-1"
    )
    assert nvml.open_count == 0


@pytest.mark.parametrize("chosen", ["", " ", "-1", "-1,0", ",0"])
def test_hidden_gpus_are_not_even_asked_for(chosen: str) -> None:
    nvml = rack("h100")
    assert visible(nvml, chosen) == []
    assert not nvml.asked


@pytest.mark.parametrize(
    ("chosen", "uuids"),
    [
        (None, ["GPU-a0", "GPU-b1", "GPU-c2", "GPU-d3"]),
        ("0", ["GPU-a0"]),
        ("2,0", ["GPU-c2", "GPU-a0"]),
        (" 1 , 3 ", ["GPU-b1", "GPU-d3"]),
        ("1,4,2", ["GPU-b1"]),
        ("1,-1,2", ["GPU-b1"]),
        ("1,x,2", ["GPU-b1"]),
        ("4", []),
        ("1,1", []),
        ("GPU-b1", ["GPU-b1"]),
        ("GPU-d,GPU-a", ["GPU-d3", "GPU-a0"]),
        ("GPU-", []),
        ("GPU-b1,GPU-zz,GPU-a0", ["GPU-b1"]),
        ("GPU-b1,GPU-b", []),
        ("GPU-b1,0", ["GPU-b1"]),
        ("0,GPU-b1", ["GPU-a0"]),
    ],
)
def test_gpus_are_chosen_as_cuda_chooses_them(chosen: str | None, uuids: list[str]) -> None:
    assert visible(rack("h100", "h100", "h100", "h100"), chosen) == uuids


def test_an_empty_entry_ends_the_list() -> None:
    assert visible(rack("h100"), "GPU-a0,") == ["GPU-a0"]
    assert visible(rack("h100", "h100"), "1,,0") == ["GPU-b1"]


def test_a_gpu_that_a_scheduler_keeps_is_not_counted() -> None:
    nvml = rack("h200", "h200", "h200")
    nvml.gpus[0].locked = True
    assert visible(nvml) == ["GPU-b1", "GPU-c2"]
    assert visible(nvml, "0") == ["GPU-b1"]


def test_an_index_is_no_name_on_a_mixed_machine() -> None:
    nvml = rack("h100", "a100")
    with pytest.raises(ConfigError) as caught:
        visible(nvml, "1")
    assert str(caught.value) == (
        "CUDA_VISIBLE_DEVICES: chooses by index among GPUs of several kinds "
        "(NVIDIA A100-SXM4-80GB, NVIDIA H100 80GB HBM3), got '1'; "
        "name them by UUID (`nvidia-smi -L`), or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
    )
    assert visible(nvml, "1", CUDA_DEVICE_ORDER="PCI_BUS_ID") == ["GPU-b1"]
    assert visible(nvml, "GPU-b1") == ["GPU-b1"]
    assert visible(nvml) == ["GPU-a0", "GPU-b1"]


def test_a_gpu_that_is_cut_into_slices_shows_its_first_slice() -> None:
    parts = [None, SimulatedGpu("slice", "MIG-one"), SimulatedGpu("slice", "MIG-two")]
    nvml = SimulatedNvml([SimulatedGpu("h100", "GPU-a0", mig=parts)])
    assert list_gpus(nvml, {}) == (Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GB, "MIG-one"),)
    assert visible(nvml, "0") == visible(nvml, "GPU-a0") == ["MIG-one"]
    assert visible(nvml, "MIG-two,MIG-one") == ["MIG-two"]
    assert visible(nvml, "MIG-three") == []


def test_a_gpu_that_could_be_cut_and_is_not_is_whole() -> None:
    assert list_gpus(SimulatedNvml([SimulatedGpu("h100", "GPU-a0", mig=[])]), {}) == (H100,)


def test_a_gpu_that_is_cut_and_has_no_slice_is_not_the_whole_one() -> None:
    nvml = SimulatedNvml([SimulatedGpu("h100", "GPU-a0", mig=[None])])
    assert [gpu.name for gpu in list_gpus(nvml, {})] == ["NVIDIA H100 80GB HBM3 MIG without a slice"]


def test_the_real_library_is_loaded_only_when_it_is_asked() -> None:
    code = "import sys; from robustlab.cost.nvml import list_gpus; print(list_gpus(), 'pynvml' in sys.modules)"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "() False\n"


def test_the_real_library_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    assert list_gpus(environment={}) == ()
