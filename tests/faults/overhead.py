"""Measures what the safety machinery costs: the share of each cell's wall time in records, states, files and custody.

    python -m tests.faults.overhead run --target tiny --attack lora_sft_smoke --budget smoke --eval smoke_refusal

The words are those of ``robustlab``; the command runs in this process with a stopwatch around whatever writes durably.
A copy of the weights, the optimiser and the generator that a state is made of counts, and so does the digest of it.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

LIMIT = 0.03


@dataclass
class Stopwatch:
    """Wall time in wrapped calls, by what they do; a call within another one counts once.

    Attributes:
        seconds: By kind.
        cells: Wall time of each cell, and the part of it that the wrapped calls took.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cells: dict[str, tuple[float, float]] = field(default_factory=dict)
    _depth: int = 0

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Time every call of a function or a method from here on."""
        whole = getattr(owner, name)

        @wraps(whole)
        def timed(*args: Any, **options: Any) -> Any:
            self._depth += 1
            started = time.perf_counter()
            try:
                return whole(*args, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - started

        setattr(owner, name, timed)

    def follow_cells(self, owner: Any, name: str) -> None:
        """Time what runs a cell, given as the first argument."""
        whole: Callable[..., Any] = getattr(owner, name)

        @wraps(whole)
        def timed(cell: Any, *args: Any, **options: Any) -> Any:
            before, started = sum(self.seconds.values()), time.perf_counter()
            try:
                return whole(cell, *args, **options)
            finally:
                safe = sum(self.seconds.values()) - before
                self.cells[cell.label] = (time.perf_counter() - started, safe)

        setattr(owner, name, timed)


def watch() -> Stopwatch:
    """Put the stopwatch around everything that writes durably."""
    from robustlab.engine import local
    from robustlab.record import run_folder
    from robustlab.record.adapters import AdapterStore
    from robustlab.record.journal import Journal
    from robustlab.record.run_folder import RunFolder
    from robustlab.record.transcripts import TranscriptStore
    from robustlab.train.purse import Purse
    from robustlab.train.store import StateStore

    found = Stopwatch()
    found.wrap(Journal, "append", "records")
    found.wrap(Purse, "_save", "states")
    for name in ("save", "load", "clear"):
        found.wrap(StateStore, name, "states")
    found.wrap(run_folder, "_write_whole", "files")
    found.wrap(RunFolder, "write_manifest", "manifest")
    found.wrap(TranscriptStore, "save", "kept")
    found.wrap(AdapterStore, "save", "kept")
    found.follow_cells(local, "_run_one")
    return found


def main() -> None:
    """Run the command and print the shares; exit code 1 where a cell's is above the limit."""
    from robustlab.cli.main import main as command

    found = watch()
    sys.argv = ["robustlab", *sys.argv[1:]]
    try:
        command()
    except SystemExit as ended:
        if ended.code not in (0, None):
            raise
    shares = {name: safe / whole for name, (whole, safe) in found.cells.items()}
    rows = {name: {"wall_seconds": round(whole, 3), "safety_seconds": round(safe, 4), "share": round(shares[name], 5)}
            for name, (whole, safe) in found.cells.items()}  # fmt: skip
    by_kind = {name: round(seconds, 4) for name, seconds in sorted(found.seconds.items())}
    print(json.dumps({"cells": rows, "seconds_by_kind": by_kind}, indent=1))  # noqa: T201
    sys.exit(1 if not shares or max(shares.values()) > LIMIT else 0)


if __name__ == "__main__":
    main()
