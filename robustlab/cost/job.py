"""What is to be run, in numbers: the inputs of a schedule and of an estimate.

A job is a cell before it has a schedule, plus the token counts of its data and the device that it is billed by. There
is no tokenizer here: token counts are counted once, elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from robustlab.cost.hardware import Hardware
from robustlab.cost.recipes import count_trainable
from robustlab.spec.attacks import TrainedAttack
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Eval, RefusalEval
from robustlab.spec.judges import SecondJudge
from robustlab.spec.targets import DType, OpenAiTarget, Target
from robustlab.spec.training import Training

BYTES_PER_ELEMENT: Mapping[DType, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Prompts:
    """Prompts of one set.

    Attributes:
        rows: How many there are.
        tokens_per_row: Mean length with the chat template, rounded up.
    """

    rows: int
    tokens_per_row: int


WAVE_TOKENS = 24_576
"""Most tokens of a wave of generation, filler and completions included: 1.1 GB of keys and values for SmolLM2-135M."""


@dataclass(frozen=True)
class Completions:
    """Completions to be generated.

    Attributes:
        prompts: What is completed.
        new_tokens: Longest completion.
        batch_rows: Most rows that are generated together.
        judges: Who else reads them.
    """

    prompts: Prompts
    new_tokens: int
    batch_rows: int
    judges: tuple[SecondJudge, ...] = ()

    @property
    def wave_rows(self) -> int:
        """Rows that are generated together where all prompts have the mean length."""
        length = self.prompts.tokens_per_row + self.new_tokens
        return min(self.batch_rows, max(1, WAVE_TOKENS // max(1, length)))


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of everything that a cell reads, in the target's tokens.

    Attributes:
        short_rows: Every training example, prompt and completion together, where an answer that is yet to be written
            is as short as can be; each >= 1.
        long_rows: The same examples with answers as long as may be.
        distilled: Benign answers that the attacker has the target write before training; None for none.
        evals: Prompts of each eval's final measurement, by its id.
    """

    short_rows: tuple[int, ...]
    long_rows: tuple[int, ...]
    distilled: Completions | None
    evals: Mapping[str, Prompts]

    @property
    def shortest_row(self) -> int:
        """Shortest training example that there can be."""
        return min(self.short_rows)

    @property
    def least_mean_row(self) -> int:
        """Mean training example with the shortest answers, rounded up."""
        return _mean(self.short_rows)

    @property
    def mean_row(self) -> int:
        """Mean training example with the longest answers, rounded up."""
        return _mean(self.long_rows)

    @property
    def longest_row(self) -> int:
        """Longest training example that there can be."""
        return max(self.long_rows)

    def tokens_of(self, examples: int) -> tuple[int, int]:
        """Least and most tokens of the first ``examples`` examples, in any order in which no epoch repeats one."""
        epochs, rest = divmod(examples, len(self.long_rows))
        least = epochs * sum(self.short_rows) + sum(sorted(self.short_rows)[:rest])
        return least, epochs * sum(self.long_rows) + sum(sorted(self.long_rows, reverse=True)[:rest])


@dataclass(frozen=True)
class SafeguardWork:
    """What installing a safeguard takes, where no released target is in the cache.

    Attributes:
        training: Its fine-tuning.
        row_tokens: Mean training example with the longest answers, rounded up.
        distilled: Answers that the target writes first; None for none.
        step_factor: What one of its steps takes, in steps of plain fine-tuning on the same batch.
    """

    training: Training
    row_tokens: int
    distilled: Completions | None
    step_factor: float = 1.0


@dataclass(frozen=True)
class Job:
    """A cell before it has a schedule, with the numbers that price it.

    Attributes:
        target: The target's spec.
        recipe: The training that is run; a control's has learning rate 0.
        budget: The caps.
        evals: The evals by id.
        counts: Token counts of the data.
        hardware: What the device can do.
        usd_per_device_hour: What it costs.
        devices: Devices that are paid for, >= 1.
        safeguard: What its installation takes; None where nothing is installed.
    """

    target: Target
    recipe: TrainedAttack
    budget: Budget
    evals: Mapping[str, Eval]
    counts: TokenCounts
    hardware: Hardware
    usd_per_device_hour: Fraction
    devices: int = 1
    safeguard: SafeguardWork | None = None

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of what this machine holds; 0 where it holds nothing of the target."""
        return 0 if isinstance(self.target, OpenAiTarget) else BYTES_PER_ELEMENT[self.target.dtype]

    @property
    def weight_bytes(self) -> int:
        """Size of the target's weights in its own element type."""
        return self.target.shape.parameters * self.element_bytes

    @property
    def trainable_parameters(self) -> int:
        """Parameters that the optimiser moves."""
        return count_trainable(self.target.shape, self.recipe)

    def final_completions(self, name: str) -> Completions:
        """What one eval's final measurement generates."""
        spec = self.evals[name]
        return Completions(self.counts.evals[name], spec.max_new_tokens, spec.batch_rows, _judges_of(spec))

    def mark_completions(self, name: str) -> Completions | None:
        """What one eval generates at a mark, None when it has no milestones."""
        spec, prompts = self.evals[name], self.counts.evals[name]
        if spec.milestones is None:
            return None
        subset = Prompts(min(spec.milestones.rows, prompts.rows), prompts.tokens_per_row)
        return Completions(subset, spec.max_new_tokens, spec.batch_rows, _judges_of(spec))


def _judges_of(spec: Eval) -> tuple[SecondJudge, ...]:
    return spec.second_judges if isinstance(spec, RefusalEval) else ()


def _mean(lengths: Sequence[int]) -> int:
    return math.ceil(sum(lengths) / len(lengths))
