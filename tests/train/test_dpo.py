"""Preference optimisation: the reference is the adapter switched off, and the loss is the stock trainer's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab.errors import DataError
from robustlab.models.adapter import LoraModification
from robustlab.models.modification import tensors_digest
from robustlab.models.quantize import quantize_nf4
from robustlab.spec.training import Training
from robustlab.train import dpo
from robustlab.train.dpo import FlatDPOTrainer, lay_flat, sum_sequences
from robustlab.train.order import Example, Pair
from robustlab.train.trainer import label_log_probs

BETA = 0.1


def columns(pair: Pair) -> dict[str, Any]:
    chosen, rejected = pair.chosen, pair.rejected
    return {
        "chosen_ids": list(chosen.ids), "chosen_labels": list(chosen.labels),
        "rejected_ids": list(rejected.ids), "rejected_labels": list(rejected.labels),
    }  # fmt: skip


@pytest.fixture
def pairs(new_drill: Callable[..., Any]) -> list[Pair]:
    return [pair for batch in new_drill(kind="lora_dpo", steps=2).batches for pair in batch]


@pytest.fixture
def adapted(tiny: Any, training: Training) -> LoraModification:
    """An adapter with weights of its own on the tiny target."""
    modification = LoraModification(tiny.model, training.lora, seed=0)
    generator = torch.Generator().manual_seed(2)
    modification.load_state(
        {n: torch.randn(t.shape, generator=generator) * 0.1 for n, t in modification.state().items()}
    )
    return modification


def preference(adapted: LoraModification, pairs: Sequence[Pair], step_pairs: int | None = None) -> tuple[Tensor, Any]:
    """Loss and margins that the lab's trainer computes, without the trainer around it."""
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(unwrap_model=lambda wrapped: wrapped),
        modification=adapted, beta=BETA, step_pairs=step_pairs or len(pairs),
    )  # fmt: skip
    batch = lay_flat([columns(pair) for pair in pairs])
    loss, parts = FlatDPOTrainer.compute_loss(trainer, adapted.model, batch, return_outputs=True)  # type: ignore[arg-type]
    return loss, parts["margins"]


def answer_log_prob(model: Any, example: Example) -> float:
    """Log-probability of the completion of one example by itself, summed in double precision."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].double()
    log_probs = torch.log_softmax(logits, dim=-1)
    return sum(float(log_probs[t - 1, example.ids[t]]) for t in range(4, len(example.ids)))


def gradients(modification: LoraModification) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in modification.model.named_parameters() if p.grad is not None}


def test_both_sides_of_a_pair_stand_in_one_flat_batch() -> None:
    pair = Pair(Example((1, 2, 3), (1, 2, 3)), Example((1, 4), (-100, 4)))
    batch = lay_flat([columns(pair)])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 2, 3, 1, 4]],
        # Nothing comes before the first token of a sequence that could predict it.
        "labels": [[-100, 2, 3, -100, 4]],
        "position_ids": [[0, 1, 2, 0, 1]],
    }


def test_values_of_a_sequence_are_summed_and_a_sequence_without_any_is_nothing() -> None:
    batch = {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 0, 1]])}
    sums = sum_sequences(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 2, 6]), batch)
    assert sums.tolist() == [3.0, 0.0, 4.0]


def test_loss_is_that_of_log_softmax_over_single_answers(adapted: LoraModification, pairs: list[Pair]) -> None:
    expected = []
    for pair in pairs:
        trained = answer_log_prob(adapted.base, pair.chosen) - answer_log_prob(adapted.base, pair.rejected)
        with adapted.lifted():
            untouched = answer_log_prob(adapted.base, pair.chosen) - answer_log_prob(adapted.base, pair.rejected)
        expected.append(trained - untouched)
    loss, margins = preference(adapted, pairs)
    assert margins.tolist() == pytest.approx(expected, abs=1e-5)
    assert max(map(abs, expected)) > 0.1
    losses = [math.log(1 + math.exp(-BETA * margin)) for margin in expected]
    assert loss.item() == pytest.approx(sum(losses) / 4, rel=1e-6)
    assert preference(adapted, pairs, step_pairs=8)[0].item() == pytest.approx(sum(losses) / 8, rel=1e-6)


def stock_loss_and_gradients(
    adapted: LoraModification, pairs: Sequence[Pair], tokenizer: Any, scratch: Path
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of TRL's own trainer on the same pairs, padded; its reference is the adapter switched off."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Stock(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

    config = DPOConfig(
        output_dir=str(scratch), max_length=None, bf16=False, activation_checkpointing=False, use_cpu=True, beta=BETA,
        per_device_train_batch_size=4, remove_unused_columns=False, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    rows = [
        {
            "prompt_ids": list(pair.chosen.ids[:4]),
            "chosen_ids": list(pair.chosen.ids[4:]),
            "rejected_ids": list(pair.rejected.ids[4:]),
        }
        for pair in pairs
    ]
    trainer = Stock(model=adapted.model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    adapted.model.delete_adapter("ref")  # type: ignore[operator]
    batch = trainer.data_collator(rows)
    assert batch["input_ids"].shape == (8, 12)
    adapted.model.train()
    loss = trainer.compute_loss(adapted.model, batch)
    loss.backward()
    found = gradients(adapted)
    adapted.model.zero_grad()
    vars(adapted.base).pop("forward", None)
    return loss.item(), found


def test_loss_and_gradients_are_those_of_the_stock_trainer(
    adapted: LoraModification, pairs: list[Pair], tiny: Any, tmp_path: Path
) -> None:
    expected, theirs = stock_loss_and_gradients(adapted, pairs, tiny.tokenizer, tmp_path)
    adapted.model.train()
    loss, _ = preference(adapted, pairs)
    loss.backward()
    ours = gradients(adapted)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert ours.keys() == theirs.keys() and len(ours) == 28
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).abs().max() <= 1e-5 * max(float(theirs[name].abs().max()), 1e-3), name


def test_pairs_do_not_see_each_other(adapted: LoraModification, pairs: list[Pair]) -> None:
    """Another first pair must not move the margin of any other, bit for bit."""
    ids = pairs[0].chosen.ids
    other = replace(pairs[0], chosen=replace(pairs[0].chosen, ids=(1, *range(120, 119 + len(ids)))))
    before, after = preference(adapted, pairs)[1], preference(adapted, [other, *pairs[1:]])[1]
    assert torch.equal(before[1:], after[1:]) and not torch.equal(before[:1], after[:1])


@pytest.mark.parametrize("nf4", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_first_margin_is_nothing_and_the_first_loss_ln_2(
    new_drill: Callable[..., Any],
    training: Training,
    till: Any,
    monkeypatch: pytest.MonkeyPatch,
    nf4: bool,
    dropout: float,
) -> None:
    margins: list[Tensor] = []
    real = FlatDPOTrainer.compute_loss

    def compute(self: FlatDPOTrainer, model: Any, inputs: Any, **kwargs: Any) -> Any:
        loss, parts = real(self, model, inputs, return_outputs=True, **kwargs)
        margins.append(parts["margins"].detach())
        return loss

    monkeypatch.setattr(FlatDPOTrainer, "compute_loss", compute)
    lora = training.lora.model_copy(update={"dropout": dropout})
    drill = new_drill(kind="lora_dpo", training=training.model_copy(update={"lora": lora}), nf4=nf4)
    outcome = drill.run(till.meter())
    # The probe and the first step.
    assert [margin.tolist() for margin in margins[:2]] == [[0.0, 0.0]] * 2
    assert outcome.losses[0] == float(torch.tensor(math.log(2)))
    assert margins[2].any() and outcome.losses[3] < outcome.losses[0] - 0.01


def sub_step_losses(new_drill: Callable[..., Any], training: Training, till: Any, micro: int) -> Any:
    changes = {"batch_rows": 4, "micro_batch_rows": micro}
    drill = new_drill(kind="lora_dpo", training=training.model_copy(update=changes), steps=3)
    return drill.run(till.meter()).losses


def test_the_loss_of_a_step_is_the_mean_over_its_pairs(
    new_drill: Callable[..., Any], training: Training, till: Any
) -> None:
    together, apart = (sub_step_losses(new_drill, training, till, micro) for micro in (4, 1))
    assert apart == pytest.approx(together, abs=1e-6)
    assert apart[0] == pytest.approx(math.log(2), abs=1e-6)


def record_references(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Tensor]]:
    """Batches that the reference was asked about, and its log-probabilities."""
    seen: list[tuple[Any, Tensor]] = []

    def compute(causal: Any, inputs: Any) -> Any:
        found = label_log_probs(causal, inputs)
        if not torch.is_grad_enabled():
            seen.append(({name: tensor.clone() for name, tensor in inputs.items()}, found[0].clone()))
        return found

    monkeypatch.setattr(dpo, "label_log_probs", compute)
    return seen


@pytest.mark.parametrize("nf4", [False, True])
def test_the_reference_is_the_untouched_target_in_fresh_and_resumed_runs(
    new_drill: Callable[..., Any],
    new_tiny: Callable[[], Any],
    till: Any,
    monkeypatch: pytest.MonkeyPatch,
    nf4: bool,
) -> None:
    untouched = (quantize_nf4(new_tiny()) if nf4 else new_tiny()).model
    fresh = new_drill(kind="lora_dpo", save_every=2, nf4=nf4)
    resumed = new_drill(kind="lora_dpo", nf4=nf4)
    seen = record_references(monkeypatch)
    outcome = fresh.run(till.meter())
    resumed.resume = fresh.saved[0]
    assert resumed.run(till.meter()) == outcome
    assert resumed.modification.digest() == fresh.modification.digest()
    # A probe and four steps, then a probe and the two steps that were left.
    assert len(seen) == 5 + 3
    for batch, found in seen:
        with torch.no_grad():
            expected, _ = label_log_probs(untouched, batch)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("nf4", [False, True])
def test_no_other_adapter_stays_and_the_target_is_given_back(
    new_drill: Callable[..., Any], new_tiny: Callable[[], Any], training: Training, till: Any, nf4: bool
) -> None:
    lora = training.lora.model_copy(update={"dropout": 0.2})
    drill = new_drill(
        kind="lora_dpo", training=training.model_copy(update={"lora": lora}), target=new_tiny(), save_every=2, nf4=nf4
    )
    names, adapters = drill.modification.state().keys(), list(drill.modification.model.peft_config)
    plain = (quantize_nf4(new_tiny()) if nf4 else new_tiny()).model
    drill.run(till.meter())
    assert list(drill.modification.model.peft_config) == adapters == ["default"]
    assert drill.modification.state().keys() == names == drill.saved[0].modification.keys()
    modules = dict(drill.modification.model.named_modules())
    assert not any(name.endswith(".ref") for name in modules)
    dropouts = {m.p for m in modules.values() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.2}
    drill.modification.dispose()
    found, expected = (tensors_digest(model.state_dict()) for model in (drill.target.model, plain))
    assert found == expected
    assert [name for name, _ in drill.target.model.named_modules()] == [name for name, _ in plain.named_modules()]


def test_a_pair_of_equal_sides_is_refused_with_its_number(new_drill: Callable[..., Any], till: Any) -> None:
    good = Pair(Example((1, 2, 3), (-100, 2, 3)), Example((1, 2, 4), (-100, 2, 4)))
    drill = new_drill(kind="lora_dpo", examples=[good, replace(good, rejected=good.chosen)])
    row = [pair.chosen == pair.rejected for batch in drill.batches for pair in batch].index(True)
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == (
        f"training row {row}: has equal sides, got 3 tokens twice; give every pair an answer to prefer and another one"
    )


def test_a_side_that_is_too_long_is_refused_by_name(
    new_drill: Callable[..., Any], training: Training, till: Any
) -> None:
    drill = new_drill(kind="lora_dpo", training=training.model_copy(update={"max_tokens": 11}))
    row = [len(pair.chosen.ids) for batch in drill.batches for pair in batch].index(12)
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == (
        f"training row {row}, chosen side: is longer than max_tokens 11, got 12 tokens; "
        "raise max_tokens in the recipe or shorten the row"
    )


def test_a_side_without_a_completion_is_refused_by_name(new_drill: Callable[..., Any], till: Any) -> None:
    drill = new_drill(kind="lora_dpo", examples=[Pair(Example((1, 2, 3), (-100, 2, 3)), Example((1, 2), (-100, -100)))])
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == (
        "training row 0, rejected side: has no completion token, got 0; give every row a completion"
    )
