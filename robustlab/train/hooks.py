"""What passes between a training and those who run it: what they want to be told, what a step costs, how it ended.

Plain values: no trainer is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from robustlab.train.state import TrainState


@dataclass(frozen=True)
class Mark:
    """A moment in the training at which the laboratory may measure.

    Attributes:
        step: Steps that are done and settled.
    """

    step: int


@dataclass(frozen=True)
class StepPrice:
    """What one step uses, known before it is taken.

    Attributes:
        train_tokens: Non-padding tokens, prompts included.
        flops: By the project's formulas.
    """

    train_tokens: int
    flops: int


@dataclass(frozen=True)
class Hooks:
    """What the caller wants to be told, and when.

    Attributes:
        marks: Steps after which ``at_mark`` is called, with RNG and train modes guarded.
        at_mark: The laboratory's measurement. It returns None to go on, or the name of what ends the training there.
        on_step: Told of every kept step and its loss.
        save: Writes a resumable state.
        save_every: Steps between two states; None to write none.
    """

    marks: frozenset[int]
    at_mark: Callable[[Mark], str | None]
    on_step: Callable[[int, float], None]
    save: Callable[[TrainState], None]
    save_every: int | None


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        steps: Steps that are done, settled and kept.
        losses: Loss of each of them.
        stopped_by: ``schedule``, the cap that bound first, or the name by which a mark ended it.
        diverged: Whether a loss was not finite; the step was undone.
        halvings: How often the micro-batch had to be halved for want of memory in this process.
    """

    steps: int
    losses: tuple[float, ...]
    stopped_by: str
    diverged: bool
    halvings: int = 0
