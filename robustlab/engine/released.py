"""The node that makes a released target: its safeguard merged, cached by content, paid by the laboratory."""

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import assert_never

import torch

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.flops import count_adapter_parameters, lora_step
from robustlab.cost.job import BYTES_PER_ELEMENT
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.cost.schedule import list_learning_rates
from robustlab.data import chat
from robustlab.data.rows import load_builtin
from robustlab.data.sources import fetch_source
from robustlab.engine.outcome import account_cost
from robustlab.errors import BudgetSpent, DataError
from robustlab.harden import refusal_sft
from robustlab.harden.refusal_sft import benign_prompts, build_examples
from robustlab.models import generate
from robustlab.models.adapter import LoraModification
from robustlab.models.load import MANIFEST, LoadedTarget, is_complete, load_pinned, load_released, save_released
from robustlab.record.provenance import source_fingerprint
from robustlab.record.results import AccountCost
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.plan import Cell
from robustlab.spec.safeguards import NoSafeguard, RefusalSft
from robustlab.spec.sources import BuiltinName
from robustlab.spec.targets import GgufTarget
from robustlab.train import distil, order, purse, sft
from robustlab.train.counts import DISTIL_BATCH_ROWS
from robustlab.train.generation import expect_seconds
from robustlab.train.order import batch_lengths, lay_out
from robustlab.train.purse import Hooks, StepPrice
from robustlab.train.sft import run_sft
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
            case RefusalSft():
                folder = session.cache / "released" / released_hash(cell)
                cached = is_complete(folder)
                if not cached:
                    _install(cell, cell.safeguard, folder, session, meter)
            case _:
                assert_never(cell.safeguard)
        # What ran before, the process's own start among it, is no part of the load that every attacker pays for.
        meter.settle()
        before = meter.total("laboratory")
        with session.line.stage(f"loading {cell.target_id} / {cell.safeguard_id}"), meter.phase("laboratory", "load"):
            meter.reserve(_load_need(cell, session))
            target = _load(cell, folder, session)
        load = meter.total("laboratory") - before
    # Once the meter is closed: its last segment is on the bill too.
    return Released(target, load, cached, node, account_cost(meter, "laboratory"))


def released_hash(cell: Cell) -> str:
    """Hash of what a released target is made from: specs, built-in rows, this code, and the libraries that train."""
    made_from: dict[str, object] = {
        "target": cell.target.model_dump(mode="json"),
        "safeguard": cell.safeguard.model_dump(mode="json"),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads(),
        "source": source_fingerprint(refusal_sft, distil, generate, order, purse, sft, chat),
    }
    if isinstance(cell.safeguard, RefusalSft):
        names: tuple[BuiltinName, ...] = ("mild_requests_safeguard", "refusals", "benign_prompts")
        made_from["rows"] = [[asdict(row) for row in load_builtin(name)] for name in names]
    return content_hash(made_from)


def _load_need(cell: Cell, session: Session) -> Quantities:
    size = cell.target.shape.parameters * BYTES_PER_ELEMENT[cell.target.dtype]
    return Quantities(wall_ns=to_nanoseconds(size / session.pace.load_bytes_per_second)).scaled(RESERVE_FACTOR)


def _load(cell: Cell, folder: Path | None, session: Session) -> LoadedTarget:
    if folder is None:
        artefact = fetch_source(cell.target.source) if isinstance(cell.target, GgufTarget) else None
        return load_pinned(cell.target_id, cell.target, artefact=artefact, cache=session.cache)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return load_released(cell.target_id, cell.target, folder, content_id=content_hash(manifest))


def _install(cell: Cell, spec: RefusalSft, folder: Path, session: Session, meter: Meter) -> None:
    """Train the safeguard on the laboratory's account, merge it into a copy of the target and cache the result."""
    shape, line = cell.target.shape, session.line
    with line.stage(f"loading {cell.target_id}"), meter.phase("laboratory", "load"):
        meter.reserve(_load_need(cell, session))
        target = _load(cell, None, session)
    expected = expect_seconds(
        session.pace,
        shape,
        benign_prompts(spec),
        batch_rows=DISTIL_BATCH_ROWS,
        max_new_tokens=spec.benign_new_tokens,
    )
    with (
        line.stage(f"{cell.safeguard_id}: self-distilled answers", expected),
        meter.phase("laboratory", "safeguard data"),
    ):
        examples = build_examples(spec, target, shape, expected_seconds=expected, meter=meter, progress=line.advance)
    training = spec.training
    modification = LoraModification(target.model, training.lora, seed=spec.seed)
    batches = lay_out(examples, steps=training.steps, batch_rows=training.batch_rows, seed=spec.seed)
    adapter = count_adapter_parameters(shape, training.lora)
    lengths = [batch_lengths(batch) for batch in batches]
    row_tokens = sum(sum(row) for row in lengths) // (training.steps * training.batch_rows)
    step_seconds = session.pace.training_seconds(shape, training, row_tokens)

    def on_step(step: int, loss: float) -> None:
        line.advance(step, training.steps, f"loss {loss:.3f}")

    with (
        line.stage(f"{cell.safeguard_id}: training, {training.steps} steps", training.steps * step_seconds),
        meter.phase("laboratory", "safeguard"),
    ):
        outcome = run_sft(
            modification,
            target.tokenizer,
            batches,
            [StepPrice(sum(row), lora_step(shape, row, adapter_parameters=adapter)) for row in lengths],
            training,
            learning_rates=list_learning_rates(training.optimizer, training.steps),
            seed=spec.seed,
            meter=meter,
            hooks=Hooks(frozenset(), lambda mark: None, on_step, lambda state: None, None),
            resume=None,
            expected_step_seconds=step_seconds,
            account="laboratory",
        )
        if outcome.diverged:
            problem = f"diverged at step {outcome.steps + 1}: its loss is not finite"
            raise DataError(f"safeguard {cell.safeguard_id}", problem, "lower its learning rate")
        if outcome.steps < training.steps:
            # Half a safeguard is none: whoever wanted to attack it is told which cap was too small, in steps.
            raise BudgetSpent(outcome.stopped_by, outcome.steps, training.steps)
        save_released(modification.merge(), target.tokenizer, folder)
