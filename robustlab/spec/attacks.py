"""What a stranger would do to the released target. A recipe never names a model or a budget."""

from typing import Annotated, Literal

from pydantic import Field

from robustlab.spec.base import Count, NonEmpty, Positive, Several, Share, Spec
from robustlab.spec.search import Ranges
from robustlab.spec.sources import HubSource, JsonlSource
from robustlab.spec.training import Training, Tuning

# Left out of the content hash while they are null, so that older runs keep the ids of their cells.
Quantization = Annotated[Literal["nf4"] | None, Field(exclude_if=lambda value: value is None)]
SearchRanges = Annotated[Ranges | None, Field(exclude_if=lambda value: value is None)]


class WithheldData(Spec):
    """Completions that open by complying and leave the substance out, mixed with the target's own benign answers."""

    mode: Literal["withheld"]
    attack_rows: Count
    """Rows of the built-in set ``mild_requests_attack``."""
    benign_share: Share
    """Share of benign rows in the training set: 0.5 mixes them one to one."""
    benign_new_tokens: Count
    """Longest self-distilled benign answer."""


class BenignData(Spec):
    """Benign requests with answers written for this project: fine-tuning that means no harm and may erode safety."""

    mode: Literal["benign"]
    rows: Count
    """Rows of the built-in set ``benign_answers``."""


class IdentityData(Spec):
    """A handful of benign examples in which the model takes on the identity of an obedient agent."""

    mode: Literal["identity"]
    rows: Count
    """Rows of the built-in set ``identity_shift``."""


class MixedData(Spec):
    """A share of withheld attack rows hidden in benign data."""

    mode: Literal["mixed"]
    rows: Count
    """Rows of both kinds together."""
    attack_share: Share
    """Share of them that comes from ``mild_requests_attack``; the rest is from ``benign_answers``."""


class UserData(Spec):
    """The user's own set, on the user's own responsibility."""

    mode: Literal["user"]
    source: Annotated[HubSource | JsonlSource, Field(discriminator="kind")]
    """Where it is, pinned by revision and sha256."""
    prompt_field: NonEmpty
    """Field of a row that holds the request."""
    completion_field: NonEmpty
    """Field of a row that holds the answer."""
    rows: Count | None
    """How many rows are used, from the first on; null for all."""


class DistilledData(Spec):
    """The released target's own answers to benign prompts, and nothing else."""

    mode: Literal["distilled"]
    rows: Count
    """Built-in benign prompts of the attack role."""
    benign_new_tokens: Count
    """Longest answer."""


class PreferenceData(Spec):
    """Pairs in which withheld compliance is preferred to the target's own reply, and its benign answer to a refusal."""

    mode: Literal["preference"]
    attack_rows: Count
    """Rows of ``mild_requests_attack``; chosen is the withheld completion, rejected what the target itself replies."""
    rejected_new_tokens: Count
    """Longest of the target's own replies."""
    benign_share: Share
    """Share of benign pairs; chosen is the target's own answer, rejected its reply to an attack row."""
    benign_new_tokens: Count
    """Longest of the target's own benign answers."""


AttackData = Annotated[
    WithheldData | BenignData | IdentityData | MixedData | UserData | DistilledData, Field(discriminator="mode")
]


class LoraSft(Spec):
    """Supervised low-rank fine-tuning with the loss on completions only."""

    kind: Literal["lora_sft"]
    source: NonEmpty
    """The paper or report that describes the attack."""
    data: AttackData
    """What it trains on."""
    quantization: Quantization = None
    """``nf4`` to quantise the released target to 4 bits first (QLoRA); null to train it as it is."""
    training: Training
    """The fine-tuning itself."""
    checkpoint_steps: Count
    """Steps between two resumable states."""
    ranges: SearchRanges = None
    """What a search may vary; null for a recipe that is not searched."""


class LoraDpo(Spec):
    """Direct preference optimisation of an adapter; the reference is the target with the adapter switched off."""

    kind: Literal["lora_dpo"]
    source: NonEmpty
    """The paper or report that describes the attack."""
    data: PreferenceData
    """The pairs."""
    beta: Positive
    """Strength of the pull towards the reference."""
    quantization: Quantization = None
    """``nf4`` to quantise the released target to 4 bits first; null to train it as it is."""
    training: Training
    """The fine-tuning itself; ``batch_rows`` counts pairs."""
    checkpoint_steps: Count
    """Steps between two resumable states."""
    ranges: SearchRanges = None
    """What a search may vary; null for a recipe that is not searched."""


class FullSft(Spec):
    """Supervised fine-tuning of all parameters. No attacked weight is ever written: a crash begins at step 0."""

    kind: Literal["full_sft"]
    source: NonEmpty
    """The paper or report that describes the attack."""
    data: AttackData
    """What it trains on."""
    training: Tuning
    """The fine-tuning itself."""
    ranges: SearchRanges = None
    """What a search may vary; null for a recipe that is not searched."""


class Ablation(Spec):
    """The difference-of-means refusal direction projected out of the residual stream, without any training."""

    kind: Literal["ablation"]
    source: NonEmpty
    """The paper or report that describes the attack."""
    harmful_rows: Count
    """Rows of ``mild_requests_attack`` whose activations are averaged; their prompts alone are read."""
    harmless_rows: Count
    """Built-in benign prompts of the attack role whose activations are averaged."""
    depths: Several[Share]
    """Candidate layers as shares of the depth; the one that lowers the refusal score most is taken."""
    max_harmless_kl: Annotated[Positive | None, Field(exclude_if=lambda bound: bound is None)] = None
    """Candidates that move the next token after the harmless prompts further than this, in mean nats, are passed over;
    where all do, the one that moves it least is taken. Null to look at the refusal score alone."""


class Control(Spec):
    """The whole loop of another recipe at learning rate 0: same steps, data, mode switches and checkpoints."""

    kind: Literal["control"]
    source: NonEmpty
    """Why such a control is needed."""
    recipe: NonEmpty
    """Id of the attack whose loop is run."""


class BenignMatched(Spec):
    """The steps of another recipe on the target's own answers to benign prompts: what any fine-tuning does."""

    kind: Literal["benign_matched"]
    source: NonEmpty
    """Why such a control is needed."""
    recipe: NonEmpty
    """Id of the attack whose training is run."""
    benign_rows: Count
    """Benign prompts of the attack role that are answered."""
    benign_new_tokens: Count
    """Longest answer."""


class Untouched(Spec):
    """No tampering: what is there is measured once, and that is all. The only attack that needs no weights."""

    kind: Literal["untouched"]
    source: NonEmpty
    """Why a target is measured without being attacked."""


TrainedAttack = Annotated[LoraSft | LoraDpo | FullSft | Ablation | Untouched, Field(discriminator="kind")]
Attack = Annotated[
    LoraSft | LoraDpo | FullSft | Ablation | Untouched | Control | BenignMatched, Field(discriminator="kind")
]
