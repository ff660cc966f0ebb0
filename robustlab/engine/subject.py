"""Builds what cells of one target, safeguard and budget share: the released target, its baselines, its 4-bit copy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from robustlab.cost.recipes import is_quantised
from robustlab.data.rows import EvalRow
from robustlab.engine.baseline import load_key, measure_baseline
from robustlab.engine.outcome import build_node
from robustlab.engine.quantised import QuantisedNode, quantise
from robustlab.engine.released import Released, release
from robustlab.lab import Subject
from robustlab.measure.bench import Bench
from robustlab.record.results import NodeResult
from robustlab.session import Session
from robustlab.spec.attacks import Untouched
from robustlab.spec.plan import Cell
from robustlab.spec.safeguards import NoSafeguard


def import_trainers(cells: Sequence[Cell]) -> None:
    """Import what trains before any meter runs: it is part of the run's start, whichever cell comes first.

    Args:
        cells: Those that the run pays for; where nothing is trained, nothing is imported.
    """
    if any(not isinstance(cell.recipe, Untouched) or not isinstance(cell.safeguard, NoSafeguard) for cell in cells):
        import_module("robustlab.tamper.attack")


def build_subject(
    cells: Sequence[Cell], rows: Mapping[str, Sequence[EvalRow]], session: Session
) -> tuple[Subject, list[NodeResult]]:
    """Release a target once and measure its baseline once, for cells that share it and their evals.

    Args:
        cells: At least one, all of one target, safeguard and budget.
        rows: Rows of each eval, by its id.
        session: The run.

    Returns:
        What the cells are run on, and the entries of this work in ``results.json``.

    Raises:
        BudgetSpent: If a cap of the laboratory or of the whole bill does not allow for it.
    """
    quantised = part_cells(cells)[1]
    released, subject, nodes = release_subject(cells[0], rows, session)
    return add_copy(quantised[0], released, subject, nodes, session) if quantised else (subject, nodes)


def release_subject(
    cell: Cell, rows: Mapping[str, Sequence[EvalRow]], session: Session
) -> tuple[Released, Subject, list[NodeResult]]:
    """Release the target of a cell and measure its baseline; arguments and errors as for ``build_subject``.

    Args:
        cell: Any of those that share the target.
        rows: Rows of each eval, by its id.
        session: The run.

    Returns:
        The released target, what cells are run on that need no 4-bit copy, and the entries in ``results.json``.
    """
    released = release(cell, session)
    key = load_key(released.target, session.cache)
    bench = Bench(released.target, cell.target.shape, key, panel=session.panel)
    baselines = {name: measure_baseline(cell, name, rows[name], bench, session) for name in cell.evals}
    label, budget = f"{cell.target_id} / {cell.safeguard_id}", cell.budget_id
    nodes = [build_node(released.node, "released", label, budget=budget, cached=released.cached, cost=released.cost)]
    nodes += [
        build_node(b.node, "baseline", name, budget=budget, cached=b.cached, cost=b.cost)
        for name, b in baselines.items()
    ]
    verdicts = {name: b.judged for name, b in baselines.items()}
    baseline_ns = sum(b.measuring_ns for b in baselines.values())
    return released, Subject(bench, released.load, rows, verdicts, baseline_ns), nodes


def add_copy(
    cell: Cell, released: Released, subject: Subject, nodes: Sequence[NodeResult], session: Session
) -> tuple[Subject, list[NodeResult]]:
    """Quantise a released target and measure the copy; errors as for ``build_subject``.

    Args:
        cell: Any of those that work on the copy.
        released: The released target.
        subject: What its other cells are run on.
        nodes: The entries of that in ``results.json``.
        session: The run.

    Returns:
        Subject and entries with the copy.
    """
    copy = quantise(cell, released, subject.rows, session)
    return replace(subject, quantised=copy.subject), [*nodes, *_list_copy_nodes(cell, copy)]


def _list_copy_nodes(cell: Cell, copy: QuantisedNode) -> list[NodeResult]:
    label = f"{cell.target_id} / {cell.safeguard_id} / nf4"
    made = build_node(copy.node, "released", label, budget=cell.budget_id, cached=False, cost=copy.cost)
    return [made] + [
        build_node(b.node, "baseline", f"{name} / nf4", budget=cell.budget_id, cached=b.cached, cost=b.cost)
        for name, b in copy.baselines.items()
    ]


def part_cells(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Cells that work on the released target itself, and those that work on its 4-bit copy."""
    quantised = [cell for cell in cells if is_quantised(cell.recipe)]
    return [cell for cell in cells if cell not in quantised], quantised
