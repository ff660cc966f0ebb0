"""A workshop on the tiny target: a meter on a clock that stands still, and a line that remembers what it was told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from robustlab.cost.hardware import find_hardware
from robustlab.cost.pace import read_pace
from robustlab.harden.tuning import Workshop
from robustlab.spec.catalog import load
from robustlab.spec.safeguards import DeepRefusalSft, RefusalSft, TamperResistant


@dataclass
class Told:
    """A live line that remembers."""

    stages: list[str] = field(default_factory=list)
    expected: list[float | None] = field(default_factory=list)
    advanced: list[tuple[int, int, str]] = field(default_factory=list)

    @contextmanager
    def stage(self, label: str, expected_seconds: float | None = None) -> Iterator[None]:
        self.stages.append(label)
        self.expected.append(expected_seconds)
        yield

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.advanced.append((done, total, note))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def new_shop(new_tiny: Callable[[], Any], tiny_spec: Any, till: Any, told: Told) -> Callable[..., Workshop]:
    """Builder of workshops, each with a fresh target."""

    def build(meter: Any = None) -> Workshop:
        pace = read_pace(find_hardware("cpu_2vcpu_8gb", "here"), "centre")
        return Workshop("odd_safeguard", new_tiny(), tiny_spec.shape, pace, meter or till.meter(), told)

    return build


@pytest.fixture
def shop(new_shop: Callable[..., Workshop]) -> Workshop:
    return new_shop()


@pytest.fixture
def deep_spec() -> DeepRefusalSft:
    spec = load("safeguards", "deep_refusal_smoke")
    assert isinstance(spec, DeepRefusalSft)
    return spec


@pytest.fixture
def plain_spec(deep_spec: DeepRefusalSft) -> RefusalSft:
    """The same rows and training without the openings."""
    shared = deep_spec.model_dump(exclude={"deep_share", "deepest_tokens"})
    return RefusalSft.model_validate({**shared, "kind": "refusal_sft"})


@pytest.fixture
def resistant_spec() -> TamperResistant:
    spec = load("safeguards", "tamper_resistant_smoke")
    assert isinstance(spec, TamperResistant)
    return spec
