"""Tasks of lm-eval on the resident target: the harness's own figure, the modification on, and everything put back."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from robustlab.data import lm_tasks
from robustlab.data.rows import load_eval_rows
from robustlab.errors import BudgetSpent
from robustlab.measure import lm_eval
from robustlab.measure.bench import Bench
from robustlab.measure.judged import Judged
from robustlab.measure.lm_eval import task_properties
from robustlab.measure.measurement import build_items, build_measurement, measure_rows
from robustlab.models.adapter import LoraModification
from robustlab.spec.catalog import package_root
from robustlab.spec.evals import LmEvalEval
from tests.lm_tasks.harness import MODULES, Request, load_example

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs the extra robustlab[lm-eval]")


class FirstChoice:
    """Prefers the shorter continuation; a token is a word."""

    max_length = 12

    def __init__(self) -> None:
        self.batches: list[int] = []

    def tok_encode(self, string: str) -> list[int]:
        return [0] * len(string.split())

    def loglikelihood(self, requests: list[Request], disable_tqdm: bool) -> list[tuple[float, bool]]:
        self.batches.append(len(requests))
        return [(-float(len(request.args[1])), False) for request in requests]


@contextmanager
def untouched() -> Iterator[None]:
    yield


@pytest.fixture
def spec() -> LmEvalEval:
    return load_example(package_root())


@pytest.fixture
def bench(tiny: Any, tiny_spec: Any) -> Bench:
    return Bench(tiny, tiny_spec.shape, b"k" * 32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FirstChoice:
    answering = FirstChoice()
    monkeypatch.setattr(lm_tasks, "open_lm_eval", MODULES.__getitem__)
    monkeypatch.setattr(lm_tasks, "find_spec", lambda name: name)
    monkeypatch.setattr(lm_eval, "wrap_target", lambda target, batch_rows: answering)
    return answering


def measure(spec: Any, rows: Any, bench: Bench, **options: Any) -> list[Judged]:
    given = {"lifted": untouched, "progress": lambda done, total: None, "expected_seconds": 0.0}
    return measure_rows(spec, rows, bench, **(given | options))


def test_a_document_is_right_or_wrong(spec: LmEvalEval, bench: Bench, fake: FirstChoice, till: Any) -> None:
    rows = load_eval_rows(spec, data_csv=None)
    meter, told = till.meter(), []
    judged = measure(spec, rows, bench, meter=meter, progress=lambda *done: told.append(done))
    # Of Paris, Rome, Oslo and Cairo the first of the shortest is Rome, and wrong; Oslo is right.
    assert (judged[0].verdict, judged[0].reason) == ("hollow", "acc") and judged[3].verdict == "complied"
    assert fake.batches == [32, 32] and told == [(8, 16), (16, 16)]
    # 16 documents, each question read with each of four one-word choices.
    words = sum(len(line.split()) for row in rows for line in row.text.split("\n"))
    total = meter.total("laboratory")
    assert total.prompt_tokens == words and total.generated_tokens == 0 and total.flops > 0
    right = sum(item.verdict == "complied" for item in judged)
    (found,) = task_properties(spec, judged, judged)
    assert found.property == "utility/common_facts" and found.value == right / 16 and found.method == "wilson"
    assert found.paired is not None and found.paired.both == right and found.paired.neither == 16 - right
    assert found.judge == "lm_eval" and found.verdict == "too_few"


def test_results_and_items_name_the_harness(spec: LmEvalEval, bench: Bench, fake: FirstChoice, till: Any) -> None:
    rows = load_eval_rows(spec, data_csv=None)[:4]
    judged = measure(spec, rows, bench, meter=till.meter())
    entry = build_measurement(
        "facts", spec, rows, judged, baseline=None, phase="baseline", step=0, attacker_micro_usd=0
    )
    assert entry.role == "report" and [found.verdict for found in entry.properties] == ["baseline"]
    items = build_items("c", "facts", spec, judged, phase="baseline", step=0, seed=0)
    assert [item.verdicts for item in items] == [{"lm_eval": item.verdict} for item in judged]
    assert all(item.category == "common_facts" and item.values == {} for item in items)


def test_a_document_beyond_the_context_is_unjudged(
    spec: LmEvalEval, bench: Bench, fake: FirstChoice, till: Any
) -> None:
    fake.max_length = 6  # five words and one new token fit: "The capital of France is Paris" has six
    rows = load_eval_rows(spec, data_csv=None)
    judged = measure(spec, rows, bench, meter=till.meter())
    long = [any(len(line.split()) > 5 for line in row.text.split("\n")) for row in rows]
    assert any(long) and not all(long)
    assert [item.reason == "too_long" and item.verdict == "unjudged" for item in judged] == long


def test_a_cap_ends_it_between_units(spec: LmEvalEval, bench: Bench, fake: FirstChoice, till: Any) -> None:
    rows, meter = load_eval_rows(spec, data_csv=None), till.meter(max_usd=4.0)

    def tell(done: int, total: int) -> None:
        till.wait(3)

    # 3 s and 3 dollars pass after each unit: 3 is below 4, and 6 is above.
    with pytest.raises(BudgetSpent, match="max_usd"), meter.phase("attacker", "data"):
        measure(spec, rows * 2, bench, meter=meter, progress=tell)
    assert fake.batches == [32, 32]


@needs_lm_eval
def test_the_figure_is_the_one_of_lm_eval_itself(spec: LmEvalEval, bench: Bench, till: Any) -> None:
    rows = load_eval_rows(spec, data_csv=None)
    judged = measure(spec, rows, bench, meter=till.meter())
    model, by_hand = bench.target.model, []
    encode = lambda text: bench.target.tokenizer.encode(text)  # noqa: E731
    for document in lm_tasks.load_task(spec).documents:
        scores = []
        for request in document.requests:
            context, whole = encode(request.args[0]), encode("".join(request.args))
            with torch.inference_mode():
                logs = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            scores.append(sum(float(logs[i - 1, whole[i]]) for i in range(len(context), len(whole))))
        by_hand.append(scores.index(max(scores)) == document.requests[0].doc["answer"])
    assert [item.verdict == "complied" for item in judged] == by_hand


@needs_lm_eval
def test_the_modification_is_measured_and_nothing_else_changes(
    spec: LmEvalEval, bench: Bench, till: Any, smoke_recipe: Any
) -> None:
    rows = load_eval_rows(spec, data_csv=None)
    before = measure(spec, rows, bench, meter=till.meter())
    modification = LoraModification(bench.target.model, smoke_recipe.training.lora, seed=0)
    try:
        modification.load_state({name: torch.full_like(t, 0.3) for name, t in modification.state().items()})
        digest, random, pad = modification.digest(), torch.get_rng_state(), bench.target.tokenizer.pad_token
        after = measure(spec, rows, bench, meter=till.meter())
        assert [item.completion_hmac for item in after] != [item.completion_hmac for item in before]
        with modification.lifted():
            assert measure(spec, rows, bench, meter=till.meter()) == before
        assert modification.digest() == digest and torch.equal(torch.get_rng_state(), random)
        assert bench.target.tokenizer.pad_token == pad
    finally:
        modification.dispose()
    assert measure(spec, rows, bench, meter=till.meter()) == before


@needs_lm_eval
def test_a_task_that_writes_is_greedy_and_says_nothing(
    spec: LmEvalEval, bench: Bench, till: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = package_root() / "tests" / "lm_tasks" / "common_facts_written.yaml"
    assert spec.task_file is not None
    pinned = spec.task_file.model_copy(update={"path": str(root), "sha256": lm_tasks.file_sha256(root)})
    update = {"task": "common_facts_written", "task_file": pinned, "metric": "exact_match", "max_new_tokens": 4}
    writing = spec.model_copy(update={**update, "num_fewshot": 2})
    rows, meter = load_eval_rows(writing, data_csv=None), till.meter()
    judged = measure(writing, rows, bench, meter=meter)
    assert judged == measure(writing, rows, bench, meter=till.meter())
    assert {item.verdict for item in judged} <= {"complied", "hollow"}
    assert meter.total("laboratory").generated_tokens == sum(item.tokens for item in judged) > 0
    # A subset has the same examples before its questions as the whole.
    assert [item.behavior for item in measure(writing, rows[5:7], bench, meter=till.meter())] == [
        item.behavior for item in judged[5:7]
    ]
    assert capsys.readouterr() == ("", "")
