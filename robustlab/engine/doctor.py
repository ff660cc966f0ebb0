"""What this machine can do for the lab: software, memory, GPUs, cache, network settings. Looks only; loads no torch."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from robustlab.cost.hardware import detect_cpu, match_device
from robustlab.cost.nvml import VISIBLE, Gpu, list_gpus
from robustlab.cost.prices import STALE_DAYS, PriceCard, load_price_card
from robustlab.data.sources import cache_root
from robustlab.errors import RobustlabError
from robustlab.record.provenance import collect_versions
from robustlab.spec.catalog import list_entries, load
from robustlab.spec.safeguards import RefusalSft
from robustlab.spec.sources import PypiSource
from robustlab.spec.targets import GgufTarget

PINNED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "peft": "0.21.2",
    "bitsandbytes": "0.50.2",
    "datasets": "5.2.0",
    "wandb": "0.31.0",
    "accelerate": "1.15.0",
}
MEMORY_BYTES_NEEDED = 5_000_000_000
DISK_BYTES_NEEDED = 3_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        found: What there is.
        ok: Whether it is as it should be.
        remedy: What to do when it is not; empty otherwise.
    """

    name: str
    found: str
    ok: bool
    remedy: str


def examine(*, today: date) -> list[Finding]:
    """Look at everything that a run on this machine depends on.

    Args:
        today: For the age of the price card.

    Returns:
        Findings, good and bad; a fault is a finding and not an exception.
    """
    card = load_price_card(None)
    return [
        _python(),
        *_libraries(),
        _threads(),
        _memory(),
        *_gpus(card),
        _disk(),
        *_artefacts(),
        examine_age(card, today),
        _kernels(),
        _wandb(),
    ]


def examine_age(card: PriceCard, today: date) -> Finding:
    """Look at how old a price card is.

    Args:
        card: The price card.
        today: A card that was dated later is as suspect as an old one.

    Returns:
        A finding that is good up to ``STALE_DAYS`` days.
    """
    age = card.age_days(today)
    if age < 0:
        return Finding("price card", f"dated after today, {today}", False, "mend its as_of, or this machine's clock")
    ok = age <= STALE_DAYS
    found = f"{age} day{'' if age == 1 else 's'} old"
    return Finding("price card", found, ok, "" if ok else "check the prices and bring the card up to date")


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python", sys.version.split()[0], ok, "" if ok else "use Python 3.11 to 3.13")


def _libraries() -> list[Finding]:
    versions = collect_versions(threads=1)
    findings = []
    for name, pinned in PINNED.items():
        found = versions.get(name) or _version(name)
        ok = found is not None and found.partition("+")[0] == pinned
        findings.append(Finding(name, found or "missing", ok, "" if ok else f"pip install {name}=={pinned}"))
    return findings


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> Finding:
    device = detect_cpu()
    named = os.environ.get("OMP_NUM_THREADS")
    return Finding("processor", f"{device.name}, {device.cores} cores, OMP_NUM_THREADS {named or 'not set'}", True, "")


def _memory() -> Finding:
    found = detect_cpu().memory_bytes
    ok = found >= MEMORY_BYTES_NEEDED
    return Finding("memory", f"{found / 1e9:.1f} GB", ok, "" if ok else "the demo needs 5 GB")


def _gpus(card: PriceCard) -> list[Finding]:
    try:
        gpus = list_gpus()
    except RobustlabError as error:
        return [Finding("GPU", f"{error.where}: {error.problem}", False, error.remedy)]
    if not gpus:
        return [Finding("GPU", "none that NVML finds", True, "")]
    kinds = Counter(gpu.name for gpu in gpus)
    if len(kinds) > 1:
        found = ", ".join(f"{count} x {name}" for name, count in sorted(kinds.items()))
        return [Finding("GPU", found, False, f"choose one kind with {VISIBLE}, by UUID (`nvidia-smi -L`)")]
    return [_one_kind(gpus, card)]


def _one_kind(gpus: Sequence[Gpu], card: PriceCard) -> Finding:
    name, memory = gpus[0].name, min(gpu.memory_bytes for gpu in gpus)
    found = f"{len(gpus)} x {name}, {memory / 1e9:.0f} GB"
    item = match_device(name)
    if item in card.prices.devices:
        return Finding("GPU", f"{found}, billed as {item}", True, "")
    return Finding("GPU", f"{found}, which the price card does not know", False, "bill it with --shadow-price ITEM")


def _disk() -> Finding:
    free = shutil.disk_usage(cache_root()).free
    ok = free >= DISK_BYTES_NEEDED
    return Finding(
        "cache", f"{cache_root()}, {free / 1e9:.0f} GB free", ok, "" if ok else "free 3 GB or set ROBUSTLAB_CACHE"
    )


def _artefacts() -> list[Finding]:
    findings = []
    for kind, name, source in _pinned_sources():
        path = cache_root() / "artefacts" / source.sha256 / Path(source.member).name
        remedy = "" if path.is_file() else f"robustlab fetch {name}"
        findings.append(
            Finding(f"{kind} {name}", "fetched" if path.is_file() else "not fetched", path.is_file(), remedy)
        )
    return findings


def _pinned_sources() -> list[tuple[str, str, PypiSource]]:
    found: list[tuple[str, str, PypiSource]] = []
    for entry in list_entries("targets"):
        target = load("targets", entry.id)
        found += [("target", entry.id, target.source)] if isinstance(target, GgufTarget) else []
    for entry in list_entries("safeguards"):
        spec = load("safeguards", entry.id)
        found += [("safeguard", entry.id, spec.install)] if isinstance(spec, RefusalSft) and spec.install else []
    for entry in list_entries("evals"):
        source = load("evals", entry.id).source
        found += [("eval", entry.id, source)] if isinstance(source, PypiSource) else []
    return found


def _kernels() -> Finding:
    found = _version("kernels")
    remedy = "" if found is None else "pip uninstall kernels: bitsandbytes would fetch and run unpinned code"
    return Finding("kernels", "absent" if found is None else found, found is None, remedy)


def _wandb() -> Finding:
    mode = os.environ.get("WANDB_MODE", "offline")
    return Finding("wandb mode", mode, True, "")
