"""The command that holds a judge against people: calibrate. It loads no model library."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.cli.options import JsonFlag
from robustlab.cli.printing import print_rows

if TYPE_CHECKING:
    from robustlab.measure.calibration import CalibrationReport, FoldReport
    from robustlab.stats.estimates import Estimate


def calibrate(
    judge: Annotated[str, typer.Argument(help="Id of the judge: rules.")],
    as_json: JsonFlag = False,
) -> None:
    """Hold a judge against the rows that people labelled: accuracy, kappa and counts on the tune and held-out folds."""
    from robustlab.measure.calibration import calibrate, to_plain
    from robustlab.report.live import LiveLine

    report = calibrate(judge, progress=LiveLine().say)
    if as_json:
        print(json.dumps(to_plain(report), indent=2))
        return
    _print(report)


def _print(report: "CalibrationReport") -> None:
    from robustlab.measure.calibration import CONFIDENCE, FOLDING, NOTE, SOURCES

    title = f"judge {report.judge} against people, intervals of {CONFIDENCE:.0%}"
    print_rows(title, [_row("tune", report.tune), _row("held out", report.held_out)], False)
    both = report.replies_with_both_labels
    print(f"  {report.rows} rows, {report.replies} different replies, {both} of them with both labels")
    print(f"  folds   {FOLDING}")
    print(f"  source  {', '.join(f'{s.member} of {s.package}=={s.version}' for s in SOURCES)}")
    print(f"  note    {NOTE}")


def _row(fold: str, found: "FoldReport") -> dict[str, object]:
    counts = {name.replace("_", " "): count for name, count in found.confusion.items()}
    kappa = "all alike" if found.kappa is None else _interval(found.kappa)
    return {"fold": fold, "rows": found.n, "accuracy": _interval(found.accuracy), "kappa": kappa, **counts}


def _interval(found: "Estimate") -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
