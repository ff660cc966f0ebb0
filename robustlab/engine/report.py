"""Makes the reports of finished runs again from their results, and reads stored results; no model work, no torch."""

import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from robustlab.errors import ConfigError, RecordError
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder
from robustlab.report.html import write_report

MAX_BYTES = 256 << 20
"""What a result may hold, unzipped: a small file must not fill the memory. A grid of a hundred cells has 3 MB."""
_TOKEN = re.compile(
    rb'"[^"\\]*+(?:\\(?s:.)[^"\\]*+)*+(?:"|\Z)'
    rb"|(?P<none>-?(?:[0-9]{31}|[0-9][0-9.]*[eE]\+?[0-9]{3}|NaN|Infinity))|[-0-9][-+0-9.eE]*+"
)
"""A text, a number that is none or too large, or another number: a text is passed over whole, whatever it says."""


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
    return folder.path, _parse(folder.results, folder.results.read_bytes())


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


def gather_results(runs: Path, names: Sequence[str]) -> list[tuple[Path | None, Results]]:
    """Read several results; the report of each run among them is written anew.

    Args:
        runs: Folder of runs.
        names: Ids of runs, or paths of stored ``results.json`` files: what holds a slash or ends in ``.json`` or
            ``.json.gz`` is a path, unless it is a run's id.

    Returns:
        For each name the run's folder, None for a file, and the results.

    Raises:
        ConfigError: If there is no such run or file, or the run is not finished.
        RecordError: If a run's record is not as its manifest says, or results are not of schema 1.
    """
    return [(None, read_stored(Path(name))) if _is_path(runs, name) else rewrite_report(runs, name) for name in names]


def read_named(runs: Path, name: str) -> Results:
    """Read the results of a run or of a stored file, and write nothing.

    Args:
        runs: Folder of runs.
        name: As for ``gather_results``, or the folder of a run.

    Returns:
        The results.

    Raises:
        ConfigError: If there is no such run or file, or the run is not finished.
        RecordError: If a run's record is not as its manifest says, or results are not of schema 1.
    """
    folder = Path(name)
    if (folder / "results.json").is_file():
        return read_results(folder.parent, folder.name)[1]
    return read_stored(folder) if _is_path(runs, name) else read_results(runs, name)[1]


def read_stored(path: Path) -> Results:
    """Read a ``results.json`` that was carried elsewhere; no manifest seals it there.

    Args:
        path: The file, gzipped where its name ends in ``.gz``.

    Returns:
        The results.

    Raises:
        ConfigError: If there is no such file.
        RecordError: If it cannot be read or is not of schema 1.
    """
    if not path.is_file():
        raise ConfigError(str(path), "is no file", "name a run, or a results.json")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(path)
        data = path.read_bytes()
        return _parse(path, _unzip(path, data) if path.suffix == ".gz" else data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise RecordError(str(path), "is not gzipped, or was cut short", "store the results again") from None


def _unzip(path: Path, data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        whole = file.read(MAX_BYTES + 1)
    if len(whole) > MAX_BYTES:
        raise _too_large(path)
    return whole


def _too_large(path: Path) -> RecordError:
    return RecordError(str(path), f"holds more than {MAX_BYTES:,} bytes", "name a results.json")


def _is_path(runs: Path, name: str) -> bool:
    return "/" in name or (name.endswith((".json", ".json.gz")) and not (runs / name).is_dir())


def _parse(path: Path, data: bytes) -> Results:
    if any(token.lastgroup == "none" for token in _TOKEN.finditer(data)):
        # The plan may hold anything, and Python refuses to print a number of 4,300 digits.
        problem = "is not a result of schema 1, got a number that is none, or beyond all counts"
        raise RecordError(str(path), problem, "name a results.json")
    try:
        return Results.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        count = error.error_count()
        faults = f"{count} fault{'' if count == 1 else 's'}, the first at {place}: {first['msg']}"
        problem = f"is not a result of schema 1, got {faults}"
        raise RecordError(str(path), problem, "name a results.json, or use the version that wrote it") from None
