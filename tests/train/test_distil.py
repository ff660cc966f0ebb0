"""Self-distilled answers: the target's own tokens as labels, and an end only where the target ended."""

from typing import Any

import pytest

from robustlab.data.chat import encode_prompt
from robustlab.errors import BudgetSpent
from robustlab.models.generate import Completion
from robustlab.train import distil
from robustlab.train.distil import distil_answers

PROMPTS = ["What is a spade?", "Name a tree.", "Say hello."]


def answer(tiny: Any, tiny_spec: Any, till: Any, **options: Any) -> list[Any]:
    given = {
        "max_new_tokens": 6,
        "expected_seconds": 0.0,
        "meter": till.meter(),
        "progress": lambda done, total: None,
    } | options
    return distil_answers(tiny, tiny_spec.shape, PROMPTS, **given)


def test_labels_are_the_target_s_own_greedy_tokens(tiny: Any, tiny_spec: Any, till: Any) -> None:
    import torch

    for prompt, example in zip(PROMPTS, answer(tiny, tiny_spec, till), strict=True):
        ids = encode_prompt(tiny.tokenizer, prompt, None)
        row = torch.tensor([ids])
        own = tiny.model.generate(
            input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=6, do_sample=False, eos_token_id=None
        )[0, len(ids) :].tolist()
        assert example.ids == (*ids, *own)
        assert example.labels == (*[-100] * len(ids), *own)


def test_an_end_is_learnt_only_where_the_target_ended(
    tiny: Any, tiny_spec: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Completion((50, 51), ended=True), Completion((60,), ended=False), Completion((), ended=True)]
    monkeypatch.setattr(distil, "generate_metered", lambda *args, **options: found)
    examples = answer(tiny, tiny_spec, till)
    # The third prompt got no answer and makes no example.
    assert [[label for label in example.labels if label != -100] for example in examples] == [[50, 51, 2], [60]]


def test_the_account_that_is_current_pays(tiny: Any, tiny_spec: Any, till: Any) -> None:
    meter = till.meter()
    with meter.phase("attacker", "data"):
        answer(tiny, tiny_spec, till, meter=meter)
    assert meter.total("attacker").generated_tokens == 18
    assert meter.total("laboratory").generated_tokens == 0


def test_a_cap_that_is_spent_stops_before_the_next_wave(
    tiny: Any, tiny_spec: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "DISTIL_BATCH_ROWS", 1)
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        told.append(done)
        till.wait(2)

    with pytest.raises(BudgetSpent, match="max_usd: the next unit of work needs"):
        meter = till.meter(max_usd=1.0)
        with meter.phase("attacker", "data"):
            answer(tiny, tiny_spec, till, meter=meter, progress=progress)
    assert told == [1]
