"""The order of rows and what each step will cost in tokens: a pure function of rows, seed and schedule.

Because the order is laid out before step 1, the price of the next step is known before it is taken, and a resumed run
goes on with exactly the rows that were due.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from robustlab.errors import DataError


@dataclass(frozen=True)
class Example:
    """One tokenised conversation.

    Attributes:
        ids: Prompt and completion, as the chat template writes them.
        labels: The same, with -100 wherever there is no loss.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @classmethod
    def from_mask(cls, ids: Sequence[int], completion_mask: Sequence[int]) -> "Example":
        """Put labels where the mask is 1."""
        pairs = zip(ids, completion_mask, strict=True)
        return cls(tuple(ids), tuple(token if mask else -100 for token, mask in pairs))


@dataclass(frozen=True)
class Pair:
    """Two answers of which one is preferred; one row of a preference set.

    Attributes:
        chosen: The conversation with the preferred answer.
        rejected: The conversation with the other one.
    """

    chosen: Example
    rejected: Example


Row = Example | Pair
RowT = TypeVar("RowT", bound=Row)


def lay_out(rows: Sequence[RowT], *, steps: int, batch_rows: int, seed: int) -> list[list[RowT]]:
    """Choose the rows of every step.

    Args:
        rows: The training set; each epoch is a fresh permutation of it.
        steps: Optimiser steps.
        batch_rows: Rows of one step.
        seed: Seed of the permutations.

    Returns:
        ``steps`` lists of ``batch_rows`` rows. An epoch's end may lie inside a step.

    Raises:
        DataError: If there are no rows.
    """
    if not rows:
        raise DataError("training set", "has no rows, got 0", "give the recipe at least one row of data")
    order: list[int] = []
    epoch = 0
    while len(order) < steps * batch_rows:
        permutation = list(range(len(rows)))
        random.Random(f"robustlab order {seed} {epoch}").shuffle(permutation)  # noqa: S311 - an order, not a secret
        order += permutation
        epoch += 1
    picked = [rows[index] for index in order[: steps * batch_rows]]
    return [picked[start : start + batch_rows] for start in range(0, len(picked), batch_rows)]


def batch_lengths(batch: Sequence[Example]) -> tuple[int, ...]:
    """Lengths in tokens of the examples of one step."""
    return tuple(len(example.ids) for example in batch)


def pair_lengths(batch: Sequence[Pair]) -> tuple[tuple[int, int], ...]:
    """Lengths in tokens of the chosen and the rejected side of the pairs of one step."""
    return tuple((len(pair.chosen.ids), len(pair.rejected.ids)) for pair in batch)
