"""The flags by which a run keeps completions and adapters, read before anything is spent; the sweep of what expired."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustlab.errors import ConfigError
from robustlab.record.custody import LONGEST_DAYS
from robustlab.record.sending import refuse_secret

if TYPE_CHECKING:
    from robustlab.record.kept import Area, Keeping

DEFAULT_DAYS = 30
_MOST_CHARACTERS = 500
FLAGS = ("--keep-transcripts", "--keep-adapter")
"""What asks a run to keep something."""
_RUN_WINNER = "run the winner's recipe with it"

KeepTranscripts = Annotated[
    bool, typer.Option("--keep-transcripts", help="Keep completions, sealed to a key of yours; for `robustlab label`.")
]
KeepAdapter = Annotated[
    bool, typer.Option("--keep-adapter", help="Keep the attacked adapters, sealed to a key of yours; they expire.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why, for the audit.", metavar="TEXT")]
To = Annotated[Path | None, typer.Option("--to", help="Public key (X25519, PEM) that what is kept is sealed to.")]
ExpireDays = Annotated[
    int | None,
    typer.Option("--expire-days", min=1, max=LONGEST_DAYS, help=f"Days until it is removed; {DEFAULT_DAYS}."),
]


def read_keeping(
    asked: Sequence[str], reason: str | None, to: Path | None, expire_days: int | None
) -> "Mapping[Area, Keeping] | None":
    """Read how a run is to keep transcripts and adapters; what is missing is refused before anything is spent.

    Args:
        asked: Flags that ask for something to be kept, of ``FLAGS``; one reason and one key serve all of them.
        reason: Why; None where nothing was given, and so for the others.
        to: File of the public key.
        expire_days: Days until what is kept is removed; 30 where nothing was given.

    Returns:
        How to keep, by area; None where nothing is kept.

    Raises:
        ConfigError: If a part is missing or wrong, ``cryptography`` is not installed, or a part is given and nothing
            is to be kept.
    """
    if not asked:
        given = {"--reason": reason, "--to": to, "--expire-days": expire_days}
        for flag in (flag for flag, value in given.items() if value is not None):
            wanting = (*FLAGS, "--send-completions HOST") if flag == "--reason" else FLAGS
            either = " or ".join(wanting)
            raise ConfigError(flag, f"is given without {either}", f"add {either}, or leave the flag out")
        return None
    text = (reason or "").strip()
    if not text:
        raise ConfigError(asked[0], "needs a reason, got none", "say why with --reason TEXT: it stands in the audit")
    if len(text) > _MOST_CHARACTERS or not text.isprintable():
        remedy = f"write one line of at most {_MOST_CHARACTERS} characters"
        raise ConfigError("--reason", f"is no such line, got {len(text)} characters", remedy)
    refuse_secret("--reason", text)
    if to is None:
        remedy = "name a public key with --to KEY; `robustlab label --make-key FILE` makes a pair"
        raise ConfigError(asked[0], "needs a key to seal to, got none", remedy)
    from robustlab.record.kept import ADAPTERS, TRANSCRIPTS, Keeping

    keeping = Keeping(reason=text, public_key=_read_public(asked[0], to), expire_days=expire_days or DEFAULT_DAYS)
    return {area: keeping for flag, area in zip(FLAGS, (TRANSCRIPTS, ADAPTERS), strict=True) if flag in asked}


def refuse_search(asked: Sequence[str]) -> None:
    """Refuse to keep anything of a search, whose trials are thrown away and whose winner nobody keeps.

    Args:
        asked: Flags that ask for something to be kept.

    Raises:
        ConfigError: If there is one.
    """
    if "--keep-adapter" in asked:
        problem = "is refused for a search: the adapters of its trials and of its winner are never kept"
        raise ConfigError("--keep-adapter", problem, "leave the flag out")
    if asked:
        raise ConfigError(asked[0], "is given for a search, whose trials are thrown away", _RUN_WINNER)


def sweep_expired(runs: Path) -> None:
    """Remove kept files that have expired in any run of a folder, and say so on the standard error."""
    from robustlab.record.expiry import sweep_all

    sweep_all(runs, say=_say)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def require_cryptography(where: str) -> None:
    """Refuse what seals or opens where the library for it is missing or too old.

    Args:
        where: The flag or the command.

    Raises:
        ConfigError: If it cannot be imported.
    """
    try:
        import robustlab.record.sealing  # noqa: F401 - the one door to it
    except ImportError as error:
        problem = f"needs the library cryptography, which cannot be imported: {error}"
        raise ConfigError(where, problem, "install cryptography 47 or newer; nothing else seals here") from None


def _read_public(flag: str, path: Path) -> str:
    require_cryptography(flag)
    from robustlab.record.sealing import read_key_file, read_recipient

    return read_recipient("--to", read_key_file("--to", path)).pem
