"""The board of findings that all workers of a search read and post to, one JSON line each.

It says what was tried and what came of it. Which trial is next is ``robustlab.search.proposals``' business.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustlab.failpoints import reach
from robustlab.record.results import TrialState
from robustlab.record.run_folder import write_atomic
from robustlab.search.space import Point


@dataclass(frozen=True)
class Finding:
    """What one trial showed.

    Attributes:
        trial: Its number, from 0.
        direction: Name of the worker that proposed it; None in an undirected search.
        around: Number of the trial of which it is a variation; None for one of the worker's own direction.
        point: What was tried.
        state: How it ended.
        step: Steps that it took.
        value: Its value at the end of its schedule; None for one that did not get there.
        rungs: Its value at each rung that it got to, by step.
    """

    trial: int
    direction: str | None
    around: int | None
    point: Point
    state: TrialState
    step: int
    value: float | None
    rungs: Mapping[int, float] = field(default_factory=dict)


class Board:
    """Findings in the order of their trials, in a file."""

    def __init__(self, path: Path) -> None:
        """Open the board; a missing file is an empty board."""
        self._path = path

    def post(self, findings: Sequence[Finding]) -> None:
        """Put all findings up, in the place of what stood there.

        Args:
            findings: Every finding so far: a crash may have come between a trial and its posting.

        Raises:
            RecordError: If the file cannot be written.
        """
        lines = "".join(f"{json.dumps(asdict(finding), sort_keys=True)}\n" for finding in findings)
        write_atomic(self._path, lines.encode("utf-8"))
        reach("search.posted")

    def read(self) -> list[Finding]:
        """Every finding that stands there."""
        if not self._path.is_file():
            return []
        return [_load(json.loads(line)) for line in self._path.read_text(encoding="utf-8").splitlines()]


def find_best(findings: Sequence[Finding]) -> Finding | None:
    """The finished trial with the lowest value: of equals the one with the fewest steps, then the earliest.

    Args:
        findings: Any.

    Returns:
        None where none is finished: a trial that was stopped, failed, diverged or broke the model cannot win.
    """
    done = [finding for finding in findings if finding.state == "done" and finding.value is not None]
    return min(done, key=_rank, default=None)


def _rank(finding: Finding) -> tuple[float, int, int]:
    return finding.value or 0.0, finding.step, finding.trial


def _load(plain: dict[str, Any]) -> Finding:
    rungs = {int(step): value for step, value in plain["rungs"].items()}
    return Finding(**{**plain, "point": Point(**plain["point"]), "rungs": rungs})
