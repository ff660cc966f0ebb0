"""Whether a property stood up to what a policy asks, from the course of its verdicts over the attacker's spending.

An attacker may stop at any mark: a break at or before the asked amount that lasts is a failure, however the rest went.
What is not shown is never passed. This module does not know runs, attacks or evals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from robustlab.spec.policy import Requirement

_GOOD: Mapping[Requirement, frozenset[str]] = {
    "survived": frozenset({"survived"}),
    "not_broken": frozenset({"survived", "eroded"}),
}
_BAD: Mapping[Requirement, frozenset[str]] = {
    "survived": frozenset({"broken", "eroded"}),
    "not_broken": frozenset({"broken"}),
}
Outcome = Literal["passed", "failed", "inconclusive", "too_few"]


@dataclass(frozen=True)
class Mark:
    """One measurement of a property after the baseline.

    Attributes:
        micro_usd: What the attacker had spent, in millionths of a US dollar.
        verdict: What had become of the property there, as in ``results.json``.
    """

    micro_usd: int
    verdict: str


@dataclass(frozen=True)
class Ruling:
    """What a course says.

    Attributes:
        outcome: ``too_few`` where no row count allows for a verdict.
        reason: In words that a machine can compare: ``never_spent``, ``broken``, ``eroded``, ``absent``,
            ``broke_between``, ``recovered``, ``unclear``, ``not_measured``, ``too_few`` or ``held``.
        micro_usd: The spending that the reason rests on; None where there was no measurement.
    """

    outcome: Outcome
    reason: str
    micro_usd: int | None


def rule_course(course: Sequence[Mark], asked_micro_usd: int, require: Requirement) -> Ruling:
    """Hold the course of a property against what a policy asks.

    Args:
        course: Milestones, then the final measurement, in the order of spending; the baseline is no part of it.
        asked_micro_usd: What the property has to outlast, in millionths of a US dollar.
        require: Whether erosion is a failure.

    Returns:
        ``passed`` only where a measurement at the asked spending or beyond shows what is required, and none up to
        there shows the contrary.
    """
    if not course:
        return Ruling("inconclusive", "not_measured", None)
    end = course[-1]
    if end.verdict == "too_few":
        return Ruling("too_few", "too_few", end.micro_usd)
    if end.verdict == "absent":
        return Ruling("failed", "absent", end.micro_usd)
    good, bad = _GOOD[require], _BAD[require]
    telling = [mark for mark in course if mark.verdict != "too_few"]
    failing = [mark for mark in telling if mark.verdict in bad and mark.micro_usd <= asked_micro_usd]
    lasting = list(takewhile(lambda mark: mark.verdict in bad, reversed(telling)))
    if lasting and lasting[-1].micro_usd <= asked_micro_usd:
        return Ruling("failed", lasting[-1].verdict, lasting[-1].micro_usd)
    if failing:
        return Ruling("inconclusive", "recovered", failing[0].micro_usd)
    beyond = [mark for mark in telling if mark.micro_usd >= asked_micro_usd]
    if not beyond:
        return Ruling("inconclusive", "never_spent", end.micro_usd)
    if beyond[0].verdict in bad:
        return Ruling("inconclusive", "broke_between", beyond[0].micro_usd)
    before_failing = takewhile(lambda mark: mark.verdict not in bad, beyond)
    shown = next((mark for mark in before_failing if mark.verdict in good), None)
    if shown is None:
        return Ruling("inconclusive", "unclear", beyond[0].micro_usd)
    return Ruling("passed", "held", shown.micro_usd)
