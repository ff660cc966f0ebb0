"""The base of every schema, and the scalar types that schemas share.

Schemas are strict, frozen and closed. Scientific knobs have no default: the YAML is the whole truth.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Spec(BaseModel):
    """A closed, frozen, strict schema whose docstrings are also its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        defer_build=True,  # a command builds the schemas that it reads, so that all of them answer at once
    )


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# No price, cap, speed or knob is larger, and sums and products of such figures stay finite.
LARGEST = 1e18
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=int(LARGEST))]
Index = Annotated[int, Field(ge=0, le=int(LARGEST))]
NonEmpty = Annotated[str, Field(min_length=1)]
# What a step reads is laid out in memory, row by row and step by step.
Rows = Annotated[int, Field(ge=1, le=65_536)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Repeats = Annotated[int, Field(ge=0, le=1_000)]
# The widest that every generator takes.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
T = TypeVar("T")


def each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse a list that names something twice."""
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f"names {twice!r} twice")
    return values


# At least one, and none of them twice.
Several = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(each_once)]


def canonical_json(value: BaseModel | Mapping[str, object] | Sequence[object]) -> str:
    """Write a spec, or plain data, as JSON with sorted keys and no spaces: equal content, equal text."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: BaseModel | Mapping[str, object] | Sequence[object]) -> str:
    """Hash of the canonical JSON of a spec or of plain data: 64 hexadecimal digits of sha256."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
