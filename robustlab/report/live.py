"""The live line: what is being done, how far it is, and how long it takes; one line on a terminal, few in a log.

Times left are measured, not promised: they start from the estimate and follow the work. Knows nothing of what the work
is.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from robustlab.redaction import redact
from robustlab.report.wording import plain_text
from robustlab.units import format_seconds

LOG_SECONDS = 20.0
REDRAW_SECONDS = 0.2
LEARN_SECONDS = 5.0


class LiveLine:
    """Says what is going on. A stage may hold another; the outer one goes on where it was."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        """Write to a stream.

        Args:
            stream: Where to write; standard error by default, so that ``--json`` output stays clean.
            quiet: Whether to say nothing at all.
        """
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._label = ""
        self._started = self._shown = 0.0
        self._expected: float | None = None
        self._slowness = 1.0

    @contextmanager
    def stage(self, label: str, expected_seconds: float | None = None) -> Iterator[None]:
        """Announce a stage; on leaving, say how long it took.

        Args:
            label: What is being done.
            expected_seconds: How long it should take; None when nobody knows.
        """
        outer = self._label, self._expected, self._started
        expected = None if expected_seconds is None else expected_seconds * self._slowness
        self._label, self._expected = plain_text(label), expected
        self._started = self._shown = time.monotonic()
        about = f", about {format_seconds(expected)}" if expected is not None else ""
        self._write(f"{self._label}{about} ...", final=not self._terminal)
        finished = False
        try:
            yield
            finished = True
        finally:
            took = time.monotonic() - self._started
            self._write(f"{self._label}: {'done' if finished else 'stopped'} in {format_seconds(took)}", final=True)
            if finished and expected_seconds and took >= LEARN_SECONDS:
                # The next guess is as far from the estimate as this stage was: machines differ more than stages do.
                self._slowness = took / expected_seconds
            self._label, self._expected, began = outer
            # The outer stage is timed without what it held.
            self._started = began + took

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say how far the stage is.

        Args:
            done: Units that are done, >= 0.
            total: All units, >= 1.
            note: A few words more, such as the loss.
        """
        now = time.monotonic()
        if now - self._shown < (REDRAW_SECONDS if self._terminal else LOG_SECONDS):
            return
        self._shown = now
        words = f", {plain_text(note)}" if note else ""
        self._write(f"{self._label}: {done} of {total}{words}{self._left(done, total, now)}", final=not self._terminal)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._write(plain_text(text), final=True)

    def _left(self, done: int, total: int, now: float) -> str:
        if done == 0:
            return "" if self._expected is None else f", about {format_seconds(self._expected)}"
        return f", about {format_seconds((now - self._started) / done * (total - done))} left"

    def _write(self, text: str, *, final: bool) -> None:
        if self._quiet:
            return
        text = redact(text)
        shown = f"\r\x1b[2K{text[:150]}" if self._terminal else text
        try:
            self._stream.write(f"{shown}\n" if final else shown)
            self._stream.flush()
        except OSError:
            # A terminal that was closed, or a full disk under a log, is no reason to lose a paid run.
            self._quiet = True
