"""The only door to wandb: a mirror of scalars, offline unless the user's WANDB_MODE says online. Never the record.

It sends numbers and ids only, reports no crash to anyone, and knows neither completions nor files. Any failure of wandb
turns the mirror off and is kept in ``WandbMirror.state``; the run goes on, for its own ledger is the record.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from robustlab.failpoints import reach
from robustlab.record.results import Measurement
from robustlab.redaction import redact
from robustlab.report.wording import plain_text

if TYPE_CHECKING:
    import wandb

_FLUSH_SECONDS = 0.2
_ONLINE_LIMIT_SECONDS = 30.0
_HANG_SECONDS = 45.0
_SERVICE = "wandb-core"


class WandbMirror:
    """One cell's mirror. Every method may be called in any state; none raises for a fault of wandb."""

    def __init__(self) -> None:
        self._run: wandb.Run | None = None
        self._state = "off"
        self._eval_of_property: dict[str, str] = {}

    @property
    def state(self) -> str:
        """``off``, ``wandb: <run id>``, or what made the mirror fail."""
        return self._state

    def start(
        self, run_id: str, cell_id: str, config: Mapping[str, str | int | float], folder: Path, group: str
    ) -> None:
        """Open a run of wandb under ``folder``; with WANDB_MODE=disabled the mirror stays off.

        Args:
            run_id: Id of the lab's run.
            cell_id: Id of the cell; wandb's id becomes ``<run_id>-<cell_id>``.
            config: Ids and numbers that describe the cell; nothing else belongs here.
            folder: Where wandb writes; made if absent.
            group: What wandb groups the cells by.
        """
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "disabled":
            self._attempt(lambda: self._open(f"{run_id}-{cell_id}", config, folder, group, online=mode == "online"))
        reach("mirror.started")

    def log_step(self, step: int, loss: float, attacker_usd: float) -> None:
        """Mirror one optimiser step: its loss, and what the attacker had spent after it, in US dollars."""
        scalars = {"train/step": step, "train/loss": loss, "spend/usd": attacker_usd, "budget/usd": attacker_usd}
        self._log(scalars)

    def log_measurement(self, measurement: Measurement, attacker_usd: float) -> None:
        """Mirror the rates of one measurement as ``eval/<property>``.

        Where a second eval yields a property of the same name, its key is ``eval/<eval>/<property>``.
        """
        scalars = {self._key(measurement.eval, found.property): found.value for found in measurement.properties}
        self._log({**scalars, "budget/usd": attacker_usd})

    def finish(self, exit_code: int) -> None:
        """Close wandb's run with the exit code of the cell; 0 = done."""
        run, self._run = self._run, None
        if run is not None:
            self._attempt(lambda: run.finish(exit_code=exit_code))
        reach("mirror.finished")

    def _open(
        self, mirror_id: str, config: Mapping[str, str | int | float], folder: Path, group: str, *, online: bool
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        # wandb would fall back to the system's temporary folder, outside of the run's custody.
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"cannot write in {folder}")
        run = wandb.init(
            project="robustlab",
            id=mirror_id,
            name=mirror_id,
            group=group,
            config=dict(config),
            dir=str(folder),
            settings=_settings(folder, online=online),
        )
        run.define_metric("budget/usd")
        run.define_metric("*", step_metric="budget/usd")
        self._run = run
        self._state = f"wandb: {run.id}"

    def _log(self, scalars: dict[str, float]) -> None:
        run = self._run
        if run is not None:
            self._attempt(lambda: run.log(scalars))

    def _key(self, eval_id: str, name: str) -> str:
        owner = self._eval_of_property.setdefault(name, eval_id)
        return f"eval/{name}" if owner == eval_id else f"eval/{eval_id}/{name}"

    def _attempt(self, action: Callable[[], object]) -> None:
        # Some calls wait for the service without an end, whatever the settings say; a dead service ends them.
        watchdog = threading.Timer(_HANG_SECONDS, _end_service)
        watchdog.daemon = True
        watchdog.start()
        try:
            action()
        except ImportError as error:
            self._turn_off(error)
        except _failures() as error:
            self._turn_off(error)
            _drop_service()
        finally:
            watchdog.cancel()

    def _turn_off(self, error: Exception) -> None:
        self._run = None
        self._state = plain_text(redact(f"wandb failed: {type(error).__name__}: {error}"))[:300]


def _settings(folder: Path, *, online: bool) -> "wandb.Settings":
    """Choose settings under which wandb writes scalars at once, and no console, code, git state or host facts."""
    import wandb

    return wandb.Settings(
        mode="online" if online else "offline",
        root_dir=str(folder),
        console="off",
        silent=True,
        reinit="create_new",
        init_timeout=_ONLINE_LIMIT_SECONDS,
        login_timeout=_ONLINE_LIMIT_SECONDS,
        finish_timeout=_ONLINE_LIMIT_SECONDS,
        finish_timeout_raises=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        host="undisclosed",
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=_FLUSH_SECONDS,
    )


def _failures() -> tuple[type[Exception], ...]:
    """List what wandb 0.31 raises by itself; a dead service shows as ConnectionResetError or MailboxClosedError."""
    from wandb.errors import Error
    from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
    from wandb.sdk.mailbox.mailbox import MailboxClosedError
    from wandb.sdk.mailbox.mailbox_handle import HandleAbandonedError, ServerResponseError

    return (
        Error,
        WandbServiceConnectionError,
        MailboxClosedError,
        HandleAbandonedError,
        ServerResponseError,
        AssertionError,
        OSError,
        RuntimeError,
        ValueError,
    )


def _drop_service() -> None:
    """Forget a service that may be dead, so that the next cell starts its own and the exit prints no traceback."""
    import wandb

    with suppress(*_failures()):
        wandb.teardown()


def _end_service() -> None:
    """End the service of this process, which answers nobody: whoever waits for it is told that it is gone."""
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.name() == _SERVICE:
                child.kill()
