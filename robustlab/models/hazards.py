"""What must not lie among the files of a model from elsewhere, looked at before any library opens one of them.

A hash says that a file is the one that somebody meant, not that it is harmless. Refused are pickles by their names,
adapters, which name a base model of their own, folders of templates that no hash covers, and indexes and headers of
weights that point out of their folder or file. This module loads nothing and knows nothing of hubs.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from robustlab.errors import ConfigError, DataError, RobustlabError

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TEMPLATE_FOLDER = "additional_chat_templates"
PICKLES = frozenset({".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of files that are pickles, or that libraries open as such."""
MAX_JSON_BYTES = 64 << 20
MAX_SIZE = 1 << 31
"""Largest layer count or width that a config may state."""
_MOST_PARAMETERS_A_BYTE = 4
_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
_REMEDY = "do not use these files"
_LIBRARY_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


class Reading:
    """A block in which libraries read files from elsewhere; what they raise becomes an error of the project's own."""

    def __init__(self, explain: Callable[[str], RobustlabError]) -> None:
        """Take what makes an error out of the first line of a library's message."""
        self._explain = explain

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # tokenizers raises Exception itself, which no handler could name without catching everything.
        if (isinstance(error, _LIBRARY_ERRORS) and not isinstance(error, RobustlabError)) or kind is Exception:
            raise self._explain(str(error).partition("\n")[0][:300]) from error


def check_names(where: str, names: Iterable[str]) -> None:
    """Refuse names that are paths, pickles or adapters.

    Args:
        where: Named in errors.
        names: Of all files.

    Raises:
        ConfigError: If a name is a path.
        DataError: If a file is a pickle by its name, or an adapter's.
    """
    for name in sorted(names):
        if not is_plain_name(name):
            raise ConfigError(where, f"{name!r} is no plain file name", "name files of the folder itself")
        if PurePosixPath(name).suffix.lower() in PICKLES:
            problem = f"{name} is a pickle by its name, which can run code"
            raise DataError(where, problem, "take it away, and keep the weights as safetensors")
        if name == ADAPTER_CONFIG:
            problem = f"{name} makes it an adapter, which brings in weights from elsewhere"
            raise DataError(where, problem, "merge the adapter into its base model and pin the result")


def check_folder(where: str, folder: Path, names: Iterable[str]) -> None:
    """Look into the files of a model in a folder of this machine.

    Args:
        where: Named in errors.
        folder: The folder.
        names: The files that are pinned, by plain names.

    Raises:
        DataError: If something in the folder would bring in other weights, templates that nobody pinned, or more than
            the memory holds.
    """
    listed = frozenset(names)
    if (folder / TEMPLATE_FOLDER).exists():
        problem = f"{TEMPLATE_FOLDER}/ holds chat templates that no hash covers"
        raise DataError(where, problem, "keep one template, in the tokenizer's own files")
    if INDEX in listed:
        check_index(where, folder / INDEX, listed)
    for name in sorted(listed):
        if name.endswith("config.json"):
            _read_object(where, folder / name)
    if CONFIG in listed:
        weights = [name for name in listed if name.endswith(".safetensors")]
        check_config(where, folder / CONFIG, sum((folder / name).stat().st_size for name in weights) or None)


def check_index(where: str, path: Path, listed: frozenset[str] | None) -> None:
    """Refuse an index of weights that names files elsewhere.

    Args:
        where: Named in errors.
        path: The index.
        listed: Names of the files that it may name; None for any plain name.

    Raises:
        DataError: If it is no index, or names a path, a file that is not listed, or none that holds safetensors.
    """
    index = _read_object(where, path)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not isinstance(index.get("metadata"), dict):
        raise DataError(where, f"{path.name} is no index of weights", _REMEDY)
    for name in shards.values():
        if not isinstance(name, str) or not is_plain_name(name) or not name.endswith(".safetensors"):
            raise DataError(where, f"{path.name} names {str(name)[:80]!r}, which is no safetensors file here", _REMEDY)
        if listed is not None and name not in listed:
            raise DataError(where, f"{path.name} names {name[:80]!r}, which is not pinned", "list its sha256")


def check_config(where: str, path: Path, weights_bytes: int | None) -> None:
    """Refuse the config of a model that describes far more than its weights hold: it would be made up in memory.

    Args:
        where: Named in errors.
        path: The config.
        weights_bytes: Size of the weights, a byte or more for each four parameters; None where it is not known.

    Raises:
        DataError: If it is no JSON object, or describes too much.
    """
    config = _read_object(where, path)
    layers, hidden, inner, vocab = (_read_size(where, path, config, name) for name in _SIZES)
    least = hidden * (vocab + layers * inner)
    if weights_bytes is not None and least > _MOST_PARAMETERS_A_BYTE * weights_bytes:
        problem = f"{path.name} describes {least:,} parameters or more, the weights have {weights_bytes:,} bytes"
        raise DataError(where, problem, _REMEDY)


def is_plain_name(name: str) -> bool:
    """Whether a name is one of a file in a folder, and no path out of it or into another one."""
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _read_size(where: str, path: Path, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name, 0)
    if isinstance(value, int) and abs(value) > MAX_SIZE:
        raise DataError(where, f"{path.name} states a {name} beyond {MAX_SIZE:,}", _REMEDY)
    return value if isinstance(value, int) else 0


def _read_object(where: str, path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(where, f"{path.name} has more than {MAX_JSON_BYTES:,} bytes", _REMEDY)
    try:
        read = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise DataError(where, f"{path.name} is not JSON", _REMEDY) from None
    if not isinstance(read, dict):
        raise DataError(where, f"{path.name} is no JSON object, got {type(read).__name__}", _REMEDY)
    return read
