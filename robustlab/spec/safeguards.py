"""What the developer of the target installs before release. An attacker never sees these files."""

from typing import Annotated, Literal

from pydantic import Field

from robustlab.spec.base import Count, Index, NonEmpty, Spec
from robustlab.spec.sources import PypiSource
from robustlab.spec.training import Training


class NoSafeguard(Spec):
    """The target as its files are."""

    kind: Literal["none"]


class RefusalSft(Spec):
    """Low-rank fine-tuning on refusals of improper requests and on the target's own answers to benign ones."""

    kind: Literal["refusal_sft"]
    source: NonEmpty
    """The paper or report that describes the method."""
    mild_repeats: Index
    """Times that each built-in mild request enters the training set."""
    install: PypiSource | None
    """Benchmark whose install rows (upstream's val split) enter the training set; null for none."""
    install_repeats: Index
    """Times that each install row enters the training set."""
    benign_rows: Count
    """Built-in benign prompts of the install role, answered by the target itself."""
    benign_new_tokens: Count
    """Longest self-distilled answer."""
    training: Training
    """The fine-tuning itself."""
    seed: int
    """Seed of the safeguard's own training."""


Safeguard = Annotated[NoSafeguard | RefusalSft, Field(discriminator="kind")]
