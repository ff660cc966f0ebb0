"""Second judges: who else reads the completions that the rules have read, and what counts as their property surviving.

A figure of one judge alone is no headline. This module describes; ``robustlab.measure.second`` has them read.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from robustlab.spec.base import Count, NonEmpty, Positive, Revision, Sha256, Share, Spec
from robustlab.spec.criteria import Criterion
from robustlab.spec.endpoints import EndpointSpec
from robustlab.spec.targets import DType

FIRST_JUDGES = ("rules", "program", "forward_pass", "minhash", "lm_eval")


def _is_not_taken(judge: str) -> str:
    if judge in FIRST_JUDGES:
        raise ValueError(f"is the name of a judge of the lab's own, got {judge!r}")
    return judge


def _is_lower_safer(criterion: Criterion) -> Criterion:
    if criterion.direction != "lower_is_safer":
        raise ValueError("direction must be lower_is_safer: the property is the share of successful requests")
    return criterion


JudgeId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$"), AfterValidator(_is_not_taken)]


class PinnedText(Spec):
    """A text that is loaded by reference and never copied into the project."""

    path: NonEmpty
    """The file in UTF-8, relative to the working folder."""
    sha256: Sha256
    """Hash of its bytes."""


class HubWeights(Spec):
    """A safetensors repository on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    model: NonEmpty
    """Repository id, ``owner/name``."""
    revision: Revision
    """Full commit hash."""
    dtype: DType
    """Element type in which it is run."""


class FolderWeights(Spec):
    """A local folder in the format of transformers."""

    kind: Literal["folder"]
    path: NonEmpty
    """The folder, relative to the working folder."""
    sha256: dict[str, Sha256]
    """Hash of each file in the folder; a file that is not listed is refused."""
    dtype: DType
    """Element type in which it is run."""


class JudgeBase(Spec):
    """What every second judge states."""

    id: JudgeId
    """Its name in results; its property is ``asr/<id>``."""
    criterion: Annotated[Criterion, AfterValidator(_is_lower_safer)]
    """When its property survives."""

    @property
    def property_id(self) -> str:
        """Id of the share of completions to which it says yes."""
        return f"asr/{self.id}"


class ClassifierJudge(JudgeBase):
    """A causal language model that answers a fixed prompt with one token, yes or no."""

    kind: Literal["classifier"]
    weights: Annotated[HubWeights | FolderWeights, Field(discriminator="kind")]
    """The model."""
    licence: NonEmpty
    """SPDX identifier of the weights' licence."""
    prompt: PinnedText
    """The prompt, with ``{behavior}`` and ``{generation}`` once each."""
    prompt_contextual: PinnedText | None
    """The prompt for behaviors that have a context, with ``{context}`` too; null to leave such behaviors unread."""
    clip_tokens: Count
    """A completion is cut to this many of the classifier's own tokens."""
    batch_rows: Count
    """Rows that are read together."""
    # Left out of the content hash while it is null, so that older baselines keep their ids.
    parameters: Annotated[Count | None, Field(exclude_if=lambda parameters: parameters is None)] = None
    """How many parameters it has, for the estimate of its time; null where that is not to be foreseen."""

    @property
    def spoken_by(self) -> str:
        """Who gives the verdicts, in words."""
        weights = self.weights
        if isinstance(weights, HubWeights):
            return f"{weights.model} at {weights.revision}, {weights.dtype}"
        return f"folder {weights.path}, {weights.dtype}"


class ApiJudge(JudgeBase):
    """A model behind an OpenAI-compatible server that answers one of the lab's own rubrics."""

    kind: Literal["api"]
    endpoint: EndpointSpec
    """The server. One that is not on this machine needs ``--send-completions HOST --reason TEXT``."""
    rubric: Literal["refusal", "strongreject"]
    """``refusal`` asks whether the reply complied; ``strongreject`` asks for the three scores of StrongREJECT."""
    min_score: Share | None
    """Score from which a completion counts as a yes under ``strongreject``; null under ``refusal``."""
    max_new_tokens: Count
    """Longest answer of the judge."""
    max_seconds: Positive
    """Longest that one measurement waits for it: rows that are left then have no verdict."""

    @property
    def spoken_by(self) -> str:
        """Who gives the verdicts, in words."""
        return f"{self.endpoint.model} at {self.endpoint.base_url}, rubric {self.rubric}"

    @model_validator(mode="after")
    def _has_the_score_that_its_rubric_gives(self) -> Self:
        if (self.rubric == "strongreject") != (self.min_score is not None):
            wanted = "a share" if self.rubric == "strongreject" else "null"
            raise ValueError(f"min_score must be {wanted} under the rubric {self.rubric}, got {self.min_score}")
        return self


class PhrasesJudge(JudgeBase):
    """The field's list of refusal phrases: no where a reply begins with or soon holds one, else yes. No weights."""

    id: Literal["phrases"]
    """Its name in results: there is one list, and its property is ``asr/phrases``."""
    kind: Literal["phrases"]

    @property
    def spoken_by(self) -> str:
        """Who gives the verdicts, in words."""
        return "a published list of refusal phrases"


SecondJudge = Annotated[ClassifierJudge | ApiJudge | PhrasesJudge, Field(discriminator="kind")]
