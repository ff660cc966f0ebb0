"""The batch plan of generation: which prompts are completed together, and what of them is read only once.

It depends on the full set of prompts and on nothing else. Prompts are sorted by length, then content, and cut into
waves of a fixed size in rows and in tokens; a wave is read in parts of similar length, so that little is computed on
filler. What all prompts begin with (the opening), and what some of a wave begin with beyond it (a context that several
questions share), is read once. This module knows token ids and loads no model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustlab.cost.job import WAVE_TOKENS

PART_TOKENS = 2_048
"""Tokens that are read at once, filler included: enough to keep a device busy."""

KIN_TOKENS = 64
"""Rows that share so many tokens beyond the opening are read as kin: what they share once, then the rest of each."""

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Part:
    """Rows of a wave that are read together.

    Attributes:
        rows: Indices of the prompts.
        shared: Tokens that all of them begin with and that are read once; the opening's, or more.
    """

    rows: tuple[int, ...]
    shared: int


@dataclass(frozen=True)
class Wave:
    """One unit of the batch plan.

    Attributes:
        rows: Indices of the prompts, in the order of the batch.
        prompt_tokens: Sum of the prompts' lengths.
        parts: The same rows as they are read.
    """

    rows: tuple[int, ...]
    prompt_tokens: int
    parts: tuple[Part, ...] = ()


def plan_waves(prompts: Prompts, batch_rows: int, *, max_new_tokens: int = 0) -> list[Wave]:
    """Cut prompts into waves, sorted by length, then content, then position.

    Args:
        prompts: Token ids of each.
        batch_rows: Most rows of one wave.
        max_new_tokens: Longest completion. A wave holds ``WAVE_TOKENS`` at most, or one row.

    Returns:
        The waves, each to be read as a whole; every prompt is in one.
    """
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), tuple(prompts[row]), row))
    lengths = [len(prompts[row]) + max_new_tokens for row in order]
    chunks = [tuple(order[start:end]) for start, end in cut_runs(lengths, batch_rows, WAVE_TOKENS)]
    return [Wave(rows, sum(len(prompts[row]) for row in rows), (Part(rows, 0),)) for rows in chunks]


def plan_reading(prompts: Prompts, wave: Wave, opening: int) -> Wave:
    """Say in which parts a wave is read.

    Args:
        prompts: Token ids of each prompt.
        wave: As it was cut.
        opening: Tokens that all prompts begin with and that have been read.

    Returns:
        The same rows, those without kin first.
    """
    kin = [rows for rows in _find_families(prompts, wave.rows, opening) if len(rows) > 1]
    related = {row for rows in kin for row in rows}
    alone = [row for row in wave.rows if row not in related]
    parts = _cut_parts(prompts, alone, opening)
    for rows in kin:
        parts += _cut_parts(prompts, rows, count_shared([prompts[row] for row in rows]))
    return Wave(tuple(row for part in parts for row in part.rows), wave.prompt_tokens, tuple(parts))


def count_shared(prompts: Prompts) -> int:
    """Tokens that all of several prompts begin with; each keeps one of its own at least."""
    if len(prompts) < 2:
        return 0
    # What the first and the last in order have in common, all between them have too.
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return min(next(differing, len(first)), min(len(prompt) for prompt in prompts) - 1)


def _find_families(prompts: Prompts, rows: Sequence[int], opening: int) -> list[list[int]]:
    """Rows by what they begin with; one that is no longer than that beginning has no kin."""
    reach = opening + KIN_TOKENS
    families: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        if len(prompts[row]) > reach:
            families.setdefault(tuple(prompts[row][:reach]), []).append(row)
    return list(families.values())


def _cut_parts(prompts: Prompts, rows: Sequence[int], shared: int) -> list[Part]:
    lengths = [len(prompts[row]) - shared for row in rows]
    return [Part(tuple(rows[start:end]), shared) for start, end in cut_runs(lengths, len(rows), PART_TOKENS)]


def cut_runs(lengths: Sequence[int], most_rows: int, most_tokens: int) -> Iterator[tuple[int, int]]:
    """Cut rows into runs; lengths may go up and down.

    Args:
        lengths: Tokens of each row.
        most_rows: Most rows of a run.
        most_tokens: Most tokens of a run, filler included; a run has one row at least.

    Yields:
        tuple[int, int]: First row of a run, and the one after its last.
    """
    start, longest = 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        rows = place - start + 1
        if rows > 1 and (rows > most_rows or rows * longest > most_tokens):
            yield start, place
            start, longest = place, length
    if lengths:
        yield start, len(lengths)
