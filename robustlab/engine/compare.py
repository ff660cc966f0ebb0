"""Reads runs and stored results to hold them side by side; it writes nothing and does no model work. No torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from robustlab.engine.report import read_named
from robustlab.errors import ConfigError, RecordError
from robustlab.record.results import Item, Results
from robustlab.record.run_folder import read_plain
from robustlab.report.comparison import Comparison, Items, compare_results

_ITEMS = "items.jsonl"


def compare_runs(runs: Path, names: Sequence[str]) -> tuple[Comparison, list[Results]]:
    """Hold the first of some runs against each of the others.

    Args:
        runs: Folder of runs.
        names: Ids of finished runs, or paths of ``results.json`` files; rows are paired where ``items.jsonl`` lies
            beside them.

    Returns:
        The comparison, and the results that it was made from.

    Raises:
        ConfigError: If there are fewer than two, one comes twice, or there is no such run or file.
        RecordError: If what a run or a file holds is not what was written.
    """
    if len(names) < 2:
        raise ConfigError("compare", f"needs two runs or more, got {len(names)}", "name another one")
    documents = [read_named(runs, name) for name in names]
    known: dict[tuple[str, str], str] = {}
    for name, results in zip(names, documents, strict=True):
        twin = known.setdefault((results.run_id, results.ledger_head), name)
        if twin is not name:
            raise ConfigError("compare", f"got run {results.run_id} twice, as {twin} and {name}", "name it once")
    items = [_read_items(_place(runs, name)) for name in names]
    return compare_results(_tell_apart(documents), items), documents


def _tell_apart(documents: Sequence[Results]) -> list[Results]:
    """Number runs of one name, such as those of two folders."""
    times = Counter(results.run_id for results in documents)
    return [
        results if times[results.run_id] == 1 else results.model_copy(update={"run_id": f"{results.run_id} ({number})"})
        for number, results in enumerate(documents, start=1)
    ]


def _place(runs: Path, name: str) -> Path:
    """Where the items of what ``read_named`` found by this name would lie."""
    given = Path(name)
    if (given / "results.json").is_file():
        return given / _ITEMS
    return given.parent / _ITEMS if given.is_file() and not (runs / name).is_dir() else runs / name / _ITEMS


def _read_items(path: Path) -> Items:
    """Items of the final measurements by their cell; none where there is no such file."""
    if not path.exists():
        return {}
    found: dict[str, list[Item]] = {}
    for number, line in enumerate(read_plain(path).splitlines(), start=1):
        try:
            item = Item.model_validate_json(line)
        except ValidationError:
            problem = "is no item of a measurement"
            raise RecordError(
                f"{path} line {number}", problem, "put the run's own file back, or take it away"
            ) from None
        if item.phase == "final":
            found.setdefault(item.cell_id, []).append(item)
    return found
