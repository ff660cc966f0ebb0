"""The command that holds a judge against people, or the refusal margin against a judge. It loads no model library."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.cli.options import JsonFlag, Runs
from robustlab.cli.printing import print_rows
from robustlab.errors import ConfigError

if TYPE_CHECKING:
    from robustlab.measure.calibration import CalibrationReport, FoldReport
    from robustlab.stats.estimates import Estimate


def calibrate(
    judge: Annotated[
        str, typer.Argument(help="Id of the judge: rules, phrases, or refusal_margin with runs that measured it.")
    ],
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs, or results.json files, for refusal_margin.")
    ] = None,
    runs: Runs = Path("runs"),
    plot: Annotated[Path | None, typer.Option(help="SVG file to draw the margin's checkpoints in.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold a judge against the rows that people labelled, or the refusal margin against what was really generated."""
    if judge == "refusal_margin":
        _calibrate_margin(run_ids or [], runs, plot, as_json)
        return
    if run_ids or plot:
        raise ConfigError(judge, "is held against people and not against runs, got RUN or --plot", "leave them out")
    from robustlab.measure.calibration import calibrate, to_plain
    from robustlab.report.live import LiveLine

    report = calibrate(judge, progress=LiveLine().say)
    if as_json:
        print(json.dumps(to_plain(report), indent=2))
        return
    _print(report)


def _print(report: "CalibrationReport") -> None:
    from robustlab.measure.calibration import CONFIDENCE, FOLDING, NOTES, SOURCES

    title = f"judge {report.judge} against people, intervals of {CONFIDENCE:.0%}"
    print_rows(title, [_row("tune", report.tune), _row("held out", report.held_out)], False)
    both = report.replies_with_both_labels
    print(f"  {report.rows} rows, {report.replies} different replies, {both} of them with both labels")
    print(f"  folds   {FOLDING}")
    print(f"  source  {', '.join(f'{s.member} of {s.package}=={s.version}' for s in SOURCES)}")
    print(f"  note    {NOTES[report.judge]}")


def _calibrate_margin(run_ids: list[str], runs: Path, plot: Path | None, as_json: bool) -> None:
    from robustlab.engine.report import read_named
    from robustlab.record.run_folder import write_atomic
    from robustlab.report.correlation import (
        LEAST_CHECKPOINTS,
        LEAST_CORRELATION,
        calibrate_margin,
        margin_svg,
        to_plain,
    )

    if not run_ids:
        raise ConfigError("refusal_margin", "needs runs that measured it, got none", "name them after the judge")
    report = calibrate_margin([read_named(runs, name) for name in run_ids])
    if plot is not None:
        write_atomic(plot, margin_svg(report).encode("utf-8"))
    if as_json:
        print(json.dumps(to_plain(report), indent=2))
        return
    found, n = report.correlation, len(report.checkpoints)
    if found is None:
        print(f"{n} checkpoints, one of the two figures never changes: no correlation")
    else:
        print(f"{n} checkpoints, Pearson {_interval(found.pearson)}, Spearman {found.spearman:.3f}")
    asked = f"at least {LEAST_CORRELATION} over at least {LEAST_CHECKPOINTS} checkpoints is asked for"
    print(f"the margin {'may' if report.usable else 'must not'} stand in for the refusal rate at milestones: {asked}")


def _row(fold: str, found: "FoldReport") -> dict[str, object]:
    counts = {name.replace("_", " "): count for name, count in found.confusion.items()}
    kappa = "all alike" if found.kappa is None else _interval(found.kappa)
    return {"fold": fold, "rows": found.n, "accuracy": _interval(found.accuracy), "kappa": kappa, **counts}


def _interval(found: "Estimate") -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
