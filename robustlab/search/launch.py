"""Starts and resumes runs that search: trials on the select rows, then the frozen winner on the report rows.

A search that has ended has its file ``search/search.json``; from there on the run is an ordinary one whose cells are
the winner's. Running either again does no model work that is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from robustlab.cost.audit import read_entries
from robustlab.cost.estimate import require_fit
from robustlab.cost.prices import PriceCard, load_price_card
from robustlab.cost.recipes import is_quantised
from robustlab.data.rows import EvalRow
from robustlab.engine.abandon import refuse_abandoned
from robustlab.engine.held import read_plan, refuse_difference
from robustlab.engine.holding import has_begun, hold_new, hold_run
from robustlab.engine.judges import check_judges, check_judges_again, record_consent, refuse_other_consent
from robustlab.engine.launch import Launched, resolve_exactly
from robustlab.engine.ledger import RECORD_NODE, SHARED_NODES
from robustlab.engine.local import Found, open_session, run_cells
from robustlab.engine.report import read_results
from robustlab.engine.resolve import Resolution
from robustlab.engine.subject import build_subject
from robustlab.errors import BudgetSpent, ConfigError, RecordError
from robustlab.failpoints import reach
from robustlab.models.quantize import require_nf4
from robustlab.record.journal import Journal
from robustlab.record.orphans import keep_for
from robustlab.record.results import NodeResult, SearchResult
from robustlab.record.run_folder import RunFolder, check_run_id, new_run_id, write_atomic, write_json
from robustlab.record.sending import Consent
from robustlab.report.live import LiveLine
from robustlab.search.board import Board
from robustlab.search.candidates import list_candidates, list_regions, pin_search
from robustlab.search.log import TrialLog
from robustlab.search.rows import name_role, take_role
from robustlab.search.summary import confirm, summarise
from robustlab.search.trials import Trials
from robustlab.search.winner import find_winner, freeze_winner, list_confirmations
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.catalog import schema_of
from robustlab.spec.evals import drop_second_judges
from robustlab.spec.loader import dump_yaml, load_yaml
from robustlab.spec.plan import Cell, Plan, ResolvedPlan, ResolvedSearch

Rows = Mapping[str, Sequence[EvalRow]]
_KIND = "search"


class SearchDocument(BaseModel):
    """The file of a search that has ended: its result, and the nodes that it was built on."""

    result: SearchResult
    nodes: list[NodeResult]


def launch_search(
    plan: Plan | ResolvedPlan,
    *,
    runs: Path,
    data_csv: Path | None,
    shadow_price: str | None,
    card: PriceCard,
    line: LiveLine,
    run_id: str | None = None,
    consent: Consent | None = None,
    resume_hours: int | None = None,
) -> Launched:
    """Run a plan that has a search in a new run folder.

    Args:
        plan: Ids, or a search that was resolved before.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card.
        line: The live line.
        run_id: Name of the new run; None to make one out of the time.
        consent: That completions may be sent to second judges elsewhere; None where they may not.
        resume_hours: For how long its states outlive it unfinished; None for the usual time.

    Returns:
        The new run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If the plan has no search, an id does not exist, a file is not valid, a recipe cannot be searched,
            or an eval lacks the rows of a role.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a recipe cannot fit the budget or this machine; nothing is spent and no folder is made then.
    """
    with line.stage("resolving the plan"):
        resolution, search = _resolve(plan, data_csv, shadow_price, card)
        for cell in resolution.plan.cells:
            require_fit(resolution.estimates[cell.cell_id], cell.label)
        if any(is_quantised(cell.recipe) for cell in resolution.plan.cells):
            require_nf4()
        check_judges(resolution.plan.cells, consent)
        take_role(resolution.rows, "report")
    resolved = resolution.plan.model_copy(update={"search": search, "cells": ()})
    with hold_new(runs, run_id or new_run_id()) as (folder, journal):
        write_atomic(folder.prices, card.path.read_bytes())
        reach("run.prices_written")
        record_consent(journal, consent)
        keep_for(journal, resume_hours)
        reach("run.consented")
        write_atomic(folder.plan, dump_yaml(resolved).encode("utf-8"))
        line.say(f"run {folder.run_id}: a search of at most {search.spec.trials} trials")
        return _run(resolved, search, resolution, folder, journal, card, line)


def launch_named_search(
    plan: Plan | ResolvedPlan,
    name: str,
    *,
    runs: Path,
    data_csv: Path | None,
    shadow_price: str | None,
    card: PriceCard,
    line: LiveLine,
    consent: Consent | None = None,
    resume_hours: int | None = None,
) -> Launched:
    """Run a search under a name, or go on where a run of that name was; what is finished is only reported again.

    Args:
        plan: Ids, or a search that was resolved before.
        name: Id of the run.
        runs: Folder of runs.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the price card to bill by; None for the budget's own.
        card: The price card; a run that is gone on with keeps its own.
        line: The live line.
        consent: That completions may be sent to second judges elsewhere; None where they may not, or to go on as the
            run began.
        resume_hours: For how long its states outlive it unfinished; None likewise.

    Returns:
        The run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: As for ``launch_search``, or if the run of that name never began or holds another plan.
        DataError: If an artefact cannot be had or is not what was pinned.
        CannotFit: If a recipe cannot fit the budget or this machine; nothing is spent then.
        RecordError: If what the run holds cannot be trusted or another process holds it.
    """
    folder = RunFolder(runs / check_run_id(name))
    if not folder.path.is_dir() or not has_begun(folder):
        return launch_search(
            plan,
            runs=runs,
            data_csv=data_csv,
            shadow_price=shadow_price,
            card=card,
            line=line,
            run_id=name,
            consent=consent,
            resume_hours=resume_hours,
        )
    folder = RunFolder.open(runs, name)
    refuse_abandoned(folder)
    held = read_plan(folder)
    refuse_other_consent(folder, consent)
    with line.stage(f"comparing the plan with the one that run {name} holds"):
        resolution, search = _resolve(plan, data_csv, shadow_price, card)
    wanted = resolution.plan.model_copy(update={"search": search, "cells": ()})
    refuse_difference(name, held.model_copy(update={"cells": ()}), wanted)
    if folder.is_finished:
        return Launched(folder, read_results(runs, name)[1])
    line.say(f"run {name}: going on with its search")
    return resume_search(name, runs=runs, line=line, resume_hours=resume_hours)


def resume_search(run_id: str, *, runs: Path, line: LiveLine, resume_hours: int | None = None) -> Launched:
    """Go on with a search where it was.

    Args:
        run_id: The run.
        runs: Folder of runs.
        line: The live line.
        resume_hours: For how long its states outlive it unfinished; None to leave it as it is.

    Returns:
        The run's folder and what ``results.json`` in it holds.

    Raises:
        ConfigError: If there is no such run, it is no search, never began or was abandoned, or its copy of the price
            card has changed.
        RecordError: If its ledger cannot be trusted or another process holds it.
    """
    folder = RunFolder.open(runs, run_id)
    with hold_run(folder, say=line.say, resume_hours=resume_hours) as journal:
        # Asked under the lock: whoever held it before may have ended the run.
        if folder.is_finished:
            return Launched(folder, read_results(runs, run_id)[1])
        plan: ResolvedPlan = load_yaml(folder.plan, schema_of("plan"))
        card = load_price_card(folder.prices)
        with line.stage("resolving the plan"):
            resolution, search = _resolve(plan, None, None, card)
            check_judges_again(resolution.plan.cells, folder)
        return _run(plan, search, resolution, folder, journal, card, line)


def _resolve(
    plan: Plan | ResolvedPlan, data_csv: Path | None, shadow_price: str | None, card: PriceCard
) -> tuple[Resolution, ResolvedSearch]:
    """The candidates of a search with their rows, and the search itself, pinned."""
    resolution = resolve_exactly(list_candidates(plan), data_csv, shadow_price, card)
    search = pin_search(plan, resolution.plan.cells)
    if search is None:
        raise ConfigError("plan", "has no search", "give it one, or run it as it is")
    return resolution, search


def _run(
    plan: ResolvedPlan,
    search: ResolvedSearch,
    resolution: Resolution,
    folder: RunFolder,
    journal: Journal,
    card: PriceCard,
    line: LiveLine,
) -> Launched:
    place = folder.path / "search"
    place.mkdir(mode=0o700, exist_ok=True)
    session = open_session(plan, folder, journal, card, line)
    log = TrialLog(place / "journal.log", list(list_regions(search).values()))
    _refuse_change(search, log, session)
    document = _search(search, resolution.rows, log, session, place)
    winner = find_winner(log.list_trials())
    if document.result.winner != (None if winner is None else winner.number):
        problem = f"names the winner {document.result.winner}, which is not the best trial of journal.log"
        raise RecordError(str(place / "search.json"), problem, "do not trust this run; repeat it")
    if winner is not None:
        freeze_winner(search, winner, place / "winner.yaml")
    confirmed = plan.model_copy(update={"cells": list_confirmations(search, winner)})
    if confirmed.cells:
        resolution = resolve_exactly(confirmed.model_copy(update={"search": None}), None, None, card)
    results = run_cells(
        confirmed,
        resolution.estimates,
        resolution.run,
        take_role(resolution.rows, "report"),
        session,
        found=Found(document.nodes, lambda cells: confirm(document.result, cells)),
    )
    folder.write_manifest()
    return Launched(folder, results)


def _refuse_change(search: ResolvedSearch, log: TrialLog, session: Session) -> None:
    """Hold the search and its journal against the ledger, which says what was begun and which trials were billed."""
    content = content_hash(search)
    begun = next((record for record in session.journal.records() if record.get("kind") == _KIND), None)
    if begun is None:
        session.journal.append({"kind": _KIND, "sha256": content})
        reach("search.begun")
    elif begun["sha256"] != content:
        problem = "is not the search that this run began: the plan was changed"
        raise RecordError(str(session.folder.plan), problem, "put the file back, or begin a new run")
    trials = log.list_trials()
    confirmed = list_confirmations(search, find_winner(trials))
    known = {*(trial.cell_id for trial in trials), *(cell.cell_id for cell in confirmed), RECORD_NODE}
    billed = dict.fromkeys(entry.node for entry in read_entries(session.charged))
    lost = [node for node in billed if node not in known and not node.startswith(SHARED_NODES)]
    if lost:
        problem = f"lacks trials that the ledger bills, got {len(lost)} of them, such as {lost[0]}"
        raise RecordError(str(log.path), problem, "put the file back, or begin a new run")


def _search(search: ResolvedSearch, rows: Rows, log: TrialLog, session: Session, place: Path) -> SearchDocument:
    """Run the search, or read what it left behind."""
    path = place / "search.json"
    if path.is_file():
        try:
            return SearchDocument.model_validate_json(path.read_bytes())
        except ValidationError:
            problem = "is not what a search wrote: it was cut or changed"
            raise RecordError(
                str(path), problem, "remove it and resume: trials that are done are not run again"
            ) from None
    spec = search.spec
    used = {name for name in (spec.objective, spec.utility) if name is not None}
    chosen = take_role({name: rows[name] for name in rows if name in used}, "select")
    # Trials are compared by the first judge alone; the others read what the winner is confirmed by.
    evals = {name: drop_second_judges(search.cells[0].evals[name]) for name in chosen}
    cells = [cell.model_copy(update={"evals": evals}) for cell in search.cells]
    stopped_by, nodes = _run_trials(search, cells, chosen, log, session, place)
    result = summarise(
        search,
        log.list_trials(),
        read_entries(session.charged),
        stopped_by=stopped_by,
        select_role=name_role(rows[spec.objective], "select"),
        report_role=name_role(rows[spec.objective], "report"),
    )
    document = SearchDocument(result=result, nodes=nodes)
    write_json(path, document)
    reach("search.summarised")
    return document


def _run_trials(
    search: ResolvedSearch, cells: Sequence[Cell], rows: Rows, log: TrialLog, session: Session, place: Path
) -> tuple[str, list[NodeResult]]:
    """What ended the search, and the shared work that it was built on; a target that cannot be paid is an end too."""
    try:
        subject, nodes = build_subject(cells, rows, session)
    except BudgetSpent as spent:
        return spent.cap, []
    # The laboratory holds nothing back for the end of a trial: the attacker pays for it.
    subject = replace(subject, baseline_ns=0)
    return Trials(search, subject, session, log, Board(place / "board.jsonl")).run(), nodes
