"""Folders of resumable states as they lie on the disk: which of them hold, and what the audit must be told of them.

A state is a folder ``resume/<cell>/step-NNNNNN``. Its manifest, written last, lists the size and the hash of every
other file of it; a folder whose name begins with ``.staged-`` was never finished. An artefact of the audit is named by
the same path. This module needs no torch and does not know what a state says.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustlab.errors import RecordError
from robustlab.failpoints import reach
from robustlab.record.custody import CustodyLog, list_present
from robustlab.record.run_folder import file_sha256, read_plain, sync_folder, write_error

TENSORS, META, MANIFEST = "state.safetensors", "state.json", "manifest.json"
STAGED = ".staged-"
OTHER_VERSION = "resume with the version that wrote it, or start a new run; nothing was deleted"
_NAME = re.compile(r"step-(\d{6,})")
_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)
_HALF = "reconciled after a crash: it was left half written"
_GONE = "reconciled after a crash: it was never written, or was gone before that was told"
_STRAY = "reconciled after a crash: it lay there without a record"
Append = Callable[[dict[str, Any]], str]


def state_name(step: int) -> str:
    """Name of the folder of the state after ``step`` steps."""
    return f"step-{step:06d}"


def artefact_name(folder: Path) -> str:
    """Name of a state in the audit, by its folder."""
    return f"resume/{folder.parent.name}/{folder.name}"


def list_states(root: Path) -> list[Path]:
    """Folders of the states of one cell, the newest first, whether they hold or not; none without a ``root``."""
    found = [(int(match[1]), path) for path in root.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def describe_files(folder: Path, names: Iterable[str]) -> bytes:
    """Make the manifest of a state.

    Args:
        folder: Where the files lie.
        names: The files.

    Returns:
        Sizes and hashes, as ``find_fault`` reads them.
    """
    return json.dumps({name: _facts(folder / name) for name in names}, indent=1).encode("utf-8")


def find_fault(folder: Path) -> str | None:
    """Hold a state against its manifest, to tell of it; what is to be deleted is judged by ``find_damage``.

    Args:
        folder: The state's.

    Returns:
        What is wrong with it, None where it holds. An error of the disk while reading is a fault too.
    """
    try:
        return find_damage(folder)
    except RecordError as error:
        return f"it {error.problem}"


def find_damage(folder: Path) -> str | None:
    """Hold a state against its manifest. A file that the manifest does not list is passed over.

    Args:
        folder: The state's.

    Returns:
        What was read and does not agree, or is missing; None where the state holds.

    Raises:
        RecordError: If the disk does not let it be read: that may pass, and says nothing of the state.
    """
    try:
        listed = json.loads(read_plain(folder / MANIFEST))
        if not isinstance(listed, dict) or not {TENSORS, META} <= listed.keys():
            return f"{MANIFEST} is none"
        return next((fault for name, facts in listed.items() if (fault := _fault(folder, name, facts))), None)
    except RecordError as error:
        _refuse_unread(folder, error.__context__)
        return f"{Path(error.where).name} {error.problem}"
    except OSError as error:
        _refuse_unread(folder, error)
        return f"it cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{MANIFEST} is none"


def remove_state(folder: Path) -> str | None:
    """Remove one state for good.

    Args:
        folder: Its folder; all that is in it goes.

    Returns:
        The hash of the modification that it held, by which the audit knows it; None where that cannot be read.

    Raises:
        RecordError: If the disk does not let it go.
    """
    try:
        digest = _digest(folder)
    except RecordError:
        digest = None
    _remove(folder)
    return digest


def reconcile_states(resume: Path, records: Iterable[dict[str, Any]], append: Append) -> None:
    """Bring the states of a run and its audit in line after a crash, before anything goes on from them.

    What holds and is known stays. What does not hold, was never finished or is not known goes. The audit is told of
    every artefact that it took for live and that is not there, and its reason says that this was found afterwards.

    Args:
        resume: The run's folder of resumable states.
        records: The run's ledger, oldest first.
        append: Writes one record of the ledger durably.

    Raises:
        RecordError: If the disk does not let something go or be read, a state that holds is of another version, or
            the ledger cannot be written.
    """
    log = CustodyLog(append)
    live = _live(records)
    whys = {name: why for cell in _folders(resume) for name, why in _sweep(cell, live, log).items()}
    for name, sha256 in live:
        log.deleted(name, sha256, whys.get(name, _GONE))


def remove_states(resume: Path, records: Iterable[dict[str, Any]], append: Append, why: str) -> int:
    """Remove every state of a run that will not go on.

    Args:
        resume: The run's folder of resumable states; it stays, empty.
        records: The run's ledger, oldest first.
        append: Writes one record of the ledger, or of the journal beside it, durably.
        why: The reason, for the audit.

    Returns:
        How many artefacts the audit took for live.

    Raises:
        RecordError: As ``reconcile_states`` does.
    """
    log, live = CustodyLog(append), _live(records)
    for folder in _folders(resume):
        _remove(folder)
    for name, sha256 in live:
        log.deleted(name, sha256, why)
    return len(live)


def tell_gone(name: str, records: Iterable[dict[str, Any]], append: Append, why: str) -> None:
    """Tell the audit that a state is gone which could not be read any more: every live artefact of its name.

    Args:
        name: As ``artefact_name`` gives it.
        records: The run's ledger, oldest first.
        append: Writes one record of the ledger durably.
        why: The reason.
    """
    for artefact, sha256 in _live(records):
        if artefact == name:
            CustodyLog(append).deleted(artefact, sha256, why)


def _sweep(cell: Path, live: list[tuple[str, str]], log: CustodyLog) -> dict[str, str]:
    """Remove what does not hold; why, by the artefact's name. What holds is taken off ``live``."""
    whys = {}
    for staged in sorted(cell.glob(f"{STAGED}*")):
        _remove(staged)
        whys[artefact_name(cell / f"step-{staged.name.removeprefix(STAGED)}")] = _HALF
    for folder in list_states(cell):
        name, fault, digest = artefact_name(folder), find_damage(folder), _digest(folder)
        if fault is None and digest is None:
            raise RecordError(str(folder), f"holds no state of this version: {META} has no digest", OTHER_VERSION)
        if digest is not None and fault is None and (name, digest) in live:
            live.remove((name, digest))
            continue
        if digest is not None and fault is None:
            log.created(name, digest, _STRAY)
            live.append((name, digest))
        whys[name] = _STRAY if fault is None else f"reconciled after a crash: it was damaged, {fault}"
        _remove(folder)
    return whys


def _live(records: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (found.artefact, found.sha256)
        for found in list_present(records)
        if found.event == "created" and found.artefact.startswith("resume/")
    ]


def _folders(resume: Path) -> list[Path]:
    return sorted(path for path in resume.glob("*") if path.is_dir() and not path.is_symlink())


def _facts(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _fault(folder: Path, name: str, facts: object) -> str | None:
    path = folder / name
    if not _PLAIN.fullmatch(name):
        return f"{MANIFEST} names {name!r}"
    if path.is_symlink() or not path.is_file():
        return f"{name} is missing"
    return None if _facts(path) == facts else f"{name} has changed"


def _digest(folder: Path) -> str | None:
    """The hash of the modification, as long as the file that says it is the one that was written."""
    try:
        facts = json.loads(read_plain(folder / MANIFEST))[META]
        digest = json.loads(read_plain(folder / META))["digest"] if facts == _facts(folder / META) else None
    except OSError as error:
        _refuse_unread(folder, error.__context__ if isinstance(error, RecordError) else error)
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return digest if isinstance(digest, str) else None


def _refuse_unread(folder: Path, cause: BaseException | None) -> None:
    """What the disk would not read is not known to be damaged; what is not there is."""
    if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError | NotADirectoryError):
        remedy = "look at the file system and its permissions, and resume the run; nothing was deleted"
        raise RecordError(str(folder), f"cannot be read: {cause.strerror}", remedy) from None


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise write_error(folder, error) from None
    reach("state.removed")
