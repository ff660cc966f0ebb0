"""Courses of the smoke recipe on built-in rows, each on a fresh tiny target, and what each step of one leaves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from robustlab.models.modification import tensors_digest
from robustlab.models.quantize import quantize_nf4
from robustlab.spec.attacks import LoraSft
from robustlab.train.state import optimizer_tensors
from tests.invariants.course import Course, write_rows


@pytest.fixture
def new_course(new_tiny: Callable[[], Any], smoke_recipe: LoraSft) -> Callable[..., Course]:
    """Builder of trainings, each on a fresh target; options name fields of ``Training`` or of ``Course``."""

    def build(
        kind: str, *, steps: int, dropout: float = 0.0, batch_rows: int = 4, micro: int | None = None, **options: Any
    ) -> Course:
        target = quantize_nf4(new_tiny()) if kind.endswith("nf4") else new_tiny()
        lora = smoke_recipe.training.lora.model_copy(update={"dropout": dropout})
        # Gentler than the recipe, whose steps are so large that the last bit of a sum would show in the losses.
        optimizer = smoke_recipe.training.optimizer.model_copy(update={"learning_rate": 1e-3})
        changes = {
            "optimizer": optimizer,
            "lora": lora,
            "batch_rows": batch_rows,
            "micro_batch_rows": micro or batch_rows,
        }
        training = smoke_recipe.training.model_copy(update=changes)
        return Course(kind, target, write_rows(kind, target.tokenizer), training, steps, **options)

    return build


@pytest.fixture
def steps_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Digests of gradients, of the optimiser and of the generator, right after each step of the optimiser."""
    seen: list[tuple[str, ...]] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        done = real(self, *args, **kwargs)
        found = [parameter.grad for group in self.param_groups for parameter in group["params"]]
        gradients = {str(i): gradient for i, gradient in enumerate(found) if gradient is not None and gradient.any()}
        assert gradients
        parts = (gradients, optimizer_tensors(self), {"": torch.get_rng_state()})
        seen.append(tuple(tensors_digest(tensors) for tensors in parts))
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen
