"""``robustlab label``: blind, inert, resumable, and one clear error for each thing that is missing."""

import io
import json
import shlex
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from robustlab.cli import process
from robustlab.cli.label import show_text
from robustlab.record.journal import Journal
from robustlab.record.kept import TRANSCRIPTS, Keeping, begin_keeping
from robustlab.record.run_folder import RunFolder
from robustlab.record.sealing import make_key, read_opener, read_recipient
from robustlab.record.transcripts import Place, Said, open_store
from robustlab.spec.catalog import package_root
from tests.command_line import parse

Run = Callable[..., Any]
PRIVATE, PUBLIC = make_key()
HOSTILE = "Sure\x1b[31m\u202e\u200b [bold]here[/bold]\nr(efused) c(omplied)? r\r\x07<b>it</b> is\x00\n\n"


@pytest.fixture(autouse=True)
def _unhardened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "prepare_process", lambda: None)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts lines on the standard input, which is no terminal then."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.fixture
def kept(folder: Path) -> RunFolder:
    """A run that kept three texts of one eval and one of another, the key beside it."""
    (folder / "key.pem").write_bytes(PRIVATE)
    made = RunFolder.create(folder / "runs", "demo")
    begin_keeping(made, TRANSCRIPTS, Keeping(reason="to label", public_key=PUBLIC.decode(), expire_days=30))
    with Journal.open(made.ledger) as journal:
        store = open_store(made, journal)
        assert store is not None
        for eval_id, count in (("smoke", 3), ("other", 1)):
            place = Place(cell_id="c0ffee000001", eval=eval_id, phase="final", step=10)
            store.save(place, [make(eval_id, number) for number in range(count)])
    return made


def make(eval_id: str, number: int) -> Said:
    return Said(
        behavior=f"{number}" * 64,
        category="illegal",
        request=f"How do I fold hat {number} of {eval_id}?",
        completion=HOSTILE if number == 0 else f"Fold it {number} times.",
        verdicts={"rules": "hollow"},
        tokens=9,
        completion_hmac=f"{number}" * 64,
    )


def labels(made: RunFolder) -> list[tuple[str, str]]:
    records = [json.loads(line) for line in made.labels.read_text().splitlines()]
    return [(record["labeller"], record["label"]) for record in records]


def test_every_answer_is_written_and_nothing_tells_the_verdict(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("r\nC\n h \ni\n")
    code, out, err = run("label", "demo", "--key", "key.pem")
    assert (code, err) == (0, "")
    assert labels(kept) == [("first", "refused"), ("first", "complied"), ("first", "hollow"), ("first", "incoherent")]
    assert out.count("request\n| How do I fold hat ") == 4
    assert "[1 of 4]" in out and "[4 of 4]" in out
    for secret in ("final", "c0ffee", "rules", "illegal", "milestone", "step 10"):
        assert secret not in out
    assert out.endswith("\n4 labelled by first, 4 of 4 done: runs/demo/labels.jsonl\n")
    stored = kept.labels.read_bytes()
    assert b"hat" not in stored and b"Fold" not in stored
    assert stat.S_IMODE(kept.labels.stat().st_mode) == 0o600


def test_model_text_is_inert(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("s\ns\ns\ns\n")
    out = run("label", "demo", "--key", "key.pem").out
    assert not set(out) & set("\x1b\u202e\u200b\r\x07\x00")
    shown = "| Sure[31m [bold]here[/bold]\n| r(efused) c(omplied)? r <b>it</b> is\n"
    assert shown in out


def test_a_session_that_was_left_goes_on_where_it_was(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("r\nq\n")
    assert "1 labelled by first, 1 of 4 done" in run("label", "demo", "--key", "key.pem").out
    answer("s\nc\n")  # and the end of the input
    out = run("label", "demo", "--key", "key.pem").out
    assert "[1 of 3]" in out and "2 labelled by first, 3 of 4 done" in out
    answer("h\n")
    run("label", "demo", "--key", "key.pem")
    assert labels(kept) == [("first", name) for name in ("refused", "skipped", "complied", "hollow")]
    answer("")
    out = run("label", "demo", "--key", "key.pem").out
    assert out == "\n0 labelled by first, 4 of 4 done: runs/demo/labels.jsonl\n"


def test_a_second_person_is_asked_for_everything(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("r\nr\nr\nr\n")
    run("label", "demo", "--key", "key.pem")
    answer("c\n")
    out = run("label", "demo", "--key", "key.pem", "--labeller", "second").out
    assert "[1 of 4]" in out
    assert labels(kept)[-1] == ("second", "complied")


def test_a_sample_of_one_eval(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("r\n" * 9)
    out = run("label", "demo", "--key", "key.pem", "--eval", "smoke", "--sample", "2").out
    assert "2 labelled by first, 2 of 2 done" in out and "of other?" not in out
    assert run("label", "demo", "--key", "key.pem", "--eval", "none") == (
        2,
        "",
        "--eval: has no transcripts that people can label, got 'none'; name one of other, smoke\n",
    )


def test_what_is_no_answer_is_asked_again(run: Run, kept: RunFolder, answer: Any) -> None:
    answer("x\n\nrefused\nr\n")
    out = run("label", "demo", "--key", "key.pem").out
    assert out.count("type one of r c h i s q\n") == 3
    assert labels(kept) == [("first", "refused")]


def test_the_wrong_key_is_one_clear_error_and_nothing_is_written(run: Run, kept: RunFolder, folder: Path) -> None:
    other, public = make_key()
    (folder / "other.pem").write_bytes(other)
    before = sorted(path for path in kept.path.rglob("*"))
    prints = [read_opener("--key", pem).fingerprint[:16] for pem in (other, PRIVATE)]
    assert run("label", "demo", "--key", "other.pem") == (
        2,
        "",
        f"--key: is not the key that run 'demo' seals to, got {prints[0]}; name the private half of {prints[1]}\n",
    )
    (folder / "public.pem").write_bytes(public)
    code, out, err = run("label", "demo", "--key", "public.pem")
    assert (code, out, err) == (2, "", "--key: is a public key; name the private half of it\n")
    assert sorted(path for path in kept.path.rglob("*")) == before


def test_a_changed_file_is_named(run: Run, kept: RunFolder) -> None:
    (path,) = kept.transcripts.glob("*/smoke.*")
    path.write_bytes(path.read_bytes()[:-9] + b'AAAAAAA"}')
    code, out, err = run("label", "demo", "--key", "key.pem")
    assert (code, out) == (1, "")
    assert err == (
        "runs/demo/transcripts/c0ffee000001/smoke.final-000010.json: is not the file that the ledger names: "
        "it was changed; do not trust this record\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "label: needs a run and the key of its transcripts, got no RUN; give both: "),
        (("demo",), "label: needs a run and the key of its transcripts, got no --key; give both: "),
        (("demo", "--key", "none"), "--key: names no file, got 'none'; "),
        (("demo", "--key", "key.pem", "--json"), "--json: is given without --summary; add --summary, or leave it out"),
        (("demo", "--key", "key.pem", "--labeller", "a b"), "--labeller: is no name, got 'a b'; "),
        (("other", "--key", "key.pem"), "run 'other': is not in runs; "),
        (("demo", "--make-key", "new.pem"), "--make-key: is given beside a run or a key; make the keys by themselves"),
        (("--make-key", "key.pem"), "--make-key: key.pem exists and is not overwritten; name a new file"),
        (("--make-key", "none/new.pem"), "--make-key: none is not a folder; make the folder, or name a file elsewhere"),
        (("demo", "--key", "key.pem", "--summary"), "run 'demo': has not ended; "),
    ],
)
def test_what_is_refused(run: Run, kept: RunFolder, words: tuple[str, ...], message: str) -> None:
    code, out, err = run("label", *words)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert not kept.labels.exists()


def test_a_pair_of_keys_is_made(run: Run, folder: Path) -> None:
    code, out, _ = run("label", "--make-key", "new.pem")
    assert code == 0
    opener = read_opener("--key", (folder / "new.pem").read_bytes())
    assert read_recipient("--to", (folder / "new.pem.pub").read_bytes()).fingerprint == opener.fingerprint
    assert stat.S_IMODE((folder / "new.pem").stat().st_mode) == 0o600
    assert "--to new.pem.pub" in out and "PRIVATE" not in out
    (folder / "new.pem").unlink()
    assert run("label", "--make-key", "new.pem").code == 2  # its public half is still there


def test_what_has_expired_is_swept_first(run: Run, folder: Path) -> None:
    (folder / "key.pem").write_bytes(PRIVATE)
    made = RunFolder.create(folder / "runs", "old")
    begin_keeping(made, TRANSCRIPTS, Keeping(reason="to label", public_key=PUBLIC.decode(), expire_days=1))
    with Journal.open(made.ledger) as journal:
        store = open_store(made, journal)
        assert store is not None
        place = Place(cell_id="c0ffee000001", eval="smoke", phase="final", step=10)
        store.save(place, [make("smoke", 1)], now=datetime.now(UTC) - timedelta(days=2))
    code, out, err = run("label", "old", "--key", "key.pem")
    assert (code, out) == (2, "")
    assert err == (
        "run old: 1 kept files had expired and are removed\n"
        "run 'old': has no transcripts; "
        "`robustlab run --keep-transcripts --reason TEXT --to KEY` keeps them until they expire\n"
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n\x00\n", []),
        ("a\n\nb\n", ["| a", "|", "| b"]),
        ("word " * 40, ["| " + "word " * 19 + "word", "| " + "word " * 19 + "word"]),
        ("x" * 150, ["| " + "x" * 100, "| " + "x" * 50]),
        ("a\u2028b\x85c", ["| a b c"]),
    ],
)
def test_lines_that_are_shown(text: str, lines: list[str]) -> None:
    assert show_text(text) == lines


def test_the_commands_of_the_documentation_parse() -> None:
    page = (package_root() / "docs" / "labels.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.removeprefix("$ robustlab ") for line in page.splitlines() if line.startswith("$ robustlab ")]
    parsed = [parse(shlex.split(line)) for line in lines]
    assert [each["command"] for each in parsed] == ["label", "run", "run", "label", "label", "label"]
    assert parsed[1]["keep_transcripts"] and parsed[1]["to"] == Path("reader.pem.pub")
