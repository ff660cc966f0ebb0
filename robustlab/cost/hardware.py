"""Which devices there are, what they can do, and whether a budget's hardware is the one that was found.

Processors are found by psutil and GPUs by ``robustlab.cost.nvml``; nothing here loads torch. It does not know prices
beyond asking the card whether there is one.
"""

import difflib
import platform
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import TypeAdapter, model_validator

from robustlab.cost.nvml import VISIBLE, list_gpus
from robustlab.cost.prices import PriceCard
from robustlab.errors import ConfigError
from robustlab.spec.base import Count, NonEmpty, Positive, Spec
from robustlab.spec.loader import load_yaml
from robustlab.spec.targets import DType

DeviceKind = Literal["cpu", "gpu"]
_PACKAGED = Path(__file__).with_name("hardware.yaml")
_CPU_INFO = Path("/proc/cpuinfo")


class Band(Spec):
    """A figure with the range that it may have elsewhere."""

    low: Positive
    """Lowest value that is thought likely."""
    centre: Positive
    """Value to expect."""
    high: Positive
    """Highest value that is thought likely."""
    source: NonEmpty
    """Where it comes from; an assumption says so."""

    @model_validator(mode="after")
    def _in_order(self) -> "Band":
        if not self.low <= self.centre <= self.high:
            raise ValueError(f"low <= centre <= high must hold, got {self.low}, {self.centre}, {self.high}")
        return self


class Hardware(Spec):
    """What one device can do."""

    kind: DeviceKind
    """Whether it is a processor or an accelerator."""
    names: tuple[NonEmpty, ...]
    """Shell patterns of the names that the driver gives it; none for a processor."""
    dtype: DType
    """Element type in which the speeds hold."""
    peak_flops: dict[DType, Positive]
    """Dense peak, operations a second, by element type."""
    memory_bytes: Count
    """Memory of one device."""
    startup_seconds: Band
    """From the process's creation until a model can be loaded."""
    cell_start_seconds: Band
    """What the laboratory pays between the work of a cell: libraries at first use, the adapter, clean-up."""
    trainer_seconds: Band
    """Building a trainer before its first step, and saving its state after the last."""
    step_overhead_seconds: Band
    """What one optimiser step costs, however small."""
    wave_seconds: Band
    """What one batch of completions costs, however small."""
    record_seconds: Band
    """Writing a run's results, items and report."""
    load_bytes_per_second: Band
    """Speed at which weights get into memory."""
    layer_pass_seconds: Band
    """Time of one layer in one forward pass, however small the batch."""
    lora_flops_per_second: Band
    """Effective speed of low-rank training."""
    prefill_flops_per_second: Band
    """Effective speed of reading prompts."""
    decode_flops_per_second: Band
    """Effective speed of writing completions in batches."""


class HardwareList(Spec):
    """The file ``hardware.yaml``."""

    kind: Literal["hardware"]
    devices: dict[NonEmpty, Hardware]
    """Devices by the key that the price card uses too."""


@dataclass(frozen=True)
class Device:
    """A device that was found.

    Attributes:
        kind: Processor or accelerator.
        name: As the system or the driver names it.
        memory_bytes: All of its memory; of several devices, that of the smallest.
        cores: Logical cores of a processor; None for an accelerator.
        count: Devices of this kind that are visible; all of them are paid for.
    """

    kind: DeviceKind
    name: str
    memory_bytes: int
    cores: int | None
    count: int = 1


@cache
def load_hardware() -> dict[str, Hardware]:
    """Every device of the package's list, by key.

    Returns:
        Peak rate, memory and speeds of each device, in the order of the file.

    Raises:
        ConfigError: If the file is not as it was shipped.
    """
    return load_yaml(_PACKAGED, TypeAdapter(HardwareList)).devices


def find_hardware(key: str, where: str) -> Hardware:
    """Look one device up.

    Args:
        key: Key of the list.
        where: File, line or flag that names it, for the message.

    Returns:
        What the list says about the device.

    Raises:
        ConfigError: If there is no such key; the nearest one is suggested.
    """
    devices = load_hardware()
    if key in devices:
        return devices[key]
    close = difflib.get_close_matches(key, sorted(devices), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(devices)}"
    raise ConfigError(where, f"{key!r} is not a known device", hint)


def detect_cpu() -> Device:
    """The processor that this runs on, with all of the machine's memory."""
    cores = psutil.cpu_count(logical=True) or 1
    return Device("cpu", _cpu_name(), psutil.virtual_memory().total, cores)


def detect_devices(nvml: Any = None) -> Device:
    """What this process may compute on: the GPUs that are visible to it, else the processor.

    Args:
        nvml: Stands in for the module ``pynvml``; None for the module itself.

    Returns:
        All visible GPUs as one entry with their count; the processor without a driver or a visible GPU.

    Raises:
        ConfigError: If GPUs of several kinds are visible: one rate cannot bill them.
        DataError: If there is a driver that does not answer.
    """
    gpus = list_gpus(nvml)
    if not gpus:
        return detect_cpu()
    kinds = Counter(gpu.name for gpu in gpus)
    if len(kinds) > 1:
        got = ", ".join(f"{count} x {name}" for name, count in sorted(kinds.items()))
        remedy = f"choose one kind with {VISIBLE}, by UUID (`nvidia-smi -L`)"
        raise ConfigError(VISIBLE, f"shows GPUs of several kinds, got {got}", remedy)
    return Device("gpu", gpus[0].name, min(gpu.memory_bytes for gpu in gpus), None, len(gpus))


def match_device(name: str) -> str | None:
    """Key of the accelerator that a driver calls ``name``, whatever the case; None when the list has none.

    A slice of a device (MIG) or another form of it (PCIe, NVL) is not the device and does not match.
    """
    for key, hardware in load_hardware().items():
        if any(fnmatch(name.casefold(), pattern.casefold()) for pattern in hardware.names):
            return key
    return None


def check_hardware(budget_key: str, found: Device, *, shadow_price: str | None, card: PriceCard, where: str) -> str:
    """Decide by which item of the price card a run is billed.

    ``cpu_2vcpu_8gb`` is the shadow price of a run on a laptop, so a processor with any number of cores fits it.

    Args:
        budget_key: ``hardware`` of the budget.
        found: The device that was found.
        shadow_price: Item that the user wants to be billed by instead; None for the budget's own.
        card: The price card.
        where: File and line of the budget, for the message.

    Returns:
        Key of the price card.

    Raises:
        ConfigError: If the budget's device is not the one that was found, or the item has no hourly price.
    """
    if shadow_price is not None:
        card.device_rate(shadow_price, "--shadow-price")
        return shadow_price
    wanted = find_hardware(budget_key, where)
    fits = found.kind == "cpu" if wanted.kind == "cpu" else match_device(found.name) == budget_key
    if not fits:
        got = f"the {found.kind.upper()}" if found.count == 1 else f"{found.count} {found.kind.upper()}s"
        problem = f"hardware is {budget_key!r}, got {got} {found.name!r}"
        remedy = f"choose another budget, or bill it all the same with --shadow-price {budget_key}"
        raise ConfigError(where, problem, remedy)
    card.device_rate(budget_key, where)
    return budget_key


def _cpu_name() -> str:
    if not _CPU_INFO.is_file():
        return platform.processor() or platform.machine()
    lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
