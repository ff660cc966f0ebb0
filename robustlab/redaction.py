"""Keeps secrets out of what is written: messages, logs and stored configurations.

A secret is the value of an environment variable whose name says so (``HF_TOKEN``, ``WANDB_API_KEY``), a text that has
the form of a well-known kind of key, what follows ``Bearer``, or the user, password or key in a URL. This module knows
nothing of who writes.
"""

import os
import re
from collections.abc import Iterator, Mapping

HIDDEN = "<secret>"
SHORTEST = 12
"""A shorter value of a variable is not looked for: it may be a word that stands in many texts."""
_NAME = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(?:_(?:ID|VALUE|BASE64))?$", re.IGNORECASE
)
_PARAMETERS = ("api_key", "api-key", "apikey", "token", "access_token", "auth_token", "secret", "password")
_FORM = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{20,}|(?:sk|rk|pk)-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}"
    r"|glpat-[A-Za-z0-9_-]{20,}|xox[a-z]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35}|wandb_v1_[A-Za-z0-9_]{20,}"
    # A word after "bearer" is one where it has a digit in it or is longer than words are.
    r")|(?<=(?i:bearer) )(?:(?=[A-Za-z._~+/-]*[0-9])[\w.~+/-]{12,}|[\w.~+/-]{32,})=*"
    r"|(?<=://)[^/\s@]+(?=@)"
    rf"|(?:{'|'.join(f'(?<=[?&](?i:{name})=)' for name in _PARAMETERS)})[^\s&#\"'<>]{{6,}}"
    # One without an end was cut: all that is left of the text may be of it.
    r"|-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Write a text without the secrets in it.

    Args:
        text: Any text.
        environ: Environment variables.

    Returns:
        The text, each secret replaced by ``<secret>``.
    """
    for secret in _find_values(environ):
        text = text.replace(secret, HIDDEN)
    return _FORM.sub(HIDDEN, text)


def find_secret(text: str, environ: Mapping[str, str] = os.environ) -> int | None:
    """Find the first secret in a text that is about to be stored.

    Args:
        text: Any text.
        environ: Environment variables.

    Returns:
        Where it begins, counted from 0; None where there is none.
    """
    found = [place for secret in _find_values(environ) if (place := text.find(secret)) >= 0]
    form = _FORM.search(text)
    return min([*found, *([form.start()] if form else [])], default=None)


def _find_values(environ: Mapping[str, str]) -> Iterator[str]:
    """Values of the variables whose names say that they are secrets, the longest first."""
    found = {value.strip() for name, value in environ.items() if _NAME.search(name)}
    yield from sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)
