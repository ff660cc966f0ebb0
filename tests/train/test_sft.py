"""Flat batches on TRL's trainer: the stock loss and gradients, no leak between examples, an untouched target."""

import os
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
from robustlab.spec.training import Training
from robustlab.train.order import Example
from robustlab.train.sft import FlatSFTTrainer

# Sources of the rows that follow: 6, 8, 10 and 12 tokens, the first four of each without a label.
ROWS = [Example.from_mask([1, *range(20 + size, 19 + 2 * size)], [0] * 4 + [1] * (size - 4)) for size in (6, 8, 10, 12)]


def flat(rows: Sequence[Example]) -> dict[str, Tensor]:
    """A flat batch as TRL's collator makes it: (1, T), positions that begin anew with each example."""
    ids = [token for row in rows for token in row.ids]
    labels = [label for row in rows for label in (-100, *row.labels[1:])]
    positions = [place for row in rows for place in range(len(row.ids))]
    named = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.tensor([values]) for name, values in named.items()}


def flat_loss(model: Any, rows: Sequence[Example], items: int | None = None) -> Tensor:
    """The loss that the lab's trainer computes, without the trainer around it."""
    trainer = SimpleNamespace(accelerator=SimpleNamespace(unwrap_model=lambda wrapped: wrapped))
    return FlatSFTTrainer.compute_loss(trainer, model, flat(rows), num_items_in_batch=items)  # type: ignore[arg-type]


def gradients(modification: LoraModification) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in modification.model.named_parameters() if p.grad is not None}


@pytest.fixture
def adapted(tiny: Any, training: Training) -> LoraModification:
    """An adapter with weights of its own on the tiny target."""
    modification = LoraModification(tiny.model, training.lora, seed=0)
    generator = torch.Generator().manual_seed(2)
    modification.load_state(
        {n: torch.randn(t.shape, generator=generator) * 0.1 for n, t in modification.state().items()}
    )
    return modification


def stock_loss_and_gradients(
    adapted: LoraModification, tokenizer: Any, scratch: Path
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of TRL's own trainer on the same rows, padded."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    config = SFTConfig(
        output_dir=str(scratch), max_length=None, bf16=False, activation_checkpointing=False, use_cpu=True,
        per_device_train_batch_size=4, dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    rows = [{"input_ids": list(row.ids), "labels": list(row.labels)} for row in ROWS]
    trainer = SFTTrainer(
        model=adapted.model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = trainer.data_collator(rows)
    assert batch["input_ids"].shape == (4, 12)
    adapted.model.zero_grad()
    loss = trainer.compute_loss(adapted.model, batch)
    loss.backward()
    found = gradients(adapted)
    adapted.model.zero_grad()
    vars(adapted.base).pop("forward", None)
    return loss.item(), found


def test_loss_and_gradients_are_those_of_the_stock_trainer(
    adapted: LoraModification, tiny: Any, tmp_path: Path
) -> None:
    adapted.model.train()
    expected, theirs = stock_loss_and_gradients(adapted, tiny.tokenizer, tmp_path)
    loss = flat_loss(adapted.model, ROWS)
    loss.backward()
    ours = gradients(adapted)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert ours.keys() == theirs.keys() and len(ours) == 28
    for name, gradient in ours.items():
        # 2e-6 of the size of the gradient, as measured on a real model.
        assert (gradient - theirs[name]).abs().max() <= 2e-6 * max(float(theirs[name].abs().max()), 1e-3), name


def test_loss_is_that_of_log_softmax_over_single_examples(adapted: LoraModification) -> None:
    total = 0.0
    for row in ROWS:
        with torch.no_grad():
            logits = adapted.base(input_ids=torch.tensor([row.ids])).logits[0].double()
        log_probs = torch.log_softmax(logits, dim=-1)
        total -= sum(float(log_probs[t - 1, row.ids[t]]) for t in range(4, len(row.ids)))
    # 2 + 4 + 6 + 8 = 20 completion tokens.
    assert flat_loss(adapted.model, ROWS).item() == pytest.approx(total / 20, rel=1e-6)
    assert flat_loss(adapted.model, ROWS, items=40).item() == pytest.approx(total / 40, rel=1e-6)


def test_examples_do_not_see_each_other(adapted: LoraModification) -> None:
    """Perturbing the first example must not move the loss of any other, bit for bit."""
    other = replace(ROWS[0], ids=(1, 99, 98, 97, 96, 95))
    for quiet in (1, 2, 3):
        # Only one example keeps its labels, so that the loss is its own.
        muted = [row if i == quiet else replace(row, labels=(-100,) * len(row.ids)) for i, row in enumerate(ROWS)]
        perturbed = [replace(other, labels=(-100,) * 6), *muted[1:]]
        assert torch.equal(flat_loss(adapted.model, muted), flat_loss(adapted.model, perturbed))
    assert not torch.equal(flat_loss(adapted.model, ROWS), flat_loss(adapted.model, [other, *ROWS[1:]]))


def test_tokens_without_a_label_have_no_loss(adapted: LoraModification) -> None:
    prompts = [replace(row, labels=row.ids) for row in ROWS]
    batch = flat(ROWS)
    assert (batch["labels"] != -100).sum() == 20
    assert flat_loss(adapted.model, prompts).item() != pytest.approx(flat_loss(adapted.model, ROWS).item())


def test_the_trainer_hands_over_flat_batches_with_masked_prompts(
    drill: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    items: list[int] = []
    real = FlatSFTTrainer.compute_loss

    def compute(self: FlatSFTTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if "num_items_in_batch" in kwargs:  # the laboratory's probe step has none
            seen.append({name: inputs[name].clone() for name in ("input_ids", "labels", "position_ids")})
            items.append(int(kwargs["num_items_in_batch"]))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(FlatSFTTrainer, "compute_loss", compute)
    drill.run(till.meter())
    for rows, inputs, count in zip(drill.batches, seen, items, strict=True):
        expected = flat(rows)
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)
        assert count == sum(label != -100 for row in rows for label in row.labels)


def test_micro_batches_of_a_step_divide_by_the_labels_of_the_whole_step(
    new_drill: Callable[..., Any], training: Training, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[int] = []
    real = FlatSFTTrainer.compute_loss

    def compute(self: FlatSFTTrainer, *args: Any, **kwargs: Any) -> Any:
        if "num_items_in_batch" in kwargs:  # the laboratory's probe step has none
            items.append(int(kwargs["num_items_in_batch"]))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(FlatSFTTrainer, "compute_loss", compute)
    drill = new_drill(training=training.model_copy(update={"batch_rows": 4, "micro_batch_rows": 1}), steps=2)
    assert drill.run(till.meter()).steps == 2
    # All four examples are in each step: 20 completion tokens, whatever the micro-batch holds.
    assert items == [20] * 8


def test_the_learning_rates_of_the_schedule_are_followed(
    drill: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustlab.train import sft

    rates: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    wanted = [0.01, 0.003, 0.0, 0.02]
    run = sft.run_sft
    monkeypatch.setitem(drill.run.__globals__, "run_sft", lambda *a, **k: run(*a, **(k | {"learning_rates": wanted})))
    drill.run(till.meter())
    assert rates == wanted


def test_a_learning_rate_of_zero_changes_nothing(drill: Any, till: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustlab.train import sft

    run = sft.run_sft
    monkeypatch.setitem(
        drill.run.__globals__, "run_sft", lambda *a, **k: run(*a, **(k | {"learning_rates": [0.0] * 4}))
    )
    before = drill.modification.digest()
    assert drill.run(till.meter()).steps == 4
    assert drill.modification.digest() == before


def test_training_lowers_the_loss_and_leaves_the_target_in_eval_mode(new_drill: Callable[..., Any], till: Any) -> None:
    drill = new_drill(steps=8)
    outcome = drill.run(till.meter())
    assert outcome.losses[-1] < outcome.losses[0] - 0.3
    assert not any(module.training for module in drill.modification.model.modules())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_undefended_target_is_byte_identical_after_training_and_dispose(
    new_drill: Callable[..., Any], new_tiny: Callable[[], Any], training: Training, till: Any, dropout: float
) -> None:
    tiny = new_tiny()
    ids = torch.tensor([[1, 40, 41]])
    weights, own = tensors_digest(tiny.model.state_dict()), type(tiny.model).forward
    with torch.inference_mode():
        logits = tiny.model(input_ids=ids).logits.clone()
    lora = training.lora.model_copy(update={"dropout": dropout})
    drill = new_drill(target=tiny, training=training.model_copy(update={"lora": lora}))
    drill.run(till.meter())
    with drill.modification.lifted(), torch.inference_mode():
        assert torch.equal(tiny.model(input_ids=ids).logits, logits)
    drill.modification.dispose()
    assert tiny.model.forward.__func__ is own and "forward" not in vars(tiny.model)
    assert tensors_digest(tiny.model.state_dict()) == weights
    with torch.inference_mode():
        assert torch.equal(tiny.model(input_ids=ids).logits, logits)


def test_the_target_s_own_forward_is_back_after_an_error_too(drill: Any, till: Any) -> None:
    def at_mark(mark: Any) -> None:
        raise InterruptedError("stop")

    drill.marks, drill.at_mark = frozenset({1}), at_mark
    with pytest.raises(InterruptedError, match="stop"):
        drill.run(till.meter())
    assert "forward" not in vars(drill.target.model)
    assert not any(module.training for module in drill.modification.model.modules())


def test_generation_at_a_mark_uses_the_adapter_and_a_plain_forward(drill: Any, till: Any) -> None:
    found: list[Tensor] = []

    def at_mark(mark: Any) -> None:
        with torch.inference_mode():
            found.append(drill.target.model(input_ids=torch.tensor([[1, 40]]), logits_to_keep=1).logits.clone())

    drill.marks, drill.at_mark = frozenset({1, 4}), at_mark
    drill.run(till.meter())
    assert [tuple(logits.shape) for logits in found] == [(1, 1, 259)] * 2
    assert not torch.equal(found[0], found[1])


def test_nothing_is_written_where_the_caller_works(
    drill: Any, till: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    drill.run(till.meter())
    assert os.listdir(tmp_path) == ["scratch"] and os.listdir(scratch) == []


def test_nothing_is_printed(drill: Any, till: Any, capsys: pytest.CaptureFixture[str]) -> None:
    drill.run(till.meter())
    assert capsys.readouterr().out == ""


def test_a_row_that_is_too_long_is_refused_with_its_number(
    new_drill: Callable[..., Any], training: Training, till: Any
) -> None:
    drill = new_drill(training=training.model_copy(update={"max_tokens": 11}))
    row = next(i for i, row in enumerate(row for batch in drill.batches for row in batch) if len(row.ids) == 12)
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == (
        f"training row {row}: is longer than max_tokens 11, got 12 tokens; "
        "raise max_tokens in the recipe or shorten the row"
    )


def test_a_row_without_a_completion_is_refused(new_drill: Callable[..., Any], till: Any) -> None:
    drill = new_drill(examples=[Example((1, 2, 3), (-100,) * 3)])
    with pytest.raises(DataError) as caught:
        drill.run(till.meter())
    assert str(caught.value) == ("training row 0: has no completion token, got 0; give every row a completion")
