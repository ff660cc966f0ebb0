"""The knobs of low-rank fine-tuning, shared by safeguards and attacks."""

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from robustlab.spec.base import Count, Index, NonEmpty, NonNegative, Positive, Rows, Spec, Steps, each_once


class Lora(Spec):
    """Shape of a low-rank adapter (Source: arXiv 2106.09685)."""

    rank: Count
    """Rank of the update."""
    alpha: Count
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout before the adapter."""
    # Not strict: a validator in front of a union, as safeguards have one, hands on a list.
    modules: Literal["all-linear"] | Annotated[tuple[NonEmpty, ...], Field(min_length=1), Strict(False)]
    """Names of the modules that get an adapter, or ``all-linear`` for every linear layer but lm_head."""

    @model_validator(mode="after")
    def _names_each_once(self) -> "Lora":
        if self.modules != "all-linear":
            each_once(self.modules)
        return self


class Optimizer(Spec):
    """AdamW and its schedule (Source: arXiv 1711.05101)."""

    learning_rate: NonNegative
    """Peak learning rate."""
    curve: Literal["constant", "linear", "cosine"]
    """How the rate falls after the warm-up, over the schedule that is fixed before step 1."""
    warmup_steps: Index
    """Steps of linear warm-up."""
    weight_decay: NonNegative
    """Decoupled weight decay."""
    max_grad_norm: Positive
    """Gradients are clipped to this norm."""


class Tuning(Spec):
    """One fine-tuning run, whatever it trains."""

    optimizer: Optimizer
    """The optimiser."""
    steps: Steps
    """Optimiser steps of the whole schedule."""
    batch_rows: Rows
    """Examples of one optimiser step, over all micro-batches."""
    micro_batch_rows: Rows
    """Examples that are forwarded at once; divides ``batch_rows``."""
    max_tokens: Count
    """Longest example, prompt and completion together; a longer one is refused, never cut."""

    @model_validator(mode="after")
    def _batches_are_whole(self) -> "Tuning":
        if self.batch_rows % self.micro_batch_rows:
            problem = "batch_rows must be a multiple of micro_batch_rows"
            raise ValueError(f"{problem}, got {self.batch_rows} and {self.micro_batch_rows}")
        return self


class Training(Tuning):
    """One fine-tuning run of a low-rank adapter."""

    lora: Lora
    """The adapter."""
