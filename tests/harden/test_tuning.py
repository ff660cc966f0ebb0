"""Installing a trained safeguard: the laboratory pays, the line is told, and half a safeguard is none."""

from collections.abc import Callable
from typing import Any

import pytest

from robustlab.data.chat import encode_prompt
from robustlab.data.rows import install_prompts
from robustlab.errors import BudgetSpent, ConfigError, DataError
from robustlab.harden.refusal_sft import build_refusals
from robustlab.harden.tuning import Workshop, answer_benign, tune
from robustlab.train.hooks import Outcome
from robustlab.train.order import Example, batch_lengths, lay_out


@pytest.fixture
def examples(plain_spec: Any, shop: Workshop) -> list[Example]:
    return build_refusals(plain_spec, shop.target)[:8]


def test_the_target_answers_every_benign_prompt_itself(plain_spec: Any, shop: Workshop, told: Any) -> None:
    answered = answer_benign(plain_spec, shop)
    prompts = [encode_prompt(shop.target.tokenizer, prompt, None) for prompt in install_prompts(plain_spec.benign_rows)]
    assert [list(example.ids[: len(prompt)]) for example, prompt in zip(answered, prompts, strict=True)] == prompts
    used = shop.meter.total("laboratory")
    assert used.generated_tokens == 8 * 8
    assert shop.meter.total("attacker").generated_tokens == 0
    assert told.stages == ["odd_safeguard: self-distilled answers"]
    assert told.expected[0] > 0
    assert told.advanced[-1] == (8, 8, "")


def test_more_benign_rows_than_there_are_is_refused(plain_spec: Any, shop: Workshop) -> None:
    with pytest.raises(ConfigError, match="benign_rows: asks for more than 260 rows, got 261; ask for fewer"):
        answer_benign(plain_spec.model_copy(update={"benign_rows": 261}), shop)


def test_a_fine_tuning_is_on_the_laboratorys_bill(
    plain_spec: Any, examples: list[Example], shop: Workshop, told: Any, till: Any
) -> None:
    modification = tune(plain_spec, examples, shop)
    batches = lay_out(examples, steps=4, batch_rows=4, seed=0)
    tokens = sum(sum(batch_lengths(batch)) for batch in batches)
    used = shop.meter.total("laboratory")
    assert (used.steps, used.train_tokens) == (4, tokens)
    assert used.flops == sum(shop.price(plain_spec, batch_lengths(batch)).flops for batch in batches)
    assert shop.meter.total("attacker").steps == 0
    assert {record["phase"] for record in till.records if record["record"] == "settle"} >= {"safeguard"}
    assert told.stages == ["odd_safeguard: training, 4 steps"]
    assert [(done, total) for done, total, _ in told.advanced] == [(step, 4) for step in (1, 2, 3, 4)]
    assert all(note.startswith("loss ") for _, _, note in told.advanced)
    # The adapter is trained, and the target goes on with it.
    assert any(weight.abs().sum() > 0 for name, weight in modification.state().items() if "lora_B" in name)


def test_it_is_the_same_every_time(plain_spec: Any, new_shop: Callable[[], Workshop], examples: list[Example]) -> None:
    assert len({tune(plain_spec, examples, new_shop()).digest() for _ in range(2)}) == 1


def test_a_price_is_that_of_all_tokens(plain_spec: Any, shop: Workshop) -> None:
    price = shop.price(plain_spec, (10, 20))
    assert price.train_tokens == 30
    assert price.flops == shop.price(plain_spec, (10,)).flops + shop.price(plain_spec, (20,)).flops > 0


def test_a_training_that_diverged_is_an_error(shop: Workshop) -> None:
    with pytest.raises(DataError) as caught:
        shop.require_all(Outcome(2, (1.0, 1.0), "schedule", diverged=True), 4)
    assert str(caught.value) == (
        "safeguard odd_safeguard: diverged at step 3: its loss is not finite; lower its learning rate"
    )


def test_a_training_that_a_cap_cut_short_names_the_cap_and_its_steps(shop: Workshop) -> None:
    with pytest.raises(BudgetSpent) as caught:
        shop.require_all(Outcome(2, (1.0, 1.0), "laboratory.max_usd", diverged=False), 4)
    assert (caught.value.cap, caught.value.limit, caught.value.needed) == ("laboratory.max_usd", 2, 4)


def test_a_whole_training_is_no_error(shop: Workshop) -> None:
    shop.require_all(Outcome(4, (1.0,) * 4, "schedule", diverged=False), 4)


def test_a_rate_that_is_far_too_high_is_told(plain_spec: Any, examples: list[Example], shop: Workshop) -> None:
    wild = plain_spec.training.optimizer.model_copy(update={"learning_rate": 1e18, "warmup_steps": 0})
    training = plain_spec.training.model_copy(update={"optimizer": wild})
    with pytest.raises(DataError, match=r"odd_safeguard: diverged at step \d: its loss is not finite"):
        tune(plain_spec.model_copy(update={"training": training}), examples, shop)
