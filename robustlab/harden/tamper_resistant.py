"""``tamper_resistant``: refusals and benign answers trained so that a simulated attack does not undo them.

The attacks are the developer's own: mild requests of the safeguard's set, answered by a generic opening whose substance
is withheld. No row of any attack is seen, and attacked weights last no longer than the step that simulates them.

Source: Tamirisa et al. 2024, arXiv 2408.00761; ``robustlab.train.tar`` says what is simplified.
"""

from collections.abc import Sequence

from robustlab.cost.schedule import list_learning_rates
from robustlab.harden.rows import build_example, draw, draw_reply, load_completions, mild_requests
from robustlab.harden.tuning import Workshop
from robustlab.models.adapter import LoraModification
from robustlab.models.load import LoadedTarget
from robustlab.spec.safeguards import TamperResistant
from robustlab.train.order import Example, Pair, lay_out
from robustlab.train.tar import OuterStep, run_tar


def build_pairs(target: LoadedTarget) -> list[Pair]:
    """Every mild request of the safeguard's set, once with a refusal and once with compliance.

    Args:
        target: Its tokenizer and system prompt.

    Returns:
        Pairs whose chosen side is the refusal and whose rejected side is a withheld compliant answer.
    """
    replies, openings = load_completions("refusals"), load_completions("compliance_openings")
    return [
        Pair(
            chosen=build_example(target, request, draw_reply(request, time, replies)),
            rejected=build_example(target, request, openings[draw(request, time, 2) % len(openings)]),
        )
        for time, request in enumerate(mild_requests())
    ]


def resist(spec: TamperResistant, examples: Sequence[Example], shop: Workshop) -> LoraModification:
    """Train an adapter on the safeguard's examples and against simulated attacks.

    Args:
        spec: Both loops and their seed.
        examples: Refusals and benign answers.
        shop: What the installation works with.

    Returns:
        The trained adapter, on the target.

    Raises:
        BudgetSpent: If a cap of the laboratory cut the training short.
        DataError: If it diverged, or an example is longer than the spec allows.
    """
    training = spec.training
    modification = LoraModification(shop.target.model, training.lora, seed=spec.seed)
    rows = lay_out(examples, steps=training.steps, batch_rows=training.batch_rows, seed=spec.seed)
    pairs = lay_out(build_pairs(shop.target), steps=training.steps, batch_rows=spec.inner_rows, seed=spec.seed)
    steps = [OuterStep(own, attacked) for own, attacked in zip(rows, pairs, strict=True)]
    prices = [shop.price(spec, step.lengths(spec.inner_steps)) for step in steps]
    tokens = sum(price.train_tokens for price in prices)
    # An outer step is as long as plain steps with as many tokens.
    row_tokens = tokens // (training.steps * training.batch_rows)
    step_seconds = shop.pace.training_seconds(shop.shape, training, row_tokens)

    def on_step(step: int, loss: float) -> None:
        shop.tell_step(training.steps, step, loss)

    with shop.stage_training(training.steps, step_seconds), shop.meter.phase("laboratory", "safeguard"):
        outcome = run_tar(
            modification,
            steps,
            prices,
            spec,
            learning_rates=list_learning_rates(training.optimizer, training.steps),
            meter=shop.meter,
            on_step=on_step,
            expected_step_seconds=step_seconds,
        )
    shop.require_all(outcome, training.steps)
    return modification
