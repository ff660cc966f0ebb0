"""Says what became of every degraded artefact of a run, and whether that is what lies on the disk; loads no torch.

It reads the ledger and ``custody.jsonl``, holds neither, opens no kept file and changes nothing: a run may go on
meanwhile. What is not as it should be is a fault and not an exception.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustlab.engine.abandon import describe_state
from robustlab.errors import CustodyError
from robustlab.record.audit import read_audit
from robustlab.record.custody import Artefact, CustodyBalance, count_artefacts, trace_artefacts
from robustlab.record.inventory import find_disagreements
from robustlab.record.run_folder import RunFolder
from robustlab.record.sending import list_allowed, sum_sent

SECOND_LOOK_SECONDS = 0.5
"""What a run that goes on is in the middle of is over by then: a fault of it counts when it stands both times."""


@dataclass(frozen=True)
class Departure:
    """What left the machine for one host.

    Attributes:
        host: Name or address.
        completions: How many at most; 0 where it was allowed and nothing was sent.
        bytes: Size of the messages that held them.
        reason: The reason that was given.
    """

    host: str
    completions: int
    bytes: int
    reason: str


@dataclass(frozen=True)
class RunCustody:
    """What became of everything degraded that a run has made.

    Attributes:
        run_id: The run.
        state: ``finished``, ``abandoned`` or ``unfinished``.
        artefacts: Every artefact, in the order of their making.
        balance: Created = deleted + kept + live.
        in_memory: Cells and trials whose attack took at least a step; what it made went with its process.
        sent: What left the machine.
        torn_bytes: Length of an unfinished record at the end of a journal.
        faults: What does not agree; empty where all is as it should be.
    """

    run_id: str
    state: str
    artefacts: tuple[Artefact, ...]
    balance: CustodyBalance
    in_memory: tuple[str, ...]
    sent: tuple[Departure, ...]
    torn_bytes: int
    faults: tuple[str, ...]


def examine_runs(
    runs: Path, run_id: str | None, *, now: datetime | None = None, sleep: Callable[[float], None] = time.sleep
) -> list[RunCustody]:
    """Examine one run, or every run of a folder.

    Args:
        runs: Folder of runs.
        run_id: The run; None for all.
        now: Aware present time; None for the clock's.
        sleep: Waits some seconds.

    Returns:
        One entry a run, by name.

    Raises:
        ConfigError: If there is no such run.
    """
    moment = now or datetime.now(UTC)
    if run_id is not None:
        return [examine(RunFolder.open(runs, run_id), moment, sleep)]
    found = sorted({path.parent for name in ("ledger.jsonl", "plan.yaml", "resume") for path in runs.glob(f"*/{name}")})
    return [examine(RunFolder(path), moment, sleep) for path in found if not path.is_symlink()]


def examine(folder: RunFolder, now: datetime, sleep: Callable[[float], None] = time.sleep) -> RunCustody:
    """Examine one run.

    Args:
        folder: Its folder.
        now: Aware present time.
        sleep: Waits some seconds, where a run that has not ended is looked at again.

    Returns:
        What became of what it made, and every fault.
    """
    found = _look(folder, now)
    if not found.faults or found.state != "unfinished":
        return found
    sleep(SECOND_LOOK_SECONDS)
    again = _look(folder, now)
    return replace(again, faults=tuple(fault for fault in again.faults if fault in found.faults))


def describe_fate(artefact: Artefact) -> str:
    """Say what became of an artefact, for people."""
    if artefact.event == "created":
        return "live"
    if artefact.event == "deleted":
        return f"deleted {(artefact.ended or '')[:19]}: {artefact.ended_why}"
    until = "kept" if artefact.expires is None else f"kept until {str(artefact.expires)[:19]}"
    return until if artefact.ended_why == artefact.why else f"{until}: {artefact.ended_why}"


def to_plain(found: RunCustody) -> dict[str, object]:
    """A run's custody as plain JSON values."""
    return asdict(found)


def _look(folder: RunFolder, now: datetime) -> RunCustody:
    state = describe_state(folder)
    try:
        audit = read_audit(folder)
    except OSError as error:
        faults = (str(error), *find_disagreements(folder, None, now, has_ended=state != "unfinished"))
        return RunCustody(folder.run_id, state, (), CustodyBalance(0, 0, 0, ()), (), (), 0, faults)
    artefacts, problems = trace_artefacts(audit.records)
    sent, unread = _read_sent(audit.records)
    disagreements = find_disagreements(folder, artefacts, now, has_ended=state != "unfinished")
    return RunCustody(
        run_id=folder.run_id,
        state=state,
        artefacts=tuple(artefacts),
        balance=count_artefacts(artefacts),
        in_memory=tuple(dict.fromkeys(str(each["node"]) for each in audit.records if _is_attack(each))),
        sent=sent,
        torn_bytes=audit.torn_bytes,
        faults=(*map(str, problems), *unread, *disagreements),
    )


def _is_attack(record: dict[str, Any]) -> bool:
    is_training = record.get("account") == "attacker" and record.get("phase") == "train"
    return is_training and "node" in record


def _read_sent(records: Iterable[dict[str, Any]]) -> tuple[tuple[Departure, ...], list[str]]:
    """What was sent where, and what is wrong with the records of it."""
    told = list(records)
    try:
        allowed = list_allowed(told)
        sent = {each.host: each for each in sum_sent(told)}
    except (KeyError, TypeError):
        problem = "does not say to whom, how many or how large"
        return (), [str(CustodyError("a record of what was sent", problem, "do not trust this run"))]
    found = [
        Departure(host, sent[host].completions if host in sent else 0, sent[host].bytes if host in sent else 0, reason)
        for host, reason in allowed.items()
    ]
    unasked = [Departure(name, to.completions, to.bytes, "") for name, to in sent.items() if name not in allowed]
    problem = "was sent completions without leave"
    return (*found, *unasked), [str(CustodyError(each.host, problem, "do not trust this run")) for each in unasked]
