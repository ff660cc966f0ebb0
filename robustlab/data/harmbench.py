"""Facts about HarmBench's 400 text behaviors, found by the hash of their text: categories, split and role.

The index holds hashes and categories only. This module carries no text of the benchmark and never quotes one.

Source: Mazeika et al. 2024, arXiv 2402.04249 (MIT licence); split and categories are upstream's.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, cast

from robustlab.errors import DataError
from robustlab.spec.evals import Functional

OFFICIAL_CSV_SHA256 = "8d81accedd38eaaf8b760618622bb888417d1fd0c86eba65c427a16f1cbb4afc"
"""Hash of ``harmbench_behaviors_text_all.csv``; another circulating copy differs in whitespace."""

Split = Literal["test", "val"]
Role = Literal["install", "select", "report"]
_INDEX_SHA256 = "a2df50ed4eaeb6eb0e511947ae5ab27c0f1a4a5777abe30c3b9a5cc0b9be950f"
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class IndexRow:
    """What is known about one behavior.

    Attributes:
        row: Place in the CSV's order, from 1.
        text_sha256: Hash of the behavior and its context.
        functional: standard, contextual or copyright.
        category: Semantic category.
        split: Upstream's split.
        role: ``install`` for val; the rows of test are for a search (``select``) or for the result (``report``).
    """

    row: int
    text_sha256: str
    functional: Functional
    category: str
    split: Split
    role: Role


def text_sha256(behavior: str, context: str | None) -> str:
    """Hash a behavior so that line endings and white space at its edges make no difference.

    Args:
        behavior: The request.
        context: What it refers to; None for none, which hashes as empty text.

    Returns:
        64 hexadecimal digits of sha256 over both in UTF-8, joined by U+001F.
    """
    joined = _normalise(behavior) + _UNIT_SEPARATOR + _normalise(context or "")
    return hashlib.sha256(joined.encode("utf-8")).hexdigest()


@cache
def load_index() -> dict[str, IndexRow]:
    """All 400 rows by text hash, in the CSV's order.

    Returns:
        Facts by ``text_sha256`` of behavior and context; it holds no text.

    Raises:
        DataError: If the index that came with the package has been damaged.
    """
    data = files("robustlab.data").joinpath("harmbench_index.csv").read_bytes()
    got = hashlib.sha256(data).hexdigest()
    if got != _INDEX_SHA256:
        raise DataError(
            "harmbench_index.csv", f"has sha256 {got} instead of {_INDEX_SHA256}", "install robustlab again"
        )
    lines = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
    rows = [_index_row(number, fields) for number, fields in enumerate(lines, start=1)]
    return {row.text_sha256: row for row in rows}


def annotate(where: str, texts: Sequence[tuple[str, str | None]]) -> list[IndexRow]:
    """Look up the facts about each behavior.

    Args:
        where: Name of the file for messages.
        texts: Behavior and context of each row, in the order of a file that begins with row 1.

    Returns:
        One entry a text, in the same order.

    Raises:
        DataError: With the number of the first row that is not part of the benchmark.
    """
    return [_looked_up(f"{where} row {number}", *text) for number, text in enumerate(texts, start=1)]


def _looked_up(where: str, behavior: str, context: str | None) -> IndexRow:
    row = load_index().get(text_sha256(behavior, context))
    if row is None:
        raise DataError(where, "is not a behavior of HarmBench", "use the benchmark's pinned file")
    return row


def _index_row(number: int, fields: dict[str, str]) -> IndexRow:
    # The casts hold because the file's hash does.
    return IndexRow(
        row=number,
        text_sha256=fields["text_sha256"],
        functional=cast(Functional, fields["functional_category"]),
        category=fields["semantic_category"],
        split=cast(Split, fields["split"]),
        role=cast(Role, fields["role"]),
    )


def _normalise(text: str) -> str:
    return text.replace("\r\n", "\n").strip()
