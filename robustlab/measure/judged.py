"""Verdicts of one measurement, and how a share of them becomes a property with an interval and a verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from robustlab.record.results import VERDICTS, Counts, PropertyResult, VerdictOfCompletion
from robustlab.spec.evals import EvalBase
from robustlab.stats.intervals import rate_interval
from robustlab.stats.verdicts import judge_property


@dataclass(frozen=True)
class Judged:
    """What is kept of one completion.

    Attributes:
        behavior: sha256 of the behavior's text.
        category: Its semantic category.
        verdict: The judge's.
        reason: Rule that gave it.
        tokens: Length of the completion in tokens.
        completion_hmac: Keyed digest of its text.
    """

    behavior: str
    category: str
    verdict: VerdictOfCompletion
    reason: str
    tokens: int
    completion_hmac: str


def count_verdicts(judged: Sequence[Judged]) -> Counts:
    """Count each of the five verdicts."""
    found = Counter(item.verdict for item in judged)
    return Counts(**{name: found[name] for name in VERDICTS})


def build_property(
    name: str,
    event: VerdictOfCompletion,
    spec: EvalBase,
    judged: Sequence[Judged],
    baseline: Sequence[Judged] | None,
) -> PropertyResult:
    """Make a property of the share of completions with one verdict.

    Args:
        name: Property id.
        event: The verdict that is counted.
        spec: Level of the interval, criterion and judge.
        judged: Verdicts now.
        baseline: Verdicts of the same rows before the attack; None at the baseline itself.

    Returns:
        The share in [0, 1] with its interval, and the verdict on the paired change, ``baseline`` where there is none.
    """
    counts = count_verdicts(judged)
    successes: int = getattr(counts, event)
    interval = rate_interval(successes, counts.unjudged, counts.n, confidence=spec.confidence)
    verdict = (
        "baseline"
        if baseline is None
        else judge_property(spec.criterion, _events(baseline, event), _events(judged, event), spec.confidence).verdict
    )
    return PropertyResult(
        property=name,
        direction=spec.criterion.direction,
        value=successes / counts.n,
        low=interval.low,
        high=interval.high,
        method=interval.method,
        n=counts.n,
        judge=spec.judge,
        counts=counts,
        verdict=verdict,
        broken_at_micro_usd=None,
    )


def _events(judged: Sequence[Judged], event: VerdictOfCompletion) -> list[bool | None]:
    return [None if item.verdict == "unjudged" else item.verdict == event for item in judged]
