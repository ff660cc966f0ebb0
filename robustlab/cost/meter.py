"""The meter of one node: bills every nanosecond to an account and a phase, and says when a cap is reached.

Time is partitioned. There always is one current segment (account, phase), and the wall time of all ``TIMED`` records
of a process adds up to its age. Who enforces what, in which order:

1. ``reserve`` comes before a unit of work. It adds what was billed, what the open segment has used so far and the need,
   and raises ``BudgetSpent`` for the first cap that this passes, in the order of ``robustlab.cost.caps``. What is held
   back for the laboratory counts as spent there, and stops the attacker too: an end that cannot be paid is no result.
2. ``count`` adds logical counts, ``settle`` ends the segment. Should it end beyond a cap all the same (a stall), it is
   booked as ``overshoot``: billed, and not part of the trajectory. For a reserved unit of the attacker ``settle`` then
   raises ``BudgetSpent`` and the caller puts the state of the last settled unit back. A unit of the laboratory stands.
3. A phase that an exception leaves in the middle of a unit books it as ``abandon``.
4. ``restore`` charges a reservation that a crash left open in full.

Device time is billed by the card; what servers of others charge is counted as a fee and billed beside it. The meter
does not know what the work is or where records go.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain

from robustlab.cost.caps import Book, find_passed, read_limits
from robustlab.cost.clocks import Clock, ClockWatch, iso_time
from robustlab.cost.entries import ACCOUNTS, BILLED, CLOSING, LOGICAL, TIMED, Account, Entry, EntryKind
from robustlab.cost.prices import PriceCard
from robustlab.cost.quantities import NOTHING, Quantities
from robustlab.cost.segments import Label, Segment
from robustlab.errors import BudgetSpent, DataError, RecordError
from robustlab.spec.budgets import Budget
from robustlab.units import MICRO_PER_USD, MicroUsd, exact_usd

Write = Callable[[dict[str, object]], None]


class Meter:
    """Bills one node of a run. One meter runs at a time; close it before the next node's starts."""

    def __init__(
        self,
        budget: Budget,
        card: PriceCard,
        hardware: str,
        *,
        node: str,
        purse: str,
        clock: Clock,
        write: Write,
        wall_clock: Clock = time.time_ns,
        cpu_clock: Clock = lambda: 0,
        devices: int = 1,
        started_ns: int | None = None,
        started_cpu_ns: int | None = None,
        watch: ClockWatch | None = None,
    ) -> None:
        """Start in the segment (laboratory, start).

        Args:
            budget: Caps of both accounts and of the bill.
            card: The price card.
            hardware: Item of the card by which device time is billed.
            node: Id that every record carries.
            purse: Id of the budget, which every record carries too.
            clock: Monotonic nanoseconds from any origin.
            write: Takes each record as plain data; it must have kept the record when it returns.
            wall_clock: Nanoseconds since 1970; dates the records and is never used for a duration.
            cpu_clock: Nanoseconds of processor time that this process has used.
            devices: Devices that are paid for while the clock runs, >= 1.
            started_ns: Start of the first segment on ``clock``, such as the process's creation; None for now.
            started_cpu_ns: The same on ``cpu_clock``.
            watch: Sees jumps of the wall clock, also those before this meter; None for one of its own.

        Raises:
            ConfigError: If the card has no hourly price for the hardware.
            DataError: If ``devices`` is below 1.
        """
        if devices < 1:
            raise DataError("meter", f"must bill at least one device, got {devices}", "pass the number of devices")
        rate = card.device_rate(hardware, "hardware")
        self._books: dict[Account, Book] = {account: Book(rate) for account in ACCOUNTS}
        self._limits = {"attacker": read_limits(budget.attacker), "laboratory": read_limits(budget.laboratory)}
        self._total_usd = None if budget.total_usd is None else exact_usd(budget.total_usd)
        self._hardware, self._node, self._purse, self._devices = hardware, node, purse, devices
        self._clock, self._wall_clock, self._write = clock, wall_clock, write
        self._cpu_clock = cpu_clock
        self._watch = watch or ClockWatch(clock, wall_clock)
        self._elsewhere_micro_usd = 0
        self._held = NOTHING
        self._explained_ns = 0
        self._interrupted = False
        first = clock() if started_ns is None else started_ns
        first_cpu = cpu_clock() if started_cpu_ns is None else started_cpu_ns
        self._segment: Segment | None = Segment(Label("laboratory", "start"), first, first_cpu)
        self._ended = (first, first_cpu)

    @contextmanager
    def phase(self, account: Account, phase: str, **tags: str | int) -> Iterator[None]:
        """Bill what runs inside to an account and a phase, then go back to what was billed before.

        Left without an exception, a unit that is still open is settled; left by one, it is abandoned.

        Args:
            account: Who pays for what runs inside.
            phase: What the time is spent on, such as ``load``.
            **tags: Free facts that every record of the phase carries, such as the step.

        Raises:
            DataError: If a reserved unit is open: settle it before the account changes.
            BudgetSpent: If leaving settles a unit of the attacker beyond a cap.
        """
        segment = self._open_segment()
        if segment.reserved is not None:
            problem = f"phase {phase!r} begins inside a reserved unit of {segment.label.phase!r}"
            raise DataError("meter", problem, "settle the unit first")
        self._end_segment(Label(account, phase, tags), abandoned=False)
        abandoned = True
        try:
            yield
            abandoned = False
        finally:
            self._end_segment(segment.label, abandoned=abandoned)

    def reserve(self, need: Quantities) -> None:
        """Let one unit of work of the current account through, or stop before it.

        Args:
            need: The most that the unit may use; its device time is taken to be its wall time times the devices.

        Raises:
            BudgetSpent: Naming the first cap that the unit would pass. Nothing was reserved then.
            DataError: If a unit is open already.
        """
        segment = self._open_segment()
        if segment.reserved is not None:
            raise DataError("meter", f"a unit of {segment.label.phase!r} is open already", "settle it first")
        need = self._on_all_devices(need)
        used = self._used(segment, self._clock(), self._cpu_clock())
        spent = self._first_passed(segment.label.account, used + need, self._held)
        if spent is not None:
            raise spent
        segment.reserved = need
        price = Book(self._books["attacker"].usd_per_device_hour).micro_usd_with(need)
        self._record("reserve", segment.label, need, price)

    def count(
        self,
        *,
        train_tokens: int = 0,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
        steps: int = 0,
        trials: int = 0,
        flops: int = 0,
        fee_nano_usd: int = 0,
    ) -> None:
        """Add counts to the open segment.

        Args:
            train_tokens: Non-padding tokens that went through a training step.
            prompt_tokens: Prompt tokens that were read before a completion.
            generated_tokens: New tokens of completions.
            steps: Optimiser steps.
            trials: Trials of a search.
            flops: Operations, by the project's own formulas.
            fee_nano_usd: What servers of others charged, in billionths of a US dollar.
        """
        self._open_segment().counts += Quantities(
            0, 0, train_tokens, prompt_tokens, generated_tokens, steps, trials, flops, 0, fee_nano_usd
        )

    def settle(self) -> Quantities:
        """End the open segment with the time that it took, close its reservation and go on in the same phase.

        Returns:
            What the segment used.

        Raises:
            BudgetSpent: If the segment was a reserved unit of the attacker and lies beyond a cap. It is booked as
                overshoot: put the state of the last settled unit back.
        """
        return self._end_segment(self._open_segment().label, abandoned=False)

    def impute(self, account: Account, phase: str, quantities: Quantities, **tags: str | int) -> None:
        """Bill a share of work that was timed elsewhere, such as a load that several cells use. No time is explained.

        Args:
            account: Who pays.
            phase: What the time was spent on.
            quantities: What is charged; its device time is taken to be its wall time times the devices.
            **tags: Free facts.

        Raises:
            BudgetSpent: If it would pass a cap. Nothing was billed then.
        """
        quantities = self._on_all_devices(quantities)
        spent = self._first_passed(account, quantities, self._held)
        if spent is not None:
            raise spent
        self._bill("impute", Label(account, phase, tags), quantities)
        self._interrupted = False

    def reserve_for_laboratory(self, quantities: Quantities) -> None:
        """Hold money and time back for the final measurement, in the place of what was held back before.

        Args:
            quantities: What counts as spent by the laboratory in every ``reserve`` from now on; an empty one gives it
                free, right before the final measurement reserves it for itself.
        """
        self._held = self._on_all_devices(quantities)

    def restore(self, records: Iterable[Mapping[str, object]], *, together_with: frozenset[str] = frozenset()) -> None:
        """Take up what stands in the ledger already.

        The totals of an earlier process of this node are its own, and a reservation that it left open is charged in
        full. What other nodes were billed under the same purse counts towards the laboratory's caps and the total.

        Args:
            records: Records of the run's ledger in order.
            together_with: Nodes whose attacker is the same stranger, as the trials of one search are: what they were
                billed counts towards the attacker's caps too.

        Raises:
            RecordError: If a record is malformed, or the records do not add up to the bill at this card's rates.
            DataError: If something was billed here already.
        """
        if any(book.billed != NOTHING for book in self._books.values()):
            problem = "was told to restore after it had billed something"
            raise DataError("meter", problem, "restore right after building it")
        found = [entry for entry in map(Entry.from_dict, records) if entry.purse == self._purse]
        others = [entry for entry in found if entry.node != self._node]
        self._elsewhere_micro_usd = sum(entry.micro_usd for entry in others if entry.record in BILLED)
        self._bring_forward("laboratory", others)
        self._bring_forward("attacker", [entry for entry in others if entry.node in together_with])
        entries = [entry for entry in found if entry.node == self._node]
        left_open: Entry | None = None
        for entry in entries:
            self._replay(entry)
            left_open = entry if entry.record == "reserve" else None if entry.record in CLOSING else left_open
        self._check_sums(entries)
        if left_open is not None:
            label = Label(left_open.account, left_open.phase, left_open.tags)
            self._bill("crash", label, left_open.quantities)
            self._interrupted = False

    def rewind(self, account: Account, logical: Quantities) -> None:
        """Take an account's trajectory back to a checkpoint. The bill stays; the steps that were lost are run again.

        Args:
            account: Whose trajectory.
            logical: What ``logical`` gave when the checkpoint was made.

        Raises:
            RecordError: If the checkpoint lies ahead of the ledger.
        """
        book = self._books[account]
        try:
            lost = book.logical - logical
        except DataError:
            problem = f"is ahead of the ledger, got {logical.steps} steps after {book.logical.steps}"
            raise RecordError("checkpoint", problem, "resume the run that wrote it") from None
        book.logical = logical
        self._record("rewind", Label(account, "rewind"), lost, MicroUsd(0))

    def close(self) -> tuple[int, int]:
        """Settle the last segment. Nothing can be billed afterwards.

        Returns:
            Where the last segment ended, on the clock and on the processor's: there the next node's meter starts.

        Raises:
            BudgetSpent: As ``settle`` does.
        """
        self._end_segment(None, abandoned=False)
        return self._ended

    def total(self, account: Account) -> Quantities:
        """Everything that the account was billed for, up to the last settled segment."""
        return self._books[account].billed

    def logical(self, account: Account) -> Quantities:
        """What belongs to the account's trajectory: without undone, unfinished and repeated work."""
        return self._books[account].logical

    def micro_usd(self, account: Account) -> MicroUsd:
        """The account's bill, in millionths of a US dollar, overshoot included."""
        return self._books[account].micro_usd

    def overshoot(self, account: Account) -> MicroUsd:
        """Part of the bill that lies in segments beyond a cap."""
        return MicroUsd(self._books[account].overshoot_micro_usd)

    def caps_used(self, account: Account) -> dict[str, float]:
        """Share of each of the account's caps that was used, by name; above 1 only after an overshoot."""
        usage = self._books[account].usage_with(NOTHING)
        return {name: float(usage[name] / limit) for name, limit in self._limits[account].items()}

    def remaining(self, account: Account) -> dict[str, float]:
        """What is left of each of the account's caps, by name and in the cap's unit, >= 0."""
        usage = self._books[account].usage_with(NOTHING)
        return {name: max(float(limit - usage[name]), 0.0) for name, limit in self._limits[account].items()}

    @property
    def explained_ns(self) -> int:
        """Wall time of this process that lies in settled segments."""
        return self._explained_ns

    def _open_segment(self) -> Segment:
        if self._segment is None:
            raise DataError("meter", f"of node {self._node!r} is closed", "build a meter for the next node")
        return self._segment

    def _end_segment(self, following: Label | None, *, abandoned: bool) -> Quantities:
        if self._interrupted:
            return NOTHING
        segment, now, cpu_now = self._open_segment(), self._clock(), self._cpu_clock()
        used = self._used(segment, now, cpu_now)
        spent = self._first_passed(segment.label.account, used, NOTHING)
        is_unit = segment.reserved is not None
        kind: EntryKind = "overshoot" if spent else "abandon" if is_unit and abandoned else "settle"
        if is_unit or used != NOTHING:
            self._bill(kind, segment.label, used)
        self._ended = (now, cpu_now)
        self._segment = None if following is None else Segment(following, now, cpu_now)
        # Only now: a signal before this line must not bill the same time twice.
        self._interrupted = False
        self._watch_clocks(segment.label)
        if spent is not None and is_unit and segment.label.account == "attacker" and not abandoned:
            raise spent
        return used

    def _used(self, segment: Segment, now: int, cpu_now: int) -> Quantities:
        passed = Quantities(wall_ns=now - segment.started_ns, cpu_ns=cpu_now - segment.started_cpu_ns)
        return segment.counts + self._on_all_devices(passed)

    def _on_all_devices(self, quantities: Quantities) -> Quantities:
        return replace(quantities, device_ns=quantities.wall_ns * self._devices)

    def _first_passed(self, account: Account, extra: Quantities, held: Quantities) -> BudgetSpent | None:
        ahead = {"attacker": NOTHING, "laboratory": held}
        ahead[account] += extra
        own = find_passed(
            self._limits[account],
            self._books[account].usage_with(ahead[account]),
            prefix="" if account == "attacker" else "laboratory.",
        )
        if account == "attacker" and held != NOTHING:
            # An attack whose end could not be measured must not begin, nor go on.
            left = self._books["laboratory"].usage_with(held)
            own = chain(own, find_passed(self._limits["laboratory"], left, prefix="laboratory."))
        if self._total_usd is None:
            return next(own, None)
        own_bill = sum(book.micro_usd_with(ahead[name]) for name, book in self._books.items())
        bill = Fraction(own_bill + self._elsewhere_micro_usd, MICRO_PER_USD)
        limits, usage = {"total_usd": self._total_usd}, {"total_usd": bill}
        return next(chain(own, find_passed(limits, usage, prefix="")), None)

    def _bill(self, kind: EntryKind, label: Label, quantities: Quantities) -> None:
        # A signal may land before or after the record is on the disk, and nobody can tell which. A record bills the
        # difference of a running total, so none may follow one in doubt: the process ends and a resume asks the ledger.
        self._interrupted = True
        if kind in TIMED:
            self._explained_ns += quantities.wall_ns
        self._record(kind, label, quantities, self._books[label.account].charge(quantities, kind))

    def _record(self, kind: EntryKind, label: Label, quantities: Quantities, micro_usd: MicroUsd) -> None:
        moment = iso_time(self._wall_clock())
        where = (self._node, self._purse, label.account, label.phase, label.tags)
        self._write(Entry(kind, *where, quantities, micro_usd, self._hardware, moment).to_dict())

    def _watch_clocks(self, label: Label) -> None:
        jump = self._watch.find_jump()
        if jump is not None:
            self._record("clock_jump", replace(label, tags=jump), NOTHING, MicroUsd(0))

    def _bring_forward(self, account: Account, others: list[Entry]) -> None:
        book, own = self._books[account], [entry for entry in others if entry.account == account]
        paid = [entry for entry in own if entry.record in BILLED]
        kept = sum((entry.quantities for entry in own if entry.record in LOGICAL), NOTHING)
        book.elsewhere_logical = kept - sum((e.quantities for e in own if e.record == "rewind"), NOTHING)
        book.elsewhere = sum((entry.quantities for entry in paid), NOTHING)
        book.elsewhere_micro_usd = sum(entry.micro_usd for entry in paid)

    def _replay(self, entry: Entry) -> None:
        book = self._books[entry.account]
        if entry.record in BILLED:
            book.charge(entry.quantities, entry.record)
        elif entry.record == "rewind":
            book.logical -= entry.quantities

    def _check_sums(self, entries: list[Entry]) -> None:
        for account, book in self._books.items():
            written = sum(e.micro_usd for e in entries if e.account == account and e.record in BILLED)
            if written != book.micro_usd:
                sums = f"{written} micro-USD, got {book.micro_usd} at this card's rates"
                problem = f"the {account}'s records add up to {sums}"
                raise RecordError("ledger", problem, "resume with the price card and the hardware of the run")
