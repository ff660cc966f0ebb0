"""The only door to lm-eval: tasks of that harness on pinned documents, what they ask, and how they score a reply.

lm-eval is an extra; nothing here imports it before a task is loaded. The documents always come from the eval's own
pinned source, never from where the task says; a task file holds templates, no code, and they are filled in a sandbox.
This module knows no model and quotes no document in any message.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import yaml
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from robustlab.data.sources import fetch_source
from robustlab.errors import ConfigError, DataError
from robustlab.record.run_folder import file_sha256
from robustlab.spec.evals import Eval, LmEvalEval, TaskFile

EXAMPLES_SEED = 1234
"""Draws the examples before a question. Source: the default of ``lm_eval.simple_evaluate``."""
REFUSED = (
    "class",
    "custom_dataset",
    "doc_to_audio",
    "doc_to_image",
    "include",
    "process_docs",
    "unsafe_code",
    "use_prompt",
)
"""Keys of a task file that would read other files or run code; the eval pins neither."""
OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "generate_until")
"""Kinds of request whose score can be right or wrong."""
# What lm-eval and its templates raise over a task or a document that does not fit.
_FAULTS = (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OSError)


@dataclass(frozen=True)
class Document:
    """One question of a task.

    Attributes:
        number: Its place in the task, from 1.
        sha256: Hash of the document as canonical JSON.
        requests: lm-eval's own, in the order in which the task scores their replies.
        text: Everything that is read for it, each request with its continuation.
    """

    number: int
    sha256: str
    requests: tuple[Any, ...] = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True)
class Task:
    """A task that lm-eval has built.

    Attributes:
        name: Its name.
        metric: Which of its metrics is read.
        documents: Every question, in the order of the task.
    """

    name: str
    metric: str
    documents: tuple[Document, ...]
    _own: Any = field(repr=False)

    def score(self, document: Document, replies: Sequence[object]) -> bool:
        """Whether the replies to one document are right, by the task's first filter and its metric.

        Args:
            document: One of the task's own.
            replies: One for each of its requests.

        Returns:
            True for a metric of 1, False for 0.

        Raises:
            DataError: If the metric cannot be had for it, or is neither.
        """
        where = f"task {self.name} row {document.number}"
        own = self._own
        for request, reply in zip(document.requests, replies, strict=True):
            request.resps, request.filtered_resps = [reply], {}
        try:
            with hushed():
                own._instances = list(document.requests)
                own.apply_filters()
                name = own._filters[0].name
                kept = [request.filtered_resps[name] for request in document.requests]
                value = float(own.process_results(document.requests[0].doc, kept)[self.metric])
        except _FAULTS as error:
            problem = f"gave no {self.metric}, got {type(error).__name__}"
            raise DataError(where, problem, "mend the task, or name another metric") from None
        if value not in (0.0, 1.0):
            problem = f"{self.metric} must be 0 or 1, got {value:g}"
            raise DataError(where, problem, "name a metric that is right or wrong, such as acc or exact_match")
        return value == 1.0


def require_lm_eval(evals: Mapping[str, Eval]) -> None:
    """Refuse evals that need the extra where it is not installed.

    Args:
        evals: Specs by id.

    Raises:
        ConfigError: Naming the first such eval.
    """
    for name, spec in evals.items():
        if isinstance(spec, LmEvalEval):
            _require(f"eval {name}")


def open_lm_eval(module: str) -> Any:
    """Import a module of lm-eval.

    Args:
        module: Its full name.

    Returns:
        The module; templates of tasks are filled in a sandbox from now on.

    Raises:
        ConfigError: If the extra is not installed.
    """
    _require(module)
    with warnings.catch_warnings(), hushed():
        warnings.simplefilter("ignore")
        found, own = import_module(module), cast(Any, import_module("lm_eval.utils"))
    if not isinstance(own.env, ImmutableSandboxedEnvironment):
        loader, undefined, filters = own.env.loader, own.env.undefined, own.env.filters
        own.env = ImmutableSandboxedEnvironment(loader=loader, undefined=undefined, keep_trailing_newline=True)
        own.env.filters.update(filters)
    return found


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what lm-eval logs, which quotes documents, and progress bars of ``datasets`` off the terminal."""
    import datasets  # slow, and nobody comes here without lm-eval, which loads it

    logger, shown = logging.getLogger("lm_eval"), datasets.utils.logging.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def load_task(spec: LmEvalEval) -> Task:
    """Build a task on the eval's own documents.

    Args:
        spec: The eval.

    Returns:
        The task with every document. Examples before a question are drawn from the same documents, never the document
        itself, or are those that the task file lists; equal every time.

    Raises:
        ConfigError: If lm-eval is not installed, or the task is none that it can build.
        DataError: If the documents cannot be had, are not as pinned, or do not fit the task.
    """
    where = f"task {spec.task}"
    _require(where)
    configurable = open_lm_eval("lm_eval.api.task").ConfigurableTask
    config = _builtin_config(spec.task) if spec.task_file is None else _read_config(spec.task_file)
    path = fetch_source(spec.source)
    rows = _read_documents(path)
    try:
        with hushed():
            own = configurable(config=_settle(where, config, rows, spec))
            own.set_fewshot_seed(EXAMPLES_SEED)
    except _FAULTS as error:
        if isinstance(error, ConfigError | DataError):
            raise
        problem = f"cannot be built on {path.name}, got {type(error).__name__}"
        raise ConfigError(where, problem, "mend the task file, or check that the documents have its fields") from None
    _refuse_odd(where, own)
    with hushed():
        docs = list(own.eval_docs)
    documents = tuple(_ask(f"{path.name} row {number}", own, number, doc, spec) for number, doc in enumerate(docs, 1))
    return Task(spec.task, spec.metric, documents, own)


def _require(where: str) -> None:
    if find_spec("lm_eval") is None:
        raise ConfigError(where, "needs lm-eval, which is not installed", "run `pip install 'robustlab[lm-eval]'`")


def _refuse_odd(where: str, own: Any) -> None:
    unsafe, pictures = getattr(own, "UNSAFE_CODE", False), getattr(own, "MULTIMODAL", False)
    if own.OUTPUT_TYPE not in OUTPUT_TYPES or unsafe or pictures:
        kind = "running code" if unsafe else "pictures" if pictures else own.OUTPUT_TYPE
        raise ConfigError(where, f"asks for {kind}", f"take a task of output_type {', '.join(OUTPUT_TYPES)}")


def _builtin_config(name: str) -> dict[str, Any]:
    with hushed():
        index = open_lm_eval("lm_eval.tasks").TaskManager().task_index
        entry = index.get(name)
        path = None if entry is None else entry.yaml_path
        config = None if path is None else dict(open_lm_eval("lm_eval.tasks._yaml_loader").load_yaml(path))
    if config is None or "task" not in config or not isinstance(config["task"], str):
        remedy = "name a single task of the installed lm-eval, or pin a task_file"
        raise ConfigError(f"task {name}", "is no task of lm-eval's own", remedy)
    return config


def _read_config(pinned: TaskFile) -> dict[str, Any]:
    """A task file as plain data: a tag such as ``!function`` is refused, since it runs a file that nobody pinned."""
    path = Path(pinned.path)
    if not path.is_file():
        raise ConfigError(pinned.path, "is not there", "name the file relative to the working folder")
    got = file_sha256(path)
    if got != pinned.sha256:
        raise DataError(pinned.path, f"has sha256 {got}, pinned is {pinned.sha256}", "check the file, or pin it anew")
    try:
        config = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        remedy = "write plain YAML without tags such as !function"
        raise ConfigError(pinned.path, "is no plain YAML", remedy) from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise ConfigError(pinned.path, f"must be a mapping, got {type(config).__name__}", "write an lm-eval task")
    refused = sorted(set(REFUSED) & set(config))
    if refused:
        remedy = "write the task whole, in templates"
        raise ConfigError(pinned.path, f"names {', '.join(refused)}, which the eval does not pin", remedy)
    return config


def _read_documents(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line.decode("utf-8-sig"))
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise DataError(
                f"{path.name} row {number}", "is not JSON in UTF-8", "write one JSON object a line"
            ) from None
        if not isinstance(row, dict):
            problem = f"is not an object, got {type(row).__name__}"
            raise DataError(f"{path.name} row {number}", problem, "write one JSON object a line")
        rows.append(row)
    if not rows:
        raise DataError(path.name, "has no rows, got 0", "take a set that has rows")
    return rows


def _settle(where: str, config: dict[str, Any], rows: list[dict[str, Any]], spec: LmEvalEval) -> dict[str, Any]:
    """The task as the eval wants it: its documents and number of examples, its one metric, greedy generation."""
    import datasets  # slow, and nobody comes here without lm-eval, which loads it

    split = config.get("test_split") or config.get("validation_split") or "test"
    metrics = config.get("metric_list")
    chosen = [entry for entry in metrics or () if entry.get("metric") == spec.metric]
    known = open_lm_eval("lm_eval.api.registry").metric_registry
    open_lm_eval("lm_eval.api.metrics")
    if not chosen or (spec.metric not in known and "process_results" not in config) or chosen[0].get("hf_evaluate"):
        problem = f"has no metric {spec.metric!r} that lm-eval brings along"
        raise ConfigError(where, problem, "name one of the task's metric_list, such as acc or exact_match")
    examples = config.get("fewshot_config") or {}
    if spec.num_fewshot and "samples" not in examples and config.get("fewshot_split") not in (None, split):
        problem = f"takes examples from split {config['fewshot_split']!r}, which the eval does not hold"
        raise ConfigError(where, problem, "set num_fewshot: 0, or list fewshot_config.samples in a task_file")
    data = datasets.Dataset.from_list(rows)
    kwargs = dict(config.get("generation_kwargs") or {})
    # Greedy, whatever the task says: two measurements of one model have to agree.
    greedy = {"until": kwargs.get("until", ["\n"]), "max_gen_toks": spec.max_new_tokens, "do_sample": False}
    dropped = ("dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "fewshot_split")
    return {
        **{key: value for key, value in config.items() if key not in dropped},
        "task": spec.task,
        "custom_dataset": lambda **_: {split: data},
        "test_split": split,
        "fewshot_config": examples if spec.num_fewshot and examples else None,
        "num_fewshot": spec.num_fewshot,
        "metric_list": chosen,
        "repeats": 1,
    } | ({"generation_kwargs": greedy} if config.get("output_type") == "generate_until" else {})


def _ask(where: str, own: Any, number: int, doc: dict[str, Any], spec: LmEvalEval) -> Document:
    try:
        with hushed():
            prefix = own.doc_to_prefix(doc)
            context = own.fewshot_context(doc, num_fewshot=spec.num_fewshot, gen_prefix=prefix)
            made = own.construct_requests(doc=doc, ctx=context, metadata=(spec.task, number - 1, 1))
            requests = tuple(made) if isinstance(made, list) else (made,)
            text = "\n".join("".join(part for part in each.args if isinstance(part, str)) for each in requests)
        canonical = json.dumps(doc, sort_keys=True, default=str)
    except _FAULTS as error:
        problem = f"does not fit task {spec.task}, got {type(error).__name__}"
        raise DataError(where, problem, "check that the document has the fields of the task") from None
    if not requests or not text.strip():
        raise DataError(where, f"asks nothing in task {spec.task}", "mend the document or the task")
    return Document(number, hashlib.sha256(canonical.encode()).hexdigest(), requests, text)
