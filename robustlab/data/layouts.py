"""Reads the bytes of a row file in each of its layouts and names the row and the reason of the first fault.

Rows count from 1, a header not included. A fault never quotes the row: benchmark text stays out of messages. This
module does not know where the bytes came from or what the rows are for.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustlab.errors import DataError

LABELLED_COLUMNS = ("objective", "assistant_response", "human_score", "data_type")
CSV_COLUMNS = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")


@dataclass(frozen=True)
class RawRow:
    """One row as its file states it; what the file does not state is None.

    Attributes:
        id: Unique in the file; the text itself where the layout has no ids.
        prompt: The request.
        completion: The answer.
        context: What the request refers to.
        category: Semantic category, or style of a benign prompt.
        role: What the row may be used for.
    """

    id: str = field(repr=False)
    prompt: str | None = field(repr=False)
    completion: str | None = field(default=None, repr=False)
    context: str | None = field(default=None, repr=False)
    category: str | None = None
    role: str | None = None


@dataclass(frozen=True)
class LabelledRow:
    """One reply that a person looked at.

    Attributes:
        objective: What was asked.
        response: The reply; it may be empty.
        refused: Whether the person called it a refusal of the objective.
    """

    objective: str = field(repr=False)
    response: str = field(repr=False)
    refused: bool


def read_lines(where: str, data: bytes) -> list[RawRow]:
    """Read one request a line; a newline at the end of the file is optional.

    Args:
        where: Name of the file for messages.
        data: Its bytes.

    Returns:
        One row a line, with the request as its id too; everything else is None.

    Raises:
        DataError: With the number and the reason of the first faulty row.
    """
    lines = _decoded(where, data).removesuffix("\n").split("\n")
    return _checked(where, [RawRow(id=line, prompt=line) for line in lines])


def read_csv(where: str, data: bytes) -> list[RawRow]:
    """Read HarmBench's CSV. Arguments and errors as for ``read_lines``."""
    header, *records = _csv_records(where, _decoded(where, data))
    missing = [name for name in CSV_COLUMNS if name not in header]
    if missing:
        remedy = f"the columns are {', '.join(CSV_COLUMNS)}"
        raise DataError(where, f"has no column {', '.join(missing)}", remedy)
    return _checked(where, [_csv_row(where, number, header, row) for number, row in enumerate(records, start=1)])


def read_json_list(where: str, data: bytes) -> list[RawRow]:
    """Read a JSON list of objects with ``text`` and ``category``. Arguments and errors as for ``read_lines``."""
    listed = _parsed(where, _decoded(where, data))
    if not isinstance(listed, list):
        raise DataError(where, f"is not a list, got {type(listed).__name__}", "take a JSON list of objects")
    return _checked(where, [_json_row(where, number, item, "text") for number, item in enumerate(listed, start=1)])


def read_jsonl(where: str, data: bytes) -> list[RawRow]:
    """Read one JSON object a line, as the built-in sets are laid out. Arguments and errors as for ``read_lines``.

    Keys: ``id``; ``prompt`` or ``completion`` or both; ``category`` or ``style``; ``role``.
    """
    lines = _decoded(where, data).removesuffix("\n").split("\n")
    items = [_parsed(f"{where} row {number}", line) for number, line in enumerate(lines, start=1)]
    return _checked(where, [_json_row(where, number, item, "prompt") for number, item in enumerate(items, start=1)])


def read_labelled_csv(where: str, data: bytes) -> list[LabelledRow]:
    """Read human labels of refusals: lines of comment, a header, then one text a row with the score 0 or 1.

    Args:
        where: Name of the file for messages.
        data: Its bytes.

    Returns:
        One row a record, in the order of the file; replies and objectives may repeat.

    Raises:
        DataError: With the number and the reason of the first faulty row.
    """
    lines = _decoded(where, data).splitlines(keepends=True)
    comments = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header, *records = _csv_records(where, "".join(lines[comments:]))
    missing = [name for name in LABELLED_COLUMNS if name not in header]
    if missing:
        remedy = f"the columns are {', '.join(LABELLED_COLUMNS)}"
        raise DataError(where, f"has no column {', '.join(missing)}", remedy)
    numbered = [(number, row) for number, row in enumerate(records, start=1) if row]
    if not numbered:
        raise DataError(where, "has no rows", "take a file with rows")
    return [_labelled_row(where, number, _named(where, number, header, row)) for number, row in numbered]


def _labelled_row(where: str, number: int, named: Mapping[str, str]) -> LabelledRow:
    if named["human_score"] not in ("0", "1"):
        raise _fault(where, number, f"human_score: must be 0 or 1, got {named['human_score'][:20]!r}")
    if named["data_type"] != "text":
        raise _fault(where, number, f"data_type: must be text, got {named['data_type'][:20]!r}")
    if not named["objective"].strip():
        raise _fault(where, number, "has an empty objective")
    return LabelledRow(named["objective"], named["assistant_response"], named["human_score"] == "1")


def _csv_records(where: str, text: str) -> list[list[str]]:
    records: list[list[str]] = []
    try:
        records.extend(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise _fault(where, len(records), f"is not CSV: {error}") from None
    if not records:
        raise DataError(where, "is empty", "take a file with a header and rows")
    return records


def _csv_row(where: str, number: int, header: list[str], fields: list[str]) -> RawRow:
    named = _named(where, number, header, fields)
    return RawRow(
        id=named["BehaviorID"],
        prompt=named["Behavior"],
        context=named["ContextString"] or None,
        category=named["SemanticCategory"],
    )


def _named(where: str, number: int, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise _fault(where, number, f"has {len(fields)} columns, the header has {len(header)}")
    return dict(zip(header, fields, strict=True))


def _json_row(where: str, number: int, item: Any, text_key: str) -> RawRow:
    if not isinstance(item, Mapping):
        raise _fault(where, number, f"is not an object, got {type(item).__name__}")
    known = (text_key, "completion", "id", "category", "style", "role")
    wrong = [key for key in known if key in item and not isinstance(item[key], str)]
    if wrong:
        raise _fault(where, number, f"{wrong[0]}: must be text, got {type(item[wrong[0]]).__name__}")
    prompt, completion = item.get(text_key), item.get("completion")
    if prompt is None and completion is None:
        raise _fault(where, number, f"has no {text_key}")
    return RawRow(
        id=item.get("id", prompt or completion),
        prompt=prompt,
        completion=completion,
        category=item.get("category", item.get("style")),
        role=item.get("role"),
    )


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"is not JSON: {error}", "mend the file, or take the pinned one") from None


def _decoded(where: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise DataError(where, f"is not UTF-8 at byte {error.start}, in line {row}", "save the file as UTF-8") from None


def _checked(where: str, rows: list[RawRow]) -> list[RawRow]:
    if not rows:
        raise DataError(where, "has no rows", "take a file with rows")
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        texts = [text for text in (row.prompt, row.completion, row.context) if text is not None]
        if not all(text.strip() for text in texts):
            raise _fault(where, number, "has an empty text")
        if any("\0" in text for text in texts):
            raise _fault(where, number, "has a NUL character")
        if row.id in seen:
            raise _fault(where, number, f"repeats the id of row {seen[row.id]}")
        seen[row.id] = number
    return rows


def _fault(where: str, number: int, problem: str) -> DataError:
    return DataError(f"{where} row {number}", problem, "mend the file, or take the pinned one")
