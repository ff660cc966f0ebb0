"""What a run left behind, and what differs from the run that nothing disturbed.

Equal, byte for byte: ``items.jsonl``, ``plan.yaml``, ``results.json`` without the keys of ``LEFT_OUT``, and the sha256
of every modification that was ever saved. Of the bill: what was used twice is what was done twice, unit by unit.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab.cost.entries import BILLED, TIMED
from robustlab.cost.timeline import explain_time
from robustlab.engine.ledger import EXPLAINED_SHARE, verify_ledger
from robustlab.errors import RobustlabError
from robustlab.record.custody import balance
from robustlab.record.journal import read_journal
from robustlab.record.run_folder import RunFolder

LEFT_OUT = {
    "cost": "measured time and its price, with what was repeated",
    "phases": "the same, phase by phase",
    "bill": "the same, of the run",
    "purses": "the same, of each budget",
    "caps_used": "the same, as shares of the caps",
    "attacker_micro_usd": "the same, at one moment",
    "broken_at_micro_usd": "the same, at the moment of a break",
    "cost_to_find": "the same, of a search",
    "cost_to_replay_micro_usd": "the same, of its winner",
    "ledger_head": "the hash of a ledger that says when and how often the run was begun",
    "peak_memory_bytes": "measured, of one process",
    "cached": "whether this process found shared work or did it",
}
"""Keys of results.json that no two runs share, and why."""
COUNTS = ("train_tokens", "prompt_tokens", "generated_tokens", "steps", "flops")
Unit = tuple[Any, ...]


@dataclass(frozen=True)
class Evidence:
    """What a finished run left behind.

    Attributes:
        folder: The run's folder.
        records: Its ledger.
        results: ``results.json``.
    """

    folder: RunFolder
    records: list[dict[str, Any]]
    results: dict[str, Any]

    @property
    def states(self) -> set[tuple[str, str]]:
        """Every resumable state that was ever announced: its name with the sha256 of the modification in it."""
        found = [record for record in self.records if record.get("kind") == "custody"]
        return {(r["artefact"], r["sha256"]) for r in found if r["artefact"].startswith("resume/")}

    @property
    def processes(self) -> list[list[dict[str, Any]]]:
        """The ledger, cut where a process began to work on the run; what came before the first is its own."""
        parts: list[list[dict[str, Any]]] = [[]]
        for record in self.records:
            if record.get("kind") == "session":
                parts.append([])
            parts[-1].append(record)
        return parts[1:]


def read_evidence(folder: Path) -> Evidence:
    """Read a finished run."""
    run = RunFolder(folder)
    return Evidence(run, read_journal(run.ledger)[0], json.loads(run.results.read_text(encoding="utf-8")))


def find_differences(found: Evidence, undisturbed: Evidence, crashes: int) -> list[str]:
    """Say what a run that was killed and gone on with lacks, or shows, that one that was left alone does not.

    Args:
        found: The run that was killed.
        undisturbed: The same, left alone.
        crashes: How often it was killed.

    Returns:
        One sentence for each; none where the run survived.
    """
    faults = _compare_record(found, undisturbed) + _look_around(found) + _check_custody(found, undisturbed)
    return faults + _check_bill(found, undisturbed, crashes)


def units_of(records: list[dict[str, Any]]) -> list[Unit]:
    """Units of work that a process has settled: where they belong and what they counted, in order."""
    timed = [record for record in records if record.get("record") in TIMED and any(_counts_of(record))]
    return [(r["node"], r["account"], r["phase"], *_counts_of(r)) for r in timed]


def without(value: Any, keys: Any) -> Any:
    """Plain data without some keys, however deep."""
    if isinstance(value, dict):
        return {name: without(each, keys) for name, each in value.items() if name not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value


def _compare_record(found: Evidence, undisturbed: Evidence) -> list[str]:
    faults = []
    for name in ("items", "plan"):
        ours, theirs = (getattr(each.folder, name).read_bytes() for each in (found, undisturbed))
        if ours != theirs:
            faults.append(f"{name} differs")
    ours, theirs = (without(each.results, LEFT_OUT) for each in (found, undisturbed))
    faults += [f"results.json: {place} differs" for place in list_places(ours, theirs)[:5]]
    return faults


def list_places(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return [p for name in ours for p in list_places(ours[name], theirs[name], f"{place}/{name}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [p for n, each in enumerate(ours) for p in list_places(each, theirs[n], f"{place}/{n}")]
    same = type(ours) is type(theirs) and json.dumps(ours) == json.dumps(theirs)
    return [] if same else [place or "/"]


def _look_around(found: Evidence) -> list[str]:
    folder = found.folder
    faults = [f"{path.name} is left in resume/" for path in folder.resume.iterdir()]
    faults += [f"{path.name} is left over" for path in folder.path.rglob(".*") if "wandb" not in path.parts]
    try:
        folder.check_manifest()
    except RobustlabError as error:
        faults.append(str(error))
    findings = verify_ledger(folder.path.parent, folder.run_id).findings
    if _is_time_explained(found):
        findings = tuple(each for each in findings if each.name != "time")
    faults += [f"ledger {each.name}: {each.found}" for each in findings if not each.ok]
    return faults


def _is_time_explained(found: Evidence) -> bool:
    """Whether the ledger explains 98 % of every process, of a killed one up to what it had settled last."""
    *killed, last = found.processes
    kept = [part[: 1 + max(n for n, r in enumerate(part) if n == 0 or r.get("record") in TIMED)] for part in killed]
    share = explain_time([r for part in [*(part for part in kept if len(part) > 1), last] for r in part]).share
    return share is not None and share >= EXPLAINED_SHARE


def _check_custody(found: Evidence, undisturbed: Evidence) -> list[str]:
    faults = []
    if found.states != undisturbed.states:
        faults.append("a modification that was saved is another")
    drawn, expected = balance(found.records), balance(undisturbed.records)
    if drawn.live:
        faults.append(f"custody has {', '.join(drawn.live)} live")
    if drawn.kept != expected.kept:
        faults.append(f"custody keeps {drawn.kept} artefacts, got {expected.kept} undisturbed")
    places = (*found.folder.path.glob("transcripts/*/*.json"), *found.folder.path.glob("adapters/*.sealed"))
    present = {str(path.relative_to(found.folder.path)) for path in places}
    told = {(r["artefact"], r["event"]) for r in found.records if r.get("kind") == "custody"}
    if present != {name for name, event in told if event == "kept"}:
        faults.append("what is kept there is not what custody keeps")
    return faults


def _check_bill(found: Evidence, undisturbed: Evidence, crashes: int) -> list[str]:
    """What was done twice, and nothing else, is on the bill twice.

    A process that goes on does the last units of the undisturbed run; the first process did the first of them. Where
    the two overlap, units were repeated.
    """
    faults: list[str] = []
    whole = units_of(undisturbed.records)
    parts = found.processes
    if len(parts) > crashes + 1:
        faults.append(f"{len(parts)} processes worked on the run, got {crashes} crashes")
    done = [units_of(part) for part in parts]
    faults += _check_order(done, whole)
    faults += _check_crashes(parts) + _check_imputed(found, undisturbed)
    billed, due = _sum_billed(found.records), _sum_billed(undisturbed.records)
    repeated = Counter[str]()
    for name, at in zip(COUNTS, range(3, 3 + len(COUNTS)), strict=True):
        repeated[name] = sum(unit[at] for each in done for unit in each) - sum(unit[at] for unit in whole)
        repeated[name] += sum(record["quantities"][name] for record in found.records if record.get("record") == "crash")
    for name in COUNTS:
        if billed[name] != due[name] + repeated[name]:
            faults.append(
                f"the bill has {billed[name]} {name}, got {due[name]} undisturbed and {repeated[name]} repeated"
            )
    return faults


def _check_order(done: list[list[Unit]], whole: list[Unit]) -> list[str]:
    """Each process goes on in what was done by then and does what the undisturbed run did; the last one ends it."""
    reached = 0
    for number, part in enumerate(done, start=1):
        starts = [at for at in range(reached + 1) if whole[at : at + len(part)] == part]
        if not starts:
            return [f"process {number} did not do what the undisturbed run did"]
        reached = max(reached, starts[-1] + len(part))
    return [] if reached == len(whole) else ["units of work are missing from the bill"]


def _check_crashes(parts: list[list[dict[str, Any]]]) -> list[str]:
    """Every reservation that a process left open is charged in full by one that follows, and nothing else is."""
    left: dict[tuple[str, str], Any] = {}
    faults = []
    for record in (record for part in parts for record in part if "record" in record):
        key, kind = (record["node"], record["purse"]), record["record"]
        if kind == "reserve":
            left[key] = record["quantities"]
        elif kind == "crash" and left.pop(key, None) != record["quantities"]:
            faults.append(f"{key[0]} was charged for a reservation that was not left open")
        elif kind in TIMED:
            left.pop(key, None)
    return faults + [f"{node} has a reservation that nobody paid for" for node, _ in left]


def _check_imputed(found: Evidence, undisturbed: Evidence) -> list[str]:
    """What is imputed, such as a load, is imputed once, however many processes there were."""

    def imputed(each: Evidence) -> Counter[tuple[str, str]]:
        return Counter((r["node"], r["phase"]) for r in each.records if r.get("record") == "impute")

    ours, theirs = imputed(found), imputed(undisturbed)
    more = {key for key in ours if ours[key] > max(1, theirs[key])} | {key for key in theirs if ours[key] < theirs[key]}
    return [f"{node} {phase} was imputed {ours[node, phase]} times" for node, phase in sorted(more)]


def _counts_of(record: dict[str, Any]) -> tuple[int, ...]:
    return tuple(record["quantities"][name] for name in COUNTS)


def _sum_billed(records: list[dict[str, Any]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for record in records:
        if record.get("record") in BILLED:
            sums.update({name: record["quantities"][name] for name in COUNTS})
    return sums
