"""Two runs that need one entry of the cache: one makes it, the other waits, pays for that and takes what is there."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.engine import baseline, released
from robustlab.models.load import MANIFEST
from robustlab.record import locks
from robustlab.record.locks import hold_lock
from robustlab.report.live import LiveLine

HASH = "f" * 64


class Other:
    """A process that holds the lock of a node, makes the node when it is told to, and lets go."""

    def __init__(self, lock: Path, made: Path, text: str = "{}") -> None:
        held, says_held = os.pipe()
        self._told, self._tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._tell)
            with hold_lock(lock, "the node", say=lambda _: None):
                os.write(says_held, b"!")
                if os.read(self._told, 1):
                    made.parent.mkdir(parents=True, exist_ok=True)
                    made.write_text(text)
            os._exit(0)
        os.read(held, 1)

    def make(self) -> None:
        os.write(self._tell, b"!")
        os.waitpid(self._pid, 0)

    def end(self) -> None:
        os.close(self._tell)
        os.waitpid(self._pid, 0)


@pytest.fixture
def session(tmp_path: Path) -> Any:
    said = StringIO()
    return SimpleNamespace(cache=tmp_path / "cache", line=LiveLine(said), said=said)


def while_waiting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Lets something happen as soon as this process waits for a lock."""
    take = locks._take

    def watched(path: Path, operation: int) -> int | None:
        if not operation & fcntl.LOCK_NB:
            act()
        return take(path, operation)

    monkeypatch.setattr(locks, "_take", watched)


@pytest.fixture
def cell() -> Any:
    return SimpleNamespace(target_id="tiny", safeguard_id="refusal_sft_smoke")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where a safeguard was installed: a stand-in for the training."""
    found: list[Path] = []

    def install(cell: Any, safeguard: Any, folder: Path, *_: Any) -> None:
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text("{}")
        found.append(folder)

    monkeypatch.setattr(released, "_install", install)
    return found


def test_what_another_process_made_meanwhile_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch, session: Any, cell: Any, till: Any, installed: list[Path]
) -> None:
    folder = session.cache / "released" / HASH
    other = Other(session.cache / "locks" / f"released-{HASH}.lock", folder / MANIFEST)

    def act() -> None:
        till.wait(5)
        other.make()

    while_waiting(monkeypatch, act)
    meter = till.meter()
    till.wait(2)
    assert released._install_once(cell, None, folder, session, meter)
    till.wait(1)
    meter.close()
    assert installed == []
    said = session.said.getvalue()
    assert "tiny / refusal_sft_smoke: process " in said and " is at it, waiting" in said
    # Every second is explained, and only those of the waiting are called so; the laboratory pays a dollar for each.
    billed = [
        (each["account"], each["phase"], each["quantities"]["wall_ns"], each["micro_usd"]) for each in till.records
    ]
    assert billed[1] == ("laboratory", "wait", 5 * 10**9, 5_000_000)
    assert [seconds for _, _, seconds, _ in billed] == [2 * 10**9, 5 * 10**9, 10**9]


def test_whoever_comes_first_makes_it_once(session: Any, cell: Any, till: Any, installed: list[Path]) -> None:
    folder = session.cache / "released" / HASH
    assert not released._install_once(cell, None, folder, session, till.meter())
    assert released._install_once(cell, None, folder, session, till.meter())
    assert installed == [folder]
    assert session.said.getvalue() == "" and till.records == []


def test_what_a_crash_left_undone_is_made(
    monkeypatch: pytest.MonkeyPatch, session: Any, cell: Any, till: Any, installed: list[Path]
) -> None:
    folder = session.cache / "released" / HASH
    other = Other(session.cache / "locks" / f"released-{HASH}.lock", folder / MANIFEST)
    while_waiting(monkeypatch, other.end)
    assert not released._install_once(cell, None, folder, session, till.meter())
    assert installed == [folder]


PLACE = baseline.Place(content_id="c" * 64, measured="d" * 64, label="smoke_refusal baseline, 0 rows")


def test_two_runs_measure_a_baseline_once(
    monkeypatch: pytest.MonkeyPatch, session: Any, till: Any, tmp_path: Path
) -> None:
    """The other process writes what this one would have written; nothing is measured here."""
    path = session.cache / "baselines" / PLACE.content_id / f"{PLACE.measured}.json"
    document: dict[str, Any] = {"measuring_ns": 7, "judged": []}
    sealed = json.dumps({"sha256": baseline._seal(PLACE.measured, document), **document})
    other = Other(session.cache / "locks" / f"baseline-{PLACE.measured[:12]}.lock", path, sealed)
    while_waiting(monkeypatch, other.make)

    @contextmanager
    def meter(*_: Any) -> Iterator[Any]:
        opened = till.meter()
        yield opened
        opened.close()

    session.meter, session.transcripts = meter, None

    def measure(*_: Any) -> Any:
        raise AssertionError("the baseline was measured twice")

    cell = SimpleNamespace(budget_id="smoke", budget=None)
    found = baseline.measure_once(cell, "smoke_refusal", PLACE, session, measure, expected_seconds=1.0)  # type: ignore[arg-type]
    assert (found.cached, found.measuring_ns, list(found.judged)) == (True, 7, [])
    assert "smoke_refusal baseline: process " in session.said.getvalue()
