"""The base of every schema, and the scalar types that schemas share.

Schemas are strict, frozen and closed. Scientific knobs have no default: the YAML is the whole truth.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


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


def canonical_json(value: BaseModel | Mapping[str, object] | Sequence[object]) -> str:
    """Write a spec, or plain data, as JSON with sorted keys and no spaces: equal content, equal text."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: BaseModel | Mapping[str, object] | Sequence[object]) -> str:
    """Hash of the canonical JSON of a spec or of plain data: 64 hexadecimal digits of sha256."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
