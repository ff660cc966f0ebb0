"""Makes the reports of a finished run again from its results; no model work, no torch."""

from pathlib import Path

from robustlab.errors import ConfigError, RecordError
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder
from robustlab.report.html import write_report


def rewrite_report(runs: Path, run_id: str) -> tuple[Path, Results]:
    """Read a run's results and write its report anew.

    Args:
        runs: Folder of runs.
        run_id: The run.

    Returns:
        The run's folder and its results.

    Raises:
        ConfigError: If there is no such run, or it is not finished.
        RecordError: If its results are not of schema 1.
    """
    folder = RunFolder.open(runs, run_id)
    if not folder.results.is_file():
        raise ConfigError(f"run {run_id!r}", "has no results yet", f"`robustlab resume {run_id}` goes on with it")
    try:
        results = Results.model_validate_json(folder.results.read_bytes())
    except ValueError as error:
        problem = f"is not a result of schema 1: {str(error).splitlines()[0]}"
        raise RecordError(str(folder.results), problem, "use the version of robustlab that wrote it") from None
    write_report(results, folder.report)
    folder.write_manifest()
    return folder.path, results
