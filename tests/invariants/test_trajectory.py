"""What must hold for every attack: trajectories are pinned, and nothing but the recipe moves them."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from robustlab.models.generate import generate_greedy, mean_log_probabilities
from robustlab.models.modification import tensors_digest
from robustlab.train.purse import Mark
from robustlab.train.state import load_newest, save_state

# Losses of the first six steps. Pinned to 1e-5 and not to the byte: the order of sums in a matrix product differs
# from one kind of CPU to the next, and from one number of threads to another.
PINNED_LOSSES = (5.527296, 5.524593, 5.501275, 5.531034, 5.507294, 5.506052)


def measure(course: Any) -> Callable[[Mark], None]:
    """A measurement that does all that a real one does, and draws random numbers besides."""

    def at_mark(mark: Mark) -> None:
        prompts = [example.ids[:20] for example in course.examples[:3]]
        completions = generate_greedy(
            course.target.model, prompts, batch_rows=2, max_new_tokens=6, eos_ids=course.target.eos_ids, pad_id=0,
            before_wave=lambda wave: None, after_wave=lambda wave, completions: None,
        )  # fmt: skip
        with course.modification.lifted():
            ids = [completion.ids for completion in completions]
            mean_log_probabilities(course.target.model, ids, start_id=2, batch_rows=2)
        torch.rand(7)
        random.random()
        numpy.random.rand()

    return at_mark


def test_the_first_losses_are_pinned(new_course: Callable[..., Any], till: Any) -> None:
    losses = new_course(steps=6).run(till.meter()).losses
    assert losses == pytest.approx(PINNED_LOSSES, abs=1e-5)


def test_a_training_repeats_byte_for_byte(new_course: Callable[..., Any], till: Any) -> None:
    runs = []
    for _ in range(2):
        course = new_course(steps=3, dropout=0.1)
        losses = course.run(till.meter()).losses
        runs.append((losses, course.modification.digest()))
        torch.rand(5)
    assert runs[0] == runs[1]


def test_accumulating_eight_of_one_equals_one_of_eight(new_course: Callable[..., Any], till: Any) -> None:
    ends = []
    for micro in (8, 1):
        course = new_course(steps=4, batch_rows=8, micro=micro)
        ends.append((course.run(till.meter()).losses, course.modification.state()))
    (whole, together), (parts, apart) = ends
    assert parts == pytest.approx(whole, abs=1e-5)
    assert max(float((together[name] - apart[name]).abs().max()) for name in together) < 1e-6


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_measurement_in_between_leaves_no_trace(new_course: Callable[..., Any], till: Any, dropout: float) -> None:
    """Adapter, optimiser and generators after step k are equal with and without an evaluation before it."""
    plain = new_course(steps=5, dropout=dropout, save_every=4)
    plain.run(till.meter())
    measured = new_course(steps=5, dropout=dropout, save_every=4, marks=frozenset({1, 2, 4}))
    measured.at_mark = measure(measured)
    measured.run(till.meter())
    assert measured.modification.digest() == plain.modification.digest()
    assert [state.step for state in plain.states] == [4, 5]
    before, after = plain.states[0], measured.states[0]
    assert tensors_digest(before.optimizer) == tensors_digest(after.optimizer)
    assert torch.equal(before.torch_rng, after.torch_rng)
    assert before.losses == after.losses


def test_without_the_adapter_the_target_is_untouched_at_every_mark(new_course: Callable[..., Any], till: Any) -> None:
    ids = torch.tensor([[1, 40, 41, 42]])
    course = new_course(steps=4, marks=frozenset({1, 3, 4}))
    with torch.inference_mode():
        base = course.target.model(input_ids=ids).logits.clone()
    seen = []

    def at_mark(mark: Mark) -> None:
        with torch.inference_mode():
            attacked = course.target.model(input_ids=ids).logits.clone()
            with course.modification.lifted():
                seen.append((torch.equal(course.target.model(input_ids=ids).logits, base), torch.equal(attacked, base)))

    course.at_mark = at_mark
    course.run(till.meter())
    assert seen == [(True, False)] * 3
    course.modification.dispose()
    with torch.inference_mode():
        assert torch.equal(course.target.model(input_ids=ids).logits, base)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_resumed_equals_uninterrupted(
    new_course: Callable[..., Any], till: Any, tmp_path: Path, dropout: float
) -> None:
    whole = new_course(steps=10, dropout=dropout, save_every=4)
    outcome = whole.run(till.meter())
    assert [state.step for state in whole.states] == [4, 8, 10]
    for state in whole.states:
        save_state(tmp_path / str(state.step), state)
        found = load_newest(tmp_path / str(state.step))
        torch.manual_seed(state.step)
        resumed = new_course(steps=10, dropout=dropout)
        again = resumed.run(till.meter(), resume=found)
        assert again == outcome
        assert resumed.modification.digest() == whole.modification.digest()


def test_a_state_of_the_last_step_needs_no_training(new_course: Callable[..., Any], till: Any) -> None:
    whole = new_course(steps=5, save_every=4)
    whole.run(till.meter())
    ended = replace(whole.states[0])
    short = new_course(steps=4)
    outcome = short.run(till.meter(), resume=ended)
    assert (outcome.steps, outcome.stopped_by, outcome.losses) == (4, "schedule", ended.losses)
    assert short.modification.digest() == ended.digest
