"""Validates YAML files of any kind, all faults at once. A file's folder tells its kind; elsewhere it is a plan.

A folder named ``policies`` holds release policies.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from robustlab.errors import ConfigError, Fault, InvalidFile
from robustlab.spec.catalog import KINDS, Kind, schema_of
from robustlab.spec.loader import load_yaml


def check_paths(paths: list[Path]) -> tuple[int, list[Fault]]:
    """Validate files and folders.

    Args:
        paths: YAML files, or folders that are searched for them.

    Returns:
        How many files were read, and every fault in the order of the files.

    Raises:
        ConfigError: If a path does not exist or a folder holds no YAML.
    """
    files = [file for path in paths for file in _files(path)]
    faults: list[Fault] = []
    for file in files:
        try:
            load_yaml(file, schema_of(_kind(file)))
        except InvalidFile as error:
            faults += error.faults
    return len(files), faults


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    # Hidden folders hold environments and caches, whose YAML is nobody's plan.
    found = [file for file in sorted(path.rglob("*.yaml")) if not _is_hidden(file.relative_to(path))]
    if not found:
        problem = "holds no *.yaml file" if path.is_dir() else "does not exist"
        raise ConfigError(str(path), problem, "name a YAML file or a folder of them")
    yield from found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind(file: Path) -> Kind | Literal["plan", "policy"]:
    folder = file.resolve().parent.name
    if folder == "policies":
        return "policy"
    return next((kind for kind in KINDS if kind == folder), "plan")
