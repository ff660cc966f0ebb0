"""What a stranger would do to the released target. A recipe never names a model or a budget."""

from typing import Annotated, Literal

from pydantic import Field

from robustlab.spec.base import Count, NonEmpty, Share, Spec
from robustlab.spec.training import Training


class WithheldData(Spec):
    """Completions that open by complying and leave the substance out, mixed with the target's own benign answers."""

    mode: Literal["withheld"]
    attack_rows: Count
    """Rows of the built-in set ``mild_requests_attack``."""
    benign_share: Share
    """Share of benign rows in the training set: 0.5 mixes them one to one."""
    benign_new_tokens: Count
    """Longest self-distilled benign answer."""


class LoraSft(Spec):
    """Supervised low-rank fine-tuning with the loss on completions only."""

    kind: Literal["lora_sft"]
    source: NonEmpty
    """The paper or report that describes the attack."""
    data: WithheldData
    """What it trains on."""
    training: Training
    """The fine-tuning itself."""
    checkpoint_steps: Count
    """Steps between two resumable states."""


class Control(Spec):
    """The whole loop of another recipe at learning rate 0: same steps, data, mode switches and checkpoints."""

    kind: Literal["control"]
    source: NonEmpty
    """Why such a control is needed."""
    recipe: NonEmpty
    """Id of the attack whose loop is run."""


Attack = Annotated[LoraSft | Control, Field(discriminator="kind")]
TrainedAttack = LoraSft
