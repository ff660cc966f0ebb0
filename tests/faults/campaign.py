"""The campaign of `make faults`: kill a run at every failpoint and at random times, go on with it, and compare.

    python -m tests.faults.campaign --random 100 --out docs/reliability.json

Each fault has a folder, a cache and a run of its own. A run is killed, gone on with by ``robustlab resume`` (or, where
there was no plan yet, by the command that began it) and held against one that nothing disturbed.
"""

import argparse
import json
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustlab.failpoints import NAMES
from robustlab.record.provenance import collect_versions
from tests.faults.child import PASSED, Ended, run, warm_up
from tests.faults.evidence import LEFT_OUT, Evidence, find_differences, read_evidence
from tests.faults.workplace import NAME, Workplace, make_cells, make_guarded, make_mirrored, make_search

SCENARIOS: dict[str, Callable[[Path], Workplace]] = {
    "cells": make_cells,
    "search": make_search,
    "guarded": make_guarded,
    "mirrored": make_mirrored,
}
BEGIN, END = "<!-- counts: written by the campaign -->", "<!-- end of counts -->"
RANDOM_SHARES = {"cells": 0.6, "guarded": 0.2, "search": 0.2}
TORN_BYTES, OFTEN = 20, 6


@dataclass(frozen=True)
class Fault:
    """One run that is disturbed.

    Attributes:
        scenario: What is run.
        points: Failpoints, as ``name:count``, at which process after process is killed.
        seconds: Processor time after which the first process is killed; None to kill it at points alone.
        torn: Bytes that are cut off the ledger after the first kill, as a power cut could.
    """

    scenario: str
    points: tuple[str, ...] = ()
    seconds: float | None = None
    torn: int = 0

    @property
    def label(self) -> str:
        """How the report names it."""
        told = f"{self.seconds:.3f} s" if self.seconds is not None else " then ".join(self.points)
        return f"{self.scenario} at {told}" + (f", {self.torn} bytes torn" if self.torn else "")


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes:
        fault: What was done to it.
        kills: How often it was killed.
        faults: What differs from the undisturbed run; none where it survived.
    """

    fault: Fault
    kills: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed.

    Attributes:
        evidence: What it left behind.
        passed: Every failpoint that it passed, in order.
        seconds: Processor time that it took.
    """

    evidence: Evidence
    passed: tuple[str, ...]
    seconds: float


def prepare(scenario: str, root: Path) -> Undisturbed:
    """Run a scenario without a disturbance."""
    place = SCENARIOS[scenario](root)
    ended = run(place, log=True)
    if ended.code != 0:
        raise RuntimeError(f"the undisturbed run of {scenario} ended with {ended.code}: {ended.output[-2000:]}")
    passed = tuple((place.root / PASSED).read_text(encoding="utf-8").split())
    return Undisturbed(read_evidence(place.folder), passed, ended.seconds)


def list_point_faults(scenario: str, passed: Sequence[str], known: Collection[str] = ()) -> list[Fault]:
    """The first and the last passing of every failpoint that is not known yet; of what is passed often, two between."""
    faults = []
    for name, count in Counter(name for name in passed if name not in known).items():
        chosen = {1, count} | ({count // 3, 2 * count // 3} if count > OFTEN else set())
        faults += [Fault(scenario, (f"{name}:{number}",)) for number in sorted(chosen)]
    return faults


def list_faults(undisturbed: dict[str, Undisturbed], *, times: int, seed: int) -> list[Fault]:
    """Every fault of the campaign, in a fixed order."""
    cells, searched = undisturbed["cells"], undisturbed["search"]
    faults = list_point_faults("cells", cells.passed)
    faults += list_point_faults("search", searched.passed, cells.passed)
    for scenario, area in (("guarded", "released."), ("mirrored", "mirror.")):
        passed = [name for name in undisturbed[scenario].passed if name.startswith(area)]
        faults += list_point_faults(scenario, passed)
    draw = random.Random(seed)
    for scenario, share in RANDOM_SHARES.items():
        whole = undisturbed[scenario].seconds
        faults += [Fault(scenario, seconds=round(draw.uniform(0, whole), 3)) for _ in range(round(times * share))]
    for first in ("journal.record_written:60", "state.named:5", "store.announced:6"):
        for second in ("run.session_begun:1", "journal.record_ready:12"):
            faults.append(Fault("cells", (first, second)))
    for first in ("search.rung_reported:3", "search.ending_written:2"):
        faults.append(Fault("search", (first, "search.posted:1", "journal.record_synced:9")))
    torn = Fault("cells", ("journal.record_written:90", "journal.tail_dropped:1"), torn=TORN_BYTES)
    return [*faults, torn, Fault("cells", ("journal.record_written:120",), torn=1)]


def disturb(fault: Fault, undisturbed: Undisturbed, root: Path) -> Verdict:
    """Run, kill, go on until it ends, and compare."""
    place = SCENARIOS[fault.scenario](root)
    kills, waiting = 0, list(fault.points)
    ended = run(place, point=waiting.pop(0) if waiting else None, after=fault.seconds)
    while ended.killed:
        kills += 1
        if kills == 1 and fault.torn:
            _tear(place, fault.torn)
        ended = go_on(place, point=waiting.pop(0) if waiting else None)
    if ended.code != 0:
        lines = ended.output.strip().splitlines()
        return Verdict(fault, kills, (f"ended with {ended.code}: {lines[-1] if lines else 'no word'}",))
    return Verdict(fault, kills, tuple(find_differences(read_evidence(place.folder), undisturbed.evidence, kills)))


def go_on(place: Workplace, *, point: str | None = None) -> Ended:
    """Go on with a run that was killed: by its name, or where it has no plan yet by the command that began it."""
    resume = ("resume", NAME, "--runs", "runs") if (place.folder / "plan.yaml").is_file() else ()
    return run(place, *resume, point=point)


def _tear(place: Workplace, count: int) -> None:
    ledger = place.folder / "ledger.jsonl"
    with ledger.open("rb+") as file:
        file.truncate(ledger.stat().st_size - count)


def main() -> None:
    """Run the campaign and write what became of every run."""
    options = _read_options()
    root = Path(tempfile.mkdtemp(prefix="robustlab-faults-"))
    started = time.monotonic()
    try:
        for scenario in ("guarded", "search"):
            warm_up(SCENARIOS[scenario](root / f"warm-{scenario}"))
        undisturbed = {scenario: prepare(scenario, root / scenario) for scenario in SCENARIOS}
        faults = [
            f
            for f in list_faults(undisturbed, times=options.random, seed=options.seed)
            if re.search(options.only, f.label)
        ]
        verdicts = list(_judge(faults[:: options.every], undisturbed, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    document = summarise(verdicts, undisturbed, seed=options.seed, seconds=time.monotonic() - started)
    options.out.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n{describe(document)}{END}{rest.partition(END)[2]}", encoding="utf-8")
    told = {name: document["counts"][name] for name in ("injected", "survived", "lost")}
    sys.stderr.write(f"{told}\n")
    sys.exit(1 if told["lost"] or document["never_passed"] else 0)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--random", type=int, default=100, help="runs that are killed at a random time")
    parser.add_argument("--seed", type=int, default=6, help="of the random times")
    parser.add_argument("--only", default="", help="pattern of the labels of the faults that are wanted")
    parser.add_argument("--every", type=int, default=1, help="only every so-and-so-many-th of them")
    parser.add_argument("--page", type=Path, help="page of documentation whose table of counts is written anew")
    parser.add_argument("--out", type=Path, required=True, help="file for the counts and what was lost")
    return parser.parse_args()


def _judge(faults: Sequence[Fault], undisturbed: dict[str, Undisturbed], root: Path) -> Iterable[Verdict]:
    """Every fault's verdict; a run that ended before its random time came is tried again with an earlier one."""
    draw = random.Random(len(faults))
    for number, planned in enumerate(faults, start=1):
        verdict = _judge_one(f"{number}/{len(faults)}", planned, undisturbed, root / f"fault-{number}")
        while not verdict.kills and verdict.fault.seconds is not None:
            yield verdict
            earlier = replace(planned, seconds=round(draw.uniform(0, verdict.fault.seconds), 3))
            verdict = _judge_one(f"{number}/{len(faults)} again", earlier, undisturbed, root / f"fault-{number}")
        yield verdict


def _judge_one(number: str, fault: Fault, undisturbed: dict[str, Undisturbed], place: Path) -> Verdict:
    try:
        verdict = disturb(fault, undisturbed[fault.scenario], place)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        verdict = Verdict(fault, 1, (f"{type(error).__name__}: {error}",))
    shutil.rmtree(place, ignore_errors=True)
    outcome = "; ".join(verdict.faults) or ("survived" if verdict.kills else "ended before it was killed")
    sys.stderr.write(f"{number} {fault.label}: {outcome}\n")
    return verdict


def summarise(
    verdicts: Sequence[Verdict], undisturbed: dict[str, Undisturbed], *, seed: int, seconds: float
) -> dict[str, Any]:
    """The document of a campaign."""
    hit = [verdict for verdict in verdicts if verdict.kills]
    groups: dict[str, list[Verdict]] = {"failpoints": [], "random times": [], "several kills": []}
    for verdict in hit:
        several = len(verdict.fault.points) > 1 or verdict.fault.torn > 0
        timed = verdict.fault.seconds is not None
        groups["several kills" if several else "random times" if timed else "failpoints"].append(verdict)
    passed = {name for each in undisturbed.values() for name in each.passed} | {
        point.partition(":")[0] for verdict in hit for point in verdict.fault.points
    }
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "command": f"python -m tests.faults.campaign {' '.join(sys.argv[1:])}",
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": collect_versions(threads=1, device="cpu"),
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "left_out_of_results": LEFT_OUT,
        "undisturbed_seconds": {name: round(each.seconds, 2) for name, each in undisturbed.items()},
        "counts": _count(hit),
        "by_kind": {name: _count(group) for name, group in groups.items()},
        "ended_before_the_kill": len(verdicts) - len(hit),
        "failpoints": len(NAMES),
        "killed_at": sorted({p.partition(":")[0] for verdict in hit for p in verdict.fault.points}),
        "never_passed": sorted(set(NAMES) - passed),
        "lost": [{**asdict(each.fault), "faults": each.faults} for each in hit if each.faults],
    }


def describe(document: dict[str, Any]) -> str:
    """The counts of a campaign as Markdown."""
    rows = [*document["by_kind"].items(), ("**all**", document["counts"])]
    lines = ["| runs killed | injected | kills | survived | lost |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {n['injected']} | {n['kills']} | {n['survived']} | {n['lost']} |" for name, n in rows]
    versions = document["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "trl", "peft"))
    times = ", ".join(f"{name} {seconds} s" for name, seconds in document["undisturbed_seconds"].items())
    lines += [
        "",
        f"Made on {document['made']} in {document['minutes']} minutes by `{document['command']}`, seed "
        f"{document['seed']}: {versions['processor']}, {document['machine']}, 1 thread, {named}.",
        f"Failpoints: {document['failpoints']}, killed at {len(document['killed_at'])}. "
        f"Runs that ended before their random time came, and were begun again with an earlier one: "
        f"{document['ended_before_the_kill']}. "
        f"Processor time of the undisturbed runs: {times}.",
    ]
    lost = [
        f"* {each['scenario']} at {each['points'] or each['seconds']}: {each['faults'][0]}" for each in document["lost"]
    ]
    return "\n".join([*lines, *(["", "Lost:", *lost] if lost else []), ""])


def _count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    lost = sum(bool(each.faults) for each in verdicts)
    kills = sum(each.kills for each in verdicts)
    return {"injected": len(verdicts), "kills": kills, "survived": len(verdicts) - lost, "lost": lost}


if __name__ == "__main__":
    main()
