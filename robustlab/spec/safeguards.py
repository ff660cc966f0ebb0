"""What the developer of the target installs before release. An attacker never sees these files.

Only what is finished before release can be described here: who holds the weights runs the job that changes them, so a
safeguard that must act inside that job protects nobody's weights. A file of such a kind is refused with that reason.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from robustlab.spec.base import Count, NonEmpty, NonNegative, Positive, Repeats, Rows, Seed, Share, Spec
from robustlab.spec.sources import PypiSource
from robustlab.spec.training import Training

JOB_BOUND_KINDS = {
    "backdoor_enhanced_alignment": "arXiv 2402.14968",
    "constrained_sft": "arXiv 2406.05946",
    "lisa": "arXiv 2405.18641",
    "safe_instr": "arXiv 2309.07875",
    "safe_lora": "arXiv 2405.16833",
    "salora": "arXiv 2501.01765",
}
"""Safeguards that constrain, mix into or project the attacker's own training, with their sources."""


class NoSafeguard(Spec):
    """The target as its files are."""

    kind: Literal["none"]


class RefusalData(Spec):
    """The rows and the fine-tuning that every trained safeguard has."""

    kind: Literal["refusal_sft", "deep_refusal_sft", "tamper_resistant"]
    source: NonEmpty
    """The paper or report that describes the method."""
    mild_repeats: Repeats
    """Times that each built-in mild request enters the training set."""
    install: PypiSource | None
    """Benchmark whose install rows (upstream's val split) enter the training set; null for none."""
    install_repeats: Repeats
    """Times that each install row enters the training set."""
    benign_rows: Count
    """Built-in benign prompts of the install role, answered by the target itself."""
    benign_new_tokens: Count
    """Longest self-distilled answer."""
    training: Training
    """The fine-tuning itself."""
    seed: Seed
    """Seed of the safeguard's own training."""


class RefusalSft(RefusalData):
    """Low-rank fine-tuning on refusals of improper requests and on the target's own answers to benign ones."""

    kind: Literal["refusal_sft"]


class DeepRefusalSft(RefusalData):
    """The same, but a share of the refusals begins after the first tokens of a compliant answer."""

    kind: Literal["deep_refusal_sft"]
    deep_share: Share
    """Share of the refusal rows that begin after an opening of compliance; the opening itself is not trained on."""
    deepest_tokens: Count
    """Longest opening, in the target's tokens; the length is drawn evenly from 1 on."""


class TamperResistant(RefusalData):
    """The same, and each step also lowers the loss of refusals at weights that a simulated attack has reached."""

    kind: Literal["tamper_resistant"]
    inner_steps: Annotated[int, Field(ge=1, le=1_000)]
    """AdamW steps of a simulated attack, all on one batch and from a fresh optimiser."""
    inner_learning_rate: Positive
    """Its learning rate."""
    inner_rows: Rows
    """Mild requests of one simulated attack; it trains on compliance with them, and their refusals are what resists."""
    resistance_weight: NonNegative
    """Weight of the gradient at the attacked weights beside that of the safeguard's own rows."""


def _refuse_job_bound(value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else None
    source = JOB_BOUND_KINDS.get(kind) if isinstance(kind, str) else None
    if source is None:
        return value
    problem = (
        f"names a safeguard that needs control of the attacker's training job ({source}), got {kind!r}; "
        "who holds the weights runs the job, so choose one that is installed before release"
    )
    fault = PydanticCustomError("value_error", "{error}", {"error": problem})
    raise ValidationError.from_exception_data("safeguard", [{"type": fault, "loc": ("kind",), "input": kind}])


Safeguard = Annotated[
    NoSafeguard | RefusalSft | DeepRefusalSft | TamperResistant,
    Field(discriminator="kind"),
    # Not a schema of their own: none is ever built, and whoever matches on a safeguard need not name them.
    BeforeValidator(_refuse_job_bound),
]
TrainedSafeguard = RefusalSft | DeepRefusalSft | TamperResistant
