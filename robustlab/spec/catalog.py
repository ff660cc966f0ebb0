"""Finds the YAML files by id: in the working folder first, then in the installed package.

A file's stem is its id. This module reads files; it does not know what running them means.
"""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

import robustlab
from robustlab.errors import ConfigError
from robustlab.spec.attacks import Attack
from robustlab.spec.budgets import Budget
from robustlab.spec.evals import Eval
from robustlab.spec.loader import find_line, load_yaml
from robustlab.spec.plan import PlanFile
from robustlab.spec.policy import Policy
from robustlab.spec.safeguards import Safeguard
from robustlab.spec.targets import Target

Kind = Literal["targets", "safeguards", "attacks", "budgets", "evals"]
KINDS: tuple[Kind, ...] = ("targets", "safeguards", "attacks", "budgets", "evals")


@dataclass(frozen=True)
class Entry:
    """One file of the catalogue.

    Attributes:
        id: The file's stem.
        path: The file.
        origin: ``folder`` when it lies in the working folder, ``package`` when it came with the installation.
    """

    id: str
    path: Path
    origin: Literal["folder", "package"]

    @property
    def summary(self) -> str:
        """First line of the comment that opens the file: what it stands for."""
        first = self.path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        return first.lstrip("# ") if first.startswith("#") else ""


@cache
def schema_of(kind: Kind | Literal["plan", "policy"]) -> TypeAdapter[Any]:
    """Schema of the files in one folder of the catalogue, of a plan file, or of a release policy."""
    schemas: dict[str, Any] = {
        "targets": Target,
        "safeguards": Safeguard,
        "attacks": Attack,
        "budgets": Budget,
        "evals": Eval,
        "plan": PlanFile,
        "policy": Policy,
    }
    return TypeAdapter(schemas[kind])


def list_entries(kind: Kind) -> list[Entry]:
    """All files of one kind, sorted by id; a file in the working folder hides the package's of the same id."""
    found: dict[str, Entry] = {}
    for origin, root in (("package", package_root()), ("folder", Path.cwd())):
        for path in (path for path in sorted((root / kind).glob("*.yaml")) if path.is_file()):
            found[path.stem] = Entry(path.stem, path, "folder" if origin == "folder" else "package")
    return [found[name] for name in sorted(found)]


def find(kind: Kind, name: str) -> Entry:
    """Look one id up.

    Args:
        kind: Folder of the catalogue.
        name: Stem of the file.

    Returns:
        The file; the working folder's before the package's.

    Raises:
        ConfigError: If there is no such id; the nearest one is suggested.
    """
    entries = {entry.id: entry for entry in list_entries(kind)}
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name, sorted(entries), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"`robustlab list {kind}` shows what there is"
    raise ConfigError(f"{kind[:-1]} {name!r}", f"is not in {kind}/", hint)


def load(kind: Kind, name: str) -> Any:
    """Read one file of the catalogue into its schema.

    Args:
        kind: Folder of the catalogue; it decides the schema.
        name: Stem of the file.

    Returns:
        An instance of the schema of that kind, such as ``Budget`` for ``budgets``.

    Raises:
        ConfigError: If there is no such id or the file is not valid.
    """
    return load_yaml(_shown(find(kind, name)), schema_of(kind))


def locate(kind: Kind, name: str, *field: str) -> str:
    """Name a place in a file of the catalogue, for messages: ``budgets/laptop.yaml:7``.

    Args:
        kind: Folder of the catalogue.
        name: Stem of the file.
        *field: Keys from the outermost in, such as ``"attacker", "max_usd"``; none for the document itself.

    Returns:
        The path as faults name it and the key's line; the line of the block around it when the key is not written.

    Raises:
        ConfigError: If there is no such id or the file cannot be read.
        InvalidFile: If the file is not YAML.
    """
    path = _shown(find(kind, name))
    return f"{path}:{find_line(path, *field)}"


def package_root() -> Path:
    """Folder that holds the catalogue that came with the installation: the checkout's, or the wheel's copy."""
    package = Path(robustlab.__file__).parent
    return package.parent if (package.parent / "pyproject.toml").is_file() else package / "catalog"


def _shown(entry: Entry) -> Path:
    """The file as messages name it: as a person in the working folder would."""
    return entry.path.relative_to(Path.cwd()) if entry.path.is_relative_to(Path.cwd()) else entry.path
