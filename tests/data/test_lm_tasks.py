"""Tasks of lm-eval: what is refused before anything is spent, and that the documents are the eval's own pinned ones."""

import hashlib
import json
import logging
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from robustlab.data import lm_tasks
from robustlab.data.lm_tasks import hushed, load_task, open_lm_eval, require_lm_eval
from robustlab.data.rows import load_eval_rows
from robustlab.errors import ConfigError, DataError
from robustlab.spec.catalog import load, package_root
from robustlab.spec.evals import LmEvalEval
from tests.command_line import parse
from tests.lm_tasks.harness import EXAMPLE, MODULES, FakeTask, load_example

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs the extra robustlab[lm-eval]")


@pytest.fixture
def spec() -> LmEvalEval:
    return load_example(package_root())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_tasks, "open_lm_eval", MODULES.__getitem__)
    monkeypatch.setattr(lm_tasks, "find_spec", lambda name: name)


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_tasks, "find_spec", lambda name: None)


def with_task(spec: LmEvalEval, path: Path, text: str) -> LmEvalEval:
    path.write_text(text, encoding="utf-8")
    assert spec.task_file is not None
    pinned = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return spec.model_copy(update={"task_file": spec.task_file.model_copy(update=pinned)})


def with_rows(spec: LmEvalEval, path: Path, data: bytes) -> LmEvalEval:
    path.write_bytes(data)
    pinned = {"path": str(path), "sha256": hashlib.sha256(data).hexdigest()}
    return spec.model_copy(update={"source": spec.source.model_copy(update=pinned)})


TASK = "task: t\noutput_type: multiple_choice\nmetric_list: [{metric: acc}]\n"


def test_the_example_opens_as_every_eval_does_and_its_command_parses() -> None:
    meaning, command, cost = (package_root() / EXAMPLE).read_text(encoding="utf-8").splitlines()[:3]
    assert meaning.startswith("# ") and meaning.endswith(".") and cost.startswith("# Cost: ") and cost.endswith(".")
    words = shlex.split(command.removeprefix("# Command: "))
    assert words[0] == "robustlab" and parse(words[1:])["eval_"] == [Path(EXAMPLE).stem]


def test_without_the_extra_one_error_names_the_eval(spec: LmEvalEval, monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch)
    message = r"^eval facts: needs lm-eval, which is not installed; run `pip install 'robustlab\[lm-eval\]'`$"
    with pytest.raises(ConfigError, match=message):
        require_lm_eval({"benign_kl": load("evals", "benign_kl"), "facts": spec})
    with pytest.raises(ConfigError, match=r"^task common_facts: needs lm-eval, which is not installed"):
        load_task(spec)
    with pytest.raises(ConfigError, match=r"^lm_eval.api.task: needs lm-eval, which is not installed"):
        open_lm_eval("lm_eval.api.task")
    require_lm_eval({"benign_kl": load("evals", "benign_kl")})


def test_a_row_is_a_document_and_its_text_all_that_is_read(spec: LmEvalEval, fake: None) -> None:
    rows = load_eval_rows(spec, data_csv=None)
    assert len(rows) == 16 and {row.category for row in rows} == {"common_facts"} and rows[0].role == "report"
    assert rows[0].text.split("\n") == [
        f"The capital of France is {city}" for city in ("Paris", "Rome", "Oslo", "Cairo")
    ]
    line = Path(spec.source.path).read_text(encoding="utf-8").splitlines()[0]  # type: ignore[union-attr]
    assert rows[0].text_sha256 == hashlib.sha256(json.dumps(json.loads(line), sort_keys=True).encode()).hexdigest()
    assert len({row.text_sha256 for row in rows}) == 16


def test_one_metric_of_the_task_is_read(spec: LmEvalEval, fake: None) -> None:
    task = load_task(spec)
    first = task.documents[0]  # Paris, the first choice, is right
    assert task.score(first, [(-1.0, True), (-2.0, False), (-3.0, False), (-4.0, False)])
    assert not task.score(first, [(-2.0, True), (-1.0, False), (-3.0, False), (-4.0, False)])
    assert [entry["metric"] for entry in task._own.config["metric_list"]] == ["acc"]
    assert task._own.seed == 1234 and task._own.config["num_fewshot"] == 0


def test_a_metric_between_right_and_wrong_is_refused(
    spec: LmEvalEval, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(spec)
    replies = [(0.0, True), (-1.0, True), (-1.0, True), (-1.0, True)]
    monkeypatch.setattr(FakeTask, "scale", 0.25)
    with pytest.raises(DataError, match=r"^task common_facts row 1: acc must be 0 or 1, got 0.25; name a metric that"):
        task.score(task.documents[0], replies)
    monkeypatch.setattr(FakeTask, "process_results", lambda self, doc, results: {})
    with pytest.raises(DataError, match=r"^task common_facts row 1: gave no acc, got KeyError; mend the task"):
        task.score(task.documents[0], replies)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TASK + "process_docs: !function tools.prepare\n", "is no plain YAML; write plain YAML without tags"),
        (TASK + "include: base.yaml\n", "names include, which the eval does not pin; write the task whole"),
        (TASK + "unsafe_code: true\nprocess_docs: x\n", "names process_docs, unsafe_code, which the eval does not pin"),
        ("- task\n", "must be a mapping, got list; write an lm-eval task"),
    ],
)
def test_a_task_file_holds_no_code(spec: LmEvalEval, fake: None, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(with_task(spec, tmp_path / "task.yaml", text))
    assert str(caught.value).startswith(f"{tmp_path / 'task.yaml'}: {message}")


def test_a_task_file_is_the_pinned_one(spec: LmEvalEval, fake: None, tmp_path: Path) -> None:
    pinned = with_task(spec, tmp_path / "task.yaml", TASK)
    (tmp_path / "task.yaml").write_text("task: other\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"task.yaml: has sha256 [0-9a-f]{64}, pinned is [0-9a-f]{64}; check the file"):
        load_task(pinned)
    (tmp_path / "task.yaml").unlink()
    with pytest.raises(ConfigError, match=r"task.yaml: is not there; name the file relative to the working folder"):
        load_task(pinned)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "rows.jsonl: has no rows, got 0; take a set that has rows"),
        (b"[1]\n", "rows.jsonl row 1: is not an object, got list; write one JSON object a line"),
        (b'{"question": "a"}\n{\n', "rows.jsonl row 2: is not JSON in UTF-8; write one JSON object a line"),
        (b'{"question": "\\ud800"}\n', "rows.jsonl row 1: is not JSON in UTF-8; write one JSON object a line"),
        (b'{"question": "a"}\n', "rows.jsonl row 1: does not fit task common_facts, got KeyError; check that the"),
        (b'{"question": "a", "choices": []}\n', "rows.jsonl row 1: asks nothing in task common_facts; mend the"),
    ],
)
def test_a_bad_document_is_named_and_not_quoted(
    spec: LmEvalEval, fake: None, tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_task(with_rows(spec, tmp_path / "rows.jsonl", data))
    assert str(caught.value).startswith(message)


def test_what_the_task_does_not_hold_is_refused(spec: LmEvalEval, fake: None, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^task common_facts: has no metric 'bleu' that lm-eval brings along; name one"
    ):
        load_task(spec.model_copy(update={"metric": "bleu"}))
    asking = with_task(spec, tmp_path / "a.yaml", TASK + "fewshot_split: train\n")
    load_task(asking)
    message = r"^task common_facts: takes examples from split 'train', which the eval does not hold; set num_fewshot: 0"
    with pytest.raises(ConfigError, match=message):
        load_task(asking.model_copy(update={"num_fewshot": 2}))


@pytest.mark.parametrize(
    ("name", "value", "asks"),
    [("OUTPUT_TYPE", "loglikelihood_rolling", "loglikelihood_rolling"), ("UNSAFE_CODE", True, "running code")],
)
def test_a_task_of_another_kind_is_refused(
    spec: LmEvalEval, fake: None, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, asks: str
) -> None:
    monkeypatch.setattr(FakeTask, name, value, raising=False)
    with pytest.raises(
        ConfigError, match=f"^task common_facts: asks for {asks}; take a task of output_type multiple_ch"
    ):
        load_task(spec)


def test_a_task_that_cannot_be_built_says_so(spec: LmEvalEval, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeTask, config: dict[str, Any]) -> None:
        raise ValueError("a quoted document")

    monkeypatch.setattr(FakeTask, "__init__", fail)
    message = r"^task common_facts: cannot be built on common_facts.jsonl, got ValueError; mend the task file"
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(spec)
    assert "quoted" not in str(caught.value)


def test_the_log_is_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lm_eval.api.task")
    with hushed():
        logger.error("a document")
    assert caplog.messages == []
    logger.error("heard again")
    assert caplog.messages == ["heard again"]


@needs_lm_eval
def test_a_template_is_filled_in_a_sandbox(spec: LmEvalEval, tmp_path: Path) -> None:
    text = TASK + 'doc_to_text: "{{ question.__class__.__mro__ }}"\ndoc_to_choice: choices\ndoc_to_target: answer\n'
    message = r"^task common_facts: cannot be built on common_facts.jsonl, got SecurityError; mend"
    with pytest.raises(ConfigError, match=message):
        load_task(with_task(spec, tmp_path / "task.yaml", text))


@needs_lm_eval
def test_a_task_of_lm_evals_own_reads_the_pinned_documents(spec: LmEvalEval, tmp_path: Path) -> None:
    choices = {"text": ["five", "nine"], "label": ["A", "B"]}
    row = json.dumps({"question": "What is two plus three?", "choices": choices, "answerKey": "A"}).encode()
    own = with_rows(spec, tmp_path / "arc.jsonl", row).model_copy(update={"task": "arc_easy", "task_file": None})
    task = load_task(own)
    asked = "Question: What is two plus three?\nAnswer: "
    assert task.documents[0].text == f"{asked}five\n{asked}nine"
    assert task.score(task.documents[0], [(-1.0, True), (-2.0, False)])
    message = r"^task no_such_task: is no task of lm-eval's own; name a single task of the installed lm-eval, or pin"
    with pytest.raises(ConfigError, match=message):
        load_task(own.model_copy(update={"task": "no_such_task"}))


@needs_lm_eval
def test_an_unknown_module_of_lm_eval_is_imported_from_it() -> None:
    assert open_lm_eval("lm_eval.utils").env.sandboxed
