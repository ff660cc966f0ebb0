"""Runs the command in children of one warmed process, and kills them: at a failpoint, or after a time.

Libraries take ten seconds to load and a run of the tiny target takes two, so that every child is forked from a process
that has loaded them. A child is an ordinary run otherwise: its own arguments, folder, environment and age.
"""

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from robustlab.failpoints import LOG, POINT
from tests.faults.workplace import NAME, Workplace

OUTPUT, PASSED = "output.txt", "passed.txt"


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Its exit code; below 0 the signal that killed it.
        seconds: Processor time that it used, from its fork on.
        output: What it printed.
    """

    code: int
    seconds: float
    output: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def warm_up(place: Workplace) -> None:
    """Load what a run needs into this process, on one thread, by one run in it.

    Args:
        place: A workplace that is used for nothing else.
    """
    import torch

    torch.set_num_threads(1)
    _make_comparable()
    from robustlab.cost.prices import load_price_card
    from robustlab.engine.named import launch_named
    from robustlab.report.live import LiveLine
    from robustlab.search.launch import launch_named_search
    from robustlab.spec.catalog import schema_of
    from robustlab.spec.loader import load_yaml

    kept, folder = dict(os.environ), Path.cwd()
    try:
        _enter(place, {})
        plan = load_yaml(Path("plan.yaml"), schema_of("plan"))
        launch = launch_named if plan.search is None else launch_named_search
        options: dict[str, Any] = {"runs": Path("runs"), "data_csv": None, "shadow_price": None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            launch(plan, NAME, card=load_price_card(None), line=LiveLine(StringIO(), quiet=True), **options)
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(kept)
    # The collector would walk through all of it in every child, many times.
    gc.collect()
    gc.freeze()


def _make_comparable() -> None:
    from robustlab.engine import baseline
    from robustlab.report import html

    # Drawing takes as long as the run; the report is written all the same.
    html.render_report = lambda results: f"<p>{results.run_id} {results.ledger_head}</p>"
    # Two runs digest the same text under two keys; the same key makes their digests comparable.
    baseline.secrets = SimpleNamespace(token_bytes=lambda count: bytes([7]) * count)  # type: ignore[attr-defined]


def _enter(place: Workplace, extra: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(("ROBUSTLAB_", "WANDB_"))]:
        del os.environ[name]
    os.environ.update(place.environment | dict(extra))
    os.chdir(place.root)


def run(
    place: Workplace,
    *command: str,
    point: str | None = None,
    log: bool = False,
    after: float | None = None,
    within: Callable[[], None] | None = None,
    timeout: float = 300,
) -> Ended:
    """Run ``robustlab`` in a child.

    Args:
        place: Where.
        command: Its words; none for the workplace's own.
        point: ``name:count`` of the failpoint at which it dies; None for none.
        log: Whether it lists the points that it passes in ``passed.txt``.
        after: Seconds of processor time after which it is killed; None to let it go on. On a busy machine they tell
            better than a clock how far it has got.
        within: Called in the child before the command.
        timeout: Seconds after which a child that hangs is killed, and an error raised.

    Returns:
        How it ended.
    """
    extra = {POINT: point} if point is not None else {}
    extra |= {LOG: str(place.root / PASSED)} if log else {}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_the_command(place, command or place.command, extra, within)
    code, seconds, hung = _wait(pid, after, timeout)
    output = (place.root / OUTPUT).read_text(errors="replace") if (place.root / OUTPUT).is_file() else ""
    if hung:
        raise TimeoutError(f"{command or place.command} did not end in {timeout} s: {output[-2000:]}")
    return Ended(code, seconds, output)


def _wait(pid: int, after: float | None, timeout: float) -> tuple[int, float, bool]:
    deadline, limit, hung = time.monotonic() + timeout, after, False
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, hung
        hung = hung or time.monotonic() >= deadline
        if hung or (limit is not None and _processor_seconds(pid) >= limit):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _processor_seconds(pid: int) -> float:
    """Processor time of another process; Linux has a clock for each, named after its id."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _be_the_command(
    place: Workplace, command: tuple[str, ...], extra: Mapping[str, str], within: Callable[[], None] | None
) -> None:
    import torch

    code = 70
    try:
        os.setpgid(0, 0)
        # Whoever runs the tests in the background has some of them ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _enter(place, extra)
        _redirect(place.root / OUTPUT)
        sys.argv = ["robustlab", *command]
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        # What a run does not seed by itself must not be the same in all of them.
        torch.manual_seed(os.getpid())
        if within is not None:
            within()
        code = _call()
        sys.stdout.flush()
    except BaseException:
        # A child must never return into its parent's code.
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _call() -> int:
    from robustlab.cli.main import main

    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for each in (1, 2):
        os.dup2(descriptor, each)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
