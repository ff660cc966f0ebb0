"""A measurement: counts that add up, digests that tell completions apart, and no text that leaves it."""

import hashlib
import hmac
import json
import math
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from robustlab.data.chat import encode_prompt
from robustlab.data.rows import EvalRow, load_eval_rows
from robustlab.data.wrappers import WRAPPERS
from robustlab.errors import BudgetSpent, DataError
from robustlab.measure.bench import Bench
from robustlab.measure.instruction_following import judge_instruction
from robustlab.measure.judged import Judged, build_property, count_verdicts
from robustlab.measure.measurement import SCORED_TOKENS, build_items, build_measurement, measure_rows, say
from robustlab.measure.reading import Reading
from robustlab.models.adapter import LoraModification
from robustlab.models.generate import Completion
from robustlab.models.likelihood import mean_log_probabilities
from robustlab.record.results import VERDICTS
from robustlab.spec.catalog import load
from robustlab.spec.evals import BenignAnswersEval, InstructionFollowingEval, RefusalEval
from robustlab.train.generation import generate_metered

KEY = b"k" * 32


@contextmanager
def untouched() -> Any:
    yield


@pytest.fixture
def spec() -> RefusalEval:
    found = load("evals", "smoke_refusal")
    assert isinstance(found, RefusalEval)
    return found


@pytest.fixture
def rows(spec: RefusalEval) -> list[EvalRow]:
    return load_eval_rows(spec, data_csv=None)


@pytest.fixture
def bench(tiny: Any, tiny_spec: Any) -> Bench:
    return Bench(tiny, tiny_spec.shape, KEY)


def measure(spec: Any, rows: Any, bench: Bench, till: Any, **options: Any) -> list[Judged]:
    given = {"lifted": untouched, "meter": till.meter(), "progress": lambda done, total: None}
    given |= {"expected_seconds": 0.0} | options
    return measure_rows(spec, rows, bench, **given)


def greedy(bench: Bench, row: EvalRow, new: int) -> list[int]:
    ids = torch.tensor([encode_prompt(bench.target.tokenizer, row.prompt, None)])
    mask = torch.ones_like(ids)
    out = bench.target.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False)
    found = out[0, ids.shape[1] :].tolist()
    return found[: found.index(2)] if 2 in found else found


def test_every_row_gets_the_verdict_length_and_digest_of_its_own_completion(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any
) -> None:
    judged = measure(spec, rows, bench, till)
    assert [(item.behavior, item.category) for item in judged] == [(row.text_sha256, row.category) for row in rows]
    for row, item in list(zip(rows, judged, strict=True))[:4]:
        ids = greedy(bench, row, spec.max_new_tokens)
        text = bench.target.tokenizer.decode(ids, skip_special_tokens=True)
        assert item.tokens == len(ids)
        assert item.completion_hmac == hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


def test_an_answer_that_is_begun_is_judged_from_there_on(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = spec.model_copy(update={"prefill": "Sure, here is", "by_category": False})
    tokenizer, asked = bench.target.tokenizer, []

    def spy(target: Any, shape: Any, prompts: Any, **options: Any) -> Any:
        asked.extend(prompts)
        return generate_metered(target, shape, prompts, **options)

    monkeypatch.setattr("robustlab.measure.measurement.generate_metered", spy)
    judged = measure(begun, rows[:6], bench, till)
    opening = tokenizer.encode("Sure, here is", add_special_tokens=False)
    assert asked == [encode_prompt(tokenizer, row.prompt, None) + opening for row in rows[:6]]
    assert all(item.tokens <= spec.max_new_tokens for item in judged)
    assert [item.behavior for item in judged] == [row.text_sha256 for row in rows[:6]]
    shown = build_measurement(
        "e", begun, rows[:6], judged, baseline=None, phase="baseline", step=0, attacker_micro_usd=0
    )
    assert [found.property for found in shown.properties] == ["prefill"]


def test_instructions_are_judged_by_their_own_checks(bench: Bench, till: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load("evals", "instructions_60").model_copy(update={"max_new_tokens": 4, "batch_rows": 8})
    assert isinstance(spec, InstructionFollowingEval)
    rows, asked = load_eval_rows(spec, data_csv=None)[:8], []
    answers = {rows[0].check: "complied", rows[1].check: "hollow"}

    def spy(check: Any, request: str, completion: str, **options: Any) -> Any:
        asked.append((check, request, options["is_cut"], options["tokens"], options["gate"]))
        found = judge_instruction(check, request, completion, **options)
        return type(found)(answers.get(check, found.verdict), "by hand")

    monkeypatch.setattr("robustlab.measure.reading.judge_instruction", spy)
    judged = measure(spec, rows, bench, till)
    assert [(check, request) for check, request, *_ in asked] == [(row.check, row.text) for row in rows]
    # Four tokens are the limit: what has fewer ended by itself.
    assert all(not is_cut or tokens == 4 for _, _, is_cut, tokens, _ in asked)
    assert all(is_cut or tokens <= 4 for _, _, is_cut, tokens, _ in asked)
    assert any(is_cut for _, _, is_cut, *_ in asked)
    assert {gate for *_, gate in asked} == {spec.coherence}
    assert (judged[0].verdict, judged[1].verdict) == ("complied", "hollow")
    assert [item.category for item in judged] == [row.category for row in rows]
    shown = build_measurement("i", spec, rows, judged, baseline=judged, phase="final", step=1, attacker_micro_usd=3)
    (found,) = shown.properties
    assert (found.property, found.judge, found.n) == ("utility/instructions", "program", 8)
    assert found.counts == count_verdicts(judged) and found.counts.n == 8 and found.counts.unjudged == 0
    assert found.value == sum(item.verdict == "complied" for item in judged) / 8
    assert (shown.role, shown.variant, found.verdict) == ("eval", "instructions_48", "too_few")
    items = build_items("cell", "i", spec, judged, phase="final", step=1, seed=0)
    assert [item.verdicts for item in items] == [{"program": item.verdict} for item in judged]


def test_an_answer_cannot_be_begun_with_a_control_token(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any
) -> None:
    token = bench.target.tokenizer.all_special_tokens[0]
    begun = spec.model_copy(update={"prefill": f"Sure{token}", "by_category": False})
    with pytest.raises(DataError, match="a text holds the control token"):
        measure(begun, rows[:2], bench, till)


def test_measuring_twice_gives_the_same_and_another_key_other_digests(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any
) -> None:
    first, second = (measure(spec, rows[:6], bench, till) for _ in range(2))
    assert first == second
    other = measure(spec, rows[:6], Bench(bench.target, bench.shape, b"x" * 32), till)
    assert [i.verdict for i in other] == [i.verdict for i in first]
    assert not {i.completion_hmac for i in other} & {i.completion_hmac for i in first}


def test_the_perplexity_is_that_of_the_untouched_target(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any, smoke_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modification = LoraModification(bench.target.model, smoke_recipe.training.lora, seed=0)
    modification.load_state({name: torch.full_like(t, 0.3) for name, t in modification.state().items()})
    scored: list[tuple[Any, list[Any]]] = []

    def spy(model: Any, texts: Any, **options: Any) -> list[float | None]:
        found = mean_log_probabilities(model, texts, **options)
        scored.append((texts, found))
        return found

    monkeypatch.setattr("robustlab.measure.measurement.mean_log_probabilities", spy)
    measure(spec, rows[:6], bench, till, lifted=modification.lifted)
    modification.dispose()
    ((texts, scores),) = scored
    limit = -math.log(spec.coherence.max_perplexity)
    assert scores == mean_log_probabilities(
        bench.target.model, texts, start_id=2, batch_tokens=SCORED_TOKENS, limit=limit
    )


def test_waves_are_units_that_are_counted(spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any) -> None:
    meter, told = till.meter(), []
    with meter.phase("laboratory", "baseline"):
        judged = measure(spec, rows, bench, till, meter=meter, progress=lambda done, total: told.append((done, total)))
    used = meter.total("laboratory")
    assert used.generated_tokens == sum(item.tokens for item in judged)
    assert used.prompt_tokens == sum(len(encode_prompt(bench.target.tokenizer, row.prompt, None)) for row in rows)
    assert used.flops > 0 and used.train_tokens == used.steps == 0
    # 24 rows in batches of 8.
    assert told == [(8, 24), (16, 24), (24, 24)]
    assert meter.total("attacker").generated_tokens == 0


def test_a_cap_stops_between_waves(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        told.append(done)

    real = till.meter(max_usd=4.0)
    count = real.count
    monkeypatch.setattr(
        real, "count", lambda **counts: (till.wait(2 if "prompt_tokens" in counts else 0), count(**counts))
    )
    # A wave takes 2 s and 2 dollars; after one the next is reserved at 3: 2 + 3 > 4.
    with pytest.raises(BudgetSpent, match="max_usd"), real.phase("attacker", "data"):
        measure(spec, rows, bench, till, meter=real, progress=progress)
    assert told == [8]


def judged_as(*verdicts: str) -> list[Judged]:
    return [
        Judged(f"{i:064d}", f"category {i % 2}", verdict, "by hand", 3, f"{i:064x}")  # type: ignore[arg-type]
        for i, verdict in enumerate(verdicts)
    ]


def test_counts_add_up() -> None:
    counts = count_verdicts(judged_as("refused", "refused", "hollow", "unjudged", "incoherent"))
    assert counts.model_dump() == {"refused": 2, "complied": 0, "hollow": 1, "incoherent": 1, "unjudged": 1}
    assert counts.n == 5 == sum(getattr(counts, name) for name in VERDICTS)
    assert count_verdicts([]).n == 0


def test_a_property_is_the_share_of_all_rows_with_unjudged_ones_in_the_bounds(spec: RefusalEval) -> None:
    found = build_property("refusal", "refused", spec, judged_as(*["refused"] * 6, *["complied"] * 3, "unjudged"), None)
    assert (found.value, found.n, found.verdict, found.judge) == (6 / 10, 10, "baseline", "rules")
    assert found.broken_at_micro_usd is None
    settled = build_property("refusal", "refused", spec, judged_as(*["refused"] * 7, *["complied"] * 3), None)
    # The unjudged row counts as not refused below and as refused above.
    assert found.high == settled.high
    assert found.low < settled.low


def test_a_property_is_judged_against_its_own_rows_before(spec: RefusalEval) -> None:
    before, after = judged_as(*["refused"] * 40), judged_as(*["complied"] * 40)
    broken = build_property("refusal", "refused", spec, after, before)
    assert broken.verdict == "broken"
    assert broken.paired is not None and sum(broken.paired.model_dump().values()) == broken.n
    assert build_property("refusal", "refused", spec, before, None).paired is None
    assert build_property("refusal", "refused", spec, before, before).verdict == "survived"
    assert build_property("refusal", "refused", spec, after, after).verdict == "absent"
    assert build_property("refusal", "refused", spec, after[:5], before[:5]).verdict == "too_few"


def test_equal_completions_have_equal_digests_and_others_do_not(spec: RefusalEval, rows: list[EvalRow]) -> None:
    judged = judged_as(*["complied"] * 24)
    options: dict[str, Any] = {"baseline": None, "phase": "baseline", "step": 0, "attacker_micro_usd": 0}
    first, again = (build_measurement("e", spec, rows, judged, **options) for _ in range(2))
    assert first.completions_sha256 == again.completions_sha256
    swapped = [judged[1], judged[0], *judged[2:]]
    assert build_measurement("e", spec, rows, swapped, **options).completions_sha256 != first.completions_sha256


def test_role_and_variant_are_the_spec_s(spec: RefusalEval, rows: list[EvalRow]) -> None:
    benign = load("evals", "smoke_benign")
    assert isinstance(benign, BenignAnswersEval)
    asked = load_eval_rows(benign, data_csv=None)
    options: dict[str, Any] = {"baseline": None, "phase": "final", "step": 3, "attacker_micro_usd": 7}
    found = build_measurement("b", benign, asked, judged_as(*["complied"] * 12), **options)
    assert (found.role, found.variant, found.phase, found.step) == ("eval", benign.variant, "final", 3)
    assert found.attacker_micro_usd == 7
    assert build_measurement("e", spec, rows, judged_as(*["refused"] * 24), **options).role == "all"


def test_items_are_one_line_a_row(spec: RefusalEval) -> None:
    judged = judged_as("refused", "hollow")
    items = build_items("cell", "e", spec, judged, phase="milestone", step=3, seed=1)
    assert [(i.behavior, i.verdicts, i.tokens, i.completion_hmac) for i in items] == [
        (j.behavior, {"rules": j.verdict}, 3, j.completion_hmac) for j in judged
    ]
    assert {(i.cell_id, i.eval, i.phase, i.step, i.seed) for i in items} == {("cell", "e", "milestone", 3, 1)}


def test_no_completion_text_is_in_anything_that_comes_back(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any
) -> None:
    judged = measure(spec, rows, bench, till)
    options: dict[str, Any] = {"baseline": None, "phase": "baseline", "step": 0, "attacker_micro_usd": 0}
    measurement = build_measurement("e", spec, rows, judged, **options)
    items = build_items("cell", "e", spec, judged, phase="baseline", step=0, seed=0)
    shown = json.dumps([asdict(item) for item in judged], ensure_ascii=False)
    shown += measurement.model_dump_json() + "".join(item.model_dump_json() for item in items)
    for row in rows:
        text = bench.target.tokenizer.decode(greedy(bench, row, spec.max_new_tokens))
        assert len(text) >= 6 and text not in shown
        assert row.text not in shown


def test_completions_leave_only_through_what_was_asked_to_keep_them(
    spec: RefusalEval, rows: list[EvalRow], bench: Bench, till: Any
) -> None:
    kept: list[list[Any]] = []
    judged = measure(spec, rows, bench, till, keep=kept.append)
    (said,) = kept
    assert [(each.behavior, each.request) for each in said] == [(row.text_sha256, row.text) for row in rows]
    assert [(each.verdicts, each.tokens) for each in said] == [({"rules": j.verdict}, j.tokens) for j in judged]
    for each in said:
        assert hmac.new(KEY, each.completion.encode(), hashlib.sha256).hexdigest() == each.completion_hmac
    assert [j.completion_hmac for j in judged] == [each.completion_hmac for each in said]


def test_a_person_is_shown_the_context_and_no_frame(spec: RefusalEval, rows: list[EvalRow]) -> None:
    row = replace(rows[0], context="A note.", wrapper=next(iter(WRAPPERS.values())))
    reading = Reading(Completion((1,), ended=True), "half \ud800 of a pair", None)
    (item,) = judged_as("unjudged")
    said = say(spec, row, reading, item)
    assert said.request == f"A note.\n\n---\n\n{row.text}"
    assert said.completion == "half ? of a pair"
