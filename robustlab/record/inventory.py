"""Compares what lies in a run's folder with what the run's audit says of it, and looks at who can read it.

Nothing is opened that is sealed, nothing is followed that is a link, and nothing is changed.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from robustlab.errors import CustodyError
from robustlab.record.custody import Artefact
from robustlab.record.kept import AREAS, KEEPING, has_expired
from robustlab.record.run_folder import RunFolder, read_plain
from robustlab.record.states import META, STAGED, find_fault
from robustlab.record.tree import list_entries

_STATE = re.compile(r"resume/[A-Za-z0-9][\w.-]*/step-\d{6,}", re.ASCII)
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".gguf", ".sealed"})
_DISTRUST = "find out who was there, and do not trust this run"
_WHOSE = "find out where it came from, and remove it"
_CLOSE = "close it with `chmod -R go= RUN`, and find out who has read it"


def find_disagreements(
    folder: RunFolder, artefacts: Sequence[Artefact] | None, now: datetime, *, has_ended: bool
) -> list[str]:
    """Hold a run's folder against its audit.

    Args:
        folder: The run's folder.
        artefacts: What the audit says; None where it cannot be read, and only permissions can be looked at.
        now: Aware present time, for what has expired.
        has_ended: Whether the run has ended or was abandoned, so that nothing of it may be live.

    Returns:
        One sentence for each thing that does not agree: what is recorded and not there, there and not recorded,
        changed, expired, live after the end, or open to others.
    """
    modes = {path: facts.st_mode for path, facts in list_entries(folder.path).items()}
    faults = [*_find_open(folder, {folder.path: folder.path.lstat().st_mode} | modes)]
    if artefacts is not None:
        present = [each for each in artefacts if each.event != "deleted"]
        faults += [fault for each in present for fault in _check(folder, each, now, has_ended)]
        faults += _find_strays(folder, modes, {each.artefact for each in present})
    return [str(fault) for fault in faults]


def _find_open(folder: RunFolder, modes: Mapping[Path, int]) -> Iterator[CustodyError]:
    for path, mode in modes.items():
        if stat.S_ISLNK(mode):
            # wandb names its newest run by a link.
            if folder.mirror not in path.parents:
                yield CustodyError(str(path), "is a link", _DISTRUST)
        elif mode & 0o077:
            yield CustodyError(str(path), f"is open to others, got mode {stat.S_IMODE(mode):04o}", _CLOSE)


def _check(folder: RunFolder, found: Artefact, now: datetime, has_ended: bool) -> Iterator[CustodyError]:
    """What is wrong with an artefact that the audit says is there."""
    path = folder.path / found.artefact
    if found.event == "created" and has_ended:
        yield CustodyError(str(path), "is live by the audit though the run has ended", _DISTRUST)
    try:
        if has_expired(found, now):
            remedy = "any `robustlab run`, `resume` or `label` removes it"
            yield CustodyError(str(path), f"should have been removed on {found.expires}", remedy)
    except CustodyError:
        yield CustodyError(str(path), f"has an expiry that is none, got {found.expires!r}", _DISTRUST)
    problem = _compare(folder, found, path)
    if problem is not None:
        yield CustodyError(str(path), problem, _remedy(folder, found, has_ended))


def _remedy(folder: RunFolder, found: Artefact, has_ended: bool) -> str:
    if found.event != "created" or has_ended:
        return _DISTRUST
    run_id = folder.run_id
    return f"if a crash was the cause, `robustlab resume {run_id}` or `robustlab abandon {run_id}` settles it"


def _compare(folder: RunFolder, found: Artefact, path: Path) -> str | None:
    """How an artefact's bytes differ from what the audit says; None where they do not."""
    if _STATE.fullmatch(found.artefact):
        return _compare_state(path, found.sha256)
    if not any(area.files.fullmatch(found.artefact) for area in AREAS):
        return "is recorded under a name that no artefact has"
    if not os.path.lexists(path):
        return "is recorded as there, and is not"
    try:
        changed = hashlib.sha256(read_plain(path)).hexdigest() != found.sha256
    except OSError as error:
        return f"cannot be compared with the audit: {error}"
    return "is not what was recorded: it was changed" if changed else None


def _compare_state(path: Path, digest: str) -> str | None:
    if not path.is_dir():
        staged = path.with_name(STAGED + path.name.removeprefix("step-"))
        return None if staged.is_dir() else "is recorded as there, and is not"
    try:
        fault = find_fault(path)
    except OSError as error:
        # A process that is at work removes it meanwhile.
        return f"cannot be compared with the audit: {error}"
    if fault is not None:
        return f"does not hold: {fault}"
    try:
        said = json.loads(read_plain(path / META))["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"does not hold: {META} is none"
    return None if said == digest else "is not what was recorded: it is the state of another modification"


def _find_strays(folder: RunFolder, modes: Mapping[Path, int], present: Collection[str]) -> Iterator[CustodyError]:
    """Files that no record names, where only recorded ones may lie, and weights anywhere else."""
    listed = _list_sealed(folder)
    for path in (path for path, mode in modes.items() if not stat.S_ISDIR(mode)):
        name = path.relative_to(folder.path).as_posix()
        area = name.partition("/")[0]
        if area == "resume" or any(area == each.name for each in AREAS):
            is_known = _owner(name) in present or name == f"{area}/{KEEPING}"
        else:
            is_sealed = listed is None or folder.mirror in path.parents or name in listed
            is_known = is_sealed and path.suffix not in _WEIGHTS
        if not is_known:
            yield CustodyError(str(path), "lies there, and no record says that it should", _WHOSE)


def _owner(name: str) -> str:
    """Name of the artefact that a file in a recorded area belongs to, be it staged or temporary."""
    parts = name.split("/")
    if parts[0] == "resume" and len(parts) >= 3:
        step = parts[2]
        return "/".join([*parts[:2], f"step-{step.removeprefix(STAGED)}" if step.startswith(STAGED) else step])
    temporary = _TEMPORARY.fullmatch(parts[-1])
    return "/".join([*parts[:-1], temporary["name"] if temporary else parts[-1]])


def _list_sealed(folder: RunFolder) -> frozenset[str] | None:
    """What may lie in the folder of a run that has ended; None for one that has not, or whose manifest is none."""
    if not folder.is_finished:
        return None
    try:
        files = json.loads(read_plain(folder.manifest))["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    later = (folder.manifest.name, folder.custody.name, folder.labels.name)
    return frozenset((*files, *later)) if isinstance(files, dict) else None
