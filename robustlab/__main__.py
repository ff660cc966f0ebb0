"""The ``robustlab`` command, also as ``python -m robustlab``; signals are answered before anything heavy is loaded."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until there is something to unwind, Ctrl-C ends the process without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from robustlab.cli.signals import leaving_on_signals


def main() -> None:
    """Run the command; a signal ends it with 130, 143 or 129 and no traceback, wherever it comes."""
    with leaving_on_signals():
        from robustlab.cli.main import main as run_command

        run_command()


if __name__ == "__main__":
    main()
