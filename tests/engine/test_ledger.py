"""A ledger of 20 records, written by a real meter through a real journal: whatever is done to it is found."""

import copy
import csv
import hashlib
import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.cost.audit import number_entries, read_entries, sum_phases
from robustlab.cost.entries import BILLED
from robustlab.cost.meter import Meter
from robustlab.cost.prices import load_price_card
from robustlab.cost.quantities import Quantities
from robustlab.engine.ledger import LedgerReport, describe_torn_tail, export_focus, price_again, verify_ledger
from robustlab.errors import BudgetSpent, ConfigError, RecordError
from robustlab.record.journal import GENESIS, Journal, read_journal
from robustlab.record.run_folder import RunFolder, write_json
from robustlab.spec.base import canonical_json, content_hash
from robustlab.spec.budgets import Budget

RUN_ID = "20261122T021733Z-a1b2c3"
SECOND = 1_000_000_000
CARD = """\
kind: prices
as_of: "2026-01-01"
devices:
  box: {label: box, usd_per_device_hour: 1.0, low: null, high: null, source: hand-made}
  big: {label: big, usd_per_device_hour: 36.0, low: null, high: null, source: hand-made}
tokens: {}
"""
DISTRUST = "do not trust this run; repeat it"


@dataclass
class Machine:
    """Clocks that move when told to, and the folder of a run."""

    folder: RunFolder
    now_ns: int = 7 * SECOND
    wall_ns: int = 1_767_225_600 * SECOND
    caps: dict[str, float] = field(default_factory=dict)

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND)
        self.wall_ns += round(seconds * SECOND)

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.wall_ns // 1000)

    @contextmanager
    def process(self) -> Iterator[Journal]:
        """A process of the run: it says when it was created, before anything else."""
        with Journal.open(self.folder.ledger, now=self.now) as journal:
            journal.append({"kind": "session", "started": self.now().isoformat(timespec="microseconds"), "pid": 1})
            yield journal

    def meter(self, journal: Journal, node: str, *, purse: str = "cent", **options: Any) -> Meter:
        caps = {"kind": "budget", "stands_for": "a test", "hardware": "box", "attacker": self.caps}
        meter = Meter(
            Budget.model_validate(caps | {"laboratory": None, "total_usd": None}),
            load_price_card(self.folder.prices),
            "box",
            node=node,
            purse=purse,
            clock=lambda: self.now_ns,
            wall_clock=lambda: self.wall_ns,
            write=lambda record: print_hash(journal.append(record)),
            **options,
        )
        meter.restore(record for record in journal.records() if "record" in record)
        return meter

    def step(self, meter: Meter, seconds: float = 36, *, planned: float | None = None) -> None:
        meter.reserve(Quantities(wall_ns=round((planned or seconds) * SECOND)))
        self.wait(seconds)
        meter.count(steps=1, train_tokens=64, flops=10**9)
        meter.settle()


def print_hash(_: str) -> None:
    """A meter's ``write`` returns nothing."""


def make_run(root: Path) -> Machine:
    """20 records: a session, a shared node, a cell of seven steps with custody, and the head of the record's node."""
    machine = Machine(RunFolder.create(root, RUN_ID))
    machine.folder.prices.write_text(CARD)
    with machine.process() as journal:
        shared = machine.meter(journal, "released-1")
        machine.wait(36)
        shared.close()
        cell = machine.meter(journal, "cell-1")
        cell.impute("attacker", "load", Quantities(wall_ns=36 * SECOND))
        with cell.phase("attacker", "train", step=1):
            for _ in range(7):
                machine.step(cell)
        journal.append(
            {"kind": "custody", "event": "created", "artefact": "a", "sha256": "0" * 64, "who": "", "why": ""}
        )
        machine.wait(36)
        cell.close()
        machine.meter(journal, "record").close()
        journal.append(
            {"kind": "custody", "event": "deleted", "artefact": "a", "sha256": "0" * 64, "who": "", "why": ""}
        )
    return machine


def factory() -> Any:
    """The maker of results that the tests of ``report`` use."""
    spec = importlib.util.spec_from_file_location(
        "results_factory", Path(__file__).parents[1] / "report" / "conftest.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def account(seconds: float, micro_usd: int, steps: int = 0) -> dict[str, object]:
    counts = {"train_tokens": 64 * steps, "billed_train_tokens": 64 * steps, "steps": steps, "billed_steps": steps}
    times = {"device_seconds": seconds, "wall_seconds": seconds}
    return {"micro_usd": micro_usd, "flops": steps * 10**9, "overshoot_micro_usd": 0, **times, **counts}


def planned(cell: dict[str, Any]) -> dict[str, object]:
    """What the plan says of a cell that it holds."""
    names = ("target", "safeguard", "attack", "budget")
    return {**{f"{name}_id": cell[name] for name in names}, "seed": cell["seed"]}


def document(machine: Machine, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of the run, by hand: 36 s at $1 an hour are 10,000 micro-USD."""
    made = factory()
    phases = [
        {
            "account": use.account, "phase": use.phase, "micro_usd": use.micro_usd, "device_seconds": 0.0,
            "cpu_seconds": 0.0, "train_tokens": 0, "prompt_tokens": 0, "generated_tokens": 0, "flops": 0, "mfu": None,
            "overshoot_micro_usd": 0,
        }
        for use in sum_phases(entry for entry in read_entries(records) if entry.node == "cell-1")
    ]  # fmt: skip
    cost = {"attacker": account(288.0, 80_000, 7), "laboratory": account(36.0, 10_000)}
    cell = made.control_cell(cell_id="cell-1", cost=cost, phases=phases, budget="cent")
    node = {"node": "released-1", "kind": "released", "label": "t / s", "cached": False, "cost": account(36.0, 10_000)}
    bill = {"attacker_micro_usd": 80_000, "laboratory_micro_usd": 20_000, "total_micro_usd": 100_000}
    plain: dict[str, Any] = made.results(
        cell,
        run_id=RUN_ID,
        plan={"kind": "resolved_plan", "hardware": "box", "cells": [planned(cell)]},
        price_card_sha256=hashlib.sha256(machine.folder.prices.read_bytes()).hexdigest(),
        ledger_head=records[-1]["hash"],
        nodes=[{**node, "budget": "cent"}],
        bill=bill,
        purses=[],
    ).model_dump(mode="json")
    return plain


def finish(machine: Machine, change: Callable[[dict[str, Any]], None] = lambda plain: None) -> Machine:
    """Write results, changed or not, and the seal over them."""
    plain = document(machine, read_journal(machine.folder.ledger)[0])
    change(plain)
    write_json(machine.folder.results, plain)
    machine.folder.write_manifest()
    return machine


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The run of 20 records, not finished; tests that change it work on a copy."""
    return make_run(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_run(tmp_path)


@pytest.fixture
def scratch(tmp_path: Path, sound: Machine) -> Machine:
    """A copy of the run whose ledger may be overwritten at will."""
    copied = Machine(RunFolder.create(tmp_path, RUN_ID))
    copied.folder.prices.write_text(CARD)
    return copied


def verify(machine: Machine) -> LedgerReport:
    return verify_ledger(machine.folder.path.parent, RUN_ID)


def faults(machine: Machine) -> dict[str, str]:
    return {finding.name: finding.found for finding in verify(machine).findings if not finding.ok}


def found(machine: Machine) -> dict[str, str]:
    return {finding.name: finding.found for finding in verify(machine).findings}


def rechain(records: list[dict[str, Any]]) -> bytes:
    """What somebody writes who knows how a chain is made."""
    prev, lines = GENESIS, b""
    for seq, record in enumerate(records):
        body = {key: value for key, value in record.items() if key != "hash"} | {"seq": seq, "prev": prev}
        prev = content_hash(body)
        lines += f"{canonical_json(body | {'hash': prev})}\n".encode()
    return lines


def test_a_run_that_has_ended_holds(machine: Machine) -> None:
    report = verify(finish(machine))
    assert report.ok
    records, _ = read_journal(machine.folder.ledger)
    sha256 = hashlib.sha256(CARD.encode()).hexdigest()
    assert len(records) == 20
    assert [(finding.name, finding.found, finding.remedy) for finding in report.findings] == [
        ("chain", f"20 records, head {records[-1]['hash']}", ""),
        ("files", "3 as sealed", ""),
        ("head", "record 20 of 20; only custody and the writing of the record follow", ""),
        ("records", "17 records of money", ""),
        ("price card", f"as of 2026-01-01, sha256 {sha256}", ""),
        ("money", "every record's money follows from its quantities and the rate of box", ""),
        ("sums", "1 cells, 1 shared nodes: a bill of $0.100000, as in the ledger", ""),
        ("reservations", "none is open", ""),
        ("overshoot", "none", ""),
        ("time", "100.00 % of 324.000 s explained, sessions: 1", ""),
    ]


def test_a_run_that_has_not_ended_is_checked_by_its_ledger(machine: Machine) -> None:
    report = verify(machine)
    assert report.ok
    names = [finding.name for finding in report.findings]
    assert names == ["chain", "results", "records", "price card", "money", "reservations", "overshoot", "time"]
    assert report.findings[1].found == "not there yet, the run has not ended: the ledger was checked alone"


def test_one_flipped_bit_of_every_byte_is_found(sound: Machine, scratch: Machine) -> None:
    data = sound.folder.ledger.read_bytes()
    scratch.folder.ledger.write_bytes(data)
    missed = []
    with scratch.folder.ledger.open("r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            os.pwrite(file.fileno(), bytes([byte ^ (1 << place % 8)]), place)
            findings = verify(scratch).findings
            if len(findings) > 1 or not findings[0].found.startswith(f"{scratch.folder.ledger} record "):
                missed.append(place)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert len(data) > 8_000
    assert missed == []
    assert verify(scratch).ok


@settings(max_examples=300)
@given(st.data())
def test_any_flipped_bit_is_found(sound: Machine, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    written = sound.folder.ledger.read_bytes()
    place, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    folder = RunFolder.create(tmp_path_factory.mktemp("flip"), RUN_ID)
    folder.ledger.write_bytes(flipped(written, place, bit))
    assert not verify_ledger(folder.path.parent, RUN_ID).ok


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def test_torn_at_every_byte_of_its_last_record_it_opens(sound: Machine, scratch: Machine) -> None:
    data = sound.folder.ledger.read_bytes()
    start = data[:-1].rindex(b"\n") + 1
    for end in range(start, len(data)):
        scratch.folder.ledger.write_bytes(data[:end])
        torn = end - start
        report = verify(scratch)
        assert report.ok
        assert report.findings[0].found.startswith("19 records, head ")
        assert (f"; {torn} bytes of a torn record" in report.findings[0].found) == (torn > 0)
        Journal.open(scratch.folder.ledger).close()
        assert verify(scratch).ok
        records, _ = read_journal(scratch.folder.ledger)
        assert len(records) == 19 + (torn > 0)
        assert torn == 0 or (records[-1]["kind"], records[-1]["bytes"]) == ("torn_tail", torn)


def test_a_torn_tail_behind_a_run_that_has_ended_is_damage(machine: Machine) -> None:
    with finish(machine).folder.ledger.open("ab") as file:
        file.write(b'{"acc')
    machine.folder.write_manifest()
    ending = "ends in 5 bytes of an unfinished record, though the run has ended"
    assert faults(machine) == {"chain": f"{machine.folder.ledger}: {ending}"}


@pytest.mark.parametrize("change", ["drop", "swap", "double"])
def test_records_that_are_dropped_reordered_or_doubled_are_found(sound: Machine, scratch: Machine, change: str) -> None:
    lines = sound.folder.ledger.read_bytes().splitlines(keepends=True)
    for place in range(len(lines) - 1):
        changed = {
            "drop": lines[:place] + lines[place + 1 :],
            "swap": [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]],
            "double": lines[: place + 1] + lines[place:],
        }[change]
        scratch.folder.ledger.write_bytes(b"".join(changed))
        number = place + (2 if change == "double" else 1)
        assert faults(scratch) == {
            "chain": f"{scratch.folder.ledger} record {number}: does not follow the record before it"
        }


def test_a_last_record_that_was_dropped_is_found_by_the_head(machine: Machine) -> None:
    lines = finish(machine).folder.ledger.read_bytes().splitlines(keepends=True)
    machine.folder.ledger.write_bytes(b"".join(lines[:-1]))
    machine.folder.write_manifest()
    head = json.loads(lines[-1])["hash"]
    named = f"results.json ledger_head: names {head}, which is no record of the ledger"
    assert faults(machine)["head"] == named


def test_money_that_was_changed_in_a_new_chain_is_found_by_the_price(machine: Machine) -> None:
    records, _ = read_journal(machine.folder.ledger)
    place = next(i for i, record in enumerate(records) if record.get("record") == "settle")
    records[place]["micro_usd"] = 9_000
    machine.folder.ledger.write_bytes(rechain(records))
    assert faults(machine) == {"money": f"ledger: record {place + 1} says 9000 micro-USD, due are 10000"}


def test_a_new_chain_with_money_and_time_that_agree_is_found_by_the_results(machine: Machine) -> None:
    finish(machine)
    records, _ = read_journal(machine.folder.ledger)
    place = next(i for i, record in enumerate(records) if record.get("record") == "settle")
    records[place]["micro_usd"] = 5_000
    records[place]["quantities"] |= {"wall_ns": 18 * SECOND, "device_ns": 18 * SECOND}
    machine.folder.ledger.write_bytes(rechain(records))
    machine.folder.write_manifest()
    found = faults(machine)
    assert set(found) == {"head", "sums", "time"}
    assert found["time"].startswith("ledger: 94.44 % of 324.000 s explained")
    # Results that name the new head and seal do not help: their sums are still the old ones.
    finish(machine)
    assert faults(machine)["sums"].startswith("results.json: laboratory of released-1: micro_usd is 10000, 5000 in the")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("cells", 0, "cost", "attacker", "micro_usd"), "attacker of cell-1: micro_usd is 1, 80000 in the ledger"),
        (("cells", 0, "cost", "laboratory", "wall_seconds"), "laboratory of cell-1: wall_seconds is 1.0, 36.0 in the"),
        (("cells", 0, "cost", "attacker", "steps"), "attacker of cell-1: steps is 1, 7 in the ledger"),
        (("cells", 0, "cost", "attacker", "overshoot_micro_usd"), "overshoot_micro_usd is 1, 0 in the ledger"),
        (("cells", 0, "phases", 0, "micro_usd"), "phases of cell-1: attacker load is 1, 10000 in the ledger"),
        (("nodes", 0, "cost", "micro_usd"), "laboratory of released-1: micro_usd is 1, 10000 in the ledger"),
        (("bill", "total_micro_usd"), "bill: total_micro_usd is 1, 100000 in the ledger"),
    ],
)
def test_results_that_say_something_else_are_found(machine: Machine, keys: tuple[Any, ...], text: str) -> None:
    def change(plain: dict[str, Any]) -> None:
        for key in keys[:-1]:
            plain = plain[key]
        plain[keys[-1]] = 1

    assert text in faults(finish(machine, change))["sums"]


def test_results_without_a_bill_are_found(machine: Machine) -> None:
    assert faults(finish(machine, lambda plain: plain.update(bill=None))) == {"sums": "results.json: there is no bill"}


def test_an_attack_that_no_cell_names_is_found(machine: Machine) -> None:
    wrong = faults(finish(machine, lambda plain: plain["cells"].clear()))["sums"]
    assert wrong == "results.json: bill: attacker's cells is 0, 80000 in the ledger"


def test_many_differences_are_counted(machine: Machine) -> None:
    def change(plain: dict[str, Any]) -> None:
        plain["cells"][0]["cost"]["attacker"] = account(1.0, 1, 1)

    assert faults(finish(machine, change))["sums"].endswith("; and 6 more")


def with_purses(plain: dict[str, Any], **changes: Any) -> None:
    """36 s and 288 s of 36 s each at $1 an hour: $0.02 of the laboratory's 0.1 and $0.1 of 0.4 in all."""
    budget = {"kind": "budget", "stands_for": "a test", "hardware": "box", "attacker": {"max_usd": 1.0}}
    budget |= {"laboratory": {"max_usd": 0.1}, "total_usd": 0.4}
    plain["plan"]["cells"][0] |= {"budget": budget}
    bill = {"attacker_micro_usd": 80_000, "laboratory_micro_usd": 20_000, "total_micro_usd": 100_000}
    used = {"caps_used": {"laboratory.max_usd": 0.2, "total_usd": 0.25}, "estimate": None}
    # 324 s passed: of the attacker's 288 s the load of 36 s was only imputed, and the laboratory's are 72 s.
    plain["purses"] = [{"budget": "cent", "wall_seconds": 324.0, **bill, **used, **changes}]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"laboratory_micro_usd": 1}, "purse cent: laboratory_micro_usd is 1, 20000 in the ledger"),
        ({"wall_seconds": 1.0}, "purse cent: wall_seconds is 1.0, 324.0 in the ledger"),
        (
            {"caps_used": {"laboratory.max_usd": 0.2, "total_usd": 0.1}},
            "purse cent: share of total_usd is 0.1, 0.25 in",
        ),
        ({"caps_used": {"total_usd": 0.25}}, "purse cent: share of laboratory.max_usd is 0, 0.2 in the ledger"),
        ({"budget": "dime"}, "purse dime: the plan holds no such budget; purse cent: is in the ledger and not in the"),
    ],
)
def test_a_purse_that_says_something_else_is_found(machine: Machine, changes: dict[str, Any], text: str | None) -> None:
    wrong = faults(finish(machine, lambda plain: with_purses(plain, **changes)))
    assert wrong == {} if text is None else text in wrong["sums"]


def test_work_that_no_result_used_is_shown(machine: Machine) -> None:
    report = found(finish(machine, lambda plain: plain["nodes"].clear()))
    assert report["sums"] == (
        "1 cells, 0 shared nodes, $0.010000 of work that no result used: a bill of $0.100000, as in the ledger"
    )


def test_a_node_under_two_budgets_is_told_apart(machine: Machine) -> None:
    with machine.process() as journal:
        shared = machine.meter(journal, "released-1", purse="dollar")
        machine.wait(72)
        shared.close()

    def change(plain: dict[str, Any]) -> None:
        plain["nodes"].append({**plain["nodes"][0], "budget": "dollar", "cost": account(72.0, 20_000)})
        plain["bill"] |= {"laboratory_micro_usd": 40_000, "total_micro_usd": 120_000}

    assert verify(finish(machine, change)).ok


def test_the_record_may_follow_the_head_and_nothing_else(machine: Machine) -> None:
    head = read_journal(machine.folder.ledger)[0][-1]["hash"]
    with Journal.open(machine.folder.ledger, now=machine.now) as journal:
        record = machine.meter(journal, "record")
        machine.wait(36)
        record.close()
        journal.append({"kind": "custody"})
    assert verify(finish(machine, lambda plain: plain.update(ledger_head=head))).ok
    assert found(machine)["head"] == "record 20 of 22; only custody and the writing of the record follow"
    with machine.process():
        pass
    finish(machine, lambda plain: plain.update(ledger_head=head))
    report = verify(machine)
    assert [(finding.found, finding.remedy) for finding in report.findings if not finding.ok] == [
        (
            "ledger record 23: follows the head that the results name, "
            "and is neither custody nor the writing of the record",
            "resume the run, so that its results are written anew",
        )
    ]


def test_a_card_that_was_changed_is_found_and_money_is_not_computed(machine: Machine) -> None:
    finish(machine)
    sha256 = hashlib.sha256(CARD.encode()).hexdigest()
    machine.folder.prices.write_text(CARD.replace("1.0", "2.0"))
    machine.folder.write_manifest()
    changed = hashlib.sha256(machine.folder.prices.read_bytes()).hexdigest()
    report = verify(machine)
    [card] = [finding for finding in report.findings if not finding.ok]
    remedy = "put the run's own card back, or price it anew with --prices"
    assert (card.name, card.remedy) == ("price card", remedy)
    assert card.found == (
        f"{machine.folder.prices}: has sha256 {changed}, the results name {sha256}: money cannot be computed again"
    )
    assert "money" not in found(machine)


def test_a_card_that_is_none_is_a_finding(machine: Machine) -> None:
    machine.folder.prices.write_text("kind: prices\n")
    assert list(faults(machine)) == ["price card"]


def test_without_a_copy_the_packaged_card_serves_when_it_is_the_one(machine: Machine) -> None:
    finish(machine)
    packaged = load_price_card(None)
    machine.folder.prices.unlink()
    machine.folder.write_manifest()
    assert faults(machine)["price card"].startswith(f"{packaged.path}: has sha256 {packaged.sha256}, the results name ")
    with pytest.raises(ConfigError, match="money cannot be computed again"):
        export_focus(machine.folder.path.parent, RUN_ID, machine.folder.path.parent / "out.csv")
    plain = json.loads(machine.folder.results.read_bytes()) | {"price_card_sha256": packaged.sha256}
    write_json(machine.folder.results, plain)
    machine.folder.write_manifest()
    report = found(machine)
    assert report["price card"] == f"as of {packaged.prices.as_of}, sha256 {packaged.sha256}"
    assert report["money"].startswith("ledger record 2: 'box' has no price in ")


def test_an_unfinished_run_without_a_card_says_so(machine: Machine) -> None:
    machine.folder.prices.unlink()
    (finding,) = [each for each in verify(machine).findings if not each.ok]
    assert finding.found == f"{machine.folder.prices}: is not there: money cannot be computed again"
    assert (finding.name, finding.remedy) == ("price card", "put the card that the run was priced with back")


def test_a_run_that_was_billed_by_another_item_than_planned_is_found(machine: Machine) -> None:
    finish(machine, lambda plain: plain["plan"].update(hardware="big"))
    assert faults(machine) == {"money": "ledger: is billed by box, the plan says big"}


def test_a_reservation_that_a_crash_left_is_shown_and_charged_at_the_resume(machine: Machine) -> None:
    with machine.process() as journal:
        machine.meter(journal, "cell-1").reserve(Quantities(wall_ns=SECOND))
    number = len(read_journal(machine.folder.ledger)[0])
    report = verify(machine)
    assert report.ok
    assert found(machine)["reservations"] == f"1 open, charged in full by a resume: record {number}, start of cell-1"
    finish(machine)
    unclosed = f"ledger record {number}: is a reservation for start of cell-1 that no record closes"
    assert faults(machine) == {"reservations": unclosed}
    machine.folder.manifest.unlink()
    with machine.process() as journal:
        machine.meter(journal, "cell-1").close()
    assert found(machine)["reservations"] == "none is open"
    assert verify(machine).ok


def test_a_reservation_that_another_one_buries_is_found(machine: Machine) -> None:
    records, _ = read_journal(machine.folder.ledger)
    place = next(i for i, record in enumerate(records) if record.get("record") == "reserve")
    records.insert(place, copy.deepcopy(records[place]))
    machine.folder.ledger.write_bytes(rechain(records))
    assert faults(machine)["reservations"] == (
        f"ledger record {place + 1}: is a reservation for train of cell-1 that no record closes"
    )


def test_an_overshoot_is_shown(machine: Machine) -> None:
    machine.caps = {"max_usd": 0.5}
    with machine.process() as journal:
        cell = machine.meter(journal, "cell-2")
        with pytest.raises(BudgetSpent), cell.phase("attacker", "train"):
            machine.step(cell)
            machine.step(cell, 3600, planned=36)
        with cell.phase("attacker", "checkpoint"):
            machine.wait(36)
        cell.close()
    records, _ = read_journal(machine.folder.ledger)
    unit, rest = [i for i, record in enumerate(records, start=1) if record.get("record") == "overshoot"]
    assert verify(machine).ok
    assert found(machine)["overshoot"] == (
        f"$1.01 in 2 segments: record {unit}, a unit of train, attacker of cell-2, $1.00; "
        f"record {rest}, checkpoint, attacker of cell-2, $0.010000"
    )
    reserve = copy.deepcopy(next(record for record in records if record.get("node") == "cell-2"))
    assert reserve["record"] == "reserve"
    records.append(reserve)
    machine.folder.ledger.write_bytes(rechain(records))
    assert faults(machine)["overshoot"] == (
        f"ledger record {unit}: passed a cap, and yet record {len(records)} let another unit of cell-2 through"
    )


@pytest.mark.parametrize(("lost", "share", "ok"), [(6.6, "98.00", True), (6.62, "97.99", False)])
def test_98_percent_of_the_time_must_be_explained(machine: Machine, lost: float, share: str, ok: bool) -> None:
    # 324 s are explained: 324 / 330.6 = 0.98004 and 324 / 330.62 = 0.979977
    machine.wait(lost)
    with Journal.open(machine.folder.ledger, now=machine.now) as journal:
        journal.append({"kind": "custody"})
    time = verify(machine).findings[-1]
    assert (time.ok, share in time.found) == (ok, True)
    if not ok:
        assert time.found == "ledger: 97.99 % of 330.620 s explained, sessions: 1; at least 98 % must be"
        assert time.remedy == "run it again on a machine with less other work"


def test_more_time_than_there_was_is_found(machine: Machine) -> None:
    records, _ = read_journal(machine.folder.ledger)
    records[1]["quantities"]["wall_ns"] += 10 * SECOND
    machine.folder.ledger.write_bytes(rechain(records))
    assert faults(machine) == {"time": "ledger session 1: explains 334.000 s of 324.000 s"}


def test_two_sessions_with_a_day_and_a_torn_record_between_them(machine: Machine) -> None:
    with machine.folder.ledger.open("ab") as file:
        file.write(b"{")
    machine.wait(86_400)
    with machine.process() as journal:
        cell = machine.meter(journal, "cell-1")
        machine.wait(36)
        cell.close()
    assert verify(machine).ok
    assert found(machine)["time"] == "100.00 % of 360.000 s explained, sessions: 2"


@pytest.mark.parametrize("years", [30, -30])
def test_a_clock_that_jumps_by_years(machine: Machine, years: int) -> None:
    with machine.process() as journal:
        cell = machine.meter(journal, "cell-1")
        machine.wall_ns += years * 365 * 86_400 * SECOND
        machine.wait(36)
        cell.close()
    assert verify(machine).ok
    assert found(machine)["time"] == "100.00 % of 360.000 s explained, sessions: 2"


def test_a_ledger_without_sessions_explains_nothing(machine: Machine) -> None:
    machine.folder.ledger.write_bytes(b"")
    assert faults(machine) == {"time": "ledger: names no session: its time cannot be explained"}
    with machine.process():
        pass
    assert found(machine)["time"] == "no time has passed"


def test_a_run_of_an_older_version_says_so(machine: Machine) -> None:
    records, _ = read_journal(finish(machine).folder.ledger)
    for record in records:
        record.pop("purse", None)
    machine.folder.ledger.write_bytes(rechain(records))
    machine.folder.write_manifest()
    assert faults(machine)["records"] == "ledger record 2: was made by an older version: it names no purse"


def test_a_run_without_a_ledger_is_a_finding(machine: Machine) -> None:
    finish(machine).folder.ledger.unlink()
    before = sorted(machine.folder.path.iterdir())
    [finding] = verify(machine).findings
    assert (finding.name, finding.ok, finding.remedy) == ("chain", False, DISTRUST)
    assert finding.found == f"{machine.folder.ledger}: is not there: the run has no ledger"
    out = machine.folder.path.parent / "out.csv"
    for act in (
        lambda: export_focus(machine.folder.path.parent, RUN_ID, out),
        lambda: price_again(machine.folder.path.parent, RUN_ID, load_price_card(None), hardware=None),
    ):
        with pytest.raises(RecordError, match=r"ledger\.jsonl: is not there: the run has no ledger; do not trust"):
            act()
    assert (sorted(machine.folder.path.iterdir()), out.exists()) == (before, False)


def test_a_run_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"run '{RUN_ID}': is not in "):
        verify_ledger(tmp_path, RUN_ID)


@pytest.mark.parametrize("text", ["{", '{"schema": 2}', None])
def test_results_that_cannot_be_read_are_a_finding(machine: Machine, text: str | None) -> None:
    results = finish(machine).folder.results
    results.unlink() if text is None else results.write_text(text)
    report = faults(machine)
    assert set(report) == {"files", "results"}
    assert report["results"].startswith(f"{results}: cannot be read: ")
    assert found(machine)["time"].startswith("100.00 %")


def test_verifying_changes_nothing(machine: Machine) -> None:
    with finish(machine).folder.ledger.open("ab") as file:
        file.write(b"{")
    before = {path: path.read_bytes() for path in machine.folder.path.rglob("*") if path.is_file()}
    verify(machine)
    assert {path: path.read_bytes() for path in machine.folder.path.rglob("*") if path.is_file()} == before


def test_an_export_adds_up_to_the_bill(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "charges.csv"
    finish(machine)
    assert export_focus(tmp_path, RUN_ID, out) == 10
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.1")
    numbers = [n for n, e in number_entries(read_journal(machine.folder.ledger)[0]) if e.record in BILLED]
    assert [int(row["x_Record"]) for row in rows] == numbers
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert verify(machine).ok


def test_an_export_of_a_run_that_goes_on(machine: Machine, tmp_path: Path) -> None:
    with Journal.open(machine.folder.ledger):
        assert export_focus(tmp_path, RUN_ID, tmp_path / "charges.csv") == 10


def test_an_export_overwrites_nothing(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "charges.csv"
    out.write_text("mine")
    dangling = tmp_path / "link.csv"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (out, dangling):
        with pytest.raises(ConfigError) as caught:
            export_focus(tmp_path, RUN_ID, path)
        assert str(caught.value) == f"--out: {path} exists and is not overwritten; name a new file"
    assert out.read_text() == "mine"


def test_an_export_keeps_out_of_the_run(machine: Machine, tmp_path: Path) -> None:
    out = finish(machine).folder.path / "charges.csv"
    with pytest.raises(ConfigError) as caught:
        export_focus(tmp_path, RUN_ID, out)
    assert str(caught.value) == (
        f"--out: {out} lies in the folder of the run, which holds its record and nothing else; name a file elsewhere"
    )
    assert verify(machine).ok


def test_an_export_into_no_folder_is_refused(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export_focus(tmp_path, RUN_ID, tmp_path / "none" / "charges.csv")
    problem = f"{tmp_path / 'none'} is not a folder"
    assert str(caught.value) == f"--out: {problem}; make the folder, or name a file elsewhere"
    assert caught.value.exit_code == 2
    with pytest.raises(RecordError, match="cannot be written: File name too long"):
        export_focus(tmp_path, RUN_ID, tmp_path / ("x" * 300))


def both(machine: Machine) -> Iterator[Callable[[], object]]:
    """An export and another price of the run."""
    runs = machine.folder.path.parent
    yield lambda: export_focus(runs, RUN_ID, runs / "out.csv")
    yield lambda: price_again(runs, RUN_ID, load_price_card(machine.folder.prices), hardware=None)


def refusals(machine: Machine) -> set[str]:
    """What an export and another price of the run are refused with: once where both say the same."""
    found = set()
    for act in both(machine):
        with pytest.raises(RecordError) as caught:
            act()
        found.add(str(caught.value))
    assert not (machine.folder.path.parent / "out.csv").exists()
    return found


def link(path: Path) -> None:
    """Put a link to the same file in its place."""
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("lines", [0, 10, 19])
def test_a_ledger_of_an_ended_run_that_was_cut_is_neither_exported_nor_priced(machine: Machine, lines: int) -> None:
    ledger = finish(machine).folder.ledger
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:lines]))
    assert refusals(machine) == {f"{machine.folder.manifest}: ledger.jsonl has changed; {DISTRUST}"}
    # A seal of its own does not help: the results name the head.
    head = json.loads(machine.folder.results.read_bytes())["ledger_head"]
    machine.folder.write_manifest()
    named = f"results.json ledger_head: names {head}, which is no record of the ledger"
    assert refusals(machine) == {f"{named}; {DISTRUST}"}
    # Nor does it help to take the seal away.
    machine.folder.manifest.unlink()
    assert refusals(machine) == {f"{named}; {DISTRUST}"}
    assert faults(machine)["head"] == named


def test_a_torn_ledger_of_an_ended_run_is_neither_exported_nor_priced(machine: Machine) -> None:
    with finish(machine).folder.ledger.open("ab") as file:
        file.write(b"{")
    assert refusals(machine) == {f"{machine.folder.manifest}: ledger.jsonl has changed; {DISTRUST}"}
    machine.folder.write_manifest()
    problem = "ends in 1 bytes of an unfinished record, though the run has ended"
    assert refusals(machine) == {f"{machine.folder.ledger}: {problem}; {DISTRUST}"}


def test_a_torn_tail_of_a_run_that_goes_on_is_said(machine: Machine, tmp_path: Path) -> None:
    assert describe_torn_tail(tmp_path, RUN_ID) is None
    with machine.folder.ledger.open("ab") as file:
        file.write(b"{")
    for act in both(machine):
        act()
    said = "the ledger ends in 1 bytes of an unfinished record: they are left out"
    assert describe_torn_tail(tmp_path, RUN_ID) == said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("make", [link, os.mkfifo, os.mkdir])
def test_a_ledger_that_is_no_plain_file_is_neither_read_nor_waited_for(
    machine: Machine, make: Callable[[Path], None], is_finished: bool
) -> None:
    if is_finished:
        finish(machine)
    ledger = machine.folder.ledger
    if make is not link:
        ledger.unlink()
    make(ledger)
    assert refusals(machine) == {f"{ledger}: is not a plain file; {DISTRUST}"}
    [finding] = verify(machine).findings
    assert (finding.name, finding.found, finding.ok) == ("chain", f"{ledger}: is not a plain file", False)
    assert finding.remedy == DISTRUST


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("make", [link, os.mkfifo])
def test_results_that_are_no_plain_file_are_a_finding(
    machine: Machine, make: Callable[[Path], None], is_finished: bool
) -> None:
    results = finish(machine).folder.results
    if not is_finished:
        machine.folder.manifest.unlink()
    if make is not link:
        results.unlink()
    make(results)
    assert faults(machine)["results"] == f"{results}: is not a plain file"
    assert refusals(machine) == {f"{results}: is not a plain file; {DISTRUST}"}


@pytest.mark.timeout(60)
def test_a_card_that_is_a_pipe_is_a_finding(machine: Machine, tmp_path: Path) -> None:
    machine.folder.prices.unlink()
    os.mkfifo(machine.folder.prices)
    assert faults(machine) == {"price card": f"{machine.folder.prices}: is not a plain file"}
    with pytest.raises(RecordError, match=r"prices\.yaml: is not a plain file; do not trust"):
        export_focus(tmp_path, RUN_ID, tmp_path / "out.csv")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_stands_in_the_place_of_a_manifest_is_a_finding(machine: Machine, make: Callable[[Path], None]) -> None:
    manifest = finish(machine).folder.manifest
    manifest.unlink()
    make(manifest)
    assert faults(machine) == {"files": f"{manifest}: is not a manifest"}
    assert refusals(machine) == {f"{manifest}: is not a manifest; {DISTRUST}"}


def test_a_manifest_that_is_nested_without_end_is_a_finding(machine: Machine) -> None:
    finish(machine).folder.manifest.write_text("[" * 200_000)
    assert faults(machine) == {"files": f"{machine.folder.manifest}: is not a manifest"}


def test_results_without_a_seal_are_held_against_the_ledger(machine: Machine) -> None:
    finish(machine).folder.manifest.unlink()
    assert verify(machine).ok
    assert found(machine)["results"] == "there and not sealed, the run has not ended: a resume writes them anew"
    with machine.process():
        pass
    assert verify(machine).ok
    assert found(machine)["head"] == "record 20 of 21"
    plain = json.loads(machine.folder.results.read_bytes())
    plain["bill"]["total_micro_usd"] = 1
    write_json(machine.folder.results, plain)
    assert faults(machine) == {"sums": "results.json: bill: total_micro_usd is 1, 100000 in the ledger"}


@pytest.mark.parametrize("amount", [10**400, -(10**400), 2**63], ids=["vast", "owed", "large"])
def test_an_amount_that_nobody_can_have_spent_is_a_finding(machine: Machine, amount: int) -> None:
    results = finish(machine, lambda plain: plain["bill"].update(total_micro_usd=amount)).folder.results
    problem = f"{results}: cannot be read: 1 validation error for Results"
    assert faults(machine) == {"results": problem}


@pytest.mark.parametrize(
    "amount", ["10000", True, 10_000.0, 10**400, -1], ids=["text", "bool", "float", "vast", "owed"]
)
def test_an_amount_in_the_ledger_that_no_meter_writes_is_found(machine: Machine, amount: object) -> None:
    records, _ = read_journal(machine.folder.ledger)
    records[1]["micro_usd"] = amount
    machine.folder.ledger.write_bytes(rechain(records))
    problem = f"a record is not as the meter wrote it: micro_usd is wrong, got {amount!r}"
    assert faults(machine) == {"records": f"ledger record 2: {problem}"}
    assert refusals(machine) == {f"ledger record 2: {problem}; {DISTRUST}"}


@pytest.mark.parametrize(("name", "value"), [("target", "another"), ("budget", "dime"), ("seed", 77)])
def test_a_cell_that_is_not_in_the_plan_is_found(machine: Machine, name: str, value: object) -> None:
    finish(machine, lambda plain: plain["cells"][0].update({name: value}))
    assert faults(machine)["sums"].startswith("results.json: cell cell-1 is not in the plan, got ")


LEAVE_CLOCK = "the clock was set, or the record is not genuine: repeat the run and leave the clock alone"


def moved(machine: Machine, place: int, key: str, seconds: float) -> None:
    """Date a record otherwise, in a chain of its own."""
    records, _ = read_journal(machine.folder.ledger)
    moment = datetime.fromisoformat(records[place][key]) + timedelta(seconds=seconds)
    records[place][key] = moment.isoformat(timespec="microseconds")
    machine.folder.ledger.write_bytes(rechain(records))


def test_a_record_that_is_dated_before_the_one_before_it_is_found(machine: Machine) -> None:
    # Record 2 is dated 36 s after record 1.
    moved(machine, 1, "time", -38.0)
    assert verify(machine).ok
    moved(machine, 1, "time", -0.5)
    [finding] = [finding for finding in verify(machine).findings if not finding.ok]
    assert finding.found == "ledger record 2: is dated 2.500 s before the record before it, and no clock_jump tells why"
    assert (finding.name, finding.remedy) == ("time", LEAVE_CLOCK)


def test_a_record_in_the_future_is_found(machine: Machine) -> None:
    moved(machine, 1, "time", 10 * 365 * 86_400)
    assert faults(machine)["time"].startswith("ledger record 3: is dated 3153")


@pytest.mark.parametrize(("place", "number"), [(-1, 20), (-2, 19)])
def test_a_clock_that_was_set_is_no_other_work(machine: Machine, place: int, number: int) -> None:
    records, _ = read_journal(machine.folder.ledger)
    for at in range(place, 0):
        moved(machine, at, "time", 100_000)
    [finding] = [finding for finding in verify(machine).findings if not finding.ok]
    assert records[18]["record"] == "settle"
    assert finding.found == (
        "ledger: 0.32 % of 100324.000 s explained, sessions: 1; at least 98 % must be: "
        f"record {number} is dated 100000.000 s later than its time explains"
    )
    assert finding.remedy == LEAVE_CLOCK


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-01T00:00:00", ""])
def test_a_wall_clock_that_is_none_is_found_as_by_an_export(machine: Machine, moment: str) -> None:
    records, _ = read_journal(machine.folder.ledger)
    records[1]["wall_clock"] = moment
    machine.folder.ledger.write_bytes(rechain(records))
    problem = f"ledger record 2: is not of a moment in UTC, got {moment!r} after 36000000000 ns"
    assert faults(machine) == {"time": problem}
    with pytest.raises(RecordError) as caught:
        export_focus(machine.folder.path.parent, RUN_ID, machine.folder.path.parent / "out.csv")
    assert str(caught.value) == f"{problem}; {DISTRUST}"


def test_a_ledger_that_was_changed_is_neither_exported_nor_priced(machine: Machine, tmp_path: Path) -> None:
    data = machine.folder.ledger.read_bytes()
    machine.folder.ledger.write_bytes(flipped(data, 100, 0))
    with pytest.raises(RecordError, match=r"record 1: is not what was written"):
        export_focus(tmp_path, RUN_ID, tmp_path / "charges.csv")
    with pytest.raises(RecordError, match=r"record 1: is not what was written"):
        price_again(tmp_path, RUN_ID, load_price_card(None), hardware="h100_sxm")
    assert not (tmp_path / "charges.csv").exists()


def test_a_run_is_priced_again(machine: Machine, tmp_path: Path) -> None:
    card = load_price_card(machine.folder.prices)
    rows = price_again(tmp_path, RUN_ID, card, hardware="big")
    assert [(row.node, row.account, row.old_micro_usd, row.new_micro_usd) for row in rows] == [
        ("released-1", "laboratory", 10_000, 360_000),
        ("cell-1", "attacker", 80_000, 2_880_000),
        ("cell-1", "laboratory", 10_000, 360_000),
        (None, "laboratory", 20_000, 720_000),
        (None, "attacker", 80_000, 2_880_000),
        (None, None, 100_000, 3_600_000),
    ]
    assert [row.new_micro_usd for row in price_again(tmp_path, RUN_ID, card, hardware=None)] == [
        row.old_micro_usd for row in rows
    ]
    with pytest.raises(ConfigError, match=r"^--shadow-price: 'bigger' has no price"):
        price_again(tmp_path, RUN_ID, card, hardware="bigger")
    with pytest.raises(ConfigError, match=r"^--shadow-price: '' has no price"):
        price_again(tmp_path, RUN_ID, card, hardware="")


def test_no_torch_is_loaded() -> None:
    code = "import sys, robustlab.engine.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
