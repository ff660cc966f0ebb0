"""``robustlab run --keep-transcripts``: refused before anything is spent when a part is missing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.cli import runs as run_commands
from robustlab.cli.keeping import read_keeping
from robustlab.record.kept import ADAPTERS, TRANSCRIPTS, Keeping
from robustlab.record.sealing import make_key

Run = Callable[..., Any]
PRIVATE, PUBLIC = make_key()
PLAN = ("--target", "tiny", "--attack", "control_smoke", "--budget", "smoke", "--eval", "smoke_refusal")
KEEP = "--keep-transcripts"
ADAPTER = "--keep-adapter"
EITHER = f"{KEEP} or {ADAPTER}"
ANY = f"{EITHER} or --send-completions HOST"
FLAG = "--asked"
"""Stands for either of them."""


@pytest.fixture
def key(folder: Path) -> Path:
    (folder / "key.pem").write_bytes(PRIVATE)
    (folder / "key.pub").write_bytes(PUBLIC)
    return folder / "key.pub"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((FLAG,), f"{FLAG}: needs a reason, got none; say why with --reason TEXT: it stands in the audit"),
        (
            (FLAG, "--reason", " "),
            f"{FLAG}: needs a reason, got none; say why with --reason TEXT: it stands in the audit",
        ),
        (
            (FLAG, "--reason", "a\nb", "--to", "key.pub"),
            "--reason: is no such line, got 3 characters; write one line of at most 500 characters",
        ),
        (
            (FLAG, "--reason", "x" * 501, "--to", "key.pub"),
            "--reason: is no such line, got 501 characters; write one line of at most 500 characters",
        ),
        (
            (FLAG, "--reason", "for hf_" + "a" * 30, "--to", "key.pub"),
            "--reason: holds a secret, and would be stored; write the reason without it",
        ),
        (
            (FLAG, "--reason", "to label"),
            f"{FLAG}: needs a key to seal to, got none; name a public key with --to KEY; "
            "`robustlab label --make-key FILE` makes a pair",
        ),
        (
            (FLAG, "--reason", "to label", "--to", "none"),
            "--to: names no file, got 'none'; `robustlab label --make-key FILE` makes a pair of keys",
        ),
        (
            (FLAG, "--reason", "to label", "--to", "key.pem"),
            "--to: is a private key; name its public half, and keep this one off the machine that runs attacks",
        ),
        (("--reason", "x"), f"--reason: is given without {ANY}; add {ANY}, or leave the flag out"),
        (("--to", "key.pub"), f"--to: is given without {EITHER}; add {EITHER}, or leave the flag out"),
        (("--expire-days", "3"), f"--expire-days: is given without {EITHER}; add {EITHER}, or leave the flag out"),
    ],
)
@pytest.mark.parametrize("asked", [KEEP, ADAPTER])
def test_a_missing_part_is_refused_before_a_folder_is_made(
    run: Run, key: Path, monkeypatch: pytest.MonkeyPatch, asked: str, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(run_commands, "prepare_process", lambda: pytest.fail("something was begun"))
    code, out, err = run("run", *PLAN, *(asked if word == FLAG else word for word in words))
    assert (code, out, err) == (2, "", f"{message.replace(FLAG, asked)}\n")
    assert not (key.parent / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (KEEP, f"{KEEP}: is given for a search, whose trials are thrown away; run the winner's recipe with it\n"),
        (
            ADAPTER,
            f"{ADAPTER}: is refused for a search: the adapters of its trials and of its winner are never kept; "
            "leave the flag out\n",
        ),
    ],
)
def test_a_search_keeps_nothing(run: Run, key: Path, monkeypatch: pytest.MonkeyPatch, asked: str, message: str) -> None:
    monkeypatch.setattr(run_commands, "prepare_process", lambda: pytest.fail("something was begun"))
    wanted = type("Wanted", (), {"search": object()})()
    monkeypatch.setattr(run_commands, "read_plan", lambda *_: wanted)
    monkeypatch.setattr(run_commands, "check_options", lambda *_: None)
    code, _, err = run("run", *PLAN, asked, "--reason", "to label", "--to", "key.pub")
    assert (code, err) == (2, message)


def test_without_the_library_it_is_refused(run: Run, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustlab.record.sealing", None)
    for asked in (KEEP, ADAPTER):
        code, out, err = run("run", *PLAN, asked, "--reason", "to label", "--to", "key.pub")
        assert (code, out) == (2, "")
        assert err.startswith(f"{asked}: needs the library cryptography, which cannot be imported: ")
        assert err.endswith("; install cryptography 47 or newer; nothing else seals here\n")
    assert run("label", "demo", "--key", "key.pem").err.startswith("label: needs the library cryptography, which ")


def test_what_was_given_is_read(key: Path) -> None:
    wanted = Keeping(reason="to label", public_key=PUBLIC.decode(), expire_days=30)
    assert read_keeping([KEEP], " to label ", key, None) == {TRANSCRIPTS: wanted}
    assert read_keeping([ADAPTER], "to label", key, None) == {ADAPTERS: wanted}
    both = read_keeping([KEEP, ADAPTER], "to label", key, 3)
    assert both is not None and [*both] == [TRANSCRIPTS, ADAPTERS]
    assert {each.expire_days for each in both.values()} == {3}
    assert read_keeping([], None, None, None) is None


@pytest.mark.parametrize("days", ["0", "366", "-1"])
def test_an_expiry_is_of_a_day_to_a_year(run: Run, key: Path, days: str) -> None:
    assert run("run", *PLAN, KEEP, "--reason", "x", "--to", "key.pub", "--expire-days", days).code == 2
