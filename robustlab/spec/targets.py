"""The model under test: where it comes from, pinned to what, and the shape by which a plan prices it."""

from typing import Annotated, Literal

from pydantic import Field

from robustlab.spec.base import Count, NonEmpty, Revision, Sha256, Spec
from robustlab.spec.sources import PypiSource

DType = Literal["float32", "bfloat16"]


class Shape(Spec):
    """The sizes that a plan needs to price a target without loading it."""

    layers: Count
    """Transformer blocks."""
    hidden: Count
    """Width of the residual stream."""
    intermediate: Count
    """Width of the feed-forward layer."""
    heads: Count
    """Query heads."""
    kv_heads: Count
    """Key and value heads."""
    head_dim: Count
    """Width of one head."""
    vocab: Count
    """Entries of the vocabulary."""
    parameters: Count
    """All parameters; tied embeddings count once."""
    matmul_parameters: Count
    """Parameters that are active in a matrix product for one token, with lm_head and without the embedding look-up."""


class TargetBase(Spec):
    """What every target states."""

    licence: NonEmpty
    """SPDX identifier of the weights' licence."""
    system_prompt: str | None
    """``template`` for the chat template's own, null for none, else the text."""
    reasoning: Literal["off"]
    """Whether the model thinks before it answers."""
    dtype: DType
    """Element type in which the target is released, attacked and measured."""
    shape: Shape
    """Sizes for the estimate."""


class GgufTarget(TargetBase):
    """A GGUF file, dequantised once into a local safetensors cache."""

    kind: Literal["gguf"]
    source: PypiSource
    """The wheel member that holds the file."""
    pre_tokenizer: Literal["default", "smollm"]
    """How digits are split before byte-level BPE; ``smollm`` splits each digit first, as llama.cpp does."""


class HubTarget(TargetBase):
    """A safetensors repository on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    model: NonEmpty
    """Repository id, ``owner/name``."""
    revision: Revision
    """Full commit hash."""


class FolderTarget(TargetBase):
    """A local folder in the format of transformers, for a model that someone else trained or hardened."""

    kind: Literal["folder"]
    path: NonEmpty
    """The folder, relative to the working folder."""
    sha256: dict[str, Sha256]
    """Hash of each file in the folder; a file that is not listed is refused."""


class TinyTarget(TargetBase):
    """A random-weight two-layer Llama with a byte tokenizer, built in seconds: it proves the plumbing, nothing else."""

    kind: Literal["tiny"]
    seed: int
    """Seed of the random weights."""


Target = Annotated[GgufTarget | HubTarget | FolderTarget | TinyTarget, Field(discriminator="kind")]
