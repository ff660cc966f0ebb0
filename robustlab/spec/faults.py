"""Words pydantic's errors for people, and finds the line of each in the YAML nodes that the value was read from.

It knows neither files nor scalars; ``robustlab.spec.loader`` does.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from robustlab.errors import Fault

MAX_FAULTS = 100
_DISCRIMINATORS = ("kind", "mode")
_MAPPING = "a mapping of keys to values"
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": _MAPPING,
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "too_short": "a list that is not empty",
    "tuple_type": "a list",
}
_HEX_PATTERN = re.compile(r"\^\[0-9a-f\]\{(\d+)\}\$")


@dataclass(frozen=True)
class _Complaint:
    """One of pydantic's errors: at a place, what was expected (empty when that is not the point), and the rest."""

    place: tuple[int, str]
    expected: str
    rest: str


def explain_faults(error: ValidationError, root: yaml.Node, path: str, schema: TypeAdapter[Any]) -> list[Fault]:
    """Turn a validation error into faults at the lines of the offending keys.

    Args:
        error: What pydantic found.
        root: The document as it was composed.
        path: The file, as the user named it.
        schema: What the document should have been; its keys are the hints for unknown ones.

    Returns:
        One fault for each field, ``MAX_FAULTS`` at most and then one that counts the rest.
    """
    names = sorted(set(_property_names(schema.json_schema())))
    details = error.errors(include_url=False)
    complaints = [_complain(detail, root, names) for detail in details[:MAX_FAULTS]]
    fields = {complaint.place[1] for complaint in complaints}
    faults: dict[tuple[int, str], Fault] = {}
    for complaint in complaints:
        line, field = complaint.place
        # What is wrong inside a value says more than that the whole value is not what it should be.
        if not any(other.startswith(f"{field}.") for other in fields if field):
            expected = [other.expected for other in complaints if other.place == complaint.place and other.expected]
            must_be = f"must be {' or '.join(dict.fromkeys(expected))}" if expected else ""
            faults.setdefault(complaint.place, Fault(path, line, field, must_be + complaint.rest))
    if len(details) > MAX_FAULTS:
        last = max(fault.line for fault in faults.values())
        problem = f"{len(details) - MAX_FAULTS:,} more faults are not shown; is this the right file?"
        return [*faults.values(), Fault(path, last, "", problem)]
    return [*faults.values()]


def _complain(detail: ErrorDetails, root: yaml.Node, names: list[str]) -> _Complaint:
    loc, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind.startswith("union_tag"):
        return _complain_of_tag(detail, root)
    fields, line, node = _walk(root, loc)
    if kind == "extra_forbidden":
        # A key may be known elsewhere in the schema; it is no hint for itself.
        close = difflib.get_close_matches(str(loc[-1]), [name for name in names if name != loc[-1]], n=1)
        return _Complaint((line, fields), "", "is not a known key" + (f"; did you mean {close[0]!r}?" if close else ""))
    if kind == "missing":
        return _Complaint((line, f"{fields}.{loc[-1]}".lstrip(".")), "", "is missing")
    if kind == "value_error":
        return _Complaint((line, fields), "", str(context["error"]))
    return _Complaint((line, fields), _expected(detail), f", got {_shown(detail['input'], node)}{_hint(detail)}")


def _hint(detail: ErrorDetails) -> str:
    value = detail["input"]
    if detail["type"] == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if detail["type"] == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"; write {value:.0f}"
    return ""


def _complain_of_tag(detail: ErrorDetails, root: yaml.Node) -> _Complaint:
    context, value = detail.get("ctx", {}), detail["input"]
    name = str(context["discriminator"]).strip("'")
    fields, line, node = _walk(root, (*detail["loc"], name))
    if name not in value:
        return _Complaint((line, f"{fields}.{name}".lstrip(".")), "", "is missing")
    expected = str(context["expected_tags"])
    tags = re.findall(r"'([^']*)'", expected)
    close = difflib.get_close_matches(str(value[name]), tags, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return _Complaint((line, fields), f"one of {expected}", f", got {_shown(value[name], node)}{hint}")


def _expected(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch":
        digits = _HEX_PATTERN.fullmatch(context["pattern"])
        return f"{digits[1]} hexadecimal digits (0-9, a-f)" if digits else f"text like {context['pattern']}"
    return _EXPECTED.get(kind) or detail["msg"].removeprefix("Input should be ")


def _shown(value: object, node: yaml.Node) -> str:
    """The value as it was written; text that was read as text comes in quotes."""
    if isinstance(value, dict):
        return "a mapping"
    as_json = json.dumps(value, ensure_ascii=False)
    plain = isinstance(node, yaml.ScalarNode) and not isinstance(value, str) and node.value
    text = str(node.value) if plain else as_json
    return text if len(text) <= 80 else f"{text[:80]}..."


def _walk(root: yaml.Node, loc: tuple[int | str, ...]) -> tuple[str, int, yaml.Node]:
    """Follow an error's location through the nodes; union tags in it are no keys of the file and are skipped."""
    node, line, fields = root, root.start_mark.line + 1, []
    tag_due = True
    for i, part in enumerate(loc):
        if tag_due and i < len(loc) - 1 and part == _tag_of(node):
            tag_due = False
            continue
        hit = _child(node, part)
        if hit is not None:
            key, node = hit
            line, tag_due = key.start_mark.line + 1, True
            fields.append(str(part))
    return ".".join(fields), line, node


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _tag_of(node: yaml.Node) -> str | None:
    """What a mapping says it is, by which pydantic names the member of a union."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value.value for key, value in pairs if key.value in _DISCRIMINATORS), None)


def _property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for child in children:
        yield from _property_names(child)
