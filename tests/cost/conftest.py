"""Hand-made things for the tests of costs: a meter on a bench with clocks that only move when told to, and a job."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from robustlab.cost.entries import BILLED
from robustlab.cost.hardware import Band, Hardware
from robustlab.cost.job import Job, Prompts, TokenCounts
from robustlab.cost.meter import Meter
from robustlab.cost.prices import DevicePrice, PriceCard, PriceList
from robustlab.spec.attacks import LoraSft
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Milestones, OverRefusalEval
from robustlab.spec.targets import Shape, TinyTarget
from robustlab.spec.training import Training

SECOND = 1_000_000_000


@dataclass
class Bench:
    """Clocks and records that outlive a meter, as a machine and its disk do."""

    now_ns: int = 50 * SECOND
    wall_ns: int = 1_767_225_600 * SECOND
    records: list[dict[str, object]] = field(default_factory=list)

    @staticmethod
    def card(usd_per_hour: float = 1.0) -> PriceCard:
        price = DevicePrice(label="box", usd_per_device_hour=usd_per_hour, low=None, high=None, source="hand-made")
        prices = PriceList(kind="prices", as_of=date(2026, 1, 1), devices={"box": price}, tokens={})
        return PriceCard(prices, Path("prices.yaml"), "0" * 64)

    @staticmethod
    def budget(total_usd: float | None = None, laboratory: dict[str, float] | None = None, **attacker: float) -> Budget:
        return Budget.model_validate(
            {
                "kind": "budget", "stands_for": "a test", "hardware": "box",
                "attacker": attacker, "laboratory": laboratory, "total_usd": total_usd,
            }
        )  # fmt: skip

    def build(self, limits: Budget, *, usd_per_hour: float = 1.0, **options: object) -> Meter:
        given: dict[str, object] = {
            "node": "cell-1",
            "purse": "test",
            "clock": lambda: self.now_ns,
            "wall_clock": lambda: self.wall_ns,
            "write": lambda record: self.records.append(json.loads(json.dumps(record))),
        }
        return Meter(limits, self.card(usd_per_hour), "box", **(given | options))  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND)
        self.wall_ns += round(seconds * SECOND)

    def kinds(self) -> list[object]:
        return [record["record"] for record in self.records]

    def billed_micro_usd(self, account: str) -> int:
        return sum(int(str(r["micro_usd"])) for r in self.records if r["record"] in BILLED and r["account"] == account)


@pytest.fixture(scope="session")
def new_bench() -> type[Bench]:
    """Builder of benches, for tests that need several."""
    return Bench


@pytest.fixture
def bench() -> Bench:
    """One bench."""
    return Bench()


# Hand-made: N = 100, layers x heads x head_dim = 2 x 3 x 5 = 30; adapter 132 x rank 4 x 2 layers = 1056 parameters.
SHAPE = Shape(
    layers=2, hidden=8, intermediate=12, heads=3, kv_heads=1, head_dim=5, vocab=10,
    parameters=120, matmul_parameters=100,
)  # fmt: skip
OPTIMIZER = {"learning_rate": 0.001, "curve": "linear", "warmup_steps": 2, "weight_decay": 0.0, "max_grad_norm": 1.0}
TRAINING = {
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "modules": "all-linear"},
    "steps": 32, "batch_rows": 8, "micro_batch_rows": 4, "max_tokens": 64,
}  # fmt: skip


def build_hardware(**bands: tuple[float, float, float]) -> Hardware:
    """One FLOP/s of everything, a second for every layer's pass and delay, one byte a second, unless told otherwise."""
    names = [name for name, field in Hardware.model_fields.items() if field.annotation is Band]
    figures = {name: bands.get(name, (1.0, 1.0, 1.0)) for name in names}
    plain = {
        name: {"low": low, "centre": centre, "high": high, "source": "hand-made"}
        for name, (low, centre, high) in figures.items()
    }
    fixed = {"kind": "cpu", "names": (), "dtype": "float32", "peak_flops": {"float32": 1.0}, "memory_bytes": 10**9}
    return Hardware.model_validate(fixed | plain)


def make_job(
    hardware: Hardware | None = None,
    limits: Budget | None = None,
    *,
    milestones: bool = True,
    optimizer: dict[str, object] | None = None,
    **changes: object,
) -> Job:
    """A job on hand-made sizes: 8 rows of 10 tokens a step, 6 prompts of 5 tokens with 8 new ones in batches of 4."""
    training = Training.model_validate(TRAINING | {"optimizer": OPTIMIZER | (optimizer or {})})
    marks = Milestones(per_decade=2, rows=4) if milestones else None
    job = Job(
        target=TinyTarget.model_construct(dtype="float32", shape=SHAPE),
        recipe=LoraSft.model_construct(training=training),
        budget=limits or Bench.budget(),
        evals={"mild": OverRefusalEval.model_construct(max_new_tokens=8, batch_rows=4, milestones=marks)},
        counts=TokenCounts((5, 5, 10, 20), (5, 5, 10, 20), distilled=None, evals={"mild": Prompts(6, 5)}),
        hardware=hardware or build_hardware(),
        usd_per_device_hour=Fraction(36),
    )
    return replace(job, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def build_job() -> Callable[..., Job]:
    """Builder of hand-made jobs."""
    return make_job


@pytest.fixture(scope="session")
def hand_made_hardware() -> Callable[..., Hardware]:
    """Builder of hand-made devices."""
    return build_hardware
