"""What all nodes of a run share, and the one place where a node's meter is made. It does not know what a node does."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from robustlab.cost.clocks import ClockWatch, cpu_clock, iso_time, process_started_ns
from robustlab.cost.meter import Meter
from robustlab.cost.pace import Pace
from robustlab.cost.prices import PriceCard
from robustlab.cost.timeline import find_resets
from robustlab.failpoints import reach
from robustlab.measure.second import Panel
from robustlab.record.adapters import AdapterStore, Pack
from robustlab.record.journal import Journal
from robustlab.record.leftovers import remove_leftovers
from robustlab.record.results import Phase
from robustlab.record.run_folder import RunFolder
from robustlab.record.sending import list_allowed
from robustlab.record.states import reconcile_states
from robustlab.record.transcripts import Keep, Place, TranscriptStore
from robustlab.report.live import LiveLine
from robustlab.spec.attacks import Control
from robustlab.spec.budgets import Budget, Caps
from robustlab.spec.plan import Cell
from robustlab.units import format_seconds, to_seconds

_NO_CAPS = Budget(kind="budget", stands_for="nobody", hardware="none", attacker=Caps(), laboratory=None, total_usd=None)


@dataclass
class Session:
    """What all nodes of a run share.

    Attributes:
        folder: The run's folder.
        journal: Its ledger.
        card: The price card.
        hardware: Item of the card by which device time is billed.
        cache: Root of the cache.
        line: The live line.
        pace: What the device should be able to do; the live line's first guess of every stage.
        devices: Devices that are paid for while the clock runs.
        transcripts: Where completions are kept; None for a run that keeps none.
        adapters: Where attacked adapters are kept; None for a run that keeps none.
        panel: The second judges, with leave to send completions where the ledger says so.
    """

    folder: RunFolder
    journal: Journal
    card: PriceCard
    hardware: str
    cache: Path
    line: LiveLine
    pace: Pace
    devices: int = 1
    transcripts: TranscriptStore | None = None
    adapters: AdapterStore | None = None
    panel: Panel = field(init=False)
    _ended_ns: int = field(default_factory=lambda: process_started_ns(time.monotonic_ns, time.time_ns))
    _ended_cpu_ns: int = 0
    _watch: ClockWatch = field(default_factory=lambda: ClockWatch(time.monotonic_ns, time.time_ns))
    _records: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read what an earlier process left, and book when this one was created: the ledger explains its time."""
        started_ns = time.time_ns() - (time.monotonic_ns() - self._ended_ns)
        self.journal.append({"kind": "session", "started": iso_time(started_ns, "microseconds"), "pid": os.getpid()})
        reach("run.session_begun")
        records = self.journal.records()
        self._records = [record for record in records if "record" in record]
        self.panel = Panel(self.journal.append, list_allowed(records))
        self._charge_what_was_left_open()
        self._tell_of_a_clock_that_was_set_back(records)
        remove_leftovers(self.folder)
        reconcile_states(self.folder.resume, records, self.journal.append)

    def keeper(self, node: str, eval_id: str, phase: Phase, step: int) -> Keep | None:
        """What takes the completions of one measurement; None for a run that keeps none."""
        if self.transcripts is None:
            return None
        return partial(self.transcripts.save, Place(cell_id=node, eval=eval_id, phase=phase, step=step))

    def keep_adapter(self, cell: Cell, base_sha256: str, pack: Pack) -> None:
        """Keep what an attack has made, where the run keeps adapters; a control has made nothing.

        Args:
            cell: The cell, whose final measurement is done.
            base_sha256: The released target that the adapter belongs to.
            pack: Makes a safetensors file of it, in memory.
        """
        if self.adapters is not None and not isinstance(cell.attack, Control):
            self.adapters.save(cell.cell_id, base_sha256, pack)

    @property
    def charged(self) -> list[dict[str, object]]:
        """Every record of the ledger that charges somebody, oldest first."""
        return list(self._records)

    def charges(self, node: str) -> list[dict[str, object]]:
        """Records of the ledger that charge one node, oldest first."""
        return [record for record in self._records if record["node"] == node]

    @contextmanager
    def meter(
        self, node: str, purse: str, budget: Budget, *, together_with: frozenset[str] = frozenset()
    ) -> Iterator[Meter]:
        """Bill a node from the moment at which the one before it ended, so that no time is left unexplained.

        What an earlier process billed for the same node is taken up from the ledger, and so is what other nodes were
        billed under the same purse.

        Args:
            node: Id of the node.
            purse: Id of the budget.
            budget: Its caps.
            together_with: Nodes whose attacker is the same stranger, as the trials of one search are.

        Yields:
            Meter: Writes to the ledger; closed when the block ends, with or without an exception.
        """

        meter = self._build_meter(node, purse, budget, together_with)
        try:
            yield meter
        finally:
            self._ended_ns, self._ended_cpu_ns = meter.close()

    def _build_meter(self, node: str, purse: str, budget: Budget, together_with: frozenset[str]) -> Meter:
        def write(record: dict[str, object]) -> None:
            self.journal.append(record)
            self._records.append(record)

        meter = Meter(
            budget,
            self.card,
            self.hardware,
            node=node,
            purse=purse,
            clock=time.monotonic_ns,
            write=write,
            cpu_clock=cpu_clock,
            devices=self.devices,
            started_ns=self._ended_ns,
            started_cpu_ns=self._ended_cpu_ns,
            watch=self._watch,
        )
        meter.restore(self._records, together_with=together_with)
        return meter

    def _tell_of_a_clock_that_was_set_back(self, records: Sequence[Mapping[str, object]]) -> None:
        for reset in find_resets(records):
            if reset.record == len(records):
                behind = format_seconds(to_seconds(reset.by_ns))
                self.line.say(f"the clock stands {behind} before the ledger's last record; no duration depends on it")

    def _charge_what_was_left_open(self) -> None:
        """Charge every reservation that a crash left open, before anything is held against a cap.

        Its node may never come again: the id of shared work names the software that does it.
        """
        nodes = {(str(record["node"]), str(record["purse"])): None for record in self._records}
        for node, purse in nodes:
            # Never closed: it only reads the ledger, and writes the charge.
            self._build_meter(node, purse, _NO_CAPS, frozenset())
