"""Makes the reports of a finished run again from its results; no model work, no torch."""

from pathlib import Path

from robustlab.errors import ConfigError, RecordError
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder
from robustlab.report.html import write_report


def read_results(runs: Path, run_id: str) -> tuple[Path, Results]:
    """Read what a finished run holds.

    Args:
        runs: Folder of runs.
        run_id: The run.

    Returns:
        The run's folder and its results.

    Raises:
        ConfigError: If there is no such run, or it is not finished.
        RecordError: If a file of its record, the report aside, is not as the manifest says, or its results are not of
            schema 1.
    """
    folder = RunFolder.open(runs, run_id)
    if not folder.is_finished:
        raise ConfigError(f"run {run_id!r}", "has not ended", f"`robustlab resume {run_id}` goes on with it")
    # The report follows from the rest and may be made again; a changed result must not get a seal of its own.
    folder.check_manifest(besides=frozenset({folder.report.name}))
    try:
        return folder.path, Results.model_validate_json(folder.results.read_bytes())
    except ValueError as error:
        problem = f"is not a result of schema 1: {str(error).splitlines()[0]}"
        raise RecordError(str(folder.results), problem, "use the version of robustlab that wrote it") from None


def rewrite_report(runs: Path, run_id: str) -> tuple[Path, Results]:
    """Write the report of a finished run anew; arguments, result and errors as for ``read_results``.

    Args:
        runs: Folder of runs.
        run_id: The run.

    Returns:
        The run's folder and its results.
    """
    path, results = read_results(runs, run_id)
    folder = RunFolder(path)
    write_report(results, folder.report)
    folder.write_manifest()
    return path, results
