"""What SIGINT, SIGTERM and SIGHUP do to the command: it unwinds, books what it did, and is gone within five seconds.

The first of them raises ``SystemExit`` wherever the main thread is, so that every block on the way out settles and
closes; later ones change nothing. Python runs a handler between two instructions of its own only, so a thread, which
the signal wakes by itself, ends the process at the deadline if an operation or a library holds the main thread. What is
on the disk then is what a crash would leave, and a resume takes it up. A signal that was ignored from the start, as
``nohup`` does with SIGHUP, stays ignored. This module imports the standard library alone: it is there before all else.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

GRACE_SECONDS = 3.0
"""From the signal to the end of a process whose main thread does not come to it."""
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class _Watch:
    """One process's answer to signals."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._over = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._earlier = {number: signal.getsignal(number) for number in WORDS}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number, handler in self._earlier.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, self._unwind)
        threading.Thread(target=self._wait, name="robustlab-signals", daemon=True).start()

    def close(self) -> None:
        """Give the signals back."""
        self._over.set()
        for number, handler in self._earlier.items():
            if handler is not None:
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)

    def _unwind(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = number
            raise SystemExit(128 + number)

    def _wait(self) -> None:
        """Wait for a signal, then for the main thread, and no longer than the deadline."""
        number = self._read()
        if number is not None and not self._over.wait(GRACE_SECONDS):
            leave(number)
        os.close(self._reader)

    def _read(self) -> int | None:
        while byte := os.read(self._reader, 1):
            if byte[0] in WORDS:
                return byte[0]
        return None


_watch: _Watch | None = None


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Answer signals while the block runs; inside of another such block nothing changes.

    A block that a signal ended ends the process, without the interpreter's own clean-up: all that must survive is on
    the disk by then, and unloading the libraries takes seconds.
    """
    global _watch
    if _watch is not None:
        yield
        return
    watch = _watch = _Watch()
    try:
        yield
    finally:
        if watch.caught is not None:
            leave(watch.caught)
        _watch = None
        watch.close()


def leave(number: int) -> NoReturn:
    """End the process as a signal demands: one line, and the exit code that shells give it.

    Args:
        number: The signal.
    """
    # Whoever reads the output may be gone too.
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, f"{WORDS[signal.Signals(number)]}{how_to_go_on()}\n".encode())
    os._exit(128 + number)


def how_to_go_on() -> str:
    """What to do after a command that holds a run was cut off; empty for the others."""
    running = sys.argv[1:2] in (["run"], ["resume"])
    return "; `robustlab list runs` shows the run, `robustlab resume RUN` goes on where it was" if running else ""
