"""Share of a task of lm-eval that is right: the harness asks and scores, the resident target answers, modified or not.

The target is asked as the harness does it, without a chat template or system prompt. Likelihoods are read off the
weights and generation is greedy, so that nothing is drawn. A document with a request that is longer than the target's
context is ``unjudged``: the harness would cut it without a word.

Source: the requests and scores are those of lm-eval, Gao et al. 2024, doi 10.5281/zenodo.12608602.
"""

import copy
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from robustlab.cost import flops
from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.data.lm_tasks import Document, Task, hushed, load_task, open_lm_eval
from robustlab.data.rows import EvalRow
from robustlab.measure.bench import Bench
from robustlab.measure.judged import Judged, build_property
from robustlab.models.load import LoadedTarget
from robustlab.record.results import PropertyResult
from robustlab.spec.evals import LmEvalEval
from robustlab.spec.targets import Shape
from robustlab.units import to_nanoseconds


class Answering(Protocol):
    """What is needed of lm-eval's wrapper around a model."""

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        ...

    def tok_encode(self, string: str) -> list[int]:
        """Token ids of a text."""
        ...

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the greedy one."""
        ...

    def generate_until(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        """What the model writes after each context."""
        ...


def measure_task(
    spec: LmEvalEval,
    rows: Sequence[EvalRow],
    bench: Bench,
    *,
    expected_seconds: float,
    meter: Meter,
    progress: Callable[[int, int], None],
) -> list[Judged]:
    """Have the target answer every document of a task, and score it.

    Args:
        spec: The eval.
        rows: Which documents, in the eval's own order.
        bench: The target, with whatever modification is on it, and the key.
        expected_seconds: What the eval should take.
        meter: Its current account pays; ``batch_rows`` documents are one unit.
        progress: Told of the rows done and of all rows.

    Returns:
        One verdict a row, in the order of ``rows``: ``complied`` where it is right, ``hollow`` where it is wrong.

    Raises:
        BudgetSpent: If the next unit would pass a cap of the account.
        ConfigError: If lm-eval is not installed.
        DataError: If the task's metric is neither right nor wrong.
    """
    task, answering = load_task(spec), wrap_target(bench.target, spec.batch_rows)
    by_digest = {document.sha256: document for document in task.documents}
    documents = [by_digest[row.text_sha256] for row in rows]
    units = [documents[start : start + spec.batch_rows] for start in range(0, len(documents), spec.batch_rows)]
    need = Quantities(wall_ns=to_nanoseconds(expected_seconds / len(units)))
    judged: list[Judged] = []
    for unit in units:
        meter.reserve(need.scaled(RESERVE_FACTOR))
        judged += _judge_unit(spec, task, unit, answering, bench, meter)
        need = Quantities(wall_ns=max(need.wall_ns, meter.settle().wall_ns))
        progress(len(judged), len(rows))
    return judged


def wrap_target(target: LoadedTarget, batch_rows: int) -> Answering:
    """Wrap the resident model for lm-eval, with whatever modification is on it.

    Args:
        target: The target; its tokenizer stays as it is, the wrapper gets a copy.
        batch_rows: Requests of one forward pass.

    Returns:
        lm-eval's own wrapper; it loads nothing and keeps no cache.

    Raises:
        ConfigError: If lm-eval is not installed.
    """
    with hushed():
        made: Answering = open_lm_eval("lm_eval.models.huggingface").HFLM(
            pretrained=target.model, tokenizer=copy.deepcopy(target.tokenizer), batch_size=batch_rows
        )
    return made


def task_properties(
    spec: LmEvalEval, judged: Sequence[Judged], baseline: Sequence[Judged] | None
) -> list[PropertyResult]:
    """``utility/<task>`` over all rows.

    Args:
        spec: The eval.
        judged: One verdict a row.
        baseline: Verdicts of the same rows in the same order before the attack; None at the baseline itself.

    Returns:
        One property, the share of documents that are right.
    """
    return [build_property(f"utility/{spec.task}", "complied", spec, judged, baseline)]


def _judge_unit(
    spec: LmEvalEval, task: Task, unit: Sequence[Document], answering: Answering, bench: Bench, meter: Meter
) -> list[Judged]:
    fitting = [each for each in unit if _longest(each, answering) + spec.max_new_tokens <= answering.max_length]
    requests = [request for document in fitting for request in document.requests]
    with hushed():
        replies = iter(_answer(requests, answering))
    answered = {document.sha256: [next(replies) for _ in document.requests] for document in fitting}
    found = []
    for document in unit:
        said = answered.get(document.sha256)
        tokens = 0 if said is None else _count(document, said, answering, bench.shape, meter)
        right = None if said is None else task.score(document, said)
        found.append(_keep(spec, document, right, tokens, repr(said), bench.key))
    return found


def _answer(requests: list[Any], answering: Answering) -> Sequence[object]:
    """Replies in the order of the requests, which are all of one type."""
    if not requests:
        return []
    if requests[0].request_type == "generate_until":
        return answering.generate_until(requests, disable_tqdm=True)
    return answering.loglikelihood(requests, disable_tqdm=True)


def _longest(document: Document, answering: Answering) -> int:
    return max(len(answering.tok_encode(_read(request))) for request in document.requests)


def _read(request: Any) -> str:
    """What the target reads for a request: its context, and the continuation that is scored."""
    return "".join(part for part in request.args if isinstance(part, str))


def _count(document: Document, replies: Sequence[object], answering: Answering, shape: Shape, meter: Meter) -> int:
    """Count what one document took; the tokens that were written for it."""
    written = 0
    for request, reply in zip(document.requests, replies, strict=True):
        prompt = len(answering.tok_encode(_read(request)))
        new = len(answering.tok_encode(reply)) if isinstance(reply, str) else 0
        work = flops.generation(shape, prompt, new) if new else flops.prefill(shape, prompt)
        meter.count(prompt_tokens=prompt, generated_tokens=new, flops=work)
        written += new
    return written


def _keep(spec: LmEvalEval, document: Document, right: bool | None, tokens: int, said: str, key: bytes) -> Judged:
    return Judged(
        behavior=document.sha256,
        category=spec.task,
        verdict="unjudged" if right is None else "complied" if right else "hollow",
        reason="too_long" if right is None else spec.metric,
        tokens=tokens,
        completion_hmac=hmac.new(key, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest(),
    )
