"""Gets an attack ready on the attacker's bill: the load of what it works on, and its training set.

A training set that the target has to answer for is made once for each released target and reused; reused or not, every
attacker pays for it. This module does not train and does not measure.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from robustlab.cost.audit import read_entries
from robustlab.cost.entries import BILLED
from robustlab.cost.meter import Meter
from robustlab.cost.pace import Pace
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.data import chat
from robustlab.data.mixture import Data, fixed_rows, harmful_prompts, harmless_prompts, own_answers
from robustlab.failpoints import reach
from robustlab.models import generate, growing, packed, waves
from robustlab.models.load import LoadedTarget
from robustlab.record.provenance import collect_versions, source_fingerprint
from robustlab.record.run_folder import write_json
from robustlab.session import Session
from robustlab.spec.attacks import Ablation, TrainedAttack, Untouched
from robustlab.spec.base import content_hash
from robustlab.spec.plan import Cell
from robustlab.spec.targets import Shape
from robustlab.tamper import examples
from robustlab.tamper.examples import build_rows
from robustlab.train import distil
from robustlab.train.counts import DISTIL_BATCH_ROWS, approximate_tokens
from robustlab.train.generation import expect_seconds
from robustlab.train.order import Example, Pair, Row


def prepare_rows(cell: Cell, target: LoadedTarget, load: Quantities, session: Session, meter: Meter) -> list[Row]:
    """Charge the load, and make or reuse the attack's training set.

    Args:
        cell: Its recipe.
        target: The released target; it answers what its own answers are wanted for.
        load: What it takes until the attacker has something to work on.
        session: The run.
        meter: The cell's own.

    Returns:
        Examples or pairs in a fixed order; none for an attack that does not train.

    Raises:
        BudgetSpent: If the next wave of answers would pass a cap.
    """
    if isinstance(cell.recipe, Untouched):
        return []
    if _paid(cell, session, "load") == NOTHING:
        meter.impute("attacker", "load", replace(load, trials=1))
    if isinstance(cell.recipe, Ablation):
        return []
    data, shape = cell.recipe.data, cell.target.shape
    expected, tell = _expect_answers(session.pace, shape, data), session.line.advance
    if not own_answers(data):
        # Nothing is to be paid for, and a user's own rows stay where the user keeps them.
        return list(build_rows(data, target, shape, expected_seconds=expected, meter=meter, progress=tell))
    cached = session.cache / "attack_data" / f"{_identify(data, target)}.json"
    if cached.is_file():
        stored = json.loads(cached.read_text(encoding="utf-8"))
        # A crash in the middle of answering leaves a part that was paid for.
        missing = Quantities.from_dict(stored["quantities"]).beyond(_paid(cell, session, "data"))
        if missing != NOTHING:
            meter.impute("attacker", "data", missing)
        return [_load_row(row) for row in stored["rows"]]
    before = meter.total("attacker")
    with session.line.stage(f"{cell.label}: training data", expected), meter.phase("attacker", "data"):
        rows = build_rows(data, target, shape, expected_seconds=expected, meter=meter, progress=tell)
    used = meter.total("attacker") - before
    cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(cached, {"quantities": used.to_dict(), "rows": [_dump_row(row) for row in rows]})
    reach("data.kept")
    return list(rows)


def count_mean_tokens(recipe: TrainedAttack, rows: Sequence[Row]) -> int:
    """Mean length of a row in tokens, both sides of a pair together; of an ablation about that of its prompts."""
    if isinstance(recipe, Untouched):
        return 0
    if isinstance(recipe, Ablation):
        lengths = [approximate_tokens(prompt, None) for prompt in harmful_prompts(recipe) + harmless_prompts(recipe)]
    else:
        lengths = [sum(len(side.ids) for side in _sides(row)) for row in rows]
    return sum(lengths) // max(1, len(lengths))


def _identify(data: Data, target: LoadedTarget) -> str:
    """Hash of everything that a training set depends on."""
    return content_hash(
        {
            "released": target.content_id,
            "versions": collect_versions(threads=torch.get_num_threads(), device=target.device_name),
            "data": data.model_dump(mode="json"),
            "fixed": [[row.prompt, row.completion] for row in fixed_rows(data)],
            "own": [list(part.prompts) for part in own_answers(data)],
            "source": source_fingerprint(examples, distil, chat, generate, growing, packed, waves),
        }
    )


def _expect_answers(pace: Pace, shape: Shape, data: Data) -> float:
    """How long the target should take to write what the training set wants of it."""
    return sum(
        expect_seconds(pace, shape, part.prompts, batch_rows=DISTIL_BATCH_ROWS, max_new_tokens=part.new_tokens)
        for part in own_answers(data)
    )


def _paid(cell: Cell, session: Session, phase: str) -> Quantities:
    """What the attacker of a cell was billed for a phase, by this process or an earlier one."""
    entries = (entry for entry in read_entries(session.charges(cell.cell_id)) if entry.record in BILLED)
    paid = [entry.quantities for entry in entries if (entry.account, entry.phase) == ("attacker", phase)]
    return sum(paid, NOTHING)


def _sides(row: Row) -> tuple[Example, ...]:
    return (row.chosen, row.rejected) if isinstance(row, Pair) else (row,)


def _dump_row(row: Row) -> list[list[tuple[int, ...]]]:
    return [[side.ids, side.labels] for side in _sides(row)]


def _load_row(sides: Sequence[Sequence[Sequence[int]]]) -> Row:
    made = [Example(tuple(ids), tuple(labels)) for ids, labels in sides]
    return Pair(*made) if len(made) > 1 else made[0]
