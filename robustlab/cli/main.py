"""Builds the application, turns every expected failure into one message, and sets the exit code.

Exit codes: 0 done, 1 a check failed or the machine did, 2 a file or a flag is wrong, 3 refused by the budget,
4 the gate failed, 5 incomplete or inconclusive, 129, 130 and 143 by signal.
Modules that need torch are imported inside the commands that run models, so that the others answer at once.
"""

import os
import sys

import typer

from robustlab.cli import catalogue, comparing, custody, disposal, gate, judges, label, money, runs
from robustlab.cli.printing import complain
from robustlab.cli.signals import leaving_on_signals
from robustlab.errors import RobustlabError
from robustlab.redaction import redact

app = typer.Typer(
    help="What does it cost to undo an open-weight model's safeguards, and which safety properties survive?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(catalogue.list_command)
for _command in (
    catalogue.check,
    catalogue.fetch,
    runs.plan,
    runs.run,
    runs.resume,
    disposal.abandon,
    runs.report,
    comparing.compare,
    gate.gate,
    money.reconcile,
    judges.calibrate,
    label.label,
    custody.custody,
    catalogue.doctor,
):
    app.command()(_command)
app.add_typer(money.prices_app, name="prices")
app.add_typer(money.ledger_app, name="ledger")


def main() -> None:
    """Run the command; every expected failure ends in one message and its exit code."""
    with leaving_on_signals():
        _run_command()


def _run_command() -> None:
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the process's own, until it ends
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except RobustlabError as error:
        complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        problem = redact(error.strerror or str(error))
        complain(f"{error.filename or 'this machine'}: {problem}; look at the disk, the network and the rights")
        sys.exit(1)
