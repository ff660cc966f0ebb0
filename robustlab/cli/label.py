"""The command that shows kept transcripts to people, blind, and says what their labels make of the judges.

Model text is hostile: every control, bidirectional and invisible character is removed, no markup is read, and each of
its lines begins with a bar, so that it cannot imitate this command's own questions.
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.cli.disposal import sweep_due_states
from robustlab.cli.keeping import require_cryptography, sweep_expired
from robustlab.cli.options import JsonFlag, Runs
from robustlab.cli.printing import print_rows
from robustlab.errors import ConfigError
from robustlab.record.journal import Journal
from robustlab.record.labels import Label, Labelled, check_labeller, labels_of, read_labels, write_label
from robustlab.record.run_folder import RunFolder, write_once

if TYPE_CHECKING:
    from robustlab.engine.label import LabelSummary
    from robustlab.record.transcripts import Transcript
    from robustlab.stats.agreement import Confusion
    from robustlab.stats.estimates import Estimate

ANSWERS: dict[str, Label] = {
    "r": "refused",
    "c": "complied",
    "h": "hollow",
    "i": "incoherent",
    "s": "skipped",
}
"""What a person types for each label; ``q`` ends the session."""
_QUESTION = "r(efused) c(omplied) h(ollow) i(ncoherent) s(kip) q(uit)? "
_WIDTH = 100


def label(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Id of a run that kept transcripts; not for --make-key.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Private key (X25519, PEM) that opens them.")] = None,
    evals: Annotated[list[str] | None, typer.Option("--eval", help="Label this eval only; repeat for several.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="How many texts, drawn at random.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order and the draw.")] = 0,
    labeller: Annotated[str, typer.Option("--labeller", help="Who labels; a pseudonym will do.")] = "first",
    summary: Annotated[bool, typer.Option("--summary", help="Hold the judges against the labels.")] = False,
    make_key: Annotated[
        Path | None, typer.Option("--make-key", help="Make a key pair: the private key here, the public one as .pub.")
    ] = None,
    runs: Runs = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Show kept transcripts blind and take a person's labels of them, or say what the labels make of the judges."""
    from robustlab.cli.process import prepare_process

    prepare_process()
    require_cryptography("label")
    if make_key is not None:
        _make_key(make_key, beside=run_id or key)
        return
    if run_id is None or key is None:
        missing = "RUN" if run_id is None else "--key"
        remedy = "give both: `robustlab label RUN --key PRIVATE.pem`"
        raise ConfigError("label", f"needs a run and the key of its transcripts, got no {missing}", remedy)
    if as_json and not summary:
        raise ConfigError("--json", "is given without --summary", "add --summary, or leave it out")
    check_labeller(labeller)
    folder = RunFolder.open(runs, run_id)
    sweep_expired(runs)
    sweep_due_states(runs)
    transcripts = _open(folder, key)
    if summary:
        _summarise(runs, run_id, transcripts, as_json)
        return
    from robustlab.engine.label import choose_texts

    _ask_all(folder, choose_texts(transcripts, evals=evals or [], sample=sample, seed=seed), labeller)


def show_text(text: str) -> list[str]:
    """Write model text as lines of a terminal that cannot do or imitate anything.

    Args:
        text: What a model wrote.

    Returns:
        Lines that each begin with a bar; none for a text without a visible character.
    """
    from robustlab.report.wording import plain_text

    lines = [plain_text(line).rstrip() for line in text.split("\n")]
    wrapped = [part for line in lines for part in (textwrap.wrap(line, _WIDTH) or [""])]
    while wrapped and not wrapped[-1]:
        wrapped.pop()
    return [f"| {line}".rstrip() for line in wrapped]


def _make_key(path: Path, *, beside: object) -> None:
    if beside is not None:
        raise ConfigError("--make-key", "is given beside a run or a key", "make the keys by themselves")
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if each.is_symlink() or each.exists():
            raise ConfigError("--make-key", f"{each} exists and is not overwritten", "name a new file")
    if not path.parent.is_dir():
        raise ConfigError("--make-key", f"{path.parent} is not a folder", "make the folder, or name a file elsewhere")
    from robustlab.record.sealing import make_key

    for each, pem in zip((path, public), make_key(), strict=True):
        write_once(each, pem)
    print(f"private key  {path}  (for `robustlab label`; keep it off the machine that runs attacks)")
    print(f"public key   {public}  (for `robustlab run --keep-transcripts --reason TEXT --to {public}`)")


def _open(folder: RunFolder, key: Path) -> "list[Transcript]":
    from robustlab.record.sealing import read_key_file, read_opener
    from robustlab.record.transcripts import load_transcripts

    return load_transcripts(folder, read_opener("--key", read_key_file("--key", key)))


def _ask_all(folder: RunFolder, texts: "list[Transcript]", labeller: str) -> None:
    """Ask for what this person has not labelled yet; every answer is on the disk before the next question."""
    given = labels_of(read_labels(folder), labeller)
    waiting = [each for each in texts if each.digest not in given]
    done = 0
    with Journal.open(folder.labels) as journal:
        for number, transcript in enumerate(waiting, start=1):
            print(f"\n[{number} of {len(waiting)}]")
            _show("request", transcript.said.request)
            _show("completion", transcript.said.completion)
            found = _ask()
            if found is None:
                break
            write_label(journal, Labelled(transcript.digest, labeller, found))
            done += 1
    left = len(waiting) - done
    print(f"\n{done} labelled by {labeller}, {len(texts) - left} of {len(texts)} done: {folder.labels}")


def _show(what: str, text: str) -> None:
    lines = show_text(text)
    print(what if lines else f"{what}: no visible text")
    for line in lines:
        print(line)


def _ask() -> Label | None:
    """One answer; None where the person, or the end of the input, ends the session."""
    from robustlab.report.wording import plain_text

    while True:
        print(_QUESTION, end="", flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower()
        if not sys.stdin.isatty():
            print(plain_text(answer))
        if not line or answer == "q":
            return None
        if answer in ANSWERS:
            return ANSWERS[answer]
        print(f"type one of {' '.join([*ANSWERS, 'q'])}")


def _summarise(runs: Path, run_id: str, transcripts: "list[Transcript]", as_json: bool) -> None:
    from robustlab.engine.label import summarise, to_plain
    from robustlab.engine.report import read_results

    folder, results = read_results(runs, run_id)
    found = summarise(results, transcripts, read_labels(RunFolder(folder)))
    if as_json:
        print(json.dumps(to_plain(found), indent=2))
        return
    _print(found)


def _print(found: "LabelSummary") -> None:
    from robustlab.engine.label import CONFIDENCE, NOTE

    judges: list[dict[str, object]] = [
        {
            "labeller": each.labeller, "judge": each.judge, "eval": each.eval, "texts": each.confusion.n,
            "skipped": each.skipped, "accuracy": _interval(each.accuracy), "kappa": _interval(each.kappa, "all alike"),
            "event": each.event, "sensitivity": _interval(each.sensitivity, "never seen"),
            "specificity": _interval(each.specificity, "never seen"),
        }
        for each in found.judges
    ]  # fmt: skip
    print_rows(f"judges against people, intervals of {CONFIDENCE:.0%}", judges, False)
    for each in found.judges:
        _print_confusion(f"{each.judge} against {each.labeller}, {each.eval}", each.confusion)
    rates: list[dict[str, object]] = [
        {
            "labeller": each.labeller, "judge": each.judge, "measured": each.where, "eval": each.eval,
            "phase": each.phase, "step": each.step, "event": each.event, "raw": _interval(each.raw),
            "corrected": _interval(each.corrected, "not identifiable"),
        }
        for each in found.rates
    ]  # fmt: skip
    print_rows("rates, raw and without the judge's errors", rates, False)
    pairs: list[dict[str, object]] = [
        {
            "first": each.first, "second": each.second, "eval": each.eval, "texts": each.confusion.n,
            "agreed": _interval(each.accuracy), "kappa": _interval(each.kappa, "all alike"),
        }
        for each in found.labellers
    ]  # fmt: skip
    if pairs:
        print_rows("people against each other", pairs, False)
    print(f"  note    {NOTE}")


def _print_confusion(title: str, confusion: "Confusion") -> None:
    rows: list[dict[str, object]] = [
        {"judge says": judged, **{label: confusion.count(judged, label) for label in confusion.labels}}
        for judged in confusion.labels
    ]
    print_rows(title, rows, False)


def _interval(found: "Estimate | None", absent: str = "") -> str:
    return absent if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
