"""What installing any trained safeguard takes: benign answers first, then fine-tuning, on the laboratory's bill.

Half a safeguard is none: a training that a cap cuts short, or that diverges, is an error here and not a result.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from robustlab.cost.flops import count_adapter_parameters, lora_step
from robustlab.cost.meter import Meter
from robustlab.cost.pace import Pace
from robustlab.cost.schedule import list_learning_rates
from robustlab.data.rows import install_prompts
from robustlab.errors import BudgetSpent, DataError
from robustlab.models.adapter import LoraModification
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import RefusalData
from robustlab.spec.targets import Shape
from robustlab.train.counts import DISTIL_BATCH_ROWS
from robustlab.train.distil import distil_answers
from robustlab.train.generation import expect_seconds
from robustlab.train.hooks import Hooks, Outcome, StepPrice
from robustlab.train.order import Example, batch_lengths, lay_out
from robustlab.train.sft import run_sft


class Line(Protocol):
    """Who is told what is going on."""

    def stage(self, label: str, expected_seconds: float | None = None) -> AbstractContextManager[None]:
        """Announce a stage, and what it should take."""
        ...

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say how far the stage is."""
        ...


@dataclass(frozen=True)
class Workshop:
    """What an installation works with.

    Attributes:
        safeguard_id: Named in messages.
        target: The target before the safeguard; its weights are changed in place.
        shape: Its sizes.
        pace: What the device should be able to do.
        meter: Bills the laboratory.
        line: Told of every stage.
    """

    safeguard_id: str
    target: LoadedTarget
    shape: Shape
    pace: Pace
    meter: Meter
    line: Line

    def price(self, spec: RefusalData, lengths: Sequence[int]) -> StepPrice:
        """Tokens and FLOPs of a step in which sequences of these lengths go forward and backward."""
        adapter = count_adapter_parameters(self.shape, spec.training.lora)
        return StepPrice(sum(lengths), lora_step(self.shape, lengths, adapter_parameters=adapter))

    def stage_training(self, steps: int, step_seconds: float) -> AbstractContextManager[None]:
        """Announce the training."""
        return self.line.stage(f"{self.safeguard_id}: training, {steps} steps", steps * step_seconds)

    def tell_step(self, steps: int, step: int, loss: float) -> None:
        """Say how far the training is."""
        self.line.advance(step, steps, f"loss {loss:.3f}")

    def require_all(self, outcome: Outcome, steps: int) -> None:
        """Refuse a training that did not come to its end.

        Args:
            outcome: How it ended.
            steps: Steps that it should have taken.

        Raises:
            DataError: If it diverged.
            BudgetSpent: If a cap cut it short; it counts in steps.
        """
        if outcome.diverged:
            problem = f"diverged at step {outcome.steps + 1}: its loss is not finite"
            raise DataError(f"safeguard {self.safeguard_id}", problem, "lower its learning rate")
        if outcome.steps < steps:
            # Whoever wanted to attack the released target is told which cap was too small, in steps.
            raise BudgetSpent(outcome.stopped_by, outcome.steps, steps)


def answer_benign(spec: RefusalData, shop: Workshop) -> list[Example]:
    """Have the target answer benign prompts itself, so that what is not to be refused stays as it was.

    Args:
        spec: How many prompts, and how long the answers may be.
        shop: What the installation works with.

    Returns:
        One example a prompt that got any answer.

    Raises:
        BudgetSpent: If the next answers would pass a cap of the laboratory.
        ConfigError: If there are not that many prompts.
    """
    prompts, new_tokens = install_prompts(spec.benign_rows), spec.benign_new_tokens
    expected = expect_seconds(shop.pace, shop.shape, prompts, batch_rows=DISTIL_BATCH_ROWS, max_new_tokens=new_tokens)
    with (
        shop.line.stage(f"{shop.safeguard_id}: self-distilled answers", expected),
        shop.meter.phase("laboratory", "safeguard data"),
    ):
        return distil_answers(
            shop.target,
            shop.shape,
            prompts,
            max_new_tokens=new_tokens,
            expected_seconds=expected,
            meter=shop.meter,
            progress=shop.line.advance,
        )


def tune(spec: RefusalData, examples: Sequence[Example], shop: Workshop) -> LoraModification:
    """Fine-tune an adapter on the safeguard's examples.

    Args:
        spec: The training and its seed.
        examples: The whole training set.
        shop: What the installation works with.

    Returns:
        The trained adapter, on the target.

    Raises:
        BudgetSpent: If a cap of the laboratory cut the training short.
        DataError: If it diverged, or an example is longer than the spec allows.
    """
    training = spec.training
    modification = LoraModification(shop.target.model, training.lora, seed=spec.seed)
    batches = lay_out(examples, steps=training.steps, batch_rows=training.batch_rows, seed=spec.seed)
    prices = [shop.price(spec, batch_lengths(batch)) for batch in batches]
    row_tokens = sum(price.train_tokens for price in prices) // (training.steps * training.batch_rows)
    step_seconds = shop.pace.training_seconds(shop.shape, training, row_tokens)

    def on_step(step: int, loss: float) -> None:
        shop.tell_step(training.steps, step, loss)

    with shop.stage_training(training.steps, step_seconds), shop.meter.phase("laboratory", "safeguard"):
        outcome = run_sft(
            modification,
            shop.target.tokenizer,
            batches,
            prices,
            training,
            learning_rates=list_learning_rates(training.optimizer, training.steps),
            seed=spec.seed,
            meter=shop.meter,
            hooks=Hooks(frozenset(), lambda mark: None, on_step, lambda state: None, None),
            resume=None,
            expected_step_seconds=step_seconds,
            account="laboratory",
        )
    shop.require_all(outcome, training.steps)
    return modification
