"""A simulated NVIDIA management library for machines without a GPU: same names and errors as ``pynvml``, no driver."""

from dataclasses import dataclass, field
from types import SimpleNamespace

GB = 10**9
NAMES = {
    "h100": ("NVIDIA H100 80GB HBM3", 80 * GB),
    "h200": ("NVIDIA H200", 141 * GB),
    "a100": ("NVIDIA A100-SXM4-80GB", 80 * GB),
    "slice": ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10 * GB),
}


class NVMLError(Exception):
    """Base of the library's errors."""


class NVMLErrorLibraryNotFound(NVMLError):
    pass


class NVMLErrorDriverNotLoaded(NVMLError):
    pass


class NVMLErrorNotFound(NVMLError):
    pass


class NVMLErrorInvalidArgument(NVMLError):
    pass


class NVMLErrorNoPermission(NVMLError):
    pass


class NVMLErrorNotSupported(NVMLError):
    pass


@dataclass
class SimulatedGpu:
    """One device: ``mig`` is None where the device knows no slices, else the slices that it is cut into."""

    kind: str
    uuid: str
    mig: "list[SimulatedGpu | None] | None" = None
    locked: bool = False
    memory_bytes: int | None = None


@dataclass
class SimulatedNvml:
    """Answers for ``gpus``; ``fault`` is what starting the library raises, ``later`` what asking for a name raises."""

    gpus: list[SimulatedGpu] = field(default_factory=list)
    fault: NVMLError | None = None
    later: NVMLError | None = None
    open_count: int = 0
    asked: bool = False

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = NVMLErrorLibraryNotFound
    NVMLError_DriverNotLoaded = NVMLErrorDriverNotLoaded
    NVMLError_NotFound = NVMLErrorNotFound
    NVMLError_InvalidArgument = NVMLErrorInvalidArgument
    NVMLError_NoPermission = NVMLErrorNoPermission
    NVMLError_NotSupported = NVMLErrorNotSupported

    def nvmlInit(self) -> None:  # noqa: N802 - the library's own name, here and below
        self.asked = True
        if self.fault:
            raise self.fault
        self.open_count += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open_count -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimulatedGpu:  # noqa: N802
        if self.gpus[index].locked:
            raise NVMLErrorNoPermission("Insufficient Permissions")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> SimulatedGpu:  # noqa: N802
        slices = [part for gpu in self.gpus for part in gpu.mig or () if part is not None]
        for found in [*self.gpus, *slices]:
            if found.uuid == uuid:
                return found
        raise NVMLErrorNotFound("Not Found")

    def nvmlDeviceGetName(self, gpu: SimulatedGpu) -> str:  # noqa: N802
        if self.later:
            raise self.later
        return NAMES[gpu.kind][0]

    def nvmlDeviceGetUUID(self, gpu: SimulatedGpu) -> str:  # noqa: N802
        return gpu.uuid

    def nvmlDeviceGetMemoryInfo(self, gpu: SimulatedGpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=gpu.memory_bytes or NAMES[gpu.kind][1], free=1, used=2)

    def nvmlDeviceGetMigMode(self, gpu: SimulatedGpu) -> list[int]:  # noqa: N802
        if gpu.mig is None:
            raise NVMLErrorNotSupported("Not Supported")
        return [int(bool(gpu.mig)), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: SimulatedGpu) -> int:  # noqa: N802
        return len(gpu.mig or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: SimulatedGpu, index: int) -> SimulatedGpu:  # noqa: N802
        found = (gpu.mig or ())[index]
        if found is None:
            raise NVMLErrorNotFound("Not Found")
        return found


def rack(*kinds: str) -> SimulatedNvml:
    """A machine with one GPU of each kind that is named, by the UUIDs GPU-a0, GPU-b1, ..."""
    return SimulatedNvml([SimulatedGpu(kind, f"GPU-{'abcdefgh'[i]}{i}") for i, kind in enumerate(kinds)])
