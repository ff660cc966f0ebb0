"""Successive halving: at which steps trials are compared, and which of them go on. Pure functions of numbers.

Source: Li et al. 2018, arXiv 1810.05934 (ASHA): a trial is compared with those that got to the same rung before it, so
that trials can run one after the other.
"""

from collections.abc import Sequence

from robustlab.spec.search import Halving


def list_rungs(halving: Halving, steps: int) -> tuple[int, ...]:
    """Steps of the rungs of a schedule: ``first_step`` times powers of ``factor``, the last step excluded.

    First step 4 and factor 2 give 4, 8 and 16 in a schedule of 24 steps.
    """
    rungs = []
    step = halving.first_step
    while step < steps:
        rungs.append(step)
        step *= halving.factor
    return tuple(rungs)


def goes_on(value: float, earlier: Sequence[float], factor: int) -> bool:
    """Whether a trial is among the best share of those that have got to its rung.

    Args:
        value: Its value at the rung; lower is better.
        earlier: Values of the trials before it at the same rung, whatever became of them.
        factor: One trial in ``factor`` goes on, at least one; a tie with the last of them does too.

    Returns:
        False to stop it here.
    """
    reached = sorted([*earlier, value])
    return value <= reached[max(1, len(reached) // factor) - 1]
