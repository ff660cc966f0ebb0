"""A cell of the tiny target, cut down to its training: the smoke recipe on hand-made rows, under a real meter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from robustlab.cost.meter import Meter
from robustlab.cost.schedule import list_learning_rates
from robustlab.data.chat import encode_example
from robustlab.data.mixture import attack_rows
from robustlab.models.adapter import LoraModification
from robustlab.spec.attacks import LoraSft
from robustlab.spec.training import Training
from robustlab.train.order import Example, batch_lengths, lay_out
from robustlab.train.purse import Hooks, Mark, StepPrice
from robustlab.train.sft import Outcome, run_sft
from robustlab.train.state import TrainState


@dataclass
class Course:
    """One training of the tiny target from its first step to its last."""

    target: Any
    examples: Sequence[Example]
    training: Training
    steps: int
    marks: frozenset[int] = frozenset()
    at_mark: Callable[[Mark], None] = lambda mark: None
    save_every: int | None = None
    states: list[TrainState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modification = LoraModification(self.target.model, self.training.lora, seed=0)

    def run(self, meter: Meter, *, resume: TrainState | None = None) -> Outcome:
        batches = lay_out(self.examples, steps=self.steps, batch_rows=self.training.batch_rows, seed=0)
        hooks = Hooks(self.marks, self.at_mark, lambda step, loss: None, self.states.append, self.save_every)
        with meter.phase("attacker", "train"):
            return run_sft(
                self.modification,
                self.target.tokenizer,
                batches,
                [StepPrice(sum(batch_lengths(batch)), 0) for batch in batches],
                self.training,
                learning_rates=list_learning_rates(self.training.optimizer, self.steps),
                seed=0,
                meter=meter,
                hooks=hooks,
                resume=resume,
                expected_step_seconds=0.0,
            )


@pytest.fixture
def new_course(new_tiny: Callable[[], Any], smoke_recipe: LoraSft) -> Callable[..., Course]:
    """Builder of trainings, each on a fresh target; options name fields of ``Training`` or of ``Course``."""

    def build(
        *, steps: int, dropout: float = 0.0, batch_rows: int = 4, micro: int | None = None, **options: Any
    ) -> Course:
        target = new_tiny()
        encoded = [
            encode_example(target.tokenizer, r.prompt, r.completion, None) for r in attack_rows(smoke_recipe.data)
        ]
        lora = smoke_recipe.training.lora.model_copy(update={"dropout": dropout})
        # Gentler than the recipe, whose steps are so large that the last bit of a sum would show in the losses.
        optimizer = smoke_recipe.training.optimizer.model_copy(update={"learning_rate": 1e-3})
        changes = {
            "optimizer": optimizer,
            "lora": lora,
            "batch_rows": batch_rows,
            "micro_batch_rows": micro or batch_rows,
        }
        training = smoke_recipe.training.model_copy(update=changes)
        examples = [Example.from_mask(e.input_ids, e.completion_mask) for e in encoded]
        return Course(target, examples, training, steps, **options)

    return build
