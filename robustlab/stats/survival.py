"""What it cost to break a property, over seeds, over attacks, and of one safeguard against another.

A cost is only ever known to lie above the last mark that held and at or below the first that broke, or above the whole
budget. Knows such intervals of money; it does not know how they were measured or what was attacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from robustlab.errors import DataError
from robustlab.stats.intervals import mcnemar_exact
from robustlab.stats.seeds import FEWEST_SEEDS
from robustlab.stats.turnbull import Mass, estimate_masses


@dataclass(frozen=True)
class CostBounds:
    """A cost-to-break that lies in (held, broken].

    Attributes:
        held_micro_usd: Millionths of a US dollar at the last mark that held, >= 0.
        broken_micro_usd: The same at the first that broke; None where nothing broke, so that ``held_micro_usd`` is
            what was spent: right-censored at the budget.

    Raises:
        DataError: If the bounds are negative or out of order.
    """

    held_micro_usd: int
    broken_micro_usd: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.held_micro_usd < _ceiling(self):
            raise DataError(
                "cost-to-break",
                f"needs 0 <= held < broken, got {self.held_micro_usd} and {self.broken_micro_usd}",
                "pass the last mark that held and the first that broke",
            )


@dataclass(frozen=True)
class AttackCosts:
    """Cost-to-break of one attack over seeds.

    Attributes:
        seeds: Seeds measured.
        broken: Seeds that broke it within the budget.
        minimum: Bounds of the lowest cost among these seeds.
        median: Bounds of the median among these seeds; of an even number they hold both middle ones.
        masses: Turnbull's estimate; None below 5 seeds.
    """

    seeds: int
    broken: int
    minimum: CostBounds
    median: CostBounds
    masses: tuple[Mass, ...] | None


@dataclass(frozen=True)
class Envelope:
    """The cheapest of a chosen list of attacks. There is no mean over attacks: a weak one must not flatter a safeguard.

    Attributes:
        cost: Bounds of the minimum.
        candidates: The attacks that the bounds allow to be the cheapest, sorted.
        attacks: How many there were: "not broken by N attacks", never "robust".
    """

    cost: CostBounds
    candidates: tuple[str, ...]
    attacks: int


@dataclass(frozen=True)
class Comparison:
    """How the first of two safeguards did, seed by seed.

    Attributes:
        later: Seeds at which the first certainly cost more to break: its whole interval lies above the other's.
        earlier: Seeds at which it certainly cost less.
        not_comparable: Seeds at which the intervals overlap or both held; they support neither.
        p: Two-sided exact sign test over the comparable seeds; None below 5 pairs, where no test is made.
    """

    later: int
    earlier: int
    not_comparable: int
    p: float | None


def summarize_attack(seeds: Sequence[CostBounds]) -> AttackCosts:
    """Bound the minimum and the median over seeds by the order statistics of the two ends.

    The k-th smallest cost lies above the k-th smallest mark that held and at or below the k-th smallest that broke. The
    bounds are certain for these seeds; they say nothing of seeds that were not run.

    Args:
        seeds: One interval for each seed, >= 1.

    Returns:
        The bounds, and Turnbull's estimate from 5 seeds up.

    Raises:
        DataError: If there is no seed.
    """
    if not seeds:
        raise DataError("summarize_attack", "needs the cost of one seed or more, got none", "measure a seed")
    masses = None
    if len(seeds) >= FEWEST_SEEDS:
        masses = estimate_masses([(each.held_micro_usd, each.broken_micro_usd) for each in seeds])
    broken = sum(each.broken_micro_usd is not None for each in seeds)
    median = _order_bounds(seeds, (len(seeds) - 1) // 2, len(seeds) // 2)
    return AttackCosts(len(seeds), broken, _order_bounds(seeds, 0, 0), median, masses)


def find_envelope(costs: Mapping[str, CostBounds]) -> Envelope:
    """Find the minimum over attacks.

    Args:
        costs: For each attack the bounds of one figure, all of the same kind: the minimum over seeds, or the median.

    Returns:
        The envelope; its upper bound is None where no attack broke it.

    Raises:
        DataError: If there is no attack.
    """
    if not costs:
        raise DataError("find_envelope", "needs one attack or more, got none", "leave the envelope out")
    cost = _order_bounds(list(costs.values()), 0, 0)
    ceiling = _ceiling(cost)
    candidates = sorted(name for name, bounds in costs.items() if bounds.held_micro_usd < ceiling)
    return Envelope(cost, tuple(candidates), len(costs))


def compare_safeguards(first: Sequence[CostBounds], second: Sequence[CostBounds]) -> Comparison:
    """Compare two safeguards under the same attack, paired by seed.

    Args:
        first: Cost to break the first safeguard, for each seed.
        second: The same seeds in the same order, for the second.

    Returns:
        The order of each pair, counted, and the sign test where there are 5 pairs.

    Raises:
        DataError: If there is no pair, or the lists differ in length.

    Source: the sign test, which is McNemar's exact test of later against earlier.
    """
    if not first or len(first) != len(second):
        raise DataError(
            "compare_safeguards",
            f"needs the same seeds of both and at least one, got {len(first)} and {len(second)}",
            "pair the costs by seed",
        )
    later = sum(_ceiling(b) <= a.held_micro_usd for a, b in zip(first, second, strict=True))
    earlier = sum(_ceiling(a) <= b.held_micro_usd for a, b in zip(first, second, strict=True))
    p = mcnemar_exact(later, earlier) if len(first) >= FEWEST_SEEDS else None
    return Comparison(later, earlier, len(first) - later - earlier, p)


def _order_bounds(costs: Sequence[CostBounds], lower: int, upper: int) -> CostBounds:
    """Bounds that hold the order statistics from ``lower`` to ``upper``, counted from 0."""
    held = sorted(each.held_micro_usd for each in costs)[lower]
    broken = sorted(map(_ceiling, costs))[upper]
    return CostBounds(held, None if broken == inf else int(broken))


def _ceiling(cost: CostBounds) -> float:
    return inf if cost.broken_micro_usd is None else cost.broken_micro_usd
