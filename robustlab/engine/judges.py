"""What a run's second judges need before anything is spent: keys, prompts, and the consent to send completions away."""

from collections.abc import Iterable, Mapping

from robustlab.errors import ConfigError
from robustlab.measure import api_judge, classifier, phrases, rubrics, second
from robustlab.measure.second import Panel, find_host
from robustlab.record.journal import Journal, read_journal
from robustlab.record.provenance import source_fingerprint
from robustlab.record.run_folder import RunFolder
from robustlab.record.sending import Consent, allow, list_allowed
from robustlab.spec.base import content_hash
from robustlab.spec.evals import RefusalEval
from robustlab.spec.judges import ApiJudge, SecondJudge
from robustlab.spec.plan import Cell


def check_judges(cells: Iterable[Cell], consent: Consent | None) -> None:
    """Refuse a new run whose second judges could not be asked; nothing is loaded and nobody is asked.

    Args:
        cells: What is to be run.
        consent: That completions may leave this machine; None where they may not.

    Raises:
        ConfigError: If a key or a prompt is missing, or no judge is at a host that was named.
        DataError: If a prompt is not the pinned text.
        CustodyError: If completions may not be sent to a judge's host.
    """
    judges = list_judges(cells)
    allowed = {} if consent is None else dict.fromkeys(consent.hosts, consent.reason)
    hosts = {find_host(judge) for judge in judges if isinstance(judge, ApiJudge)}
    idle = next((host for host in allowed if host not in hosts), None)
    if idle is not None:
        known = ", ".join(sorted(hosts)) or "none"
        problem = f"names {idle}, where no judge of the plan is; their hosts: {known}"
        raise ConfigError("--send-completions", problem, "name the host as the eval's file has it, or leave it out")
    Panel(allowed=allowed).check(judges)


def check_judges_again(cells: Iterable[Cell], folder: RunFolder) -> None:
    """The same for a run that is gone on with: its ledger says what may be sent where.

    Args:
        cells: What is to be run.
        folder: The run's folder.

    Raises:
        ConfigError: If a key or a prompt is missing.
        DataError: If a prompt is not the pinned text.
        CustodyError: If completions may not be sent to a judge's host.
        RecordError: If the ledger cannot be trusted.
    """
    Panel(allowed=read_allowed(folder)).check(list_judges(cells))


def list_judges(cells: Iterable[Cell]) -> list[SecondJudge]:
    """Every second judge of some cells, once."""
    specs = [spec for cell in cells for spec in cell.evals.values() if isinstance(spec, RefusalEval)]
    return list({content_hash(judge): judge for spec in specs for judge in spec.second_judges}.values())


def fingerprint_judges(cells: Iterable[Cell]) -> dict[str, str]:
    """Name and fingerprint of what asks second judges, for the versions of a record; empty where there are none.

    Args:
        cells: What was run.

    Returns:
        Verdicts compare only where it is the same, as for the first judge.
    """
    if not list_judges(cells):
        return {}
    return {"second judges": source_fingerprint(second, classifier, api_judge, rubrics, phrases)[:12]}


def record_consent(journal: Journal, consent: Consent | None) -> None:
    """Write into a new run's ledger that completions may leave, before its first process spends anything.

    Args:
        journal: The new run's ledger, held by this process.
        consent: Where to, and why; None to write nothing.

    Raises:
        RecordError: If it cannot be written.
    """
    if consent is not None:
        allow(journal.append, consent)


def read_allowed(folder: RunFolder) -> Mapping[str, str]:
    """Hosts that a run may send completions to, with the reasons; errors as for ``read_journal``."""
    return list_allowed(read_journal(folder.ledger)[0]) if folder.ledger.is_file() else {}


def refuse_other_consent(folder: RunFolder, consent: Consent | None) -> None:
    """Refuse to go on with a run that may not send completions where it is told to now.

    Args:
        folder: The run's folder.
        consent: As it is given now; None to go on as the run began.

    Raises:
        ConfigError: If a host is not among those that the run began with.
    """
    new = next((host for host in (() if consent is None else consent.hosts) if host not in read_allowed(folder)), None)
    if new is not None:
        problem = f"began without leave to send completions to {new}"
        raise ConfigError(f"run {folder.run_id!r}", problem, "take another name, or leave --send-completions out")
