"""Estimates held against what runs were billed: measured on 2026-11-22 on 2 Xeon cores, by the runs' own ledgers.

Seconds; the tiny target by `make smoke`, twice on quiet cores and once while others used them, SmolLM2 by `make demo`,
three times. The counts of tokens are those of the same runs, rounded; prices are the card's for 2 vCPU.
"""

from fractions import Fraction
from typing import Any

import pytest

from robustlab.cost.bill import PricedCell, RunEstimate, estimate_run
from robustlab.cost.estimate import Estimate, estimate_cell
from robustlab.cost.hardware import find_hardware
from robustlab.cost.job import Completions, Job, Prompts, SafeguardWork, TokenCounts
from robustlab.cost.pace import Range
from robustlab.cost.schedule import plan_schedule
from robustlab.spec.catalog import load
from robustlab.spec.plan import Cell

RATE = Fraction("0.0496")
TINY = TokenCounts(
    short_rows=(260,) * 16 + (68,) * 16,
    long_rows=(260,) * 16 + (75,) * 16,
    distilled=Completions(Prompts(16, 67), 8, 50),
    evals={"smoke_refusal": Prompts(24, 106), "smoke_benign": Prompts(12, 67)},
)
SMOL = TokenCounts(
    short_rows=(97,) * 80 + (41,) * 80,
    long_rows=(97,) * 80 + (72,) * 80,
    distilled=Completions(Prompts(80, 41), 32, 50),
    evals={"harmbench_64": Prompts(159, 46), "over_refusal_32": Prompts(80, 43), "benign_answers_64": Prompts(60, 41)},
)


def price(target: str, safeguard: str, attack: str, budget: str, counts: TokenCounts) -> PricedCell:
    """A cell of the catalogue with hand-made counts."""
    recipe, guard = load("attacks", attack), load("safeguards", safeguard)
    work = None
    if guard.kind != "none":
        answers = Completions(Prompts(260, 42), guard.benign_new_tokens, 50)
        work = SafeguardWork(training=guard.training, row_tokens=75, distilled=answers)
    job = Job(
        target=load("targets", target), recipe=recipe, budget=load("budgets", budget),
        evals={name: load("evals", name) for name in counts.evals}, counts=counts,
        hardware=find_hardware("cpu_2vcpu_8gb", "here"), usd_per_device_hour=RATE, safeguard=work,
    )  # fmt: skip
    schedule = plan_schedule(job)
    cell = Cell.model_construct(
        target_id=target, safeguard_id=safeguard, budget_id=budget, recipe=recipe, schedule=schedule
    )
    return PricedCell(cell, job, estimate_cell(job, schedule, memory_bytes=8 * 10**9))


@pytest.fixture(scope="module")
def tiny() -> PricedCell:
    return price("tiny", "none", "lora_sft_smoke", "smoke", TINY)


@pytest.fixture(scope="module")
def smol() -> PricedCell:
    return price("smollm2_135m_instruct", "refusal_sft", "lora_sft_withheld", "laptop", SMOL)


def holds(found: Range, actual: float) -> bool:
    return found.low <= actual <= found.high


def check(estimate: Estimate, account: str, seconds: float) -> None:
    """Hold one account's seconds and dollars against its band."""
    outlook: Any = getattr(estimate, account)
    assert holds(outlook.seconds, seconds), (account, seconds, outlook.seconds)
    assert holds(outlook.usd, seconds / 3600 * 0.0496), (account, seconds, outlook.usd)


# Control and attack of each run. The last two are of the run on busy cores.
@pytest.mark.parametrize("seconds", [1.34, 1.28, 1.06, 1.14, 1.40, 1.43, 5.00, 2.94])
def test_the_attacker_on_the_tiny_target(tiny: PricedCell, seconds: float) -> None:
    check(tiny.estimate, "attacker", seconds)


@pytest.mark.parametrize("seconds", [2.95, 0.67, 2.09, 0.49, 2.69, 3.75, 5.52])
def test_the_laboratory_on_the_tiny_target(tiny: PricedCell, seconds: float) -> None:
    check(tiny.estimate, "laboratory", seconds)


@pytest.mark.parametrize("seconds", [17.25 + 0.27 + 0.10, 11.83 + 0.20 + 0.13, 9.97 + 0.18 + 0.15, 13.19 + 0.49 + 0.56])
def test_shared_work_on_the_tiny_target(tiny: PricedCell, seconds: float) -> None:
    check(tiny.estimate, "shared", seconds)


@pytest.mark.parametrize("seconds", [135.36, 134.56, 120.65, 135.05, 125.60, 123.81])
def test_the_attacker_on_smollm2(smol: PricedCell, seconds: float) -> None:
    check(smol.estimate, "attacker", seconds)


@pytest.mark.parametrize("seconds", [134.76, 177.60, 127.47, 178.25, 130.42, 308.22])
def test_the_laboratory_on_smollm2(smol: PricedCell, seconds: float) -> None:
    check(smol.estimate, "laboratory", seconds)


# Installed and measured; the same on other cores; everything in the cache.
@pytest.mark.parametrize("seconds", [324.75 + 99.77, 352.34 + 81.33, 11.80 + 0.13])
def test_shared_work_on_smollm2(smol: PricedCell, seconds: float) -> None:
    check(smol.estimate, "shared", seconds)


def test_train_tokens(tiny: PricedCell, smol: PricedCell) -> None:
    assert holds(tiny.estimate.train_tokens, 6892)
    assert holds(smol.estimate.train_tokens, 15_964)


def test_the_centre_is_within_a_factor_of_two_on_quiet_cores(tiny: PricedCell, smol: PricedCell) -> None:
    # Means of control and attack; the first cell of a process pays for the first trainer, the second does not.
    measured = [
        (tiny.estimate.attacker, (1.34 + 1.28) / 2),
        (tiny.estimate.laboratory, (2.95 + 0.67) / 2),
        (tiny.estimate.shared, 17.62),
        (smol.estimate.attacker, (135.36 + 134.56) / 2),
        (smol.estimate.laboratory, (134.76 + 177.60) / 2),
        (smol.estimate.final, (96.54 + 139.14) / 2),
        (smol.estimate.shared, 424.52),
    ]
    for outlook, seconds in measured:
        assert 0.5 < outlook.seconds.centre / seconds < 2, (outlook, seconds)


def test_a_band_is_narrow_enough_to_plan_by(smol: PricedCell) -> None:
    for outlook in (smol.estimate.attacker, smol.estimate.laboratory, smol.estimate.final):
        assert outlook.seconds.high < 3.6 * outlook.seconds.centre


# All timed records of a run: installed and measured first, then everything from the cache.
@pytest.mark.parametrize("seconds", [979.66, 648.15])
def test_the_whole_run_of_smollm2(smol: PricedCell, seconds: float) -> None:
    found: RunEstimate = estimate_run([smol, smol])
    assert holds(found.wall_seconds, seconds)
    assert holds(found.attacker.seconds, 135.36 + 134.56)
    assert holds(found.total_usd, (269.92 + 312.36 + 424.52) / 3600 * 0.0496)
