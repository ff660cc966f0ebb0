"""Asks NVIDIA's management library which GPUs this process may use. It does not know what they can do or cost.

``CUDA_VISIBLE_DEVICES`` is read as CUDA reads it: indices or UUIDs (a beginning that fits one GPU is enough), cut at
the first entry that fits no GPU; an entry that comes twice hides everything. The library is loaded when it is needed.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustlab.errors import ConfigError, DataError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG slice of one, that this process may use.

    Attributes:
        name: As the driver names it; a slice's name says so.
        memory_bytes: All of its memory.
        uuid: By which ``CUDA_VISIBLE_DEVICES`` can choose it.
    """

    name: str
    memory_bytes: int
    uuid: str


def list_gpus(nvml: Any = None, environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs that this process may use.

    Args:
        nvml: Stands in for the module ``pynvml``; None for the module itself.
        environment: Variables of the process.

    Returns:
        GPUs in the order in which they are named; none without a driver, or when none is visible.

    Raises:
        ConfigError: If indices choose among GPUs of several kinds, whose order only CUDA knows.
        DataError: If there is a driver that does not answer.
    """
    chosen = environment.get(VISIBLE)
    names = None if chosen is None else [name.strip() for name in chosen.split(",")]
    if names is not None and names[0] in ("", "-1"):
        return ()
    if nvml is None:
        # Loading it takes 0.1 s, which a machine that hides its GPUs need not spend.
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return ()
    except nvml.NVMLError as error:
        raise _unanswered(error) from None
    try:
        return _list_visible(nvml, names, environment)
    except nvml.NVMLError as error:
        raise _unanswered(error) from None
    finally:
        nvml.nvmlShutdown()


def _list_visible(nvml: Any, names: Sequence[str] | None, environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    if names is not None and names[0].startswith("MIG-"):
        return tuple(_chosen_slices(nvml, names))
    handles = list(_open_handles(nvml))
    gpus = [_read_gpu(nvml, handle) for handle in handles]
    if names is None:
        return tuple(gpus)
    _refuse_unknown_order(gpus, names, environment)
    return tuple(gpus[index] for index in _choose(names, [nvml.nvmlDeviceGetUUID(handle) for handle in handles]))


def _open_handles(nvml: Any) -> Iterator[Any]:
    """GPUs that this process may talk to; a scheduler may have kept others from it."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            yield nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError_NoPermission:
            continue


def _unanswered(error: Exception) -> DataError:
    remedy = f"see whether `nvidia-smi` works, or hide the GPUs with {VISIBLE}=-1"
    return DataError("NVML", f"the GPU driver does not answer, got {str(error)!r}", remedy)


def _read_gpu(nvml: Any, handle: Any) -> Gpu:
    """One GPU; where it is cut into slices, the first slice, as CUDA gives a process no more than that."""
    if not _is_sliced(nvml, handle):
        return _describe(nvml, handle)
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            return _describe(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except nvml.NVMLError_NotFound:
            continue
    whole = _describe(nvml, handle)
    return Gpu(f"{whole.name} MIG without a slice", whole.memory_bytes, whole.uuid)


def _is_sliced(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError_NotSupported:
        return False


def _describe(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(nvml.nvmlDeviceGetName(handle), int(memory), nvml.nvmlDeviceGetUUID(handle))


def _chosen_slices(nvml: Any, names: Sequence[str]) -> Iterator[Gpu]:
    """The first slice that is named, if there is such a one."""
    try:
        yield _describe(nvml, nvml.nvmlDeviceGetHandleByUUID(names[0]))
    except (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument):
        return


def _choose(names: Sequence[str], uuids: Sequence[str]) -> list[int]:
    """Indices that CUDA would make visible; the first entry decides whether all are indices or all are UUIDs."""
    find = _find_uuid if names[0].startswith("GPU-") else _find_index
    chosen: list[int] = []
    for name in names:
        index = find(name, uuids)
        if index is None:
            break
        if index in chosen:
            return []
        chosen.append(index)
    return chosen


def _find_uuid(name: str, uuids: Sequence[str]) -> int | None:
    fitting = [index for index, uuid in enumerate(uuids) if uuid.startswith(name)]
    return fitting[0] if len(fitting) == 1 and name.startswith("GPU-") else None


def _find_index(name: str, uuids: Sequence[str]) -> int | None:
    index = int(name) if name.isascii() and name.isdigit() else len(uuids)
    return index if index < len(uuids) else None


def _refuse_unknown_order(gpus: Sequence[Gpu], names: Sequence[str], environment: Mapping[str, str]) -> None:
    """CUDA counts the fastest GPU first, the driver by the bus: on a mixed machine an index is no name."""
    kinds = sorted({gpu.name for gpu in gpus})
    if len(kinds) < 2 or names[0].startswith("GPU-") or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return
    problem = f"chooses by index among GPUs of several kinds ({', '.join(kinds)}), got {','.join(names)!r}"
    raise ConfigError(VISIBLE, problem, "name them by UUID (`nvidia-smi -L`), or set CUDA_DEVICE_ORDER=PCI_BUS_ID")
