"""The tamper-resistant safeguard: whose rows attack, what an outer step costs, and that every part of it matters."""

from collections.abc import Callable
from typing import Any

import pytest

from robustlab.data.chat import encode_prompt
from robustlab.data.rows import load_builtin
from robustlab.errors import DataError
from robustlab.harden import tamper_resistant
from robustlab.harden.refusal_sft import build_refusals
from robustlab.harden.rows import load_completions, mild_requests
from robustlab.harden.tamper_resistant import build_pairs, resist
from robustlab.harden.tuning import Workshop
from robustlab.train.order import Example
from robustlab.train.tar import OuterStep


def text(target: Any, example: Example) -> str:
    return str(target.tokenizer.decode([label for label in example.labels if label != -100], skip_special_tokens=True))


@pytest.fixture
def examples(resistant_spec: Any, shop: Workshop) -> list[Example]:
    return build_refusals(resistant_spec, shop.target)[:8]


def test_the_attacks_are_the_developers_own_withheld_answers(tiny: Any) -> None:
    pairs, requests = build_pairs(tiny), mild_requests()
    assert len(pairs) == len(requests) == 184
    for request, pair in zip(requests, pairs, strict=True):
        prompt = encode_prompt(tiny.tokenizer, request, None)
        for side in (pair.chosen, pair.rejected):
            assert list(side.ids[: len(prompt)]) == prompt
            assert side.labels == (-100,) * len(prompt) + side.ids[len(prompt) :]
    assert {text(tiny, pair.chosen) for pair in pairs} == set(load_completions("refusals"))
    assert {text(tiny, pair.rejected) for pair in pairs} == set(load_completions("compliance_openings"))
    assert not {row.prompt for row in load_builtin("mild_requests_attack")} & set(requests)


def test_an_outer_step_is_one_unit_with_its_attack(
    resistant_spec: Any, examples: list[Example], shop: Workshop, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = tamper_resistant.run_tar

    def run(modification: Any, steps: Any, prices: Any, *args: Any, **options: Any) -> Any:
        seen.extend(zip(steps, prices, strict=True))
        return real(modification, steps, prices, *args, **options)

    monkeypatch.setattr(tamper_resistant, "run_tar", run)
    modification = resist(resistant_spec, examples, shop)
    assert len(seen) == 3
    for step, price in seen:
        assert isinstance(step, OuterStep)
        assert (len(step.rows), len(step.attacked)) == (4, 2)
        own = sum(len(row.ids) for row in step.rows)
        compliant = sum(len(pair.rejected.ids) for pair in step.attacked)
        refused = sum(len(pair.chosen.ids) for pair in step.attacked)
        # Two inner steps on the same batch, and the refusals once.
        assert price.train_tokens == own + 2 * compliant + refused
    used = shop.meter.total("laboratory")
    assert (used.steps, used.train_tokens) == (3, sum(price.train_tokens for _, price in seen))
    assert used.flops == sum(price.flops for _, price in seen)
    assert told.stages == ["odd_safeguard: training, 3 steps"]
    assert [(done, total) for done, total, _ in told.advanced] == [(1, 3), (2, 3), (3, 3)]
    assert any(weight.abs().sum() > 0 for name, weight in modification.state().items() if "lora_B" in name)


def test_no_request_attacks_twice_before_all_have(
    resistant_spec: Any, examples: list[Example], shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[Any] = []
    real = tamper_resistant.run_tar

    def run(modification: Any, steps: Any, *args: Any, **options: Any) -> Any:
        attacked.extend(pair for step in steps for pair in step.attacked)
        return real(modification, steps, *args, **options)

    monkeypatch.setattr(tamper_resistant, "run_tar", run)
    resist(resistant_spec, examples, shop)
    assert len({pair.rejected.ids for pair in attacked}) == 6


def test_it_is_the_same_every_time_and_each_knob_matters(
    resistant_spec: Any, new_shop: Callable[[], Workshop], examples: list[Example]
) -> None:
    short = resistant_spec.training.model_copy(update={"steps": 1})

    def digest(**changes: Any) -> str:
        spec = resistant_spec.model_copy(update={"training": short, **changes})
        return resist(spec, examples, new_shop()).digest()

    first = digest()
    assert first == digest()
    changed = [{"inner_steps": 1}, {"inner_rows": 1}, {"inner_learning_rate": 0.05}, {"resistance_weight": 0.0}]
    assert len({first, digest(seed=1), *(digest(**change) for change in changed)}) == 6


def test_attacks_that_blow_up_are_told(resistant_spec: Any, examples: list[Example], shop: Workshop) -> None:
    with pytest.raises(DataError) as caught:
        resist(resistant_spec.model_copy(update={"inner_learning_rate": 1e18}), examples, shop)
    assert str(caught.value) == (
        "safeguard odd_safeguard: diverged at step 1: its loss is not finite; lower its learning rate"
    )
