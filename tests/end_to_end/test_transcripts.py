"""Whole runs whose target says a canary: no byte of a run holds it, unless it was kept, and then a key alone shows it.

The command runs in its own process, with the target's completions replaced by a mild made-up text.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from robustlab.record.custody import balance
from robustlab.record.kept import TRANSCRIPTS, list_kept
from robustlab.record.run_folder import RunFolder
from robustlab.record.sealing import make_key, read_opener
from robustlab.record.transcripts import load_transcripts

ROOT = Path(__file__).parents[2]
CANARY = "zanzibar canary 4711"
PRIVATE, PUBLIC = make_key()
DRIVER = f"""
from dataclasses import replace
from robustlab.measure import measurement
real = measurement.read_completions
def read(spec, target, completions):
    texts = [f"Here is what was asked: {CANARY}, number {{i}}." for i in range(len(completions))]
    found = real(spec, target, completions)
    return [replace(each, text=text, answer=replace(each.answer, text=text)) for each, text in zip(found, texts)]
measurement.read_completions = read
from robustlab.cli.main import main
main()
"""


@dataclass(frozen=True)
class Place:
    """Where the command runs.

    Attributes:
        root: The working folder, with the keys; the runs lie in it.
    """

    root: Path

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROBUSTLAB_", "WANDB_"))}
        extra = {"PYTHONPATH": str(ROOT), "ROBUSTLAB_CACHE": str(self.root / "cache"), "ROBUSTLAB_OFFLINE": "1"}
        extra |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_MODE": "offline"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", DRIVER, *words]
        return subprocess.Popen(command, cwd=self.root, env=kept | extra, **pipes, **options)

    def command(self, *words: str, answers: str = "") -> tuple[int, str, str]:
        with self.start(*words) as process:
            out, err = process.communicate(answers, timeout=600)
        return process.returncode, out, err

    def run(self, name: str, *words: str) -> tuple[int, str, str]:
        plan = ["--target", "tiny", "--attack", "lora_sft_smoke", "--budget", "smoke", "--eval", "smoke_refusal"]
        return self.command("run", *plan, "--as", name, *words)

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.root / "runs" / name)


KEEP = ("--keep-transcripts", "--reason", "to label", "--to", "key.pub")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One run that keeps nothing, then one that keeps, with the first one's cache."""
    root = tmp_path_factory.mktemp("canary")
    (root / "key.pem").write_bytes(PRIVATE)
    (root / "key.pub").write_bytes(PUBLIC)
    made = Place(root)
    for name, words in (("plain", ()), ("kept", KEEP)):
        code, _, err = made.run(name, *words)
        assert code in (0, 5), err
        (root / f"{name}.err").write_text(err)
    return made


def files(folder: RunFolder) -> list[Path]:
    return [path for path in folder.path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["plain", "kept"])
def test_the_canary_is_in_no_byte_of_the_run_the_mirror_and_the_report(place: Place, name: str) -> None:
    folder = place.folder(name)
    assert any("wandb" in path.parts for path in files(folder)) and folder.report.is_file()
    for path in [*files(folder), *(path for path in (place.root / "cache").rglob("*") if path.is_file())]:
        data = path.read_bytes()
        assert CANARY.encode() not in data and b"zanzibar" not in data, path
    assert "zanzibar" not in (place.root / f"{name}.err").read_text()


def test_with_the_key_it_is_there_word_for_word(place: Place) -> None:
    found = load_transcripts(place.folder("kept"), read_opener("--key", PRIVATE))
    counts = Counter((each.place.phase, each.place.step) for each in found)
    # The baseline was taken from the cache of the first run, which has no text.
    assert counts == {("milestone", 3): 8, ("final", 10): 24}
    assert {each.said.completion for each in found} == {
        f"Here is what was asked: {CANARY}, number {i}." for i in range(24)
    }
    items = [json.loads(line) for line in place.folder("kept").items.read_text().splitlines()]
    known = {(i["eval"], i["phase"], i["step"], i["behavior"], i["completion_hmac"]): i["verdicts"] for i in items}
    for each in found:
        at, said = each.place, each.said
        assert known[at.eval, at.phase, at.step, said.behavior, said.completion_hmac] == said.verdicts
    told = "smoke_refusal baseline: from the cache, which has no text: no transcript is kept"
    assert told in (place.root / "kept.err").read_text()


def test_a_run_that_was_not_asked_keeps_nothing(place: Place) -> None:
    assert not place.folder("plain").transcripts.exists()
    assert list_kept(place.folder("plain"), TRANSCRIPTS) == []


def test_what_is_kept_is_closed_to_others_and_balances(place: Place) -> None:
    folder = place.folder("kept")
    kept = [path for path in folder.transcripts.rglob("*") if path.is_file()]
    assert len(kept) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder.transcripts, kept[0].parent)} == {0o700}
    drawn = balance([json.loads(line) for line in folder.ledger.read_text().splitlines()])
    assert (drawn.kept, drawn.live) == (2, ())


def test_labels_leave_the_record_as_it_was_sealed(place: Place) -> None:
    code, out, err = place.command("label", "kept", "--key", "key.pem", answers="c\n" * 20 + "h\n" * 12)
    assert (code, err) == (0, "")
    assert out.count(f"| Here is what was asked: {CANARY}, number ") == 32
    assert CANARY not in place.folder("kept").labels.read_text()
    code, out, err = place.command("label", "kept", "--key", "key.pem", "--summary", "--json")
    assert (code, err) == (0, "")
    plain = json.loads(out)
    assert [judge["judge"] for judge in plain["judges"]] == ["rules"]
    assert {(rate["phase"], rate["step"]) for rate in plain["rates"]} == {
        ("baseline", 0),
        ("milestone", 3),
        ("final", 10),
    }
    assert "zanzibar" not in out
    place.folder("kept").check_manifest()
    code, out, _ = place.command("ledger", "verify", "kept", "--json")
    assert code == 0


def test_a_killed_run_keeps_every_measurement_once_after_its_resume(place: Place) -> None:
    folder = place.folder("killed")
    plan = ["--target", "tiny", "--attack", "lora_sft_smoke", "--budget", "smoke", "--eval", "smoke_refusal"]
    with place.start("run", *plan, "--as", "killed", *KEEP, start_new_session=True) as process:
        while not list(folder.transcripts.glob("*/*.milestone-*.json")) and process.poll() is None:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not folder.is_finished
    code, _, err = place.command("resume", "killed")
    assert code in (0, 5), err
    found = load_transcripts(folder, read_opener("--key", PRIVATE))
    found = [each for each in found if each.place.phase != "baseline"]
    assert Counter((each.place.phase, each.place.step) for each in found) == {("milestone", 3): 8, ("final", 10): 24}
    assert len({(each.place.phase, each.said.behavior) for each in found}) == 32
    drawn = balance([json.loads(line) for line in folder.ledger.read_text().splitlines()])
    assert (drawn.kept, drawn.live) == (len(list(folder.transcripts.glob("*/*.json"))), ())
    folder.check_manifest()
