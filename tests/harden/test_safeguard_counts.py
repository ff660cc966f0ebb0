"""What an installation takes, counted without a tokenizer, for every kind that is trained."""

from pathlib import Path
from typing import Any

import pytest

from robustlab.harden.rows import load_completions, mild_requests
from robustlab.spec.catalog import load
from robustlab.train.counts import Counter, approximate_tokens


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    """Counts by the rule of thumb."""
    return Counter(load("targets", "tiny"), None, tmp_path)


def mean(name: Any) -> float:
    replies = load_completions(name)
    lengths = [approximate_tokens(prompt, replies[i % len(replies)]) for i, prompt in enumerate(mild_requests())]
    return sum(lengths) / len(lengths)


def test_openings_make_the_refusals_longer(counter: Counter, plain_spec: Any, deep_spec: Any) -> None:
    plain, deep = counter.count_safeguard(plain_spec), counter.count_safeguard(deep_spec)
    assert plain is not None and deep is not None
    # Half of 184 refusals begin after 1 to 24 tokens, 12.5 in the mean: 6.25 more in 184 of 192 rows.
    refused = 184 * mean("refusals")
    answered = plain.distilled.prompts.rows * plain.distilled.prompts.tokens_per_row if plain.distilled else 0
    assert deep.row_tokens - plain.row_tokens in (5, 6)
    assert plain.row_tokens == pytest.approx((refused + answered + 8 * 8) / 192, abs=2)
    assert (deep.training, deep.distilled, deep.step_factor) == (plain.training, plain.distilled, 1.0)


def test_an_outer_step_takes_as_many_plain_ones_as_it_has_tokens(
    counter: Counter, plain_spec: Any, resistant_spec: Any
) -> None:
    plain, work = counter.count_safeguard(plain_spec), counter.count_safeguard(resistant_spec)
    assert plain is not None and work is not None
    assert (work.row_tokens, work.distilled) == (plain.row_tokens, plain.distilled)
    simulated = 2 * (2 * mean("compliance_openings") + mean("refusals"))
    assert work.step_factor == pytest.approx(1 + simulated / (4 * work.row_tokens))
    assert 2 < work.step_factor < 3
    assert plain.step_factor == 1.0


def test_nothing_simulated_costs_nothing(counter: Counter, resistant_spec: Any) -> None:
    """More inner steps cost their own tokens and no others."""
    one, three = (counter.count_safeguard(resistant_spec.model_copy(update={"inner_steps": steps})) for steps in (1, 3))
    assert one is not None and three is not None
    added = three.step_factor - one.step_factor
    assert added == pytest.approx(2 * 2 * mean("compliance_openings") / (4 * one.row_tokens))
