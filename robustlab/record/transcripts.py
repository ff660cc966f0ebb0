"""Completions that somebody asked to keep: sealed, with a reason and an expiry, under custody.

One file holds one measurement: its header lies in the clear, its requests, completions and verdicts are sealed to the
user's key and bound to the header. Measuring again replaces the file, so that nothing is kept twice. This module does
not know who measures, who labels, or what a verdict means.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from robustlab.errors import ConfigError, RecordError
from robustlab.failpoints import reach
from robustlab.record.custody import Artefact
from robustlab.record.journal import Journal
from robustlab.record.kept import (
    KEEPING,
    TRANSCRIPTS,
    Keeping,
    KeptFiles,
    has_expired,
    hold_keeping,
    list_kept,
    path_of,
    to_text,
)
from robustlab.record.results import Phase, VerdictOfCompletion
from robustlab.record.run_folder import RunFolder, read_plain, write_atomic
from robustlab.spec.base import canonical_json, content_hash

if TYPE_CHECKING:
    from robustlab.record.sealing import Opener, Recipient

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_DISTRUST = "do not trust this record"


class _Model(BaseModel):
    # A message of pydantic would show what it was given.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Said(_Model):
    """One request with what the target said to it, and the verdicts on that."""

    behavior: str
    """sha256 of the behavior's text."""
    category: str
    request: Annotated[str, Field(repr=False)]
    """The raw behavior with its context, without any frame around it."""
    completion: Annotated[str, Field(repr=False)]
    verdicts: dict[str, VerdictOfCompletion]
    """By judge."""
    tokens: int
    completion_hmac: str
    """Keyed digest of the completion, as in ``items.jsonl``."""


Keep = Callable[[Sequence[Said]], None]
"""Takes all completions of one measurement."""


class Place(_Model):
    """The measurement to which a file of transcripts belongs."""

    cell_id: str
    """The cell, or the node of a baseline."""
    eval: str
    phase: Phase
    step: int

    @property
    def artefact(self) -> str:
        """Name of its file, relative to the run's folder."""
        # The id of an eval is whatever a plan says.
        name = self.eval if _NAME.fullmatch(self.eval) else hashlib.sha256(self.eval.encode()).hexdigest()[:16]
        return f"{TRANSCRIPTS.name}/{self.cell_id}/{name}.{self.phase}-{self.step:06d}.json"


class Transcript(_Model):
    """One completion in the clear, in memory only."""

    place: Place
    said: Said

    @property
    def digest(self) -> str:
        """Names the eval, the behavior and the completion without giving a guess of the text away: its part of the
        text is keyed. The same answer to the same request has the same digest at every measurement of an eval."""
        return content_hash([self.place.eval, self.said.behavior, self.said.completion_hmac])


class _Header(_Model):
    format: Literal[1] = 1
    suite: str
    key: str
    run_id: str
    place: Place
    written: str
    expires: str

    @property
    def context(self) -> bytes:
        """What the sealed part is bound to."""
        return canonical_json(self).encode()


class _File(_Model):
    header: _Header
    sealed: str


class TranscriptStore:
    """Keeps the transcripts of one run, as its process measures. Make one with ``open_store``."""

    def __init__(
        self, folder: RunFolder, keeping: Keeping, recipient: "Recipient", suite: str, journal: Journal
    ) -> None:
        """Take up what an earlier process left behind; a record without its file is closed.

        Args:
            folder: The run's folder.
            keeping: How to keep.
            recipient: The key that it names.
            suite: Name of the construction, for the header.
            journal: The run's ledger, held by this process.
        """
        self._folder, self._keeping, self._recipient, self._suite = folder, keeping, recipient, suite
        self._files = KeptFiles(folder, TRANSCRIPTS, keeping, journal)

    def save(self, place: Place, said: Sequence[Said], *, now: datetime | None = None) -> None:
        """Keep a measurement's completions; those of an earlier try of the same one are replaced.

        Args:
            place: The measurement.
            said: Its completions, in the eval's own order.
            now: Aware present time; None for the clock's.

        Raises:
            RecordError: If the disk is full or closed to writing.
        """
        moment = now or datetime.now(UTC)
        expires = self._keeping.expiry(moment)
        header = _Header(
            suite=self._suite,
            key=self._recipient.fingerprint,
            run_id=self._folder.run_id,
            place=place,
            written=to_text(moment),
            expires=expires,
        )
        plain = json.dumps([each.model_dump() for each in said], ensure_ascii=True).encode("ascii")
        sealed = base64.b64encode(self._recipient.seal(plain, header.context)).decode("ascii")
        data = f"{canonical_json(_File(header=header, sealed=sealed))}\n".encode()
        path = self._files.announce(place.artefact, data, expires)
        reach("transcript.announced")
        write_atomic(path, data)
        reach("transcript.written")
        self._files.keep(place.artefact, data, expires)
        reach("transcript.kept")
        self._files.replace(place.artefact, data, "the measurement was made again")


def open_store(folder: RunFolder, journal: Journal) -> TranscriptStore | None:
    """Open the store of a run that its process works on; the ledger says how the run has kept from its beginning.

    Args:
        folder: The run's folder.
        journal: Its ledger, held by this process.

    Returns:
        None for a run that keeps no transcripts.

    Raises:
        RecordError: If how to keep is not as the run began, such as with another key.
    """
    keeping = hold_keeping(folder, TRANSCRIPTS, journal)
    if keeping is None:
        return None
    # Only a run that keeps something needs the library.
    from robustlab.record.sealing import SUITE, read_recipient

    recipient = read_recipient(str(folder.transcripts / KEEPING), keeping.public_key.encode())
    return TranscriptStore(folder, keeping, recipient, SUITE, journal)


def load_transcripts(folder: RunFolder, opener: "Opener", *, now: datetime | None = None) -> list[Transcript]:
    """Open every transcript of a run in memory; nothing is written.

    Args:
        folder: The run's folder.
        opener: The private key.
        now: Aware present time; None for the clock's. What has expired is not opened.

    Returns:
        Transcripts, file by file in the order of the measurements.

    Raises:
        ConfigError: If there is none, or they were sealed to another key.
        RecordError: If a file is not the one that the ledger names, or cannot be opened.
    """
    moment = now or datetime.now(UTC)
    kept = [found for found in list_kept(folder, TRANSCRIPTS) if not has_expired(found, moment)]
    if not kept:
        remedy = "`robustlab run --keep-transcripts --reason TEXT --to KEY` keeps them until they expire"
        raise ConfigError(f"run {folder.run_id!r}", "has no transcripts", remedy)
    return [transcript for found in kept for transcript in _open_file(folder, found, opener)]


def _open_file(folder: RunFolder, found: Artefact, opener: "Opener") -> list[Transcript]:
    path = path_of(folder, TRANSCRIPTS, found.artefact)
    data = read_plain(path)
    if hashlib.sha256(data).hexdigest() != found.sha256:
        raise RecordError(str(path), "is not the file that the ledger names: it was changed", _DISTRUST)
    try:
        file = _File.model_validate_json(data)
        sealed = base64.b64decode(file.sealed, validate=True)
    except ValueError:
        raise RecordError(str(path), "is not a file of transcripts", _DISTRUST) from None
    if file.header.key != opener.fingerprint:
        problem = f"is not the key that run {folder.run_id!r} seals to, got {opener.fingerprint[:16]}"
        raise ConfigError("--key", problem, f"name the private half of {file.header.key[:16]}")
    plain = opener.open(str(path), sealed, file.header.context)
    return [Transcript(place=file.header.place, said=Said.model_validate(each)) for each in json.loads(plain)]
