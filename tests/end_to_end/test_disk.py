"""A disk that is full, too small, closed or broken: earlier files intact, one clear error, and a resume ends equal."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab.record.journal import read_journal
from robustlab.record.run_folder import RunFolder
from tests.end_to_end.interruptions import Shop, open_shop
from tests.faults import child
from tests.faults.workplace import NAME

TOLD = {
    errno.ENOSPC: "No space left on device; free some space and resume the run",
    errno.EDQUOT: "Disk quota exceeded; free some space and resume the run",
    errno.EROFS: "Read-only file system; make the folder writable, or choose another one",
    errno.EIO: "Input/output error; look at the file system",
    errno.EFBIG: "File too large; raise the limit on the size of files (`ulimit -f`) and resume the run",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("disk")) as opened:
        yield opened


def one_error(output: str) -> str:
    """The last line, which is the only error that was told."""
    assert "Traceback" not in output and output.count("cannot be written") == 1, output
    return output.splitlines()[-1]


def test_a_state_that_is_too_large_for_the_limit_on_files_leaves_the_ledger_whole(shop: Shop) -> None:
    """``ulimit -f`` as a shell sets it: Python ignores SIGXFSZ, so that the write fails instead."""

    def limit() -> None:
        from robustlab.train import store

        real = store.save_state

        def save(*args: Any) -> Path:
            # Only states are larger than this when the first is due.
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
            return real(*args)

        store.save_state = save

    ended, _ = shop.cut(limit)
    assert ended.code == 1
    error = one_error(ended.output)
    assert error.startswith(str(Path("runs") / NAME / "resume")) and error.endswith(f"cannot be written: {TOLD[27]}")
    assert not list((shop.place.folder / "resume").rglob("*step-*"))
    shop.looks_whole()
    shop.resume()


# What the other errors differ in is their words.
@pytest.mark.parametrize(
    ("number", "share"),
    [
        *((number, share) for number in (errno.ENOSPC, errno.EROFS) for share in (0.3, 0.6, 0.9)),
        *((number, 0.6) for number in (errno.EDQUOT, errno.EIO, errno.EFBIG)),
    ],
)
def test_a_disk_that_fails_from_some_moment_on(shop: Shop, number: int, share: float) -> None:
    """Every fsync after the given share of a run's own fails: ledger, states, verdicts, items, results, manifest."""
    call = int(count_fsyncs(shop) * share)
    ended, _ = shop.cut(lambda: fail_from(call, number))
    assert ended.code == 1, ended.output
    assert one_error(ended.output).endswith(f"cannot be written: {TOLD[number]}")
    shop.looks_whole()
    shop.resume()


def fail_from(call: int, number: int) -> None:
    calls, real = iter(range(1, 100_000)), os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) >= call:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    os.fsync = fsync


def count_fsyncs(shop: Shop) -> int:
    """How many fsyncs a run of the shop takes, once."""
    found = shop.place.root / "fsyncs.txt"
    if not found.exists():

        def count() -> None:
            real = os.fsync

            def fsync(descriptor: int) -> None:
                with open("fsyncs.txt", "ab") as file:
                    file.write(b".")
                real(descriptor)

            os.fsync = fsync

        shop.cut(count)
    return found.stat().st_size


@pytest.fixture
def small_disk(shop: Shop) -> Iterator[Callable[[str], None]]:
    """A file system of its own under ``runs``; mounting one needs rights that few test machines give."""
    runs = shop.place.folder.parent
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(runs)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")

    def change(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(runs)], check=True, capture_output=True)

    yield change
    subprocess.run(["umount", str(runs)], check=True, capture_output=True)


def test_a_real_full_disk_and_a_real_closed_one(shop: Shop, small_disk: Callable[[str], None]) -> None:
    full = child.run(shop.place)
    assert full.code == 1
    assert one_error(full.output).endswith(f"cannot be written: {TOLD[errno.ENOSPC]}")
    records, _ = read_journal(RunFolder(shop.place.folder).ledger)
    assert records
    small_disk("ro")
    closed = child.run(shop.place, "resume", NAME, "--runs", "runs")
    assert closed.code == 1
    assert one_error(closed.output).endswith(f"ledger.jsonl: cannot be written: {TOLD[errno.EROFS]}")
    small_disk("rw,size=64m")
    shop.resume()


def test_a_folder_of_runs_on_a_closed_disk_is_refused_before_anything_is_spent(
    shop: Shop, small_disk: Callable[[str], None]
) -> None:
    small_disk("ro")
    ended = child.run(shop.place)
    assert ended.code == 1
    error = one_error(ended.output)
    assert error == f"{Path('runs') / NAME}: cannot be written: {TOLD[errno.EROFS]}"
