"""What to try next: one sampler over everything, or workers with a direction each that read a shared board.

A proposal is a function of the findings so far and of a seed that belongs to its trial, so that a search that was
killed proposes what it would have proposed. Nothing is run or recorded here.

Directed search: the workers take turns. Each draws from its own direction by its own findings. Once it has some, and
the board shows that another direction is clearly better, every other turn of it tries a variation of the board's best
instead, apart from everything that was tried before; in the turns between it stays at home, so that workers never all
end in one place.

Source: Bergstra et al. 2011 (TPE), as Optuna implements it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import optuna
from numpy.random import Generator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from robustlab.search.board import Finding, find_best
from robustlab.search.space import Point, Region, round_rate, round_share
from robustlab.spec.search import Search

MARGIN = 0.1
"""Another direction is clearly better when its best value is lower by this: four rows of a select set of 40."""
OWN_TRIALS = 2
"""A worker stays in its own direction until it has this many findings of it."""
LOST = 2.0
"""What a trial that failed, diverged or broke the model counts as to the sampler: worse than changing nothing."""
Knob = FloatDistribution | CategoricalDistribution
_TRIES = 32
_RATE_SPREAD = 0.2
_SHARE_SPREAD = 0.1


@dataclass(frozen=True)
class Proposal:
    """A point to try.

    Attributes:
        point: The point.
        direction: Name of the worker that proposes it; None in an undirected search.
        around: Number of the trial of which it is a variation; None for a draw of the sampler.
    """

    point: Point
    direction: str | None
    around: int | None


def propose(
    search: Search, whole: Mapping[str, Region], narrow: Mapping[str, Region], findings: Sequence[Finding]
) -> Proposal:
    """Choose the next trial's point.

    Args:
        search: Strategy, number of trials and seed.
        whole: Region of each recipe, by the attack's id.
        narrow: Region of each direction, by its name; empty in an undirected search.
        findings: What the board says, in the order of the trials, every trial so far.

    Returns:
        The proposal of trial number ``len(findings)``.
    """
    number = len(findings)
    seed = search.seed + number
    if search.strategy == "undirected":
        point = draw_point(list(whole.values()), findings, seed=seed, startup=_startup(search.trials))
        return Proposal(point, None, None)
    direction = search.directions[number % len(search.directions)].name
    home = narrow[direction]
    own = [finding for finding in findings if finding.direction == direction]
    best = find_better(direction, findings)
    if best is not None and own[-1].around is None:
        tried = [finding.point for finding in findings]
        point = vary_point(best.point, whole[best.point.attack], tried, seed=seed)
        return Proposal(point, direction, best.trial)
    startup = _startup(search.trials // len(search.directions))
    settled = [finding for finding in own if home.holds(finding.point)]
    return Proposal(draw_point([home], settled, seed=seed, startup=startup), direction, None)


def find_better(direction: str, findings: Sequence[Finding]) -> Finding | None:
    """The finding that gives a worker a reason to leave its direction.

    Args:
        direction: The worker's.
        findings: What the board says.

    Returns:
        The board's best, where another direction made it and it is clearly better than anything that this direction
        has shown in ``OWN_TRIALS`` trials or more; else None.
    """
    own = [finding for finding in findings if finding.direction == direction and finding.around is None]
    best, own_best = find_best(findings), find_best(own)
    if len(own) < OWN_TRIALS or best is None or best.value is None or best.direction == direction:
        return None
    return best if own_best is None or best.value < (own_best.value or 0.0) - MARGIN else None


def draw_point(regions: Sequence[Region], findings: Sequence[Finding], *, seed: int, startup: int) -> Point:
    """Draw a point by the tree-structured Parzen estimator.

    Args:
        regions: Where to draw from, one for each recipe, at least one.
        findings: What it learns from; all lie in the regions.
        seed: Seed of this draw alone.
        startup: Findings before which it draws at random.

    Returns:
        A point of one of the regions, the same for the same arguments.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=TPESampler(seed=seed, n_startup_trials=startup))
    study.add_trials([told for finding in findings if (told := _tell(regions, finding)) is not None])
    return _ask(study.ask(), regions)


def vary_point(point: Point, region: Region, tried: Sequence[Point], *, seed: int) -> Point:
    """A point near another one, apart from all that were tried.

    The learning rate moves by a normal step of 0.2 decades, the share by one of 0.1, a rank or a number of steps to
    one of its neighbours among the choices or not at all.

    Args:
        point: Where to start from.
        region: Its recipe's whole region.
        tried: Points that do not count as new.
        seed: Seed of this draw alone.

    Returns:
        A point of the region; where all near ones were tried already, the last that was drawn.
    """
    generator = numpy.random.default_rng(seed)
    varied = point
    for _ in range(_TRIES):
        varied = _vary(point, region, generator)
        if varied not in tried:
            break
    return varied


def list_distributions(regions: Sequence[Region]) -> dict[str, BaseDistribution]:
    """Everything that a sampler over these regions may be asked for, by the name of the parameter."""
    found: dict[str, BaseDistribution] = {}
    if len(regions) > 1:
        found["attack"] = CategoricalDistribution([region.attack for region in regions])
    for region in regions:
        found |= {f"{region.attack}/{name}": knob for name, knob in _knobs(region).items()}
    return found


def list_params(regions: Sequence[Region], point: Point) -> dict[str, float | str]:
    """A point as a sampler over these regions would have been told."""
    chosen: dict[str, float | str] = {f"{point.attack}/{name}": value for name, value in point.knobs.items()}
    return {"attack": point.attack, **chosen} if len(regions) > 1 else chosen


def _startup(trials: int) -> int:
    """A quarter of the trials are drawn at random: the sampler's own ten would be most of a short search."""
    return max(2, trials // 4)


def _knobs(region: Region) -> dict[str, Knob]:
    ranges, found = region.ranges, dict[str, Knob]()
    if ranges.learning_rate is not None:
        found["learning_rate"] = FloatDistribution(*ranges.learning_rate, log=True)
    if ranges.rank is not None:
        found["rank"] = CategoricalDistribution(ranges.rank)
    if ranges.benign_share is not None:
        found["benign_share"] = FloatDistribution(*ranges.benign_share)
    if ranges.steps is not None:
        found["steps"] = CategoricalDistribution(ranges.steps)
    return found


def _ask(trial: Trial, regions: Sequence[Region]) -> Point:
    names = [region.attack for region in regions]
    attack = trial.suggest_categorical("attack", names) if len(names) > 1 else names[0]
    region = next(region for region in regions if region.attack == attack)
    drawn = {name: _suggest(trial, f"{attack}/{name}", knob) for name, knob in _knobs(region).items()}
    return _readable(Point(attack, **drawn), region)


def _suggest(trial: Trial, name: str, knob: Knob) -> Any:
    if isinstance(knob, FloatDistribution):
        return trial.suggest_float(name, knob.low, knob.high, log=knob.log)
    return trial.suggest_categorical(name, knob.choices)


def _readable(point: Point, region: Region) -> Point:
    ranges = region.ranges
    rate, share = point.learning_rate, point.benign_share
    if rate is not None and ranges.learning_rate is not None:
        point = replace(point, learning_rate=round_rate(rate, ranges.learning_rate))
    if share is not None and ranges.benign_share is not None:
        point = replace(point, benign_share=round_share(share, ranges.benign_share))
    return point


def _tell(regions: Sequence[Region], finding: Finding) -> FrozenTrial | None:
    """A finding as the sampler reads it; None where the purse ended the trial before it showed anything."""
    params = list_params(regions, finding.point)
    distributions = {name: knob for name, knob in list_distributions(regions).items() if name in params}
    if finding.state == "pruned" and finding.rungs:
        return optuna.trial.create_trial(
            state=TrialState.PRUNED,
            params=params,
            distributions=distributions,
            intermediate_values=dict(finding.rungs),
        )
    value = finding.value if finding.state == "done" else LOST
    if finding.state in ("unfinished", "pruned"):
        return None
    return optuna.trial.create_trial(value=value, params=params, distributions=distributions)


def _vary(point: Point, region: Region, generator: Generator) -> Point:
    ranges = region.ranges
    rate, share = point.learning_rate, point.benign_share
    # One draw for each knob, whether there is such a knob or not, so that knobs do not shift each other's.
    shift, change = generator.normal(0.0, _RATE_SPREAD), generator.normal(0.0, _SHARE_SPREAD)
    turns = generator.integers(-1, 2, size=2)
    return Point(
        attack=point.attack,
        learning_rate=rate
        if rate is None or ranges.learning_rate is None
        else round_rate(rate * 10.0**shift, ranges.learning_rate),
        rank=_neighbour(point.rank, ranges.rank, int(turns[0])),
        benign_share=share
        if share is None or ranges.benign_share is None
        else round_share(share + change, ranges.benign_share),
        steps=_neighbour(point.steps, ranges.steps, int(turns[1])),
    )


def _neighbour(value: int | None, choices: Sequence[int] | None, turn: int) -> int | None:
    if value is None or choices is None:
        return value
    ordered = sorted(choices)
    return ordered[min(max(ordered.index(value) + turn, 0), len(ordered) - 1)]
