"""Peak memory of the device that a cell runs on, from one reset to the next. This module does not know what ran.

On an accelerator it is what torch allocated; on a processor, where torch keeps no count, what the process had resident.
"""

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
_BYTES_PER_KIB = 1024


def reset_peak() -> None:
    """Begin a new peak. Where the system cannot (anything but Linux), ``read_peak`` gives that of the whole process."""
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        _RESET.write_text(_RESET_PEAK, encoding="ascii")


def read_peak() -> int:
    """Bytes in use at the peak since the last reset, summed over devices."""
    if torch.cuda.is_available():
        return sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines() if _STATUS.exists() else []
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return _BYTES_PER_KIB * (marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def release_freed() -> None:
    """Return freed memory to the system: glibc keeps it in pieces that the next large buffers do not fit into."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
