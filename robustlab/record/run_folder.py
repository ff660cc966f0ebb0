"""The folder of one run: its name, its files, atomic writes, and the manifest that is written last.

Folders are 0700 and files 0600. A file appears whole or not at all. This module does not know what the files say.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from robustlab.errors import ConfigError, RecordError
from robustlab.failpoints import reach

MANIFEST = "manifest.json"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_DISTRUST = "do not trust this run; repeat it"


def new_run_id(now: datetime | None = None) -> str:
    """Name a new run so that names sort by time: ``20261122T021733Z-a1b2c3``.

    Args:
        now: An aware moment; None for the present.

    Returns:
        The second in UTC, and six random hexadecimal digits that keep two runs of one second apart.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def check_run_id(run_id: str) -> str:
    """Refuse what cannot name a run: a folder's name is all that it may be, and no path.

    Args:
        run_id: What ``new_run_id`` makes, or a name that a person chose.

    Returns:
        The same.

    Raises:
        ConfigError: If it is not 1 to 64 ASCII letters, digits, dots, dashes and underscores, a letter or digit first.
    """
    if not _RUN_ID.fullmatch(run_id):
        remedy = "ids look like 20261122T021733Z-a1b2c3, or hold at most 64 letters, digits, dots, dashes, underscores"
        raise ConfigError(f"run {run_id!r}", "is not a run id", remedy)
    return run_id


def write_error(path: Path, error: OSError) -> RecordError:
    """Say why a write failed and what to do about it; the caller raises the result."""
    remedy = "free some space and resume the run" if error.errno in _FULL else "look at the file system"
    if error.errno in _CLOSED:
        remedy = "make the folder writable, or choose another one"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on the size of files (`ulimit -f`) and resume the run"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return RecordError(str(path), f"cannot be written: {reason}", remedy)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file, 0600, so that a crash leaves either the old content or the new one.

    Args:
        path: The file; its folder exists and takes a temporary file for a moment.
        data: The whole new content.

    Raises:
        RecordError: If the disk is full or closed to writing; what was there before is intact.
    """
    _write_whole(path, data, os.rename)


def write_once(path: Path, data: bytes) -> None:
    """Write a whole file, 0600, unless there is one: of several writers at once the first wins.

    Args:
        path: The file; its folder exists, on a file system with hard links.
        data: The whole content, if nobody was quicker. Read the file to learn whose it is.

    Raises:
        RecordError: If the disk is full or closed to writing.
    """
    _write_whole(path, data, _link_unless_there)


def write_json(path: Path, value: object) -> None:
    """Write a pydantic model or plain data as indented JSON, atomically.

    Args:
        path: The file; its folder exists.
        value: What to write; a model is dumped in its JSON form.

    Raises:
        RecordError: If the value is not JSON (NaN and infinity are not), or the file cannot be written.
    """
    try:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        problem = f"holds what JSON cannot: {error}"
        raise RecordError(str(path), problem, "record finite numbers and plain data") from None
    write_atomic(path, f"{text}\n".encode())


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Hash a file without reading it into memory as a whole.

    Args:
        path: The file, of any size.

    Returns:
        64 hexadecimal digits.

    Raises:
        RecordError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}", "restore the file") from None


def read_plain(path: Path) -> bytes:
    """Read a plain file whole; a link is not followed, and a pipe not waited for.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        RecordError: If there is none, it cannot be read, or it is a folder, a link, a pipe or a device.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        is_plain = stat.S_ISREG(path.lstat().st_mode)
        # The flags hold should it become a link or a pipe in between.
        data = _read_whole(os.open(path, flags)) if is_plain else None
    except FileNotFoundError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}", "name a run that exists") from None
    except OSError as error:
        raise RecordError(str(path), f"cannot be read: {error.strerror}", "make the file readable") from None
    if data is None:
        raise RecordError(str(path), "is not a plain file", _DISTRUST)
    return data


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; its name is the run's id. It is finished exactly when it has a manifest."""

    path: Path

    @classmethod
    def create(cls, root: Path, run_id: str) -> "RunFolder":
        """Make the folder of a new run and ``resume/`` in it, closed to everybody else.

        Args:
            root: Folder of runs, made if it is not there.
            run_id: As ``new_run_id`` makes it, or a name that a person chose.

        Returns:
            The new folder, 0700.

        Raises:
            ConfigError: If the id is none.
            RecordError: If the folder is there already or cannot be made.
        """
        path = root / check_run_id(run_id)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
            reach("run.folder_made")
            (path / "resume").mkdir(mode=0o700)
            sync_folder(root)
        except FileExistsError as error:
            raise RecordError(str(error.filename), "exists already", "take another name") from None
        except OSError as error:
            raise write_error(path, error) from None
        return cls(path)

    @classmethod
    def open(cls, root: Path, run_id: str) -> "RunFolder":
        """Find the folder of an earlier run.

        Args:
            root: Folder of runs.
            run_id: The run.

        Returns:
            The folder, which exists and is no symbolic link.

        Raises:
            ConfigError: If there is no such run.
        """
        path = root / check_run_id(run_id)
        if path.is_symlink() or not path.is_dir():
            raise ConfigError(f"run {run_id!r}", f"is not in {root}", "`robustlab list runs` shows what there is")
        return cls(path)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def plan(self) -> Path:
        """The resolved plan."""
        return self.path / "plan.yaml"

    @property
    def ledger(self) -> Path:
        """The journal of charges and custody."""
        return self.path / "ledger.jsonl"

    @property
    def prices(self) -> Path:
        """Copy of the price card that the run was priced with."""
        return self.path / "prices.yaml"

    @property
    def estimates(self) -> Path:
        """What the run and each of its cells were expected to cost, before its first step."""
        return self.path / "estimates.json"

    @property
    def items(self) -> Path:
        """One line per behavior and measurement."""
        return self.path / "items.jsonl"

    @property
    def results(self) -> Path:
        """The results, schema 1."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def resume(self) -> Path:
        """Folder of resumable states; empty once the run has ended."""
        return self.path / "resume"

    @property
    def mirror(self) -> Path:
        """Where wandb writes. It is a mirror and no part of the record: the manifest does not list it."""
        return self.path / "wandb"

    @property
    def transcripts(self) -> Path:
        """Sealed completions that somebody kept; they expire, so the ledger lists them and the manifest does not."""
        return self.path / "transcripts"

    @property
    def custody(self) -> Path:
        """Journal of what was deleted after the run's own process had ended; it grows after the manifest."""
        return self.path / "custody.jsonl"

    @property
    def labels(self) -> Path:
        """Journal of people's labels; it grows after the manifest."""
        return self.path / "labels.jsonl"

    @property
    def manifest(self) -> Path:
        """Sizes and hashes of every other file of the record; written last."""
        return self.path / MANIFEST

    @property
    def is_finished(self) -> bool:
        """Whether the manifest has been written. What stands in its place and is none is for ``check_manifest``."""
        return os.path.lexists(self.manifest)

    def write_manifest(self) -> None:
        """Record size and sha256 of every file. Nothing may be written to the folder afterwards, or this comes again.

        Raises:
            RecordError: If a file is a link or cannot be read, or the manifest cannot be written.
        """
        write_json(self.manifest, {"schema": 1, "run_id": self.run_id, "files": self._measured()})
        reach("run.sealed")

    def check_manifest(self, *, besides: frozenset[str] = frozenset()) -> int:
        """Compare every file with the manifest.

        Args:
            besides: Names of files that may differ or be missing, such as one that is about to be made again.

        Returns:
            How many files were compared.

        Raises:
            RecordError: With every file that is missing, changed or not listed, or if there is no sound manifest.
        """
        listed, found = (
            {name: facts for name, facts in files.items() if name not in besides}
            for files in (self._listed(), self._measured())
        )
        faults = [f"{name} is missing" for name in listed.keys() - found.keys()]
        faults += [f"{name} is not listed" for name in found.keys() - listed.keys()]
        faults += [f"{name} has changed" for name in listed.keys() & found.keys() if listed[name] != found[name]]
        if faults:
            raise RecordError(str(self.manifest), ", ".join(sorted(faults)), _DISTRUST)
        return len(listed)

    def _listed(self) -> dict[str, Any]:
        if not self.is_finished:
            raise RecordError(str(self.manifest), "is missing: the run has not ended", "resume the run")
        try:
            listed = json.loads(read_plain(self.manifest))["files"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise RecordError(str(self.manifest), "is not a manifest", _DISTRUST) from None
        if not isinstance(listed, dict):
            raise RecordError(str(self.manifest), "is not a manifest", _DISTRUST)
        return listed

    def _measured(self) -> dict[str, dict[str, object]]:
        return {
            path.relative_to(self.path).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in self._files()
            if path != self.manifest
        }

    def _files(self) -> Iterator[Path]:
        later = {self.mirror, self.transcripts, self.path / "adapters", self.custody, self.labels}
        for path in sorted(self.path.rglob("*")):
            if later & {path, *path.parents}:
                continue
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise RecordError(str(path), "is a link or a device", "remove it: a run folder holds plain files")


def _read_whole(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _write_whole(path: Path, data: bytes, place: Callable[[Path, Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write_new(temporary, data)
        reach("file.written")
        place(temporary, path)
        reach("file.named")
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _link_unless_there(temporary: Path, path: Path) -> None:
    with suppress(FileExistsError):
        os.link(temporary, path)


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        reach("file.begun")
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
