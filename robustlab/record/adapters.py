"""Attacked adapters that somebody asked to keep: sealed, with a reason and an expiry, under custody.

One file holds the adapter of one cell: a line of JSON in the clear that says what it is, and behind it the adapter as
safetensors, sealed to the user's key and bound to that line. In the clear it never touches the disk. Attacking again
replaces the file. This module does not know tensors, nor when a cell has an adapter.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from robustlab.errors import ConfigError, RecordError
from robustlab.failpoints import reach
from robustlab.record.journal import Journal
from robustlab.record.kept import (
    ADAPTERS,
    KEEPING,
    Keeping,
    KeptFiles,
    has_expired,
    hold_keeping,
    list_kept,
    path_of,
    to_text,
)
from robustlab.record.run_folder import RunFolder, read_plain, write_atomic
from robustlab.spec.base import canonical_json

if TYPE_CHECKING:
    from robustlab.record.sealing import Opener, Recipient

DEGRADED = "robustlab.safety_degraded"
"""Key of a safetensors file's metadata by which any reader sees what it is."""
Pack = Callable[[Mapping[str, str]], bytes]
"""Makes a safetensors file with some metadata, in memory."""
_DISTRUST = "do not trust this record"


class AdapterHeader(BaseModel):
    """What stands in the clear before a sealed adapter; its metadata says the same."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    format: Literal[1] = 1
    safety_degraded: Literal[True] = True
    """That it was made to undo safeguards."""
    suite: str
    """How it is sealed."""
    key: str
    """Fingerprint of the key that it is sealed to."""
    run_id: str
    cell_id: str
    base_sha256: str
    """The released target that it belongs to."""
    written: str
    """Moment in UTC."""
    expires: str
    """Moment in UTC from which it must be gone."""

    @property
    def context(self) -> bytes:
        """What the sealed part is bound to."""
        return canonical_json(self).encode()

    @property
    def metadata(self) -> dict[str, str]:
        """The same for the safetensors file itself, whose metadata are texts."""
        told = {"base_sha256": self.base_sha256, "run_id": self.run_id, "cell_id": self.cell_id}
        told |= {"written": self.written, "expires": self.expires}
        return {DEGRADED: "true"} | {f"robustlab.{name}": value for name, value in told.items()}


class AdapterStore:
    """Keeps the adapters of one run, as its process makes them. Make one with ``open_adapters``."""

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
        self._run_id, self._keeping, self._recipient, self._suite = folder.run_id, keeping, recipient, suite
        self._files = KeptFiles(folder, ADAPTERS, keeping, journal)

    def save(
        self,
        cell_id: str,
        base_sha256: str,
        pack: Pack,
        *,
        now: datetime | None = None,
    ) -> None:
        """Keep a cell's adapter; that of an earlier try of the same cell is replaced.

        Args:
            cell_id: The cell.
            base_sha256: The released target that the adapter belongs to.
            pack: Makes the file that is sealed.
            now: Aware present time; None for the clock's.

        Raises:
            RecordError: If the disk is full or closed to writing.
        """
        moment = now or datetime.now(UTC)
        header = AdapterHeader(
            suite=self._suite,
            key=self._recipient.fingerprint,
            run_id=self._run_id,
            cell_id=cell_id,
            base_sha256=base_sha256,
            written=to_text(moment),
            expires=self._keeping.expiry(moment),
        )
        data = header.context + b"\n" + self._recipient.seal(pack(header.metadata), header.context)
        name = name_adapter(cell_id)
        path = self._files.announce(name, data, header.expires)
        reach("adapter.announced")
        write_atomic(path, data)
        reach("adapter.written")
        self._files.keep(name, data, header.expires)
        reach("adapter.kept")
        self._files.replace(name, data, "the cell was attacked again")


def name_adapter(cell_id: str) -> str:
    """Name of the file of a cell's adapter, relative to the run's folder."""
    return f"{ADAPTERS.name}/{cell_id}.sealed"


def open_adapters(folder: RunFolder, journal: Journal) -> AdapterStore | None:
    """Open the store of a run that its process works on; the ledger says how the run has kept from its beginning.

    Args:
        folder: The run's folder.
        journal: Its ledger, held by this process.

    Returns:
        None for a run that keeps no adapters.

    Raises:
        RecordError: If how to keep is not as the run began, such as with another key.
    """
    keeping = hold_keeping(folder, ADAPTERS, journal)
    if keeping is None:
        return None
    # Only a run that keeps something needs the library.
    from robustlab.record.sealing import SUITE, read_recipient

    where = str(ADAPTERS.within(folder) / KEEPING)
    return AdapterStore(folder, keeping, read_recipient(where, keeping.public_key.encode()), SUITE, journal)


def open_adapter(folder: RunFolder, cell_id: str, opener: "Opener", *, now: datetime | None = None) -> bytes:
    """Open a kept adapter in memory; nothing is written.

    Args:
        folder: The run's folder.
        cell_id: The cell.
        opener: The private key.
        now: Aware present time; None for the clock's. What has expired is not opened.

    Returns:
        A safetensors file, for ``safetensors.torch.load``.

    Raises:
        ConfigError: If none is kept, or it was sealed to another key.
        RecordError: If the file is not the one that the ledger names, or cannot be opened.
    """
    moment, name = now or datetime.now(UTC), name_adapter(cell_id)
    kept = [each for each in list_kept(folder, ADAPTERS) if each.artefact == name and not has_expired(each, moment)]
    if not kept:
        remedy = "`robustlab custody` shows what is kept, and until when"
        raise ConfigError(f"run {folder.run_id!r}", f"keeps no adapter of cell {cell_id!r}", remedy)
    path = path_of(folder, ADAPTERS, name)
    data = read_plain(path)
    if hashlib.sha256(data).hexdigest() != kept[-1].sha256:
        raise RecordError(str(path), "is not the file that the ledger names: it was changed", _DISTRUST)
    line, _, sealed = data.partition(b"\n")
    try:
        header = AdapterHeader.model_validate_json(line)
    except ValidationError:
        raise RecordError(str(path), "is not a sealed adapter", _DISTRUST) from None
    if header.key != opener.fingerprint:
        problem = f"is not the key that run {folder.run_id!r} seals to, got {opener.fingerprint[:16]}"
        raise ConfigError("--key", problem, f"name the private half of {header.key[:16]}")
    return opener.open(str(path), sealed, header.context)
