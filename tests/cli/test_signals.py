"""Signals end the command with their own code, in time, after what must be settled; no torch is loaded here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from robustlab.cli import signals
from robustlab.cli.signals import leaving_on_signals
from robustlab.spec.catalog import package_root

CODES = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")]
HEAD = """
import sys, time
from pathlib import Path
from robustlab.cli.signals import leaving_on_signals
"""
UNWINDS = """
with leaving_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        for _ in range(20):
            time.sleep(0.02)
        Path("settled").touch()
"""
HANGS = """
with leaving_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(60)
"""
SWALLOWS = """
with leaving_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except SystemExit:
        pass
    time.sleep(60)
"""
FAILS = """
with leaving_on_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        raise RuntimeError("a library that was cut off")
"""
IMPORTS = """
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "robustlab.cli.main":
            print("ready", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
import robustlab.__main__
robustlab.__main__.main()
"""
GOES_ON = """
with leaving_on_signals():
    print("ready", flush=True)
    time.sleep(0.5)
print("done")
"""
Ended = tuple[int, str, str, float]


def answer_all() -> None:
    """In the child: whoever runs the tests in the background has some signals ignored, and children inherit that."""
    for number in signals.WORDS:
        signal.signal(number, signal.SIG_DFL)


def send(
    folder: Path, body: str, numbers: Sequence[int], words: Sequence[str] = (), before: Callable[[], None] | None = None
) -> Ended:
    """Exit code, both outputs, and the seconds from the first signal to the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + body, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package_root())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before or answer_all,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    started = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err, time.monotonic() - started


@pytest.mark.parametrize(("number", "code", "word"), CODES)
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_unwinds_and_later_ones_change_nothing(
    tmp_path: Path, number: int, code: int, word: str, times: int
) -> None:
    ended, _, err, took = send(tmp_path, UNWINDS, [number] * times)
    assert (ended, err) == (code, f"{word}\n")
    assert (tmp_path / "settled").exists()
    assert took < 5


def test_another_signal_while_unwinding_keeps_the_code_of_the_first(tmp_path: Path) -> None:
    ended, _, err, _ = send(tmp_path, UNWINDS, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    assert (ended, err) == (130, "interrupted\n")


@pytest.mark.parametrize("body", [HANGS, SWALLOWS], ids=["hangs", "swallows it"])
def test_a_main_thread_that_does_not_come_to_its_end_is_ended(tmp_path: Path, body: str) -> None:
    ended, _, err, took = send(tmp_path, body, [signal.SIGTERM])
    assert (ended, err) == (143, "terminated\n")
    assert signals.GRACE_SECONDS <= took < 5


def test_what_a_cut_off_library_raises_is_no_news(tmp_path: Path) -> None:
    ended, _, err, _ = send(tmp_path, FAILS, [signal.SIGINT])
    assert (ended, err) == (130, "interrupted\n")


@pytest.mark.parametrize(("number", "code", "word"), CODES)
def test_a_signal_during_the_imports_prints_no_traceback(tmp_path: Path, number: int, code: int, word: str) -> None:
    ended, _, err, took = send(tmp_path, IMPORTS, [number], ["list"])
    assert (ended, err) == (code, f"{word}\n")
    assert took < 2


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["run"], "; `robustlab list runs` shows the run, `robustlab resume RUN` goes on where it was"),
        (["resume"], "; `robustlab list runs` shows the run, `robustlab resume RUN` goes on where it was"),
        (["plan"], ""),
    ],
)
def test_it_says_how_to_go_on(tmp_path: Path, words: list[str], remedy: str) -> None:
    assert send(tmp_path, UNWINDS, [signal.SIGTERM], words)[2] == f"terminated{remedy}\n"


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    ended, out, err, _ = send(tmp_path, GOES_ON, [signal.SIGHUP], before=ignore)
    assert (ended, out, err) == (0, "done\n", "")


def test_a_reader_who_is_gone_changes_no_code(tmp_path: Path) -> None:
    command = f"{sys.executable} -c '{HEAD}{UNWINDS}' 2>&- & sleep 1.5; kill -TERM $!; wait $!; echo $?"
    environment = {**os.environ, "PYTHONPATH": str(package_root())}
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "143"


def test_signals_are_given_back_after_the_block() -> None:
    before = [signal.getsignal(number) for number in signals.WORDS]
    with leaving_on_signals():
        inside = [signal.getsignal(number) for number in signals.WORDS]
        with leaving_on_signals():
            assert [signal.getsignal(number) for number in signals.WORDS] == inside
        assert [signal.getsignal(number) for number in signals.WORDS] == inside != before
    assert [signal.getsignal(number) for number in signals.WORDS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_before_there_is_something_to_unwind_ctrl_c_ends_it_without_a_word() -> None:
    code = "import robustlab.__main__, signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_DFL)"
    environment = {**os.environ, "PYTHONPATH": str(package_root())}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=answer_all,
    )
    assert ended.stdout == "True\n"
