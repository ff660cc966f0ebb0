"""A lock on one piece of work that processes share, such as an entry of the cache: held by one of them at a time.

It ends with the process that holds it, however that ends, so no crash leaves one behind; the file itself stays and is
never waited for. Whoever was let in looks again whether the work is still to be done. This module knows no work.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from robustlab.record.run_folder import write_error

_MOST_BYTES = 200


@contextmanager
def hold_lock(
    path: Path,
    what: str,
    *,
    say: Callable[[str], None],
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[None]:
    """Hold a lock while the block runs; wait for whoever holds it.

    Args:
        path: File of the lock; made with the folders above it, 0700, and never removed.
        what: How people name the work.
        say: Told once who is being waited for, where somebody is.
        waiting: Wraps the waiting, and only that: where it is billed, for one.

    Yields:
        None: Nobody else holds it now. What it guards may have been done meanwhile.

    Raises:
        RecordError: If the file cannot be made or written.
    """
    descriptor = _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if descriptor is None:
        say(f"{what}: {_read_holder(path)} is at it, waiting")
        with waiting():
            descriptor = _take(path, fcntl.LOCK_EX)
    if descriptor is None:
        raise write_error(path, OSError("a lock that waits was not given"))
    try:
        _sign(path, descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(path: Path, operation: int) -> int | None:
    """The locked file, None where somebody else holds it and nobody waits."""
    while True:
        descriptor, is_kept = _open(path), False
        try:
            fcntl.flock(descriptor, operation)
            # A cache that was emptied meanwhile has another file of this name, or none.
            is_kept = path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
        except BlockingIOError:
            return None
        finally:
            if not is_kept:
                os.close(descriptor)
        if is_kept:
            return descriptor


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise write_error(path, error) from None


def _sign(path: Path, descriptor: int) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}, since {since},".encode(), 0)
    except OSError as error:
        raise write_error(path, error) from None


def _read_holder(path: Path) -> str:
    try:
        text = path.read_bytes()[:_MOST_BYTES].decode("utf-8", errors="replace")
    except OSError:
        text = ""
    return text if text and text.isprintable() else "another process"
