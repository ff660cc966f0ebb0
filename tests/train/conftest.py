"""A small training on the tiny target: hand-made examples, a schedule, and a meter on a clock that stands still."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from robustlab.cost.meter import Meter
from robustlab.models.adapter import LoraModification
from robustlab.models.full import FullModification
from robustlab.models.modification import Modification
from robustlab.models.quantize import quantize_nf4
from robustlab.spec.attacks import LoraSft
from robustlab.spec.training import Training
from robustlab.train.dpo import run_dpo
from robustlab.train.hooks import Hooks, Mark, StepPrice
from robustlab.train.order import Example, Pair, batch_lengths, lay_out, pair_lengths
from robustlab.train.sft import Outcome, run_sft
from robustlab.train.state import TrainState

# Four examples of 6, 8, 10 and 12 tokens; the first four of each are the prompt.
EXAMPLES = [
    Example.from_mask([1, *range(20 + size, 19 + 2 * size)], [0] * 4 + [1] * (size - 4)) for size in (6, 8, 10, 12)
]

# Four pairs of 6 + 9, 8 + 7, 10 + 7 and 12 + 5 tokens.
PAIRS = [
    Pair(example, Example.from_mask([*example.ids[:4], *range(100, 96 + size)], [0] * 4 + [1] * (size - 4)))
    for example, size in zip(EXAMPLES, (9, 7, 7, 5), strict=True)
]


@dataclass
class Drill:
    """One training of the tiny target, and what it told its caller.

    A step takes two of the four examples, so that two steps are an epoch of 36 tokens.
    """

    target: Any
    training: Training
    kind: str = "lora_sft"
    steps: int = 4
    seed: int = 0
    rate: float = 1e-2
    examples: Sequence[Any] | None = None
    marks: frozenset[int] = frozenset()
    at_mark: Callable[[Mark], str | None] = lambda mark: None
    on_kept: Callable[[int], None] = lambda step: None
    save_every: int | None = None
    on_save: Callable[[], None] = lambda: None
    resume: TrainState | None = None
    kept: list[tuple[int, float]] = field(default_factory=list)
    saved: list[TrainState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modification: Modification
        if self.kind == "full_sft":
            self.modification = FullModification(self.target.model)
        else:
            self.modification = LoraModification(self.target.model, self.training.lora, seed=self.seed)

    @property
    def batches(self) -> list[list[Any]]:
        rows = self.examples or (PAIRS if self.kind == "lora_dpo" else EXAMPLES)
        return lay_out(rows, steps=self.steps, batch_rows=self.training.batch_rows, seed=self.seed)

    @property
    def step_tokens(self) -> list[int]:
        if self.kind == "lora_dpo":
            return [sum(map(sum, pair_lengths(batch))) for batch in self.batches]
        return [sum(batch_lengths(batch)) for batch in self.batches]

    def save(self, state: TrainState) -> None:
        self.on_save()
        self.saved.append(state)

    def keep(self, step: int, loss: float) -> None:
        self.kept.append((step, loss))
        self.on_kept(step)

    def run(self, meter: Meter, *, account: str = "attacker") -> Outcome:
        hooks = Hooks(
            marks=self.marks,
            at_mark=self.at_mark,
            on_step=self.keep,
            save=self.save,
            save_every=self.save_every,
        )
        prices = [StepPrice(tokens, 1000 * tokens) for tokens in self.step_tokens]
        parts = self.modification, self.target.tokenizer, self.batches, prices, self.training
        options: dict[str, Any] = {
            "learning_rates": [self.rate] * self.steps,
            "seed": self.seed,
            "meter": meter,
            "hooks": hooks,
            "resume": self.resume,
            "expected_step_seconds": 0.0,
        }
        with meter.phase(account, "train"):  # type: ignore[arg-type]
            if self.kind == "lora_dpo":
                return run_dpo(*parts, beta=0.1, **options)
            return run_sft(*parts, account=account, **options)  # type: ignore[arg-type]


@pytest.fixture
def training(smoke_recipe: LoraSft) -> Training:
    return smoke_recipe.training.model_copy(update={"batch_rows": 2, "micro_batch_rows": 2, "max_tokens": 64})


@pytest.fixture
def new_drill(new_tiny: Callable[[], Any], training: Training) -> Callable[..., Drill]:
    """Builder of trainings, each on a fresh target."""

    def build(*, nf4: bool = False, **options: Any) -> Drill:
        target = options.pop("target", None) or new_tiny()
        return Drill(**({"target": quantize_nf4(target) if nf4 else target, "training": training} | options))

    return build


@pytest.fixture
def drill(new_drill: Callable[..., Drill]) -> Drill:
    """A training of four steps."""
    return new_drill()


@pytest.fixture
def sample_state(drill: Drill, till: Any) -> TrainState:
    """The state after two steps."""
    drill.save_every = 2
    drill.run(till.meter())
    return replace(drill.saved[0], logical={"steps": 2})
