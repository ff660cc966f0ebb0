"""A stand-in for lm-eval where it is not installed: one kind of task, its requests and its scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from robustlab.data.sources import fetch_source
from robustlab.spec.evals import LmEvalEval
from robustlab.spec.loader import load_yaml

EXAMPLE = "docs/evals/lm_eval_common_facts.yaml"


def load_example(root: Any) -> LmEvalEval:
    """The example, with paths that hold from any working folder."""
    from robustlab.spec.catalog import schema_of

    spec = load_yaml(root / EXAMPLE, schema_of("evals"))
    assert isinstance(spec, LmEvalEval) and spec.task_file is not None
    source = spec.source.model_copy(update={"path": str(root / spec.source.path)})  # type: ignore[union-attr]
    assert fetch_source(source).is_file()
    pinned = spec.task_file.model_copy(update={"path": str(root / spec.task_file.path)})
    return spec.model_copy(update={"source": source, "task_file": pinned})


@dataclass
class Request:
    """What lm-eval calls an instance."""

    doc: dict[str, Any]
    args: tuple[Any, ...]
    request_type: str = "loglikelihood"
    resps: list[Any] = field(default_factory=list)
    filtered_resps: dict[str, Any] = field(default_factory=dict)


class FakeTask:
    """Four choices a question; the likeliest is held against the answer."""

    OUTPUT_TYPE = "multiple_choice"
    scale: float = 1.0

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._filters = [SimpleNamespace(name="none")]
        self._instances: list[Request] = []

    @property
    def eval_docs(self) -> Iterator[dict[str, Any]]:
        return self.config["custom_dataset"]()[self.config["test_split"]]  # type: ignore[no-any-return]

    def set_fewshot_seed(self, seed: int) -> None:
        self.seed = seed

    def doc_to_prefix(self, doc: dict[str, Any]) -> None:
        return None

    def fewshot_context(self, doc: dict[str, Any], *, num_fewshot: int, gen_prefix: str | None) -> str:
        return str(doc["question"])

    def construct_requests(self, doc: dict[str, Any], ctx: str, metadata: tuple[str, int, int]) -> list[Request]:
        return [Request(doc, (ctx, f" {choice}")) for choice in doc["choices"]]

    def apply_filters(self) -> None:
        for request in self._instances:
            request.filtered_resps["none"] = request.resps[0]

    def process_results(self, doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
        best = max(range(len(results)), key=lambda index: results[index][0])
        return {"acc": self.scale * (best == doc["answer"])}


MODULES: dict[str, Any] = {
    "lm_eval.api.task": SimpleNamespace(ConfigurableTask=FakeTask),
    "lm_eval.api.metrics": SimpleNamespace(),
    "lm_eval.api.registry": SimpleNamespace(metric_registry={"acc": None, "acc_norm": None, "exact_match": None}),
}
