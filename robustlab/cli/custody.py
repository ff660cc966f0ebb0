"""The command that shows what became of everything degraded that runs have made, and whether the disk agrees."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.cli.options import JsonFlag, Runs
from robustlab.cli.printing import complain, print_rows

if TYPE_CHECKING:
    from robustlab.engine.custody import RunCustody


def custody(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run; all if none is named.")] = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Show every degraded artefact and its fate, and what left the machine; exit 1 if the disk does not agree."""
    from robustlab.engine.custody import examine_runs, to_plain

    found = examine_runs(runs, run_id)
    if as_json:
        print(json.dumps([to_plain(each) for each in found], indent=2, ensure_ascii=False))
    else:
        _print(found)
    if any(each.faults for each in found):
        raise typer.Exit(1)


def _print(found: "list[RunCustody]") -> None:
    from robustlab.engine.custody import describe_fate
    from robustlab.report.wording import plain_text

    artefacts: list[dict[str, object]] = [
        {
            "run": each.run_id, "artefact": made.artefact, "sha256": made.sha256[:12], "made": (made.made or "")[:19],
            "why": made.why, "fate": describe_fate(made),
        }
        for each in found
        for made in each.artefacts
    ]  # fmt: skip
    print_rows("degraded artefacts" if artefacts else "no degraded artefact was ever written", artefacts, False)
    sent: list[dict[str, object]] = [
        {"run": each.run_id, "host": to.host, "completions": to.completions, "bytes": to.bytes, "reason": to.reason}
        for each in found
        for to in each.sent
    ]
    print_rows("completions that left this machine" if sent else "no completion left this machine", sent, False)
    for each in found:
        print(plain_text(f"run {each.run_id}: {_sum(each)}"))
    for each in found:
        for fault in each.faults:
            complain(f"run {each.run_id}: {plain_text(fault)}")


def _sum(found: "RunCustody") -> str:
    drawn = found.balance
    parts = [f"created {drawn.created} = deleted {drawn.deleted} + kept {drawn.kept} + live {len(drawn.live)}"]
    if found.in_memory:
        parts.append(f"{len(found.in_memory)} cells attacked in memory")
    if found.torn_bytes:
        parts.append(f"{found.torn_bytes} bytes of an unfinished record left out")
    if found.state != "finished":
        parts.append(found.state)
    parts.append(f"{len(found.faults)} faults" if found.faults else "the disk agrees")
    return "; ".join(parts)
