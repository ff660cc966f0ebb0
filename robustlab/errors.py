"""The exceptions that robustlab raises on purpose, and the exit code that each one ends the command with.

    RobustlabError
    +-- ConfigError    (ValueError)    a file or a flag is wrong                            exit 2
    +-- CannotFit      (RuntimeError)  refused before anything was spent                    exit 3
    +-- BudgetSpent    (RuntimeError)  a cap was reached: control flow, always caught       exit 1
    +-- DataError      (ValueError)    an artefact, a row or an argument is not as pinned   exit 1
    |   +-- Unanswered (ValueError)    a server gave no answer that can be read             exit 1
    +-- JudgeError     (RuntimeError)  no verdict could be had; never read as "safe"        exit 1
    +-- RecordError    (OSError)       the run folder cannot be written or trusted          exit 1
    +-- CustodyError   (RuntimeError)  an attacked artefact is not where it should be       exit 1

Every message reads *where: what is wrong, got value; what to do*, and shows no secret. This module knows nothing of
any of those places.
"""

from dataclasses import dataclass

from robustlab.redaction import redact


class RobustlabError(Exception):
    """Base of every error that robustlab raises on purpose.

    Attributes:
        where: The file and line, flag, artefact or stage that is at fault.
        problem: What is wrong, with the value that was got.
        remedy: What to do about it.
    """

    exit_code = 1

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        """Keep the three parts of the message."""
        super().__init__(where, problem, remedy)
        self.where = where
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return redact(f"{self.where}: {self.problem}; {self.remedy}")


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with a configuration file.

    Attributes:
        path: The file, as the user named it.
        line: Line of the offending key or value, from 1.
        field: Dotted path of the field, empty for the document itself.
        problem: What is wrong, with the value that was got and, where there is one, a hint.
    """

    path: str
    line: int
    field: str
    problem: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return redact(f"{self.path}:{self.line}: {field}{self.problem}")


class ConfigError(RobustlabError, ValueError):
    """A file or a flag is wrong."""

    exit_code = 2


class InvalidFile(ConfigError):
    """A configuration file holds one fault or more; all of them come at once.

    Attributes:
        faults: Every fault, in the order of the file.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        """Take at least one fault; the first also stands for all of them in ``where`` and ``problem``."""
        first = faults[0]
        super().__init__(f"{first.path}:{first.line}", first.problem, "mend the file and run the command again")
        self.args = (faults,)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class CannotFit(RobustlabError, RuntimeError):
    """The plan was refused before anything was spent."""

    exit_code = 3


class BudgetSpent(RobustlabError, RuntimeError):
    """The next unit of work would pass a cap. Caught once and recorded as ``stopped_by``.

    Attributes:
        cap: Name of the cap, such as ``max_usd``.
        limit: The cap, in its own unit.
        needed: What would have been used after the unit, in the same unit.
    """

    exit_code = 1

    def __init__(self, cap: str, limit: float, needed: float) -> None:
        """Make the message out of the three figures; ``where`` is the cap."""
        super().__init__(cap, f"the next unit of work needs {needed:g} of {limit:g}", "this is a result, not a fault")
        self.args = (cap, limit, needed)
        self.cap = cap
        self.limit = limit
        self.needed = needed


class DataError(RobustlabError, ValueError):
    """An artefact, a row or an argument is not what it should be."""


class Unanswered(DataError):
    """A server gave no answer that can be read. The message holds no key, no prompt and no completion.

    Attributes:
        is_outage: Whether the server itself seems to be away or overloaded, rather than to mind this one request.
    """

    def __init__(self, where: str, problem: str, remedy: str, is_outage: bool = False) -> None:
        """Keep the three parts of the message and the kind of failure."""
        super().__init__(where, problem, remedy)
        self.args = (where, problem, remedy, is_outage)
        self.is_outage = is_outage


class JudgeError(RobustlabError, RuntimeError):
    """No verdict could be had. It never becomes "safe"."""


class RecordError(RobustlabError, OSError):
    """The run folder cannot be written, or what it holds cannot be trusted."""

    def __str__(self) -> str:
        return RobustlabError.__str__(self)


class CustodyError(RobustlabError, RuntimeError):
    """An attacked artefact is not where it should be, or is about to leave."""
