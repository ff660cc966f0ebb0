"""Runs that are cut off on purpose in a child of this process, and what must be true of them afterwards."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine.ledger import verify_ledger
from robustlab.record.custody import balance
from robustlab.record.journal import read_journal
from robustlab.record.run_folder import RunFolder
from tests.faults import child, workplace
from tests.faults.child import Ended
from tests.faults.workplace import NAME, Workplace

MOMENT = "moment.txt"


@dataclass(frozen=True)
class Shop:
    """A workplace with its finished run, and what that run measured.

    Attributes:
        place: The workplace.
        items: ``items.jsonl`` of the run that nothing disturbed.
        losses: Its losses, step by step.
        saved: Every state that it announced, with its hash.
    """

    place: Workplace
    items: bytes
    losses: list[tuple[int, float]]
    saved: set[tuple[str, str]]

    def cut(self, within: Callable[[], None]) -> tuple[Ended, float]:
        """Begin the run anew in a child that ``within`` prepares; how it ended, and how long after the moment."""
        shutil.rmtree(self.place.folder, ignore_errors=True)
        (self.place.root / MOMENT).unlink(missing_ok=True)
        ended = child.run(self.place, within=within)
        now, moment = time.monotonic(), self.place.root / MOMENT
        return ended, now - float(moment.read_text()) if moment.exists() else 0.0

    def records(self) -> list[dict[str, Any]]:
        return read_journal(RunFolder(self.place.folder).ledger)[0]

    def resume(self) -> None:
        """Go on, and find everything as if the run had not been cut off."""
        again = child.run(self.place, "resume", NAME, "--runs", "runs")
        assert again.code == 0, again.output
        assert read_items(self.place) == self.items
        assert read_losses(self.place) == self.losses
        records = self.records()
        assert list_saved(records) == self.saved
        drawn = balance(records)
        assert (drawn.created, drawn.live) == (drawn.deleted + drawn.kept, ())
        folder = RunFolder(self.place.folder)
        assert list(folder.resume.iterdir()) == [] and not list(folder.path.rglob("*.tmp"))
        folder.check_manifest()
        report = verify_ledger(folder.path.parent, NAME)
        assert all(finding.ok for finding in report.findings if finding.name != "time"), report

    def looks_whole(self) -> None:
        """The ledger of a run that was cut off holds, but for its last sessions' time: forks are too quick for it."""
        report = verify_ledger(self.place.folder.parent, NAME)
        assert all(finding.ok for finding in report.findings if finding.name != "time"), report


@contextmanager
def open_shop(root: Path) -> Iterator[Shop]:
    """Run the tiny target once, undisturbed, in a child of this process."""
    from robustlab.engine import baseline
    from robustlab.report import html

    with pytest.MonkeyPatch.context() as patch:
        # Warming up changes these for good; other tests run in this process too.
        patch.setattr(html, "render_report", html.render_report)
        patch.setattr(baseline, "secrets", baseline.secrets)  # type: ignore[attr-defined]
        child.warm_up(replace(workplace.make_mirrored(root / "warm"), mirrored=False))
        place = replace(workplace.make_mirrored(root / "place"), mirrored=False)
        whole = child.run(place)
        assert whole.code == 0, whole.output
        records = read_journal(RunFolder(place.folder).ledger)[0]
        yield Shop(place, read_items(place), read_losses(place), list_saved(records))


def read_items(place: Workplace) -> bytes:
    return (place.folder / "items.jsonl").read_bytes()


def read_losses(place: Workplace) -> list[tuple[int, float]]:
    (cell,) = json.loads((place.folder / "results.json").read_text())["cells"]
    return [(point["step"], point["loss"]) for point in cell["losses"]]


def list_saved(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(r["artefact"], r["sha256"]) for r in records if r.get("event") == "created"}


def note_moment() -> None:
    """Say when the interruption came; the working folder is the workplace's."""
    Path(MOMENT).write_text(str(time.monotonic()))


def signal_at(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int, numbers: list[int]) -> None:
    """Let the process get signals in the given call of a function, one after the other."""
    real, calls = getattr(owner, name), iter(range(1, 10_000))

    def watched(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            note_moment()
            for number in numbers:
                os.kill(os.getpid(), number)
        return real(*args, **options)

    patch.setattr(owner, name, watched)
