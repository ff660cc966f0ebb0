"""How far a judge of refusals agrees with people, on the refusals and answers that PyRIT's makers labelled by hand.

The rows fall into two folds by the hash of the reply, so that a reply with both labels never stands in both. Rules were
written on the tune fold alone; the held-out fold says what they are worth. The list of phrases was fixed before it saw
any row, so that for it the folds differ only in their rows. Nothing is fitted here, and no text of a row
leaves this module. The replies are of large fluent models: the figures do not transfer to a small attacked one.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from robustlab.data.layouts import LabelledRow, read_labelled_csv
from robustlab.data.sources import Progress, fetch_source
from robustlab.errors import ConfigError, DataError
from robustlab.measure.judge import JUDGE_ID as RULES
from robustlab.measure.judge import judge_text
from robustlab.measure.opinions import Question
from robustlab.measure.phrases import JUDGE_ID as PHRASES
from robustlab.measure.phrases import read_phrases
from robustlab.spec.sources import PypiSource
from robustlab.stats.agreement import Confusion, count_confusion, estimate_accuracy, estimate_kappa
from robustlab.stats.estimates import Estimate

Fold = Literal["tune", "held_out"]
CONFIDENCE = 0.95
TUNE_DIGITS = frozenset("01234567")
FOLDING = "sha256 of the reply, first hex digit 0-7: tune, 8-f: held out"
_ROWS = "rows are counted as if they were independent, though replies repeat"
NOTES: Mapping[str, str] = {
    RULES: f"{_ROWS}; without the coherence gate, which needs the untouched target",
    PHRASES: f"{_ROWS}; the list was fixed before it saw any of them",
}
"""What to know of each judge's figures."""
_FOLDER = "pyrit/datasets/scorer_evals/refusal_scorer"
_REFUSED, _ANSWERED = "refused", "answered"


def _source(name: str, sha256: str) -> PypiSource:
    member = f"{_FOLDER}/{name}"
    return PypiSource(kind="pypi", package="pyrit", version="1.1.0", member=member, sha256=sha256, licence="MIT")


SOURCES = (
    _source("refusal.csv", "1ebc42ef7dadd97962cc00d04edd6a52a321f7936c063ff3453d2bbcef30a5d7"),
    _source("refusal_extra.csv", "6ce7f61a8205eb8c29b1a247b52b3730501349f9adf0674a696efb004658a18a"),
)
"""The labelled rows. The wheel's ``sample/mini_refusal.csv`` is left out: its rows are among these."""


@dataclass(frozen=True)
class FoldReport:
    """The judge against people on one fold.

    Attributes:
        n: Rows.
        replies: Different replies among them.
        accuracy: Share of rows on which both say the same.
        kappa: Agreement beyond chance; None where all rows have one label and the judge gave it.
        confusion: Rows judged and labelled, see ``name_counts``.
    """

    n: int
    replies: int
    accuracy: Estimate
    kappa: Estimate | None
    confusion: dict[str, int]


@dataclass(frozen=True)
class CalibrationReport:
    """The judge against people.

    Attributes:
        judge: Its id.
        rows: Labelled rows of both folds.
        replies: Different replies among them.
        replies_with_both_labels: Replies that refuse one objective and answer another.
        tune: The fold on which the rules were written.
        held_out: The fold that no rule was written on.
    """

    judge: str
    rows: int
    replies: int
    replies_with_both_labels: int
    tune: FoldReport
    held_out: FoldReport


def load_rows(*, progress: Progress | None = None) -> list[LabelledRow]:
    """Load the labelled rows of every source, fetching what is not there.

    Args:
        progress: Told what is being waited for.

    Returns:
        All rows, source by source.

    Raises:
        DataError: If a source cannot be had, is not what was pinned, or holds a faulty row.
        RecordError: If the cache cannot be written.
    """
    paths = [fetch_source(source, progress=progress) for source in SOURCES]
    return [row for path in paths for row in read_labelled_csv(path.name, path.read_bytes())]


def calibrate(judge: str, *, progress: Progress | None = None) -> CalibrationReport:
    """Hold a judge against the labelled rows.

    Args:
        judge: Id of the judge: ``rules`` or ``phrases``.
        progress: Told what is being waited for.

    Returns:
        Agreement on each fold.

    Raises:
        ConfigError: If there is no such judge.
        DataError: If the rows cannot be had or are faulty, or a fold is empty.
    """
    if judge not in _REFUSED_BY:
        raise ConfigError("calibrate", f"there is no judge {judge!r}", f"name {RULES}, {PHRASES} or refusal_margin")
    return build_report(judge, load_rows(progress=progress))


def build_report(judge: str, rows: Sequence[LabelledRow]) -> CalibrationReport:
    """Have a judge that there is read every row, and count agreement in each fold; errors as for ``calibrate``."""
    labels: dict[str, set[bool]] = {}
    for row in rows:
        labels.setdefault(row.response, set()).add(row.refused)
    return CalibrationReport(
        judge=judge,
        rows=len(rows),
        replies=len(labels),
        replies_with_both_labels=sum(len(found) == 2 for found in labels.values()),
        tune=_judge_fold("tune", judge, rows),
        held_out=_judge_fold("held_out", judge, rows),
    )


def find_fold(response: str) -> Fold:
    """The fold of a reply, by the first hex digit of its sha256."""
    digest = hashlib.sha256(response.encode("utf-8")).hexdigest()
    return "tune" if digest[0] in TUNE_DIGITS else "held_out"


def name_counts(confusion: Confusion) -> dict[str, int]:
    """The four counts by name: what the judge made of what people called refusals and answers.

    Args:
        confusion: Counts of the labels ``refused`` and ``answered``.

    Returns:
        ``refusals_found`` (both say refused), ``refusals_missed`` (the judge alone says answered), ``false_refusals``
        (the judge alone says refused) and ``answers_found`` (both say answered).
    """
    return {
        "refusals_found": confusion.count(_REFUSED, _REFUSED),
        "refusals_missed": confusion.count(_ANSWERED, _REFUSED),
        "false_refusals": confusion.count(_REFUSED, _ANSWERED),
        "answers_found": confusion.count(_ANSWERED, _ANSWERED),
    }


def to_plain(report: CalibrationReport) -> dict[str, object]:
    """The report and where its rows come from, as plain JSON values.

    Args:
        report: The judge against people.

    Returns:
        In ``tune`` and ``held_out`` accuracy and kappa are numbers, kappa may be null, and the interval of either
        stands beside it, in ``accuracy_interval`` and ``kappa_interval``.
    """
    counts = asdict(report) | {"tune": _plain_fold(report.tune), "held_out": _plain_fold(report.held_out)}
    source = [item.model_dump(mode="json") for item in SOURCES]
    head = {"judge": counts.pop("judge"), "source": source, "folding": FOLDING, "confidence": CONFIDENCE}
    head["note"] = NOTES[report.judge]
    return {**head, **counts}


def _plain_fold(fold: FoldReport) -> dict[str, object]:
    found: dict[str, object] = {"n": fold.n, "replies": fold.replies}
    for name, estimate in (("accuracy", fold.accuracy), ("kappa", fold.kappa)):
        plain = None if estimate is None else asdict(estimate)
        found[name] = None if plain is None else plain.pop("value")
        found[f"{name}_interval"] = plain
    return found | {"confusion": fold.confusion}


def _judge_fold(fold: Fold, judge: str, rows: Sequence[LabelledRow]) -> FoldReport:
    chosen = [row for row in rows if find_fold(row.response) == fold]
    if not chosen:
        raise DataError(f"calibration, fold {fold}", f"has no rows, got 0 of {len(rows)}", "take the pinned files")
    judged = [_said(_REFUSED_BY[judge](row)) for row in chosen]
    confusion = count_confusion(judged, [_said(row.refused) for row in chosen])
    return FoldReport(
        n=len(chosen),
        replies=len({row.response for row in chosen}),
        accuracy=estimate_accuracy(confusion, confidence=CONFIDENCE),
        kappa=estimate_kappa(confusion, confidence=CONFIDENCE),
        confusion=name_counts(confusion),
    )


def _is_refused_by_rules(row: LabelledRow) -> bool:
    return judge_text(row.objective, row.response).verdict == "refused"


def _is_refused_by_phrases(row: LabelledRow) -> bool:
    """Whether the list says no; a reply of white space alone would be one, and there is none among the rows."""
    (opinion,) = read_phrases([Question(row.objective, None, row.response)])
    return opinion.says == "no"


def _said(refused: bool) -> str:
    return _REFUSED if refused else _ANSWERED


_REFUSED_BY: Mapping[str, Callable[[LabelledRow], bool]] = {
    RULES: _is_refused_by_rules,
    PHRASES: _is_refused_by_phrases,
}
