"""Brings a run's ledger, price card and results together: do they hold, what are they as CSV, what at other prices.

It reads and, but for the CSV, never writes; no torch. What is not as it should be is a finding and not an exception.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from robustlab.cost.audit import (
    Numbered,
    PriceRow,
    find_mismatches,
    find_open,
    find_overshoots,
    number_entries,
    price_entries,
)
from robustlab.cost.clocks import JUMP_NS
from robustlab.cost.entries import BILLED
from robustlab.cost.focus import focus_rows, write_csv
from robustlab.cost.prices import PriceCard
from robustlab.cost.timeline import explain_time, find_leaps, find_resets, find_setbacks, read_period
from robustlab.engine.cards import find_card
from robustlab.engine.doctor import Finding
from robustlab.engine.sums import find_differences
from robustlab.errors import ConfigError, RecordError, RobustlabError
from robustlab.record import custody
from robustlab.record.journal import GENESIS, Record, read_journal
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder, read_plain, write_atomic
from robustlab.units import format_usd, to_seconds

RECORD_NODE = "record"
"""Node that bills the writing of results, report and items: its records may follow the results' head."""
SHARED_NODES = ("released-", "baseline-")
"""How the ids of work that cells share begin; any other node but ``RECORD_NODE`` is a cell or a trial."""
EXPLAINED_SHARE = Fraction(98, 100)
_DISTRUST = "do not trust this run; repeat it"
_LEAVE_CLOCK = "the clock was set, or the record is not genuine: repeat the run and leave the clock alone"
_SHOWN = 3


@dataclass(frozen=True)
class LedgerReport:
    """What a run's ledger was found to be.

    Attributes:
        run_id: The run.
        findings: Every check that could be made, in order.
    """

    run_id: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(finding.ok for finding in self.findings)


@dataclass(frozen=True)
class _Evidence:
    """What a run left behind; results are None where none are written yet, or where they cannot be read."""

    folder: RunFolder
    is_finished: bool
    records: list[Record]
    torn: bytes
    results: Results | None


def verify_ledger(runs: Path, run_id: str) -> LedgerReport:
    """Check the chain, the money, the sums and the time of a run's ledger; of one that has not ended, without sums.

    Args:
        runs: Folder of runs.
        run_id: The run.

    Returns:
        One finding for each check. Damage is a finding; checks that it makes impossible are left out.

    Raises:
        ConfigError: If there is no such run.
    """
    folder = RunFolder.open(runs, run_id)
    # A run that goes on may end meanwhile: what it says last is read first.
    is_finished = folder.is_finished
    findings, results = _look_at_results(folder, is_finished=is_finished)
    try:
        records, torn = _read_ledger(folder)
    except RecordError as error:
        return LedgerReport(run_id, (_failed("chain", error),))
    evidence = _Evidence(folder, is_finished, records, torn, results)
    findings = [_look("chain", lambda: _chain(evidence)), *findings]
    if results is not None:
        findings.append(_look("head", lambda: _head(evidence, results)))
    findings.append(_look("records", lambda: f"{len(number_entries(records))} records of money"))
    if findings[-1].ok:
        findings += _look_at_money(evidence, number_entries(records))
        findings.append(_look("time", lambda: _time(records, number_entries(records))))
    return LedgerReport(run_id, tuple(findings))


def export_focus(runs: Path, run_id: str, out: Path) -> int:
    """Write a run's charges as CSV with FOCUS column names.

    Args:
        runs: Folder of runs.
        run_id: The run; it may still be going on.
        out: File to make; it must not exist.

    Returns:
        How many rows were written.

    Raises:
        ConfigError: If there is no such run, ``out`` exists, lies in the run's folder or in none, or there is no price
            card.
        RecordError: If the ledger or, of a run that has ended, any of its record cannot be trusted, or ``out`` cannot
            be written.
    """
    folder = RunFolder.open(runs, run_id)
    if os.path.lexists(out):
        raise ConfigError("--out", f"{out} exists and is not overwritten", "name a new file")
    if not os.path.isdir(out.parent):
        raise ConfigError("--out", f"{out.parent} is not a folder", "make the folder, or name a file elsewhere")
    if folder.path.resolve() in out.resolve().parents:
        problem = f"{out} lies in the folder of the run, which holds its record and nothing else"
        raise ConfigError("--out", problem, "name a file elsewhere")
    evidence = _read_trusted(folder)
    rows = focus_rows(number_entries(evidence.records), find_card(folder, evidence.results))
    write_atomic(out, write_csv(rows).encode("utf-8"))
    return len(rows)


def price_again(runs: Path, run_id: str, card: PriceCard, *, hardware: str | None) -> list[PriceRow]:
    """Price a run by another card, or as if it had used another device at the same pace; nothing is run or written.

    Args:
        runs: Folder of runs.
        run_id: The run; it may still be going on.
        card: The card to price with.
        hardware: Item to price all device time by; None for the one that the run was billed by.

    Returns:
        Old and new bill of every purse, node and account, of each account, and of the run.

    Raises:
        ConfigError: If there is no such run, or the card has no hourly price for an item.
        RecordError: If the ledger or, of a run that has ended, any of its record cannot be trusted.
    """
    evidence = _read_trusted(RunFolder.open(runs, run_id))
    return price_entries(number_entries(evidence.records), card, hardware=hardware)


def describe_torn_tail(runs: Path, run_id: str) -> str | None:
    """Say what ``export_focus`` and ``price_again`` leave out of a run that has not ended.

    Args:
        runs: Folder of runs.
        run_id: The run.

    Returns:
        A sentence about the record that a crash left unfinished, or that is being written; None when there is none.

    Raises:
        ConfigError: If there is no such run.
        RecordError: As ``price_again`` does.
    """
    torn = _read_trusted(RunFolder.open(runs, run_id)).torn
    return f"the ledger ends in {len(torn)} bytes of an unfinished record: they are left out" if torn else None


def _read_trusted(folder: RunFolder) -> _Evidence:
    """Read a record only as long as it stands under its seal; of a run that has not ended, the chain and the head."""
    is_finished = folder.is_finished
    results = _read_results(folder) if is_finished or os.path.lexists(folder.results) else None
    evidence = _Evidence(folder, is_finished, *_read_ledger(folder), results)
    if is_finished:
        _check_seal(folder)
    _chain(evidence)
    if results is not None:
        _head(evidence, results)
    return evidence


def _check_seal(folder: RunFolder) -> int:
    return folder.check_manifest(besides=frozenset({folder.report.name}))


def _read_results(folder: RunFolder) -> Results:
    try:
        return Results.model_validate_json(read_plain(folder.results))
    except RecordError as error:
        raise RecordError(error.where, error.problem, _DISTRUST) from None
    except ValueError as error:
        problem = f"cannot be read: {str(error).splitlines()[0]}"
        raise RecordError(str(folder.results), problem, _DISTRUST) from None


def _read_ledger(folder: RunFolder) -> tuple[list[Record], bytes]:
    if not os.path.lexists(folder.ledger):
        raise RecordError(str(folder.ledger), "is not there: the run has no ledger", _DISTRUST)
    return read_journal(folder.ledger)


def _look(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check(), True, "")
    except RobustlabError as error:
        return _failed(name, error)


def _failed(name: str, error: RobustlabError) -> Finding:
    return Finding(name, f"{error.where}: {error.problem}", False, error.remedy)


def _look_at_results(folder: RunFolder, *, is_finished: bool) -> tuple[list[Finding], Results | None]:
    if not is_finished and not os.path.lexists(folder.results):
        found = "not there yet, the run has not ended: the ledger was checked alone"
        return [Finding("results", found, True, "")], None
    unsealed = Finding("results", "there and not sealed, the run has not ended: a resume writes them anew", True, "")
    seal = _look("files", lambda: f"{_check_seal(folder)} as sealed") if is_finished else unsealed
    try:
        return [seal], _read_results(folder)
    except RecordError as error:
        return [*([seal] if is_finished else []), _failed("results", error)], None


def _chain(evidence: _Evidence) -> str:
    records, torn = evidence.records, evidence.torn
    head = records[-1]["hash"] if records else GENESIS
    if torn and evidence.is_finished:
        problem = f"ends in {len(torn)} bytes of an unfinished record, though the run has ended"
        raise RecordError(str(evidence.folder.ledger), problem, _DISTRUST)
    tail = f"; {len(torn)} bytes of a torn record at the end, dropped by a resume" if torn else ""
    return f"{len(records)} records, head {head}{tail}"


def _head(evidence: _Evidence, results: Results) -> str:
    records = evidence.records
    hashes = [GENESIS, *(record["hash"] for record in records)]
    if results.ledger_head not in hashes:
        problem = f"names {results.ledger_head}, which is no record of the ledger"
        raise RecordError("results.json ledger_head", problem, _DISTRUST)
    place = hashes.index(results.ledger_head)
    if not evidence.is_finished:
        return f"record {place} of {len(records)}"
    for number, record in enumerate(records[place:], start=place + 1):
        if record.get("kind") != custody.KIND and record.get("node") != RECORD_NODE:
            problem = "follows the head that the results name, and is neither custody nor the writing of the record"
            raise RecordError(
                f"ledger record {number}", problem, "resume the run, so that its results are written anew"
            )
    return f"record {place} of {len(records)}; only custody and the writing of the record follow"


def _look_at_money(evidence: _Evidence, entries: list[Numbered]) -> list[Finding]:
    folder, results = evidence.folder, evidence.results
    findings = []
    try:
        card = find_card(folder, results)
    except RobustlabError as error:
        findings.append(_failed("price card", error))
    else:
        findings.append(Finding("price card", f"as of {card.prices.as_of}, sha256 {card.sha256}", True, ""))
        findings.append(_look("money", lambda: _money(entries, card, results)))
    if results is not None:
        findings.append(_look("sums", lambda: _sums(evidence.records, entries, results)))
    findings.append(_look("reservations", lambda: _reservations(entries, is_finished=evidence.is_finished)))
    findings.append(_look("overshoot", lambda: _overshoot(entries)))
    return findings


def _money(entries: list[Numbered], card: PriceCard, results: Results | None) -> str:
    items = {entry.price_key for _, entry in entries}
    planned = items if results is None else {str(results.plan.get("hardware"))}
    if len(items) > 1 or not items <= planned:
        problem = f"is billed by {_and(items)}, the plan says {_and(planned)}"
        raise RecordError("ledger", problem, _DISTRUST)
    wrong = find_mismatches(entries, card)
    if wrong:
        texts = [f"record {m.record} says {m.written_micro_usd} micro-USD, due are {m.due_micro_usd}" for m in wrong]
        raise RecordError("ledger", _first_of(texts), _DISTRUST)
    return f"every record's money follows from its quantities and the rate of {_and(items) or 'nothing'}"


def _sums(records: Sequence[Record], entries: list[Numbered], results: Results) -> str:
    numbers = {record["hash"]: number for number, record in enumerate(records, start=1)}
    last = numbers.get(results.ledger_head, 0)
    by_then = [entry for number, entry in entries if number <= last]
    wrong = find_differences(results, by_then)
    if wrong:
        raise RecordError("results.json", _first_of(wrong), _DISTRUST)
    named = {RECORD_NODE, *(cell.cell_id for cell in results.cells), *(node.node for node in results.nodes)}
    named |= {trial.cell_id for trial in results.search.trials} if results.search else set()
    paid = [entry for entry in by_then if entry.record in BILLED]
    rest = sum(entry.micro_usd for entry in paid if entry.node not in named)
    left = f", {format_usd(rest)} of work that no result used" if rest else ""
    bill = format_usd(sum(entry.micro_usd for entry in paid))
    return f"{len(results.cells)} cells, {len(results.nodes)} shared nodes{left}: a bill of {bill}, as in the ledger"


def _reservations(entries: list[Numbered], *, is_finished: bool) -> str:
    waiting, lost = find_open(entries)
    for number, entry in [*lost, *(waiting if is_finished else [])]:
        problem = f"is a reservation for {entry.phase} of {entry.node} that no record closes"
        raise RecordError(f"ledger record {number}", problem, _DISTRUST)
    if not waiting:
        return "none is open"
    texts = [f"record {number}, {entry.phase} of {entry.node}" for number, entry in waiting]
    return f"{len(waiting)} open, charged in full by a resume: {_first_of(texts)}"


def _overshoot(entries: list[Numbered]) -> str:
    found = find_overshoots(entries)
    for over in found:
        if over.followed_by is not None:
            problem = f"passed a cap, and yet record {over.followed_by} let another unit of {over.entry.node} through"
            raise RecordError(f"ledger record {over.record}", problem, _DISTRUST)
    if not found:
        return "none"
    texts = [
        f"record {over.record}, {'a unit of ' if over.is_unit else ''}{over.entry.phase}, {over.entry.account} of "
        f"{over.entry.node}, {format_usd(over.entry.micro_usd)}"
        for over in found
    ]
    return f"{format_usd(sum(over.entry.micro_usd for over in found))} in {len(found)} segments: {'; '.join(texts)}"


def _time(records: Sequence[Record], entries: list[Numbered]) -> str:
    for number, entry in entries:
        read_period(number, entry)
    for stray in find_setbacks(records):
        problem = f"is dated {_seconds(stray.by_ns)} before the record before it, and no clock_jump tells why"
        raise RecordError(f"ledger record {stray.record}", problem, _LEAVE_CLOCK)
    explained = explain_time(records)
    sessions, share = explained.sessions, explained.share
    if not sessions:
        raise RecordError("ledger", "names no session: its time cannot be explained", _DISTRUST)
    for number, session in enumerate(sessions, start=1):
        if session.explained_ns > session.wall_ns * (2 - EXPLAINED_SHARE) + JUMP_NS:
            problem = f"explains {_seconds(session.explained_ns)} of {_seconds(session.wall_ns)}"
            raise RecordError(f"ledger session {number}", problem, _DISTRUST)
    if share is None:
        return "no time has passed"
    # Rounded down: 97.999 % must not read as 98.
    percent = f"{share * 10_000 // 1 / 100:.2f} %"
    resets = [f"; record {each.record} is dated {_seconds(each.by_ns)} back" for each in find_resets(records)]
    found = f"{percent} of {_seconds(explained.wall_ns)} explained, sessions: {len(sessions)}{''.join(resets)}"
    if share < EXPLAINED_SHARE:
        for stray in find_leaps(records):
            late = f"record {stray.record} is dated {_seconds(stray.by_ns)} later than its time explains"
            raise RecordError("ledger", f"{found}; at least 98 % must be: {late}", _LEAVE_CLOCK)
        raise RecordError("ledger", f"{found}; at least 98 % must be", "run it again on a machine with less other work")
    return found


def _seconds(duration_ns: int) -> str:
    return f"{to_seconds(duration_ns):.3f} s"


def _and(items: Iterable[str]) -> str:
    return " and ".join(sorted(items))


def _first_of(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more
