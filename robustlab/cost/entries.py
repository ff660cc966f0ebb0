"""One record of the ledger as the meter writes and reads it: plain data in, plain data out.

``BILLED`` records carry money and add up to an account's bill; ``TIMED`` ones are stretches of this machine's wall
clock. This module does not know where a record is kept or how records are chained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, get_args

from pydantic import Field, StrictStr, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from robustlab.cost.quantities import MAX_COUNT, Count, Quantities
from robustlab.errors import RecordError

Account = Literal["attacker", "laboratory"]
ACCOUNTS: tuple[Account, ...] = get_args(Account)
EntryKind = Literal["reserve", "settle", "overshoot", "abandon", "crash", "impute", "rewind", "clock_jump"]
TIMED: tuple[EntryKind, ...] = ("settle", "overshoot", "abandon")
BILLED: tuple[EntryKind, ...] = (*TIMED, "crash", "impute")
LOGICAL: tuple[EntryKind, ...] = ("settle", "impute")
CLOSING: tuple[EntryKind, ...] = (*TIMED, "crash")
Tags = Mapping[str, StrictStr | Annotated[int, Field(strict=True, ge=-MAX_COUNT, le=MAX_COUNT)]]


@dataclass(frozen=True)
class Entry:
    """One record of the ledger.

    Attributes:
        record: What happened. ``reserve``: a unit of work was let through, at most at this cost. ``settle``: a segment
            ended. ``overshoot``: a segment ended beyond a cap; a unit of the attacker in it is undone, a unit of the
            laboratory stands. ``abandon``: a unit was left unfinished. ``crash``: a reservation that a crash left open,
            charged in full. ``impute``: a share of work that was timed elsewhere. ``rewind``: a resume took these
            counts back. ``clock_jump``: the wall clock jumped.
        node: Node of the run that was billed.
        purse: Id of the budget under whose caps it was billed.
        account: Who pays.
        phase: What the time was spent on.
        tags: Free facts, such as the step.
        quantities: What was used.
        micro_usd: Difference of the account's rounded-up running total; for ``reserve`` the price of the need alone.
        price_key: Item of the price card.
        wall_clock: When the record was made, ISO 8601 in UTC.
    """

    record: EntryKind
    node: str
    purse: str
    account: Account
    phase: str
    tags: Tags
    quantities: Quantities
    micro_usd: Count
    price_key: str
    wall_clock: str

    def to_dict(self) -> dict[str, object]:
        """All fields by name, as JSON can hold them."""
        return vars(self) | {"tags": dict(self.tags), "quantities": self.quantities.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> "Entry":
        """Read what ``to_dict`` wrote; keys that the ledger added are left alone.

        Args:
            plain: One record of the ledger as JSON gives it.

        Returns:
            An entry that equals the one that was written.

        Raises:
            RecordError: If a field is missing or cannot be what the meter wrote.
        """
        try:
            return _reader().validate_python(dict(plain))
        except ValidationError as error:
            fault = error.errors()[0]
            problem = f"a record is not as the meter wrote it: {_field_of(fault)} is wrong, got {fault['input']!r}"
            raise RecordError("ledger", problem, "do not trust this run; repeat it") from None


@cache
def _reader() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)


def _field_of(fault: ErrorDetails) -> str:
    return ".".join(str(part) for part in fault["loc"])
