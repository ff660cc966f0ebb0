"""What second judges will take: the arithmetic by hand, from one judge to the purse of a run."""

from dataclasses import replace
from typing import Any

import pytest

from robustlab.cost.bill import PricedCell, estimate_run
from robustlab.cost.estimate import estimate_cell
from robustlab.cost.job import Completions, Prompts
from robustlab.cost.judging import RUBRIC_TOKENS, judging_fee_usd, judging_seconds, loading_bytes
from robustlab.cost.outlay import list_laboratory_outlays, list_outlays
from robustlab.cost.pace import read_pace
from robustlab.cost.schedule import plan_schedule
from robustlab.engine.plan import describe_cell
from robustlab.measure.opinions import Question
from robustlab.measure.rubrics import build_messages, measure_messages
from robustlab.spec.attacks import WithheldData
from robustlab.spec.evals import Milestones, RefusalEval
from robustlab.spec.judges import ClassifierJudge, PhrasesJudge
from robustlab.spec.plan import Cell
from tests.measure.second_judges import CRITERION, api_judge

URL = "http://127.0.0.1:9/v1"
SERVER = api_judge(URL)
PHRASES = PhrasesJudge.model_validate({"id": "phrases", "kind": "phrases", "criterion": CRITERION})
DATA = WithheldData(mode="withheld", attack_rows=4, benign_share=0.5, benign_new_tokens=8)
# 6 completions of 8 tokens to prompts of 5 under a rubric of 250: 6 x 263 tokens at $2 a million and 6 x 8 at $10.
FEE, LEAST_FEE = 0.003156 + 0.00048, 0.003084 + 0.00012
SPEEDS = ("lora_flops_per_second", "decode_flops_per_second", "load_bytes_per_second")
DELAYS = (
    "startup_seconds", "cell_start_seconds", "trainer_seconds", "step_overhead_seconds", "wave_seconds",
    "layer_pass_seconds", "record_seconds",
)  # fmt: skip
MARK_FEE = 0.002104 + 0.00032  # the same of 4


@pytest.fixture
def judged(build_job: Any, hand_made_hardware: Any) -> Any:
    """Builder of jobs whose one eval has second judges: 6 rows in full, 4 at a mark."""

    def build(*judges: Any, limits: Any = None) -> Any:
        marks = Milestones(per_decade=2, rows=4)
        spec = RefusalEval.model_construct(max_new_tokens=8, batch_rows=4, milestones=marks, second_judges=judges)
        # A cent a second; all of it fast, so that only what judges take is seen.
        fast = dict.fromkeys(SPEEDS, (1e9, 1e9, 1e9))
        still = dict.fromkeys(DELAYS, (1e-9, 1e-9, 1e-9))
        hardware = hand_made_hardware(prefill_flops_per_second=(1e6, 1e6, 1e6), **fast, **still)
        return build_job(hardware, limits, evals={"mild": spec})

    return build


def classifier(**changes: Any) -> ClassifierJudge:
    pinned = {"path": "prompt.txt", "sha256": "0" * 64}
    weights = {"kind": "hub", "model": "o/n", "revision": "0" * 40, "dtype": "bfloat16"}
    plain = {
        "id": "big", "kind": "classifier", "weights": weights, "licence": "MIT", "prompt": pinned,
        "prompt_contextual": None, "clip_tokens": 6, "batch_rows": 8, "criterion": CRITERION,
    }  # fmt: skip
    return ClassifierJudge.model_validate(plain | changes)


@pytest.mark.parametrize(
    ("endpoint", "changes", "answer", "expected"),
    [
        ({}, {}, 1.0, 6.0),
        ({}, {}, 10.0, 30.0),  # nobody waits longer than 5 s for one
        ({}, {"max_seconds": 20.0}, 10.0, 20.0),  # nor than 20 s for all
        ({"concurrency": 4}, {}, 1.0, 2.0),  # four, then two
    ],
)
def test_a_server_takes_its_turns(endpoint: Any, changes: Any, answer: float, expected: float) -> None:
    judge = api_judge(URL, endpoint=endpoint, **changes)
    assert judging_seconds(judge, 6, 5, 8, answer_seconds=answer, flops=1.0) == expected


def test_a_servers_fees_are_those_of_what_it_reads_and_writes() -> None:
    assert judging_fee_usd(SERVER, 6, 5, 8, answer_tokens=8) == pytest.approx(FEE)
    longer = api_judge(URL, rubric="strongreject", min_score=0.5)
    assert judging_fee_usd(longer, 6, 5, 8, answer_tokens=8) == pytest.approx(FEE + 6 * 50 * 2e-6)
    assert loading_bytes(SERVER) == 0


def test_a_rubric_is_about_as_long_as_is_foreseen() -> None:
    """Four bytes a token, and three at most times as tight; the fences of three parts are in it."""
    question = Question("", "", "")
    for rubric, tokens in RUBRIC_TOKENS.items():
        size = measure_messages(build_messages(rubric, question, "0" * 16))  # type: ignore[arg-type]
        assert size / 5.5 < tokens < size / 3


def test_a_classifier_reads_in_one_pass_if_it_says_how_large_it_is() -> None:
    # 6 rows of 400 + 5 + 6 tokens, since 8 are clipped to 6; 2 x 10 operations each, 1,000 of them a second.
    assert judging_seconds(classifier(parameters=10), 6, 5, 8, answer_seconds=1, flops=1000.0) == 6 * 411 * 20 / 1000
    assert judging_seconds(classifier(), 6, 5, 8, answer_seconds=1, flops=1000.0) == 0.0
    assert judging_fee_usd(classifier(parameters=10), 6, 5, 8, answer_tokens=1) == 0.0
    assert (loading_bytes(classifier(parameters=10)), loading_bytes(classifier())) == (20, 0)


def test_a_list_of_phrases_takes_nothing() -> None:
    assert judging_seconds(PHRASES, 10**6, 5, 8, answer_seconds=1, flops=1.0) == 0.0
    assert judging_fee_usd(PHRASES, 10**6, 5, 8, answer_tokens=1) == loading_bytes(PHRASES) == 0


def test_three_readings_of_what_a_measurement_costs(judged: Any) -> None:
    job = judged(SERVER)
    fast, centre, slow = (read_pace(job.hardware, name) for name in ("fast", "centre", "slow"))  # type: ignore[arg-type]
    completions = Completions(Prompts(6, 5), 8, 4, (SERVER,))
    assert job.final_completions("mild") == completions
    assert [pace.judging_seconds(completions) for pace in (fast, centre, slow)] == pytest.approx([1.2, 6, 30])
    # In the fast reading completions and answers have a quarter of their length: 6 x 257 read, 6 x 2 written.
    assert [pace.final_fee_usd(job) for pace in (fast, centre, slow)] == pytest.approx([LEAST_FEE, FEE, FEE])
    # Where everything is cached the baseline costs nothing.
    assert [pace.setup_fee_usd(job) for pace in (fast, centre, slow)] == pytest.approx([0, FEE, FEE])
    without = judged(PHRASES)
    assert centre.final_seconds(job) == pytest.approx(centre.final_seconds(without) + 6)
    assert centre.setup_seconds(job) == pytest.approx(centre.setup_seconds(without) + 6)


def test_a_classifier_is_loaded_once(judged: Any) -> None:
    job = judged(classifier(parameters=10**9))
    pace = read_pace(job.hardware, "centre")
    # 2 x 10^9 bytes at 10^9 a second
    assert pace.setup_seconds(job) == pytest.approx(pace.final_seconds(job) + 2)


def test_a_cells_estimate_has_its_judges_in_the_laboratorys_part(judged: Any) -> None:
    job, without = judged(SERVER, PHRASES), judged(PHRASES)
    schedule = plan_schedule(job)
    assert schedule.marks == {"mild": (3, 10)}
    found, plain = (estimate_cell(each, schedule, memory_bytes=10**12) for each in (job, without))
    # The end in full and two marks of 4 rows: 6 + 2 x 4 answers of a second.
    fees = FEE + 2 * MARK_FEE
    assert (found.judge_seconds.centre, found.judge_fee_usd.centre) == pytest.approx((14, fees))
    assert found.laboratory.seconds.centre == pytest.approx(plain.laboratory.seconds.centre + 14)
    assert found.laboratory.usd.centre == pytest.approx(plain.laboratory.usd.centre + 0.14 + fees)
    assert found.final.usd.centre == pytest.approx(plain.final.usd.centre + 0.06 + FEE)
    assert found.shared.usd.centre == pytest.approx(plain.shared.usd.centre + 0.06 + FEE)
    assert found.attacker == plain.attacker
    assert (plain.judge_seconds.high, plain.judge_fee_usd.high) == (0, 0)
    shown = {name: rest for name, *rest in describe_cell(found)}
    assert shown["of it the second judges"][1] == "14 s"
    assert shown["their fees in USD"][1:] == ["$0.008484", "$0.008484"]
    assert "their fees in USD" not in {name for name, *_ in describe_cell(plain)}


def test_a_purse_pays_for_the_judges_of_its_baseline_once_and_of_every_cell(judged: Any) -> None:
    def price(job: Any) -> PricedCell:
        schedule = plan_schedule(job)
        recipe = job.recipe.model_copy(update={"data": DATA, "quantization": None})
        cell = Cell.model_construct(
            target_id="tiny", safeguard_id="none", budget_id="purse", recipe=recipe, schedule=schedule
        )
        return PricedCell(cell, job, estimate_cell(job, schedule, memory_bytes=10**12))

    two, plain = (estimate_run([price(job), price(job)]) for job in (judged(SERVER), judged()))
    fees, seconds = FEE + 2 * (FEE + 2 * MARK_FEE), 6 + 2 * 14
    assert two.laboratory.seconds.centre == pytest.approx(plain.laboratory.seconds.centre + seconds)
    assert two.laboratory.usd.centre == pytest.approx(plain.laboratory.usd.centre + fees + 0.01 * seconds)
    assert two.total_usd.centre == pytest.approx(plain.total_usd.centre + fees + 0.01 * seconds)


def test_a_quantised_copy_is_judged_once_more(judged: Any) -> None:
    job = judged(SERVER)
    schedule = plan_schedule(job)
    totals = []
    for quantization in (None, "nf4"):
        recipe = job.recipe.model_copy(update={"data": DATA, "quantization": quantization})
        cell = Cell.model_construct(
            target_id="tiny", safeguard_id="none", budget_id="purse", recipe=recipe, schedule=schedule
        )
        found = estimate_run([PricedCell(cell, job, estimate_cell(job, schedule, memory_bytes=10**12))])
        totals.append(found.laboratory.usd.centre - 0.01 * found.laboratory.seconds.centre)
    assert totals[1] - totals[0] == pytest.approx(FEE)


def test_fees_count_against_the_caps(judged: Any, bench: Any) -> None:
    job = judged(SERVER, limits=bench.budget(total_usd=9.0, laboratory={"max_usd": 5.0}))
    pace = read_pace(job.hardware, "centre")
    plain = list_outlays(replace(job, evals=judged().evals), pace, 10)["total_usd"]
    assert list_outlays(job, pace, 10)["total_usd"].fixed == pytest.approx(plain.fixed + 0.06 + FEE)
    assert list_laboratory_outlays(job, 3600, 0.5)["laboratory.max_usd"].fixed == pytest.approx(36.5)


def test_a_purse_that_cannot_pay_the_judges_at_the_end_is_refused(judged: Any, bench: Any) -> None:
    dear = api_judge(URL, endpoint={"usd_per_million_prompt_tokens": 1000.0})
    poor = judged(dear, limits=bench.budget(laboratory={"max_usd": 1.5}))
    refusal = estimate_cell(poor, plan_schedule(poor), memory_bytes=10**12).refusal
    # 1,542 tokens at $1,000 a million, $0.00012 of answers, 1.2 s of judging, and less than a cent of the rest.
    assert refusal is not None
    assert refusal.startswith("load, one step and the final evaluation need at least 1.5")
    assert refusal.endswith("of laboratory.max_usd, got 1.5")
    rich = judged(dear, limits=bench.budget(laboratory={"max_usd": 3.0}))
    assert estimate_cell(rich, plan_schedule(rich), memory_bytes=10**12).refusal is None
