"""What must hold for every kind of attack: trajectories are pinned, and nothing but the recipe moves them."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from robustlab.models.generate import generate_greedy
from robustlab.models.likelihood import mean_log_probabilities
from robustlab.train.hooks import Mark
from robustlab.train.state import load_newest, save_state
from tests.invariants.course import KINDS, RESUMABLE, Course

NewCourse = Callable[..., Course]
every_kind = pytest.mark.parametrize("kind", KINDS)

# Losses of the first six steps. Pinned to 1e-5 and not to the byte: the order of sums in a matrix product differs
# from one kind of CPU to the next, and from one number of threads to another.
PINNED_LOSSES = {
    "lora_sft": (5.527296, 5.524593, 5.501275, 5.531034, 5.507294, 5.506052),
    "lora_sft nf4": (5.52972, 5.526714, 5.504621, 5.533935, 5.509761, 5.510142),
    "lora_dpo": (0.693147, 0.682193, 0.649824, 0.629274, 0.597289, 0.599026),
    "lora_dpo nf4": (0.693147, 0.68245, 0.651546, 0.630094, 0.600076, 0.603125),
    "full_sft": (5.527296, 5.444769, 5.305437, 5.237628, 5.170949, 5.124444),
}


def measure(course: Course) -> Callable[[Mark], None]:
    """A measurement that does all that a real one does, and draws random numbers besides."""

    def at_mark(mark: Mark) -> None:
        completions = generate_greedy(
            course.target.model, course.prompts, batch_rows=2, max_new_tokens=6, eos_ids=course.target.eos_ids,
            pad_id=0, before_wave=lambda wave: None, after_wave=lambda wave, completions: None,
        )  # fmt: skip
        with course.modification.lifted():
            ids = [completion.ids for completion in completions]
            mean_log_probabilities(course.target.model, ids, start_id=2, batch_tokens=12, limit=-9.0)
        torch.rand(7)
        random.random()
        numpy.random.rand()

    return at_mark


def logits(course: Course) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = course.target.model(input_ids=torch.tensor([[1, 40, 41, 42]])).logits.clone()
    return found


@every_kind
def test_the_first_losses_are_pinned(new_course: NewCourse, till: Any, kind: str) -> None:
    losses = new_course(kind, steps=6).run(till.meter()).losses
    assert losses == pytest.approx(PINNED_LOSSES[kind], abs=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("lora_dpo")])
def test_the_first_preference_loss_is_that_of_a_coin(new_course: NewCourse, till: Any, kind: str) -> None:
    """An adapter that changes nothing has no margin: -log sigmoid(0) = ln 2, to the last bit of a float."""
    (loss,) = new_course(kind, steps=1, dropout=0.1).run(till.meter()).losses
    assert loss == float(torch.tensor(math.log(2)))


@every_kind
def test_a_training_repeats_byte_for_byte(new_course: NewCourse, till: Any, kind: str) -> None:
    runs = []
    for _ in range(2):
        course = new_course(kind, steps=3, dropout=0.1)
        losses = course.run(till.meter()).losses
        runs.append((losses, course.modification.digest()))
        torch.rand(5)
    assert runs[0] == runs[1]


@every_kind
def test_accumulating_eight_of_one_equals_one_of_eight(new_course: NewCourse, till: Any, kind: str) -> None:
    ends = []
    for micro in (8, 1):
        course = new_course(kind, steps=3, batch_rows=8, micro=micro)
        ends.append((course.run(till.meter()).losses, course.modification.state()))
    (whole, together), (parts, apart) = ends
    assert parts == pytest.approx(whole, abs=1e-5)
    assert max(float((together[name] - apart[name]).abs().max()) for name in together) < 1e-6


@pytest.mark.parametrize(("kind", "dropout"), [("lora_sft", 0.0), *((kind, 0.1) for kind in KINDS)])
def test_a_measurement_before_a_step_leaves_no_trace(
    new_course: NewCourse, till: Any, steps_seen: list[tuple[str, ...]], kind: str, dropout: float
) -> None:
    """Gradients, optimiser and generator of every step are equal with and without an evaluation before it."""
    plain = new_course(kind, steps=3, dropout=dropout)
    outcome = plain.run(till.meter())
    alone = steps_seen.copy()
    steps_seen.clear()
    measured = new_course(kind, steps=3, dropout=dropout, marks=frozenset({1, 2}))
    measured.at_mark = measure(measured)
    # The baseline; a 4-bit layer that repacked itself here would have no gradient in any step.
    measured.at_mark(Mark(0))
    assert measured.run(till.meter()) == outcome
    assert len(alone) == 3 and steps_seen == alone
    assert measured.modification.digest() == plain.modification.digest()


@every_kind
def test_lifted_the_target_is_untouched_at_every_mark(new_course: NewCourse, till: Any, kind: str) -> None:
    course = new_course(kind, steps=4, marks=frozenset({1, 3, 4}))
    base = logits(course)
    seen = []

    def at_mark(mark: Mark) -> None:
        attacked = logits(course)
        with course.modification.lifted():
            seen.append((torch.equal(logits(course), base), torch.equal(attacked, base)))

    course.at_mark = at_mark
    course.run(till.meter())
    assert seen == [(True, False)] * 3
    course.modification.dispose()
    assert torch.equal(logits(course), base)
    assert not any("lora_" in name for name, _ in course.target.model.named_parameters())
    assert not any(parameter.requires_grad for parameter in course.target.model.parameters())


@pytest.mark.parametrize(("kind", "dropout"), [("lora_sft", 0.0), *((kind, 0.1) for kind in RESUMABLE)])
def test_resumed_equals_uninterrupted(
    new_course: NewCourse, till: Any, tmp_path: Path, kind: str, dropout: float
) -> None:
    whole = new_course(kind, steps=5, dropout=dropout, save_every=2)
    outcome = whole.run(till.meter())
    assert [state.step for state in whole.states] == [2, 4, 5]
    for state in whole.states:
        save_state(tmp_path / str(state.step), state)
        found = load_newest(tmp_path / str(state.step))
        torch.manual_seed(state.step)
        resumed = new_course(kind, steps=5, dropout=dropout)
        assert resumed.run(till.meter(), resume=found) == outcome
        assert resumed.modification.digest() == whole.modification.digest()


@pytest.mark.parametrize("kind", RESUMABLE)
def test_a_state_of_the_last_step_needs_no_training(new_course: NewCourse, till: Any, kind: str) -> None:
    whole = new_course(kind, steps=3, save_every=2)
    whole.run(till.meter())
    ended = replace(whole.states[0])
    short = new_course(kind, steps=2)
    outcome = short.run(till.meter(), resume=ended)
    assert (outcome.steps, outcome.stopped_by, outcome.losses) == (2, "schedule", ended.losses)
    assert short.modification.digest() == ended.digest


@every_kind
def test_no_kind_of_loss_that_is_not_a_number_is_trained_on(new_course: NewCourse, till: Any, kind: str) -> None:
    one_step = new_course(kind, steps=1)
    one_step.run(till.meter())
    course = new_course(kind, steps=3)

    def on_step(step: int, loss: float) -> None:
        course.target.model.lm_head.register_forward_hook(lambda module, inputs, output: output * math.nan)

    course.on_step = on_step
    outcome = course.run(till.meter())
    assert (outcome.steps, outcome.diverged) == (1, True)
    assert math.isfinite(outcome.losses[0])
    # Rates of a schedule of three steps and of one begin alike, with a step of warm-up.
    assert course.modification.digest() == one_step.modification.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_end_the_training_though_the_loss_was(
    new_course: Callable[..., Any], till: Any, kind: str
) -> None:
    """The last step of all: nothing after it would have told."""
    course = new_course(kind, steps=2)
    one_step = new_course(kind, steps=2)
    one_step.at_mark, one_step.marks = lambda mark: "enough", frozenset({1})
    one_step.run(till.meter())

    def on_step(step: int, loss: float) -> None:
        trained = next(p for p in course.modification.model.parameters() if p.requires_grad)
        trained.register_hook(lambda gradient: gradient * math.nan)

    course.on_step = on_step
    outcome = course.run(till.meter())
    assert (outcome.steps, outcome.diverged) == (1, True)
    assert course.modification.digest() == one_step.modification.digest()
