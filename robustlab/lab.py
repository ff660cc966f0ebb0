"""The only module that sees tampering and measuring both: it runs one cell on a released target.

The target stays resident. A cell's modification is lifted and put back, never merged, never saved and loaded between
stages, and gone when the cell ends. Which cells there are, and in which order, is ``robustlab.engine``'s business.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from robustlab.cost.audit import read_entries
from robustlab.cost.caps import RESERVE_FACTOR, is_shared_cap
from robustlab.cost.entries import BILLED
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.data.mixture import attack_rows, benign_prompts
from robustlab.data.rows import EvalRow, stratified_subset
from robustlab.errors import BudgetSpent
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import Bench, build_items, build_measurement, measure_rows
from robustlab.models.adapter import LoraModification
from robustlab.models.peak import read_peak, reset_peak
from robustlab.record.provenance import collect_versions
from robustlab.record.results import Item, LossPoint, Measurement, Phase
from robustlab.record.run_folder import write_json
from robustlab.report.wandb import WandbMirror
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.plan import Cell
from robustlab.tamper.attack import run_attack
from robustlab.tamper.lora_sft import build_examples
from robustlab.train.counts import DISTIL_BATCH_ROWS
from robustlab.train.generation import expect_seconds
from robustlab.train.order import Example
from robustlab.train.purse import Hooks, Mark
from robustlab.train.sft import Outcome
from robustlab.train.state import TrainState
from robustlab.train.store import Progress, StateStore
from robustlab.units import MICRO_PER_USD, to_nanoseconds


@dataclass(frozen=True)
class Subject:
    """A released target with everything that its cells share.

    Attributes:
        bench: The resident target.
        load: What it took to load it; the attacker of every cell is charged the same.
        rows: Rows of each eval, by id.
        baseline: Verdicts of those rows before any attack.
        baseline_ns: What measuring them took on the wall clock, be it in this run or before.
    """

    bench: Bench
    load: Quantities
    rows: Mapping[str, Sequence[EvalRow]]
    baseline: Mapping[str, Sequence[Judged]]
    baseline_ns: int


@dataclass(frozen=True)
class CellRun:
    """What a cell leaves behind: counts, verdicts and losses, no weights and no text.

    Attributes:
        outcome: How the attack ended.
        incomplete: Cap that kept the laboratory from measuring; None when it could.
        measurements: Milestones, then the final ones, without the baseline.
        items: Their lines of ``items.jsonl``.
        losses: Loss and spending of every step.
        mirror: State of the wandb mirror.
        milestones_skipped_by: Cap that kept the laboratory from measuring at a mark; None when none did.
        peak_memory_bytes: Peak of the device that ran the cell.
    """

    outcome: Outcome
    incomplete: str | None
    measurements: tuple[Measurement, ...]
    items: tuple[Item, ...]
    losses: tuple[LossPoint, ...]
    mirror: str
    milestones_skipped_by: str | None
    peak_memory_bytes: int


def run_cell(cell: Cell, subject: Subject, session: Session, meter: Meter, *, final_seconds: float) -> CellRun:
    """Tamper with the released target under the cell's budget, measuring at its marks and at the end.

    Args:
        cell: The cell, its schedule fixed.
        subject: The released target and its baseline.
        session: The run.
        meter: The cell's own.
        final_seconds: What the estimate expects of the final measurement; held back for the laboratory from step 1 on.

    Returns:
        What the cell leaves behind; the target is as released. Its resumable states stay until the result is written.
    """
    target = subject.bench.target
    reset_peak()
    meter.reserve_for_laboratory(_held_back(subject, final_seconds))
    modification = LoraModification(target.model, cell.recipe.training.lora, seed=cell.seed)
    work = _CellWork(cell, subject, session, meter, modification)
    try:
        return work.run()
    finally:
        work.close()
        modification.dispose()


def _held_back(subject: Subject, final_seconds: float) -> Quantities:
    """What keeps the final measurement affordable: half more than expected, or than what the baseline took."""
    expected_ns = max(to_nanoseconds(final_seconds), subject.baseline_ns)
    return Quantities(wall_ns=expected_ns).scaled(RESERVE_FACTOR)


def _prepare(cell: Cell, subject: Subject, session: Session, meter: Meter) -> list[Example]:
    """Charge the load, and make or reuse the attack's training set; reused or not, the attacker pays for it."""
    data, target = cell.recipe.data, subject.bench.target
    identity = {
        "released": target.content_id,
        "versions": collect_versions(threads=torch.get_num_threads(), device=target.device_name),
        "data": data.model_dump(mode="json"),
        "attack": [[row.prompt, row.completion] for row in attack_rows(data)],
        "benign": list(benign_prompts(data)),
    }
    cached = session.cache / "attack_data" / f"{content_hash(identity)}.json"
    if _paid(cell, session, "load") == NOTHING:
        meter.impute("attacker", "load", replace(subject.load, trials=1))
    if cached.is_file():
        stored = json.loads(cached.read_text(encoding="utf-8"))
        # A crash in the middle of answering leaves a part that was paid for.
        missing = Quantities.from_dict(stored["quantities"]).beyond(_paid(cell, session, "data"))
        if missing != NOTHING:
            meter.impute("attacker", "data", missing)
        return [Example(tuple(ids), tuple(labels)) for ids, labels in stored["examples"]]
    before = meter.total("attacker")
    expected = expect_seconds(
        session.pace,
        cell.target.shape,
        benign_prompts(data),
        batch_rows=DISTIL_BATCH_ROWS,
        max_new_tokens=data.benign_new_tokens,
    )
    with session.line.stage(f"{cell.label}: self-distilled answers", expected), meter.phase("attacker", "data"):
        examples = build_examples(
            data, target, cell.target.shape, expected_seconds=expected, meter=meter, progress=session.line.advance
        )
    used = meter.total("attacker") - before
    cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    rows = [[example.ids, example.labels] for example in examples]
    write_json(cached, {"quantities": used.to_dict(), "examples": rows})
    return examples


def _paid(cell: Cell, session: Session, phase: str) -> Quantities:
    """What the attacker of a cell was billed for a phase, by this process or an earlier one."""
    entries = (entry for entry in read_entries(session.charges(cell.cell_id)) if entry.record in BILLED)
    paid = [entry.quantities for entry in entries if (entry.account, entry.phase) == ("attacker", phase)]
    return sum(paid, NOTHING)


class _CellWork:
    """One cell under way: the hooks of its training, its measurements, its resumable states."""

    def __init__(
        self, cell: Cell, subject: Subject, session: Session, meter: Meter, modification: LoraModification
    ) -> None:
        self._cell, self._subject, self._session, self._meter = cell, subject, session, meter
        self._modification = modification
        self._states = StateStore(session.folder.resume, cell.cell_id, session.journal.append)
        self._measurements: list[Measurement] = []
        self._items: list[Item] = []
        self._losses: list[LossPoint] = []
        self._skipped_by: str | None = None
        self._mirror = WandbMirror()
        self._mirror.start(
            session.folder.run_id,
            cell.cell_id,
            {
                "target": cell.target_id,
                "safeguard": cell.safeguard_id,
                "attack": cell.attack_id,
                "budget": cell.budget_id,
                "seed": cell.seed,
                "steps": cell.schedule.steps,
                "dtype": cell.target.dtype,
            },
            session.folder.mirror,
            session.folder.run_id,
        )

    def run(self) -> CellRun:
        """Attack, then measure."""
        outcome = self._tamper()
        incomplete = outcome.stopped_by if outcome.steps == 0 and is_shared_cap(outcome.stopped_by) else None
        if incomplete is None:
            incomplete = self._measure_end(outcome.steps)
        self._mirror.finish(0)
        return CellRun(
            outcome=outcome,
            incomplete=incomplete,
            measurements=tuple(self._measurements),
            items=tuple(self._items),
            losses=tuple(self._losses),
            mirror=self._mirror.state,
            milestones_skipped_by=self._skipped_by,
            peak_memory_bytes=read_peak(),
        )

    def _measure_end(self, steps: int) -> str | None:
        """Measure every eval at the end; the cap that kept the laboratory from it, None when none did."""
        self._meter.reserve_for_laboratory(NOTHING)
        try:
            with self._meter.phase("laboratory", "final"):
                for eval_id in self._cell.evals:
                    self._measure(eval_id, "final", steps)
        except BudgetSpent as spent:
            return spent.cap
        return None

    def close(self) -> None:
        """Close the mirror of a cell that an error ended; one that is closed already stays as it is."""
        self._mirror.finish(1)

    def _tamper(self) -> Outcome:
        """Prepare and attack; a cap that binds before step 1 is a result with no steps."""
        try:
            return self._attack(_prepare(self._cell, self._subject, self._session, self._meter))
        except BudgetSpent as spent:
            losses = tuple(point.loss for point in self._losses)
            return Outcome(len(losses), losses, spent.cap, diverged=False)

    def _attack(self, examples: Sequence[Example]) -> Outcome:
        found = self._states.load(self._context())
        resume = found[0] if found else None
        if found is not None:
            self._meter.rewind("attacker", Quantities.from_dict(found[0].logical))
            progress = found[1]
            self._losses, self._measurements, self._items = progress.losses, progress.measurements, progress.items
            self._skipped_by = progress.skipped_by
        elif self._meter.logical("attacker").steps:
            # A crash before the first state: the steps stay on the bill, and the trajectory begins anew.
            self._meter.rewind("attacker", replace(self._meter.logical("attacker"), train_tokens=0, steps=0))
        schedule = self._cell.schedule
        hooks = Hooks(
            marks=frozenset(step for steps in schedule.marks.values() for step in steps),
            at_mark=self._at_mark,
            on_step=self._on_step,
            save=self._save,
            save_every=self._cell.recipe.checkpoint_steps,
        )
        row_tokens = sum(len(example.ids) for example in examples) // len(examples)
        training = self._cell.recipe.training
        step = self._session.pace.training_seconds(self._cell.target.shape, training, row_tokens)
        with (
            self._stage(f"training, {schedule.steps} steps", schedule.steps * step),
            self._meter.phase("attacker", "train"),
        ):
            return run_attack(
                self._cell,
                self._subject.bench.target,
                self._modification,
                examples,
                meter=self._meter,
                hooks=hooks,
                resume=resume,
                expected_step_seconds=step,
            )

    def _at_mark(self, mark: Mark) -> None:
        due = [eval_id for eval_id, steps in self._cell.schedule.marks.items() if mark.step in steps]
        try:
            with self._meter.phase("laboratory", "milestone", step=mark.step):
                for eval_id in due:
                    self._measure(eval_id, "milestone", mark.step)
        except BudgetSpent as spent:
            # A mark is worth less than the end: the attack goes on, and the final measurement stays paid for.
            self._skipped_by = self._skipped_by or spent.cap

    def _on_step(self, step: int, loss: float) -> None:
        spent = self._spent()
        self._losses.append(LossPoint(step=step, loss=loss, attacker_micro_usd=spent))
        self._mirror.log_step(step, loss, spent / MICRO_PER_USD)
        self._session.line.advance(step, self._cell.schedule.steps, f"loss {loss:.3f}")

    def _measure(self, eval_id: str, phase: Phase, step: int) -> None:
        """Measure one eval: all rows at the end, the fixed subset at a milestone, paired with the baseline's."""
        spec, rows = self._cell.evals[eval_id], self._subject.rows[eval_id]
        if phase == "milestone" and spec.milestones is not None:
            rows = stratified_subset(rows, spec.milestones.rows)
        expected = expect_seconds(
            self._session.pace,
            self._cell.target.shape,
            [row.prompt for row in rows],
            batch_rows=spec.batch_rows,
            max_new_tokens=spec.max_new_tokens,
        )
        with self._stage(f"{eval_id} {phase}, {len(rows)} rows", expected):
            judged = measure_rows(
                spec,
                rows,
                self._subject.bench,
                lifted=self._modification.lifted,
                expected_seconds=expected,
                meter=self._meter,
                progress=self._session.line.advance,
            )
        before = {item.behavior: item for item in self._subject.baseline[eval_id]}
        spent = self._spent()
        measurement = build_measurement(
            eval_id,
            spec,
            rows,
            judged,
            baseline=[before[item.behavior] for item in judged],
            phase=phase,
            step=step,
            attacker_micro_usd=spent,
        )
        self._measurements.append(measurement)
        self._items += build_items(self._cell.cell_id, eval_id, judged, phase=phase, step=step, seed=self._cell.seed)
        self._mirror.log_measurement(measurement, spent / MICRO_PER_USD)

    def _spent(self) -> int:
        """What the attacker's state cost: the bill without what lies beyond a cap and is no part of it."""
        return self._meter.micro_usd("attacker") - self._meter.overshoot("attacker")

    def _save(self, state: TrainState) -> None:
        progress = Progress(
            context=self._context(),
            losses=self._losses,
            measurements=self._measurements,
            items=self._items,
            skipped_by=self._skipped_by,
        )
        self._states.save(state, progress)

    def _context(self) -> str:
        """Hash of what a state depends on besides its cell."""
        target = self._subject.bench.target
        versions = collect_versions(threads=torch.get_num_threads(), device=target.device_name)
        return content_hash({"released": target.content_id, "versions": versions})

    def _stage(self, what: str, expected_seconds: float) -> AbstractContextManager[None]:
        return self._session.line.stage(f"{self._cell.attack_id} seed {self._cell.seed}: {what}", expected_seconds)
