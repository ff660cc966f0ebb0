"""Greedy generation on somebody's bill: a wave of the batch plan is one unit that is reserved, run and settled."""

from collections.abc import Callable, Sequence

from robustlab.cost import flops
from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.job import Completions, Prompts
from robustlab.cost.meter import Meter
from robustlab.cost.pace import Pace
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.models.generate import Completion, count_read_once, generate_greedy
from robustlab.models.load import LoadedTarget
from robustlab.models.waves import Wave
from robustlab.spec.targets import Shape
from robustlab.train.counts import approximate_tokens
from robustlab.units import to_nanoseconds


def expect_seconds(pace: Pace, shape: Shape, prompts: Sequence[str], *, batch_rows: int, max_new_tokens: int) -> float:
    """How long completing prompts should take, before they are tokenised: for the live line, and for nothing else."""
    tokens = sum(approximate_tokens(prompt, None) for prompt in prompts)
    asked = Prompts(len(prompts), tokens // max(1, len(prompts)))
    return pace.generation_seconds(shape, Completions(asked, max_new_tokens, batch_rows))


def generate_metered(
    target: LoadedTarget,
    shape: Shape,
    prompts: Sequence[Sequence[int]],
    *,
    batch_rows: int,
    max_new_tokens: int,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """Complete every prompt greedily and charge the meter's current account.

    Args:
        target: The resident target, with whatever modification is on it.
        shape: Its sizes, for the FLOP count.
        prompts: Token ids, the generation prompt included.
        batch_rows: Rows of one wave.
        max_new_tokens: Longest completion.
        expected_seconds: What all of it should take; the first wave is reserved by its share of that.
        meter: Each wave is reserved at 1.5 times the longest one so far, then settled.
        progress: Told of the rows done and of all rows.

    Returns:
        One completion a prompt, in the order of ``prompts``.

    Raises:
        BudgetSpent: If the next wave would pass a cap of the account.
    """
    longest, done = NOTHING, 0
    opening = count_read_once(target.model, prompts)
    first = Quantities(wall_ns=to_nanoseconds(expected_seconds / max(1, -(-len(prompts) // batch_rows))))

    def before(wave: Wave) -> None:
        meter.reserve(Quantities(wall_ns=(first if longest == NOTHING else longest).wall_ns).scaled(RESERVE_FACTOR))

    def after(wave: Wave, completions: list[Completion]) -> None:
        nonlocal longest, done
        # The token that ended a completion was generated too.
        lengths = [(len(prompts[row]), len(c.ids) + c.ended) for row, c in zip(wave.rows, completions, strict=True)]
        meter.count(
            prompt_tokens=wave.prompt_tokens,
            generated_tokens=sum(new for _, new in lengths),
            flops=_count_flops(shape, wave, lengths, opening, is_first=done == 0),
        )
        longest = max(longest, meter.settle(), key=lambda used: used.wall_ns)
        done += len(wave.rows)
        progress(done, len(prompts))

    return generate_greedy(
        target.model,
        prompts,
        batch_rows=batch_rows,
        max_new_tokens=max_new_tokens,
        eos_ids=target.eos_ids,
        pad_id=target.pad_id,
        before_wave=before,
        after_wave=after,
    )


def _count_flops(shape: Shape, wave: Wave, lengths: Sequence[tuple[int, int]], opening: int, *, is_first: bool) -> int:
    """Operations of a wave: the opening with the first one, what kin share once, and of every row the rest."""
    total = flops.prefill(shape, opening) if is_first else 0
    total += sum(flops.prefill(shape, part.shared) - flops.prefill(shape, opening) for part in wave.parts)
    shared = [part.shared for part in wave.parts for _ in part.rows]
    rows = zip(lengths, shared, strict=True)
    return total + sum(
        flops.generation(shape, prompt, new) - flops.prefill(shape, read) for (prompt, new), read in rows
    )
