"""What is to be run, in numbers: the inputs of a schedule and of an estimate.

A job is a cell before it has a schedule, plus the token counts of its data and the device that it is billed by. There
is no tokenizer here: token counts are counted once, elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from robustlab.cost.flops import count_adapter_parameters
from robustlab.cost.hardware import Hardware
from robustlab.spec.attacks import TrainedAttack
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Eval
from robustlab.spec.targets import DType, Target

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


@dataclass(frozen=True)
class Completions:
    """Completions to be generated.

    Attributes:
        prompts: What is completed.
        new_tokens: Longest completion.
        batch_rows: Rows that are generated together.
    """

    prompts: Prompts
    new_tokens: int
    batch_rows: int


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of everything that a cell reads, in the target's tokens.

    Attributes:
        shortest_row: Shortest training example, prompt and completion together, >= 1.
        mean_row: Mean training example, rounded up.
        longest_row: Longest training example.
        distilled: Benign answers that the attacker has the target write before training; None for none.
        evals: Prompts of each eval's final measurement, by its id.
    """

    shortest_row: int
    mean_row: int
    longest_row: int
    distilled: Completions | None
    evals: Mapping[str, Prompts]


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
    """

    target: Target
    recipe: TrainedAttack
    budget: Budget
    evals: Mapping[str, Eval]
    counts: TokenCounts
    hardware: Hardware
    usd_per_device_hour: Fraction
    devices: int = 1

    @property
    def weight_bytes(self) -> int:
        """Size of the target's weights in its own element type."""
        return self.target.shape.parameters * BYTES_PER_ELEMENT[self.target.dtype]

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters."""
        return count_adapter_parameters(self.target.shape, self.recipe.training.lora)

    def final_completions(self, name: str) -> Completions:
        """What one eval's final measurement generates."""
        spec = self.evals[name]
        return Completions(self.counts.evals[name], spec.max_new_tokens, spec.batch_rows)

    def mark_completions(self, name: str) -> Completions | None:
        """What one eval generates at a mark, None when it has no milestones."""
        spec, prompts = self.evals[name], self.counts.evals[name]
        if spec.milestones is None:
            return None
        subset = Prompts(min(spec.milestones.rows, prompts.rows), prompts.tokens_per_row)
        return Completions(subset, spec.max_new_tokens, spec.batch_rows)
