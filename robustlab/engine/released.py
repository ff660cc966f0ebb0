"""The node that makes a released target: its safeguard merged, cached by content, paid by the laboratory."""

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import assert_never

import torch

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.job import BYTES_PER_ELEMENT
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.data.rows import load_builtin
from robustlab.data.sources import fetch_source
from robustlab.engine.outcome import account_cost
from robustlab.engine.waiting import hold_node
from robustlab.models.load import MANIFEST, LoadedTarget, is_complete, load_pinned, load_released, save_released
from robustlab.record.provenance import source_fingerprint
from robustlab.record.results import AccountCost
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.plan import Cell
from robustlab.spec.safeguards import DeepRefusalSft, NoSafeguard, RefusalSft, TamperResistant, TrainedSafeguard
from robustlab.spec.targets import GgufTarget, OpenAiTarget
from robustlab.units import to_nanoseconds

LIBRARIES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True)
class Released:
    """A released target in memory.

    Attributes:
        target: The resident target.
        load: What it took to load it.
        cached: Whether its safeguard had been installed before.
        node: Id of the node in the ledger.
        cost: What the laboratory paid for it in this run.
    """

    target: LoadedTarget
    load: Quantities
    cached: bool
    node: str
    cost: AccountCost


def release(cell: Cell, session: Session) -> Released:
    """Load the released target of a cell; install its safeguard first where the cache has none.

    Args:
        cell: Its target and safeguard are used, and its budget's laboratory caps.
        session: The run.

    Returns:
        The resident target, with the cost of its load apart from what the node cost in this run.

    Raises:
        BudgetSpent: If a cap of the laboratory or of the whole bill does not allow for it.
    """
    node = f"released-{released_hash(cell)[:12]}"
    with session.meter(node, cell.budget_id, cell.budget) as meter:
        cached, folder = False, None
        match cell.safeguard:
            case NoSafeguard():
                pass
            case RefusalSft() | DeepRefusalSft() | TamperResistant():
                folder = session.cache / "released" / released_hash(cell)
                cached = _install_once(cell, cell.safeguard, folder, session, meter)
            case _:
                assert_never(cell.safeguard)
        # What ran before, the process's own start among it, is no part of the load that every attacker pays for.
        meter.settle()
        before = meter.total("laboratory")
        with session.line.stage(f"loading {cell.target_id} / {cell.safeguard_id}"), meter.phase("laboratory", "load"):
            meter.reserve(expect_load(cell, session).scaled(RESERVE_FACTOR))
            target = _load(cell, folder, session)
        load = meter.total("laboratory") - before
    # Once the meter is closed: its last segment is on the bill too.
    return Released(target, load, cached, node, account_cost(meter, "laboratory"))


def released_hash(cell: Cell) -> str:
    """Hash of what a released target is made from: specs, built-in rows, this code, and the libraries that train."""
    safeguard = cell.safeguard
    made_from: dict[str, object] = {
        "target": cell.target.model_dump(mode="json"),
        "safeguard": safeguard.model_dump(mode="json"),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads(),
    }
    if not isinstance(safeguard, NoSafeguard):
        from robustlab.harden.install import code_of, rows_of  # what trains: nothing that no safeguard needs

        made_from["rows"] = [[asdict(row) for row in load_builtin(name)] for name in rows_of(safeguard)]
        made_from["source"] = source_fingerprint(*code_of(safeguard))
    return content_hash(made_from)


def expect_load(cell: Cell, session: Session) -> Quantities:
    """What loading a cell's target should take."""
    if isinstance(cell.target, OpenAiTarget):
        return NOTHING
    size = cell.target.shape.parameters * BYTES_PER_ELEMENT[cell.target.dtype]
    return Quantities(wall_ns=to_nanoseconds(size / session.pace.load_bytes_per_second))


def _load(cell: Cell, folder: Path | None, session: Session) -> LoadedTarget:
    if folder is None:
        artefact = fetch_source(cell.target.source) if isinstance(cell.target, GgufTarget) else None
        return load_pinned(cell.target_id, cell.target, artefact=artefact, cache=session.cache)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return load_released(cell.target_id, cell.target, folder, content_id=content_hash(manifest))


def _install_once(cell: Cell, safeguard: TrainedSafeguard, folder: Path, session: Session, meter: Meter) -> bool:
    """Install a safeguard unless it is in the cache; whether this or another process had put it there before."""
    if is_complete(folder):
        return True
    with hold_node(f"released-{folder.name}", f"{cell.target_id} / {cell.safeguard_id}", session, meter):
        if is_complete(folder):
            return True
        _install(cell, safeguard, folder, session, meter)
    return False


def _install(cell: Cell, safeguard: TrainedSafeguard, folder: Path, session: Session, meter: Meter) -> None:
    """Train the safeguard on the laboratory's account, merge it into a copy of the target and cache the result."""
    from robustlab.harden.install import install_safeguard
    from robustlab.harden.tuning import Workshop

    with session.line.stage(f"loading {cell.target_id}"), meter.phase("laboratory", "load"):
        meter.reserve(expect_load(cell, session).scaled(RESERVE_FACTOR))
        target = _load(cell, None, session)
    shop = Workshop(cell.safeguard_id, target, cell.target.shape, session.pace, meter, session.line)
    modification = install_safeguard(safeguard, shop)
    with meter.phase("laboratory", "safeguard"):
        save_released(modification.merge(), target.tokenizer, folder)
