"""The only module that sees tampering and measuring both: it runs one cell on a released target.

The target stays resident. A cell's modification is lifted and put back, never merged, never saved and loaded between
stages, and gone when the cell ends. Which cells there are, and in which order, is ``robustlab.engine``'s business.

What trains is imported where a cell trains: it brings libraries that an untouched target needs none of.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch

from robustlab.cost.caps import RESERVE_FACTOR, is_shared_cap
from robustlab.cost.entries import Account
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.cost.recipes import checkpoint_steps, is_quantised
from robustlab.data.rows import EvalRow, stratified_subset
from robustlab.errors import BudgetSpent, ConfigError, DataError
from robustlab.measure.bench import Bench
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import build_items, build_measurement, measure_rows
from robustlab.models.modification import Modification
from robustlab.models.peak import read_peak, reset_peak
from robustlab.preparation import count_mean_tokens, prepare_rows
from robustlab.record.provenance import collect_versions
from robustlab.record.results import Item, LossPoint, Measurement, Phase
from robustlab.report.wandb import WandbMirror
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.evals import drop_second_judges
from robustlab.spec.plan import Cell
from robustlab.train.generation import expect_seconds
from robustlab.train.hooks import Hooks, Mark, Outcome
from robustlab.train.order import Row
from robustlab.train.state import TrainState
from robustlab.train.store import Progress, StateStore
from robustlab.units import MICRO_PER_USD, to_nanoseconds

Watch = Callable[[Measurement], str | None]
FAULT = "fault"


@dataclass(frozen=True)
class Quantised:
    """The 4-bit copy of a released target; QLoRA attacks work on it.

    Attributes:
        bench: The copy, resident beside the released target, which scores its coherence.
        load: What making it took; the attacker of every cell that uses it is charged the same.
        measured: Verdicts of each eval's rows before any training, by the eval's id.
        measuring_ns: What measuring them took on the wall clock, be it in this run or before.
    """

    bench: Bench
    load: Quantities
    measured: Mapping[str, Sequence[Judged]]
    measuring_ns: int


@dataclass(frozen=True)
class Subject:
    """A released target with everything that its cells share.

    Attributes:
        bench: The resident target.
        load: What it took to load it; the attacker of every cell is charged the same.
        rows: Rows of each eval, by id.
        baseline: Verdicts of those rows before any attack.
        baseline_ns: What measuring them took on the wall clock, be it in this run or before.
        quantised: Its 4-bit copy; None where no cell needs one.
    """

    bench: Bench
    load: Quantities
    rows: Mapping[str, Sequence[EvalRow]]
    baseline: Mapping[str, Sequence[Judged]]
    baseline_ns: int
    quantised: Quantised | None = None

    def bench_of(self, cell: Cell) -> Bench:
        """What a cell's attack works on and is measured with."""
        return self._copy_of(cell).bench if is_quantised(cell.recipe) else self.bench

    def load_of(self, cell: Cell) -> Quantities:
        """What it takes a cell's attacker until there is something to work on."""
        return self.load + self._copy_of(cell).load if is_quantised(cell.recipe) else self.load

    def baseline_ns_of(self, cell: Cell) -> int:
        """What measuring all evals took on what a cell's attack works on."""
        return self._copy_of(cell).measuring_ns if is_quantised(cell.recipe) else self.baseline_ns

    def _copy_of(self, cell: Cell) -> Quantised:
        if self.quantised is None:
            raise DataError(cell.label, "works on a 4-bit copy, got none", "quantise the released target first")
        return self.quantised


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
        fault: What made the cell one that cannot be run; None when it could.
    """

    outcome: Outcome
    incomplete: str | None
    measurements: tuple[Measurement, ...]
    items: tuple[Item, ...]
    losses: tuple[LossPoint, ...]
    mirror: str
    milestones_skipped_by: str | None
    peak_memory_bytes: int
    fault: str | None = None


def run_cell(
    cell: Cell,
    subject: Subject,
    session: Session,
    meter: Meter,
    *,
    final_seconds: float,
    on_measured: Watch | None = None,
) -> CellRun:
    """Tamper with the released target under the cell's budget, measuring at its marks and at the end.

    Args:
        cell: The cell, its schedule fixed.
        subject: The released target and its baseline.
        session: The run.
        meter: The cell's own.
        final_seconds: What the estimate expects of the final measurement; held back for the laboratory from step 1 on.
        on_measured: Told of every milestone; a name that it returns ends the training there, and stands as
            ``stopped_by``. With it the cell is a trial of a search: the attacker pays for every measurement, and the
            end is measured only where the whole schedule was run. None for a cell that is no trial.

    Returns:
        What the cell leaves behind; the target is as released. Its resumable states stay until the result is written.
        A cell that turns out to be one that cannot be run leaves what it has measured by then, and its ``fault``.
    """
    from robustlab.tamper.attack import build_modification

    reset_peak()
    meter.reserve_for_laboratory(NOTHING if on_measured else _held_back(subject.baseline_ns_of(cell), final_seconds))
    try:
        modification = build_modification(cell.recipe, subject.bench_of(cell).target, seed=cell.seed)
    except (ConfigError, DataError) as error:
        return CellRun(Outcome(0, (), FAULT, diverged=False), FAULT, (), (), (), "off", None, read_peak(), str(error))
    work = _CellWork(cell, subject, session, meter, modification, on_measured)
    try:
        return work.run()
    finally:
        work.close()
        modification.dispose()


def leave_untouched() -> CellRun:
    """What a cell leaves behind whose target is only measured: no step, and nothing beside its baseline."""
    return CellRun(Outcome(0, (), "schedule", diverged=False), None, (), (), (), "off", None, read_peak())


def _held_back(baseline_ns: int, final_seconds: float) -> Quantities:
    """What keeps the final measurement affordable: half more than expected, or than what the baseline took."""
    expected_ns = max(to_nanoseconds(final_seconds), baseline_ns)
    return Quantities(wall_ns=expected_ns).scaled(RESERVE_FACTOR)


class _CellWork:
    """One cell under way: the hooks of its training, its measurements, its resumable states."""

    def __init__(
        self,
        cell: Cell,
        subject: Subject,
        session: Session,
        meter: Meter,
        modification: Modification,
        on_measured: Watch | None,
    ) -> None:
        self._cell, self._subject, self._session, self._meter = cell, subject, session, meter
        self._modification, self._on_measured = modification, on_measured
        self._payer: Account = "attacker" if on_measured else "laboratory"
        self._bench = subject.bench_of(cell)
        self._states = StateStore(session.folder.resume, cell.cell_id, session.journal)
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
        """Attack, then measure; what is wrong with this cell alone is a part of its result."""
        try:
            return self._run()
        except (ConfigError, DataError) as error:
            self._mirror.finish(1)
            losses = tuple(point.loss for point in self._losses)
            return self._leave(Outcome(len(losses), losses, FAULT, diverged=False), FAULT, fault=str(error))

    def _run(self) -> CellRun:
        outcome = self._tamper()
        incomplete = outcome.stopped_by if outcome.steps == 0 and is_shared_cap(outcome.stopped_by) else None
        is_whole = outcome.stopped_by == "schedule" and not outcome.diverged
        if incomplete is None and (is_whole or self._on_measured is None):
            incomplete = self._measure_end(outcome.steps)
        self._mirror.finish(0)
        return self._leave(outcome, incomplete, fault=None)

    def _leave(self, outcome: Outcome, incomplete: str | None, *, fault: str | None) -> CellRun:
        return CellRun(
            outcome=outcome,
            incomplete=incomplete,
            measurements=tuple(self._measurements),
            items=tuple(self._items),
            losses=tuple(self._losses),
            mirror=self._mirror.state,
            milestones_skipped_by=self._skipped_by,
            peak_memory_bytes=read_peak(),
            fault=fault,
        )

    def _measure_end(self, steps: int) -> str | None:
        """Measure every eval at the end; the cap that kept the laboratory from it, None when none did."""
        from robustlab.models.adapter import pack_adapter

        self._meter.reserve_for_laboratory(NOTHING)
        try:
            with self._meter.phase(self._payer, "final"):
                for eval_id in self._cell.evals:
                    self._measure(eval_id, "final", steps)
                if steps:
                    pack = partial(pack_adapter, self._modification)
                    self._session.keep_adapter(self._cell, self._subject.bench.target.content_id, pack)
        except BudgetSpent as spent:
            return spent.cap
        return None

    def close(self) -> None:
        """Close the mirror of a cell that an error ended; one that is closed already stays as it is."""
        self._mirror.finish(1)

    def _tamper(self) -> Outcome:
        """Prepare and attack; a cap that binds before step 1 is a result with no steps."""
        try:
            target, load = self._subject.bench.target, self._subject.load_of(self._cell)
            return self._attack(prepare_rows(self._cell, target, load, self._session, self._meter))
        except BudgetSpent as spent:
            losses = tuple(point.loss for point in self._losses)
            return Outcome(len(losses), losses, spent.cap, diverged=False)

    def _attack(self, rows: Sequence[Row]) -> Outcome:
        from robustlab.tamper.attack import run_attack

        found = self._states.load(self._context(), self._modification.state)
        resume = found[0] if found else None
        if found is not None:
            self._meter.rewind("attacker", Quantities.from_dict(found[0].logical))
            progress = found[1]
            self._losses, self._measurements, self._items = progress.losses, progress.measurements, progress.items
            self._skipped_by = progress.skipped_by
        elif self._meter.logical("attacker").steps:
            # A crash before the first state: the steps stay on the bill, and the trajectory begins anew.
            self._meter.rewind("attacker", replace(self._meter.logical("attacker"), train_tokens=0, steps=0))
        schedule, recipe = self._cell.schedule, self._cell.recipe
        hooks = Hooks(
            marks=frozenset(step for steps in schedule.marks.values() for step in steps),
            at_mark=self._at_mark,
            on_step=self._on_step,
            save=self._save,
            save_every=checkpoint_steps(recipe),
        )
        step = self._session.pace.recipe_seconds(self._cell.target.shape, recipe, count_mean_tokens(recipe, rows))
        with (
            self._stage(f"training, {schedule.steps} steps", schedule.steps * step),
            self._meter.phase("attacker", "train"),
        ):
            return run_attack(
                self._cell,
                self._bench.target,
                self._modification,
                rows,
                meter=self._meter,
                hooks=hooks,
                resume=resume,
                expected_step_seconds=step,
            )

    def _at_mark(self, mark: Mark) -> str | None:
        due = [eval_id for eval_id, steps in self._cell.schedule.marks.items() if mark.step in steps]
        try:
            with self._meter.phase(self._payer, "milestone", step=mark.step):
                found = [self._measure(eval_id, "milestone", mark.step) for eval_id in due]
        except BudgetSpent as spent:
            # A mark is worth less than the end: the attack goes on, and the final measurement stays paid for.
            self._skipped_by = self._skipped_by or spent.cap
            return spent.cap if self._on_measured else None
        told = [self._on_measured(measurement) for measurement in found] if self._on_measured else []
        return next((name for name in told if name is not None), None)

    def _on_step(self, step: int, loss: float) -> None:
        spent = self._spent()
        self._losses.append(LossPoint(step=step, loss=loss, attacker_micro_usd=spent))
        self._mirror.log_step(step, loss, spent / MICRO_PER_USD)
        self._session.line.advance(step, self._cell.schedule.steps, f"loss {loss:.3f}")

    def _measure(self, eval_id: str, phase: Phase, step: int) -> Measurement:
        """Measure one eval: all rows at the end, the fixed subset at a milestone, paired with the baseline's."""
        spec, rows = self._cell.evals[eval_id], self._subject.rows[eval_id]
        if self._on_measured is not None:
            # The attacker pays for the measurements of a trial, and second judges are the laboratory's.
            spec = drop_second_judges(spec)
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
                self._bench,
                lifted=self._modification.lifted,
                expected_seconds=expected,
                meter=self._meter,
                progress=self._session.line.advance,
                keep=self._session.keeper(self._cell.cell_id, eval_id, phase, step),
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
        self._items += build_items(
            self._cell.cell_id, eval_id, spec, judged, phase=phase, step=step, seed=self._cell.seed
        )
        self._mirror.log_measurement(measurement, spent / MICRO_PER_USD)
        return measurement

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
        target = self._bench.target
        versions = collect_versions(threads=torch.get_num_threads(), device=target.device_name)
        return content_hash({"released": target.content_id, "versions": versions})

    def _stage(self, what: str, expected_seconds: float) -> AbstractContextManager[None]:
        return self._session.line.stage(f"{self._cell.attack_id} seed {self._cell.seed}: {what}", expected_seconds)
