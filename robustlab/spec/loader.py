"""Reads YAML 1.2 scalars into a schema, reports every fault at once as ``file:line``, and writes specs back.

Plain PyYAML takes ``1e-4`` as text, ``no`` as False, ``12:30`` as 750 and ``010`` as 8, and keeps the last of two equal
keys; this loader does none of that. Tags, aliases and anchors are refused: a configuration file has no use for them.
It knows nothing of where files lie (``robustlab.spec.catalog`` does).
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from yaml.reader import ReaderError

from robustlab.errors import ConfigError, Fault, InvalidFile
from robustlab.redaction import find_secret
from robustlab.spec.faults import MAX_FAULTS, explain_faults

T = TypeVar("T")
MAX_BYTES = 8_000_000
MAX_DEPTH = 32
MAX_DIGITS = 30
MAX_EXPLAINED_CHARS = 200_000
"""Longest text that the slow parser goes through to explain what is wrong with it."""
_CORE_SCHEMA = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$")),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")),
    ("int", re.compile(r"^[-+]?[0-9]+$")),
    ("float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")),
    ("float", re.compile(r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")),
)
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_SYNTAX_HINTS = (
    ("mapping values are not allowed", "; put text that holds a colon in quotes"),
    ("character '\\t'", "; indent with spaces"),
    ("that cannot start any token", "; put text that begins so in quotes"),
    ("found another document", "; keep one document in a file"),
    ("end of stream", "; close the quote or the bracket"),
    ("stream end", "; close the quote or the bracket"),
)


class _PlainLoader(yaml.SafeLoader):
    """A parser that leaves every scalar as text, so that the core schema above decides."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute


Loader = type[yaml.SafeLoader] | type[yaml.CSafeLoader]
_LOADERS: tuple[Loader, ...] = (_PlainLoader,)
if yaml.__with_libyaml__:

    class _QuickLoader(yaml.CSafeLoader):
        """The same in C, eight times as fast; what it refuses, the one above explains."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own

    _LOADERS = (_QuickLoader, _PlainLoader)


class _PlainDumper(yaml.SafeDumper):
    """A writer that puts text in quotes where the core schema would read it as something else, such as ``1e5``."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out: the loader refuses anchors."""
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Quote what is not text to the core schema; PyYAML quotes what is not text to itself."""
        style = '"' if any(pattern.match(text) for _, pattern in _CORE_SCHEMA) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlainDumper.add_representer(str, _PlainDumper.represent_text)


def load_yaml(path: Path, schema: TypeAdapter[T]) -> T:
    """Read one file into a schema.

    Args:
        path: The file; it is named in faults as it is given here.
        schema: What the document must be.

    Returns:
        The document as the schema makes it.

    Raises:
        ConfigError: If the file cannot be read.
        InvalidFile: With every fault that it holds.
    """
    text = _read_text(path)
    _refuse_secrets(path, text)
    node = _compose(path, text)
    faults: list[Fault] = []
    plain = _to_plain(node, str(path), faults, "")
    try:
        value = schema.validate_json(json.dumps(plain))
    except ValidationError as error:
        # A scalar that could not be read stands as null here: what the schema says of it or of its block is no news.
        seen = [f"{fault.field}." for fault in faults]
        found = explain_faults(error, node, str(path), schema)
        faults += [fault for fault in found if not any(name.startswith(f"{fault.field}.") for name in seen)]
    if faults:
        raise _invalid(sorted(faults))
    return value


def find_line(path: Path, *field: str) -> int:
    """Line of a key in a file, from 1.

    Args:
        path: The file.
        *field: Keys from the outermost in; none for the document itself.

    Returns:
        The key's line; that of the nearest block around it when the file does not write the key.

    Raises:
        ConfigError: If the file cannot be read.
        InvalidFile: If it is not YAML.
    """
    node = _compose(path, _read_text(path))
    line = node.start_mark.line + 1
    for name in field:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        hit = next(((key, value) for key, value in pairs if key.value == name), None)
        if hit is None:
            break
        line, node = hit[0].start_mark.line + 1, hit[1]
    return int(line)


def dump_yaml(spec: BaseModel) -> str:
    """Write a spec as YAML that ``load_yaml`` reads back as the same spec."""
    plain = spec.model_dump(mode="json")
    text: str = yaml.dump(plain, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(str(path), "is not a regular file", "name a YAML file")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", "name a file that exists") from None
    if len(data) > MAX_BYTES:
        problem = f"is {len(data):,} bytes long; keep it under {MAX_BYTES:,}"
        raise InvalidFile((Fault(str(path), 1, "", problem),))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8 at byte {error.start}; save the file as UTF-8"
        raise InvalidFile((Fault(str(path), line, "", problem),)) from None


def _refuse_secrets(path: Path, text: str) -> None:
    """Whatever a file says is stored with a run and printed by it; a key that was put there by mistake must not be."""
    place = find_secret(text)
    if place is not None:
        problem = "holds a secret; take it out, and put it into an environment variable"
        raise InvalidFile((Fault(str(path), text.count("\n", 0, place) + 1, "", problem),))


def _compose(path: Path, text: str) -> yaml.Node:
    for quick in _LOADERS[:-1]:
        with suppress(yaml.YAMLError):
            return _compose_with(quick, path, text)
    try:
        return _compose_with(_LOADERS[-1] if len(text) <= MAX_EXPLAINED_CHARS else _LOADERS[0], path, text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"holds the character {chr(error.character)!r}, which YAML does not allow; remove it"
        raise InvalidFile((Fault(str(path), line, "", problem),)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidFile((Fault(str(path), mark.line + 1 if mark else 1, "", _syntax(error)),)) from None


def _compose_with(loader: Loader, path: Path, text: str) -> yaml.Node:
    _refuse_references(path, text, loader)
    node: yaml.Node | None = yaml.compose(text, Loader=loader)
    if node is None:
        raise InvalidFile((Fault(str(path), 1, "", "is empty"),))
    return node


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "the parser gave no reason"
    hint = next((hint for part, hint in _SYNTAX_HINTS if part in problem), "")
    return f"is not YAML: {problem}{hint}"


def _refuse_references(path: Path, text: str, loader: Loader) -> None:
    """Refuse anchors, aliases, tags and deep nesting, before anything is built from them."""
    depth = 0
    faults: list[Fault] = []
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1 if event.start_mark else 1
        if depth > MAX_DEPTH:
            raise InvalidFile((*faults, Fault(str(path), line, "", f"nests deeper than {MAX_DEPTH} levels")))
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor:
            faults.append(Fault(str(path), line, "", f"uses the anchor or alias {anchor[:80]!r}; write it out"))
        if tag:
            faults.append(Fault(str(path), line, "", f"has the tag {tag[:80]!r}; tags are not read, leave it out"))
        if len(faults) > MAX_FAULTS:
            break
    if faults:
        raise _invalid(faults)


def _invalid(faults: list[Fault]) -> InvalidFile:
    """All faults, or the first ones where a file is nothing but faults."""
    if len(faults) <= MAX_FAULTS:
        return InvalidFile(tuple(faults))
    last = faults[MAX_FAULTS]
    return InvalidFile((*faults[:MAX_FAULTS], Fault(last.path, last.line, "", "and more from here on")))


def _to_plain(node: yaml.Node, path: str, faults: list[Fault], field: str) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, faults, field)
    if isinstance(node, yaml.SequenceNode):
        return [_to_plain(item, path, faults, f"{field}.{i}".lstrip(".")) for i, item in enumerate(node.value)]
    return _mapping(node, path, faults, field)


def _mapping(node: yaml.Node, path: str, faults: list[Fault], field: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or _NOT_TEXT.search(key.value):
            faults.append(Fault(path, line, field, "has a key that is not text"))
            continue
        name = f"{field}.{key.value}".lstrip(".")
        if key.value in plain:
            faults.append(Fault(path, line, name, f"appears twice, first in line {first[key.value]}; keep one"))
            continue
        first[key.value] = line
        plain[key.value] = _to_plain(value, path, faults, name)
    return plain


def _scalar(node: yaml.ScalarNode, path: str, faults: list[Fault], field: str) -> Any:
    text: str = node.value
    line = node.start_mark.line + 1
    if _NOT_TEXT.search(text):
        faults.append(Fault(path, line, field, "holds a character that is not text; remove it"))
        return None
    if node.style:
        return text
    kind = next((name for name, pattern in _CORE_SCHEMA if pattern.match(text)), "str")
    if kind == "float" and ("inf" in text.lower() or "nan" in text.lower()):
        faults.append(Fault(path, line, field, f"must be a finite number, got {text}"))
        return None
    if kind == "int" and len(text) > MAX_DIGITS:
        problem = f"has {len(text)} digits, {MAX_DIGITS} at most; put it in quotes if it is text"
        faults.append(Fault(path, line, field, problem))
        return None
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text)
        case _:
            return text
