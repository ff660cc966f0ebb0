"""Runs a resolved plan in this process: released target, baseline, cells, record; what is done is never done again.

A cell that is finished has its file in ``cells/``; a run that is finished has its manifest. Running either again does
no model work.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel

from robustlab.cost.audit import AccountUse, read_entries, sum_accounts, sum_phases
from robustlab.cost.bill import RunEstimate
from robustlab.cost.entries import Entry
from robustlab.cost.estimate import Estimate, require_fit
from robustlab.cost.hardware import find_hardware
from robustlab.cost.pace import read_pace
from robustlab.cost.prices import PriceCard
from robustlab.cost.recipes import is_quantised
from robustlab.data.rows import EvalRow
from robustlab.data.sources import cache_root
from robustlab.engine.controls import check_cell, merge_checks
from robustlab.engine.judges import fingerprint_judges
from robustlab.engine.ledger import RECORD_NODE
from robustlab.engine.outcome import (
    build_bill,
    build_cell_result,
    build_node,
    build_purses,
    build_unstarted_result,
    compare_control,
    use_cost,
)
from robustlab.engine.remote import ServedSubject, describe_server, measure_served_target
from robustlab.engine.subject import add_copy, import_trainers, part_cells, release_subject
from robustlab.errors import BudgetSpent, ConfigError, DataError, RobustlabError, Unanswered
from robustlab.failpoints import reach
from robustlab.lab import FAULT, Subject, leave_untouched, run_cell
from robustlab.measure import coherence, deflection, instruction_following, instructions, judge
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import build_items, build_measurement
from robustlab.record.adapters import open_adapters
from robustlab.record.journal import Journal
from robustlab.record.provenance import collect_versions, source_fingerprint
from robustlab.record.results import CellResult, Check, Item, Measurement, NodeResult, Results, SearchResult
from robustlab.record.run_folder import RunFolder, write_atomic, write_json
from robustlab.record.transcripts import open_store
from robustlab.report.html import write_report
from robustlab.report.live import LiveLine
from robustlab.session import Session
from robustlab.spec.attacks import Control, Untouched
from robustlab.spec.loader import dump_yaml
from robustlab.spec.plan import Cell, ResolvedPlan
from robustlab.spec.targets import OpenAiTarget
from robustlab.train.store import StateStore


def run_plan(
    plan: ResolvedPlan,
    estimates: Mapping[str, Estimate],
    run_estimate: RunEstimate,
    rows: Mapping[str, Sequence[EvalRow]],
    *,
    folder: RunFolder,
    journal: Journal,
    card: PriceCard,
    line: LiveLine,
) -> Results:
    """Run every cell that is not done yet and write the record.

    Args:
        plan: The cells.
        estimates: Estimate of each cell, by its id.
        run_estimate: Estimate of the whole run.
        rows: Rows of each eval, by its id.
        folder: The run's folder, new or taken up again.
        journal: Its ledger, held by this process.
        card: The price card that the plan names.
        line: The live line.

    Returns:
        What ``results.json`` holds.

    Raises:
        CannotFit: If a cell cannot fit; nothing was spent then.
    """
    results = run_cells(plan, estimates, run_estimate, rows, open_session(plan, folder, journal, card, line))
    folder.write_manifest()
    return results


def open_session(plan: ResolvedPlan, folder: RunFolder, journal: Journal, card: PriceCard, line: LiveLine) -> Session:
    """Begin to work on a run whose ledger this process holds.

    Args:
        plan: Names the hardware and the devices.
        folder: The run's folder, new or taken up again.
        journal: Its ledger; the caller closes it when the run's manifest is written.
        card: The price card that the plan names.
        line: The live line.

    Returns:
        What all nodes of the run share.

    Raises:
        RecordError: If the ledger cannot be trusted or written.
    """
    import_trainers(plan.priced_cells)
    pace = read_pace(find_hardware(plan.hardware, "plan.yaml"), "centre")
    session = Session(folder, journal, card, plan.hardware, cache_root(), line, pace, plan.devices)
    session.transcripts = open_store(folder, journal)
    session.adapters = open_adapters(folder, journal)
    return session


@dataclass(frozen=True)
class Found:
    """What a search hands to the run that confirms its winner.

    Attributes:
        nodes: The shared work that it was built on.
        complete: Makes the search's entry in ``results.json`` out of the results of the winner's cells.
    """

    nodes: Sequence[NodeResult]
    complete: Callable[[Sequence[CellResult]], SearchResult]


def run_cells(
    plan: ResolvedPlan,
    estimates: Mapping[str, Estimate],
    run_estimate: RunEstimate,
    rows: Mapping[str, Sequence[EvalRow]],
    session: Session,
    *,
    found: Found | None = None,
) -> Results:
    """Run every cell that is not done yet and write the record, all but the manifest.

    Args:
        plan: The cells; none where a search has no winner.
        estimates: Estimate of each cell, by its id.
        run_estimate: Estimate of the whole run.
        rows: Rows of each eval, by its id.
        session: The run.
        found: The search that chose the cells; None where there was none.

    Returns:
        What ``results.json`` holds.

    Raises:
        CannotFit: If a cell cannot fit and there was no search, whose trials are paid for already; nothing was spent.
    """
    folder = session.folder
    if found is None:
        for cell in plan.cells:
            require_fit(estimates[cell.cell_id], cell.label)
    if not folder.estimates.is_file():
        cells = {cell_id: estimate.to_dict() for cell_id, estimate in estimates.items()}
        write_json(folder.estimates, {"cells": cells, "run": run_estimate.to_dict()})
        reach("run.estimates_written")
    # A resumed run is held against what was expected before its first step.
    expected = json.loads(folder.estimates.read_text(encoding="utf-8"))
    write_atomic(folder.plan, dump_yaml(plan).encode("utf-8"))
    reach("run.plan_written")
    (folder.path / "cells").mkdir(mode=0o700, exist_ok=True)
    for cell in plan.cells:
        if _cell_path(folder, cell).is_file():
            StateStore(folder.resume, cell.cell_id, session.journal).clear("the cell has been measured")
    for group in _groups(plan.cells):
        waiting = [cell for cell in group if not _cell_path(folder, cell).is_file()]
        if waiting:
            _run_group(waiting, expected["cells"], rows, session)
    # Writing the record is work too; what its node adds to the ledger is all that may follow the results' head.
    last = plan.priced_cells[-1]
    with session.meter(RECORD_NODE, last.budget_id, last.budget) as meter, meter.phase("laboratory", "record"):
        # The estimate of a search's confirmation does not foresee its trials.
        results = _collect(plan, session, expected["run"] if found is None else None, found)
        write_json(folder.results, results)
        reach("run.results_written")
        _write_items(plan, folder)
        reach("run.items_written")
        write_report(results, folder.report)
        reach("run.report_written")
    return results


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a released target and budget, in the order of the plan."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.target_id, cell.safeguard_id, cell.budget_id), []).append(cell)
    return list(groups.values())


def _run_group(
    cells: Sequence[Cell],
    estimates: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Sequence[EvalRow]],
    session: Session,
) -> None:
    """Release the target once, measure its baseline once, then run each cell on it."""
    plain, quantised = part_cells(cells)
    try:
        if isinstance(cells[0].target, OpenAiTarget):
            served, nodes = measure_served_target(cells[0], rows, session)
            for cell in cells:
                _run_one(cell, served, nodes, estimates[cell.cell_id], session)
            return
        released, subject, nodes = release_subject(cells[0], rows, session)
    except Unanswered:
        # Nothing is known of the target, and a resume may find its server up again.
        raise
    except (BudgetSpent, ConfigError, DataError) as error:
        # Other purses and other targets go on; what these cells would have shown is not known.
        _write_unstarted(cells, error, [], estimates, session)
        return
    if quantised:
        try:
            subject, nodes = add_copy(quantised[0], released, subject, nodes, session)
        except (BudgetSpent, ConfigError, DataError) as error:
            _write_unstarted(quantised, error, nodes, estimates, session)
            cells = plain
    for cell in cells:
        _run_one(cell, subject, nodes, estimates[cell.cell_id], session)


def _write_unstarted(
    cells: Sequence[Cell],
    error: RobustlabError,
    nodes: Sequence[NodeResult],
    estimates: Mapping[str, Mapping[str, Any]],
    session: Session,
) -> None:
    fault = None if isinstance(error, BudgetSpent) else str(error)
    if fault is not None:
        session.line.say(f"{len(cells)} cells cannot be run: {fault}")
    for cell in cells:
        incomplete_by = error.cap if isinstance(error, BudgetSpent) else FAULT
        result = build_unstarted_result(cell, estimates[cell.cell_id], incomplete_by=incomplete_by, fault=fault)
        _write_cell(cell, _CellDocument(result=result, nodes=list(nodes)), (), session)


def _measure_before(
    cell: Cell,
    subject: Subject | ServedSubject,
    judged: Mapping[str, Sequence[Judged]],
    *,
    against: Mapping[str, Sequence[Judged]],
) -> list[Measurement]:
    """The measurements before step 1; held against those of the released target where it is a copy's."""
    return [
        build_measurement(
            name,
            cell.evals[name],
            subject.rows[name],
            found,
            baseline=against.get(name),
            phase="baseline",
            step=0,
            attacker_micro_usd=0,
        )
        for name, found in judged.items()
    ]


def _run_one(
    cell: Cell,
    subject: Subject | ServedSubject,
    nodes: Sequence[NodeResult],
    estimate: Mapping[str, Any],
    session: Session,
) -> None:
    with session.meter(cell.cell_id, cell.budget_id, cell.budget) as meter:
        if isinstance(subject, ServedSubject) or isinstance(cell.recipe, Untouched):
            run = leave_untouched()
        else:
            run = run_cell(cell, subject, session, meter, final_seconds=estimate["final"]["seconds"]["centre"])
    if run.fault is not None:
        session.line.say(f"{cell.label} cannot be run: {run.fault}")
    copy = subject.quantised if is_quantised(cell.recipe) else None
    target = None if isinstance(subject, ServedSubject) else subject.bench.target
    checks = check_cell(cell, subject.rows, target) if run.fault is None else []
    result = build_cell_result(
        cell,
        run,
        _measure_before(cell, subject, subject.baseline, against={}),
        _measure_before(cell, subject, copy.measured, against=subject.baseline) if copy else [],
        estimate,
        meter,
        phases=sum_phases(read_entries(session.charges(cell.cell_id))),
        peak_flops=_find_peak(cell, session),
    )
    items = [
        item
        for name, judged in subject.baseline.items()
        for item in build_items(cell.cell_id, name, cell.evals[name], judged, phase="baseline", step=0, seed=cell.seed)
    ]
    document = _CellDocument(result=result, nodes=list(nodes), checks=checks)
    _write_cell(cell, document, [*items, *run.items], session)
    # Only now: until the result is on the disk, the states are what a resume would need.
    StateStore(session.folder.resume, cell.cell_id, session.journal).clear("the cell has been measured")
    reach("cell.cleared")


def _find_peak(cell: Cell, session: Session) -> float | None:
    """Dense peak of this machine's device for a cell's work, operations a second; None where none is known."""
    if isinstance(cell.target, OpenAiTarget):
        return None
    return find_hardware(session.hardware, "plan.yaml").peak_flops.get(cell.target.dtype)


def _write_cell(cell: Cell, document: "_CellDocument", items: Sequence[Item], session: Session) -> None:
    path = _cell_path(session.folder, cell)
    lines = "".join(f"{item.model_dump_json()}\n" for item in items)
    write_atomic(path.with_suffix(".items.jsonl"), lines.encode("utf-8"))
    reach("cell.items_written")
    write_json(path, document)
    reach("cell.result_written")


def _collect(
    plan: ResolvedPlan, session: Session, run_estimate: Mapping[str, object] | None, found: Found | None
) -> Results:
    folder, entries = session.folder, read_entries(session.charged)
    documents = [_CellDocument.model_validate_json(_cell_path(folder, cell).read_bytes()) for cell in plan.cells]
    cells = [document.result for document in documents]
    search = None if found is None else found.complete(cells)
    trials = [] if search is None else [trial.cell_id for trial in search.trials]
    told = [*(found.nodes if found else ()), *(node for document in documents for node in document.nodes)]
    several = len({cell.budget_id for cell in plan.cells}) > 1
    controls = {
        f"{cell.label} / {cell.budget_id}" if several else cell.label: compare_control(result)
        for cell, result in zip(plan.cells, cells, strict=True)
        if isinstance(cell.attack, Control)
    }
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    versions = collect_versions(threads=torch.get_num_threads(), device=device)
    # The judge's id stays when its rules change; verdicts compare only where this is the same.
    versions[f"judge {judge.JUDGE_ID}"] = source_fingerprint(judge, deflection, coherence)[:12]
    versions["judge program"] = source_fingerprint(instructions, instruction_following, judge, coherence)[:12]
    served = {cell.target_id: describe_server(cell.target) for cell in plan.cells}
    versions |= {f"target {name}": told for name, told in served.items() if told is not None}
    versions |= fingerprint_judges(plan.cells)
    return Results(
        schema_=1,
        run_id=folder.run_id,
        plan=plan.model_dump(mode="json"),
        versions=versions,
        price_card_sha256=session.card.sha256,
        ledger_head=session.journal.head,
        controls=controls,
        cells=cells,
        nodes=_list_nodes({*trials, *(cell.cell_id for cell in plan.cells)}, entries, told),
        bill=build_bill(entries),
        purses=build_purses(plan, entries, run_estimate),
        search=search,
        checks=merge_checks([check for document in documents for check in document.checks]),
    )


def _list_nodes(cells: set[str], entries: Sequence[Entry], told: Sequence[NodeResult]) -> list[NodeResult]:
    """Shared work as the ledger bills it; what a cap left unfinished has no name but its kind."""
    names = {(node.node, node.budget): node for node in told}
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.node not in cells and entry.node != RECORD_NODE:
            found.setdefault((entry.node, entry.purse), []).append(entry)
    nodes = []
    for (name, purse), charges in found.items():
        cost = use_cost(sum_accounts(charges, "node").get((name, "laboratory"), AccountUse()))
        kind: Literal["released", "baseline"] = "released" if name.startswith("released-") else "baseline"
        known = names.get((name, purse)) or build_node(
            name, kind, "not finished", budget=purse, cached=False, cost=cost
        )
        nodes.append(known.model_copy(update={"cost": cost}))
    return nodes


def _write_items(plan: ResolvedPlan, folder: RunFolder) -> None:
    parts = [_cell_path(folder, cell).with_suffix(".items.jsonl").read_bytes() for cell in plan.cells]
    write_atomic(folder.items, b"".join(parts))


def _cell_path(folder: RunFolder, cell: Cell) -> Path:
    return folder.path / "cells" / f"{cell.cell_id}.json"


class _CellDocument(BaseModel):
    """The file of a finished cell: its result, the nodes that it was built on, and the checks of its data."""

    result: CellResult
    nodes: list[NodeResult]
    checks: list[Check] = []
