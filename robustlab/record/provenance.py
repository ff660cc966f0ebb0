"""Which software and which machine made a result, and what the process does so that nothing leaks from it.

Versions are read from the installed metadata; no library is imported for them. This module does not know git.
"""

import hashlib
import inspect
import os
import platform
import resource
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import robustlab

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "gguf",
    "lm_eval",
    "numpy",
    "peft",
    "pydantic",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "wandb",
)
"""Libraries whose version can change a number in the results."""

_CPUINFO = Path("/proc/cpuinfo")


def collect_versions(*, threads: int, device: str = "cpu") -> dict[str, str]:
    """Describe the software and the machine for ``results.json``.

    Args:
        threads: Threads that arithmetic runs on, >= 1; their number changes the bits of a result.
        device: ``cpu``, or the name of the accelerator that arithmetic runs on.

    Returns:
        ``python``, ``robustlab``, each library that is installed, ``os``, ``processor``, ``cores``, ``threads`` and
        ``device``.
    """
    versions = {"python": platform.python_version(), "robustlab": robustlab.__version__}
    versions |= {name: version for name in LIBRARIES if (version := _installed(name)) is not None}
    versions |= {"os": platform.platform(), "processor": _processor()}
    versions |= {"cores": str(os.cpu_count()), "threads": str(threads), "device": device}
    return versions


def source_fingerprint(*modules: ModuleType) -> str:
    """Hash the source of the modules that decide a result, so that a cache of it ends with a change to them.

    Args:
        *modules: The modules; their order counts.

    Returns:
        64 hexadecimal digits over their names and sources.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update(f"{module.__name__}\n{inspect.getsource(module)}\0".encode())
    return digest.hexdigest()


def harden_process() -> None:
    """Close new files to everybody else (umask 077) and switch core dumps off, which would hold attacked weights."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@cache
def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in read_cpu_info() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_cpu_info() -> list[str]:
    """Lines in which Linux describes its processors; none on another system."""
    return _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines() if _CPUINFO.is_file() else []
