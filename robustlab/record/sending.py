"""Which hosts may be sent completions, who said so and why, and what was sent; in the same chain as the charges.

A record stands before the first byte leaves, so that a crash in between never leaves a sending that no record names.
This module sends nothing.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustlab.errors import ConfigError
from robustlab.redaction import find_secret

KIND = "completions"
"""Value of ``kind`` in every record of this log."""
MOST_CHARACTERS = 500
Append = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Consent:
    """That completions may leave this machine.

    Attributes:
        hosts: To these, and no others.
        reason: Why, for the audit.
    """

    hosts: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Sent:
    """What one host was sent.

    Attributes:
        host: Name or address.
        completions: How many were handed to it; one that was tried again counts once.
        bytes: Size of the messages that held them.
    """

    host: str
    completions: int
    bytes: int


def read_consent(hosts: Sequence[str] | None, reason: str | None) -> Consent | None:
    """Take the flags of a command line.

    Args:
        hosts: Of ``--send-completions``; None or empty for none.
        reason: Of ``--reason``.

    Returns:
        None where nothing may be sent.

    Raises:
        ConfigError: If a reason is missing or no line, or a host is not a bare name.
    """
    if not hosts:
        return None
    text = (reason or "").strip()
    if not text:
        raise ConfigError("--send-completions", "needs a reason, got none", "say why with --reason TEXT: it is audited")
    if len(text) > MOST_CHARACTERS or not text.isprintable():
        remedy = f"write one line of at most {MOST_CHARACTERS} characters"
        raise ConfigError("--reason", f"is no such line, got {len(text)} characters", remedy)
    refuse_secret("--reason", text)
    for host in hosts:
        if not host or host != host.strip() or set("/@ ") & set(host) or "://" in host:
            raise ConfigError("--send-completions", f"must be a host, got {host!r}", "name it without path or user")
    return Consent(tuple(dict.fromkeys(host.casefold() for host in hosts)), text)


def refuse_secret(flag: str, text: str) -> None:
    """Refuse a text for the audit that holds a secret.

    Args:
        flag: What gave it.
        text: What will be stored.

    Raises:
        ConfigError: If there is one in it.
    """
    if find_secret(text) is not None:
        raise ConfigError(flag, "holds a secret, and would be stored", "write the reason without it")


def allow(append: Append, consent: Consent) -> None:
    """Write down that completions may leave, before any does.

    Args:
        append: Writes one record durably, as ``Journal.append`` does.
        consent: Where to, and why.
    """
    for host in consent.hosts:
        append({"kind": KIND, "event": "allowed", "host": host, "who": _name_self(), "why": consent.reason})


def list_allowed(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Hosts that a run may send completions to, with the reason that was given last."""
    return {
        record["host"]: record["why"]
        for record in records
        if record.get("kind") == KIND and record.get("event") == "allowed"
    }


def record_sending(append: Append, judge: str, host: str, *, completions: int, size: int, why: str) -> None:
    """Write down what is about to be sent at most.

    Args:
        append: Writes one record durably.
        judge: Id of the judge.
        host: Where to.
        completions: How many.
        size: Bytes of the messages that hold them.
        why: The reason that was given.
    """
    _record(append, "sending", judge, host, completions, size, why)


def record_sent(append: Append, judge: str, host: str, *, completions: int, size: int, why: str) -> None:
    """Write down what was sent in the end. Arguments as for ``record_sending``."""
    _record(append, "sent", judge, host, completions, size, why)


def sum_sent(records: Iterable[Mapping[str, Any]]) -> list[Sent]:
    """Add up what each host was sent, at most: a sending that a crash cut short counts in full.

    Args:
        records: Records of a journal in order; those of other kinds are passed over.

    Returns:
        One entry a host, in the order in which they were first sent something.
    """
    totals: dict[str, tuple[int, int]] = {}
    pending: dict[tuple[str, str], tuple[int, int]] = {}
    for record in records:
        if record.get("kind") != KIND or record.get("event") == "allowed":
            continue
        key, found = (record["judge"], record["host"]), (record["completions"], record["bytes"])
        before = pending.pop(key, (0, 0))
        if record["event"] == "sending":
            _add(totals, key[1], before)
            pending[key] = found
        else:
            _add(totals, key[1], found)
    for (_, host), found in pending.items():
        _add(totals, host, found)
    return [Sent(host, *found) for host, found in totals.items()]


def _add(totals: dict[str, tuple[int, int]], host: str, found: tuple[int, int]) -> None:
    completions, size = totals.get(host, (0, 0))
    totals[host] = (completions + found[0], size + found[1])


def _record(append: Append, event: str, judge: str, host: str, completions: int, size: int, why: str) -> None:
    told = {"kind": KIND, "event": event, "judge": judge, "host": host, "completions": completions, "bytes": size}
    append(told | {"who": _name_self(), "why": why})


def _name_self() -> str:
    return f"uid {os.getuid()}, pid {os.getpid()}"
