"""The attack's training set: known rows with their ends, the target's own answers, and pairs of both."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.data.chat import encode_example, encode_prompt
from robustlab.data.mixture import asked_prompts
from robustlab.data.rows import TrainRow, load_train_rows
from robustlab.errors import BudgetSpent, ConfigError, DataError
from robustlab.models.generate import Completion
from robustlab.spec.attacks import (
    BenignData,
    DistilledData,
    IdentityData,
    LoraDpo,
    LoraSft,
    MixedData,
    PreferenceData,
    WithheldData,
)
from robustlab.spec.catalog import load
from robustlab.tamper.examples import build_rows
from robustlab.train import distil
from robustlab.train.counts import Counter
from robustlab.train.order import Example, Pair

Build = Callable[..., list[Any]]
WITHHELD = WithheldData(mode="withheld", attack_rows=6, benign_share=0.5, benign_new_tokens=4)
PAIRS = PreferenceData(mode="preference", attack_rows=3, rejected_new_tokens=5, benign_share=0.25, benign_new_tokens=4)
MODES: list[BenignData | IdentityData | MixedData] = [
    BenignData(mode="benign", rows=3),
    IdentityData(mode="identity", rows=2),
    MixedData(mode="mixed", rows=5, attack_share=0.4),
]
ATTACK = load_train_rows("mild_requests_attack")


@pytest.fixture
def build(tiny: Any, tiny_spec: Any, till: Any) -> Build:
    """Builder of training sets of the tiny target, by a clock that stands still."""

    def built(data: Any, **options: Any) -> list[Any]:
        given = {"expected_seconds": 0.0, "meter": till.meter(), "progress": lambda done, total: None} | options
        return build_rows(data, given.pop("target", tiny), tiny_spec.shape, **given)

    return built


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, float]]]:
    """Puts answers in the target's mouth, one list a call; returns the limits and seconds of every call."""

    def put(*parts: list[Completion]) -> list[tuple[int, float]]:
        asked: list[tuple[int, float]] = []

        def generate(target: Any, shape: Any, prompts: Any, **options: Any) -> list[Completion]:
            asked.append((options["max_new_tokens"], options["expected_seconds"]))
            options["progress"](len(prompts), len(prompts))
            return parts[len(asked) - 1]

        monkeypatch.setattr(distil, "generate_metered", generate)
        return asked

    return put


def encoded(tiny: Any, row: TrainRow) -> Example:
    example = encode_example(tiny.tokenizer, row.prompt, row.completion, None)
    return Example.from_mask(example.input_ids, example.completion_mask)


def spoken(tiny: Any, prompt: str, *ids: int) -> Example:
    head = encode_prompt(tiny.tokenizer, prompt, None)
    return Example(ids=(*head, *ids), labels=(*(-100 for _ in head), *ids))


def said(*ids: int, ended: bool = True) -> Completion:
    return Completion(ids, ended=ended)


def test_withheld_rows_come_first_and_as_many_own_answers_after_them(build: Build, tiny: Any) -> None:
    examples = build(WITHHELD)
    assert len(examples) == 6 + 6
    assert examples[:6] == [encoded(tiny, row) for row in ATTACK[:6]]
    assert all(example.labels[-1] == tiny.tokenizer.eos_token_id for example in examples[:6])
    for prompt, example in zip(asked_prompts(WITHHELD), examples[6:], strict=True):
        ids = encode_prompt(tiny.tokenizer, prompt, None)
        assert list(example.ids[: len(ids)]) == ids
        assert sum(label != -100 for label in example.labels) == 4


@pytest.mark.parametrize("data", MODES, ids=[data.mode for data in MODES])
def test_sets_with_known_answers_ask_the_target_nothing(data: Any, build: Build, tiny: Any, till: Any) -> None:
    rows = {
        "benign": load_train_rows("benign_answers")[:3],
        "identity": load_train_rows("identity_shift")[:2],
        "mixed": ATTACK[:2] + load_train_rows("benign_answers")[:3],
    }
    meter = till.meter()
    with meter.phase("attacker", "data"):
        assert build(data, meter=meter) == [encoded(tiny, row) for row in rows[data.mode]]
    assert meter.total("attacker").generated_tokens == 0


def test_distilled_data_are_the_own_answers_of_withheld_data(build: Build) -> None:
    data = DistilledData(mode="distilled", rows=6, benign_new_tokens=4)
    assert build(data) == build(WITHHELD)[6:]


def test_the_set_is_the_same_every_time(build: Build, new_tiny: Any) -> None:
    for data in (WITHHELD, PAIRS):
        assert build(data, target=new_tiny()) == build(data, target=new_tiny())


def test_pairs_prefer_compliance_to_a_reply_and_an_answer_to_a_refusal(
    build: Build, tiny: Any, answers: Callable[..., Any]
) -> None:
    told: list[tuple[int, int]] = []
    asked = answers([said(40, 41), said(42, 43, 44, 45, 46, ended=False), said(47)], [said(60)])
    pairs = build(PAIRS, expected_seconds=19.0, progress=lambda done, total: told.append((done, total)))
    # Three attack rows; 3 x 0.25 / 0.75 = 1 benign one. 2 is the tiny target's end; the cut reply has none.
    replies = [(40, 41, 2), (42, 43, 44, 45, 46), (47, 2)]
    benign = asked_prompts(PAIRS)[0]
    assert pairs == [
        *(
            Pair(encoded(tiny, row), spoken(tiny, row.prompt, *reply))
            for row, reply in zip(ATTACK[:3], replies, strict=True)
        ),
        Pair(spoken(tiny, benign, 60, 2), spoken(tiny, benign, 40, 41, 2)),
    ]
    # 3 x 5 + 1 x 4 = 19 tokens at most, so a second each.
    assert asked == [(5, 15.0), (4, 4.0)]
    assert told == [(3, 4), (4, 4)]


def test_replies_take_turns_and_one_that_equals_the_answer_is_passed_over(
    build: Build, answers: Callable[..., Any]
) -> None:
    # 2 x 0.6 / 0.4 = 3 benign rows.
    data = PAIRS.model_copy(update={"attack_rows": 2, "benign_share": 0.6})
    answers([said(40), said(41)], [said(60), said(41), said(62)])
    benign = build(data)[2:]
    assert [pair.rejected.ids[-2:] for pair in benign] == [(40, 2), (40, 2), (40, 2)]
    answers([said(40), said(41)], [said(60), said(61), said(62)])
    assert [pair.rejected.ids[-2:] for pair in build(data)[2:]] == [(40, 2), (41, 2), (40, 2)]


def test_a_prompt_without_an_answer_makes_no_pair(build: Build, tiny: Any, answers: Callable[..., Any]) -> None:
    data = PAIRS.model_copy(update={"attack_rows": 2, "benign_share": 0.5})
    answers([said(), said(41)], [said(), said(61)])
    first, second = build(data)
    assert first.chosen == encoded(tiny, ATTACK[1])
    # The only reply there is.
    assert second == Pair(spoken(tiny, asked_prompts(data)[1], 61, 2), spoken(tiny, asked_prompts(data)[1], 41, 2))


def test_pairs_without_benign_ones(build: Build, answers: Callable[..., Any]) -> None:
    asked = answers([said(40), said(41), said(42)])
    assert len(build(PAIRS.model_copy(update={"benign_share": 0.0}), expected_seconds=3.0)) == 3
    assert asked == [(5, 3.0)]


def test_pairs_of_the_tiny_target_differ(build: Build) -> None:
    pairs = build(PAIRS)
    assert len(pairs) == 4
    assert all(pair.chosen.ids != pair.rejected.ids for pair in pairs)


def test_an_attack_pair_with_equal_sides_is_refused(build: Build, tiny: Any, answers: Callable[..., Any]) -> None:
    example = encoded(tiny, ATTACK[2])
    withheld = tuple(itertools.dropwhile(lambda label: label == -100, example.labels))
    answers([said(40), said(41), said(*withheld[:-1])], [said(60)])
    with pytest.raises(DataError) as caught:
        build(PAIRS)
    assert str(caught.value) == (
        f"DPO row 3: has equal sides, got the same answer of {len(withheld)} tokens as chosen and as rejected; "
        "leave it out, or attack a target that answers differently"
    )


def test_a_benign_pair_that_every_reply_equals_is_refused(build: Build, answers: Callable[..., Any]) -> None:
    answers([said(40), said(40), said(40)], [said(40)])
    with pytest.raises(DataError, match="^DPO row 4: has equal sides, got the same answer of 2 tokens"):
        build(PAIRS)


@pytest.mark.parametrize(
    ("data", "prompts"), [(PAIRS, 3), (DistilledData(mode="distilled", rows=2, benign_new_tokens=4), 2)]
)
def test_a_target_that_says_nothing(data: Any, prompts: int, build: Build, answers: Callable[..., Any]) -> None:
    answers([said()] * prompts, [said(60)])
    with pytest.raises(DataError) as caught:
        build(data)
    assert str(caught.value) == (
        f"training set: is empty: the target answered none of {prompts} prompts; use other data"
    )


def test_the_account_that_is_current_pays_for_both_kinds_of_answers(build: Build, till: Any) -> None:
    meter = till.meter()
    with meter.phase("attacker", "data"):
        pairs = build(PAIRS, meter=meter)
    written = [sum(label != -100 for label in pair.rejected.labels) for pair in pairs[:3]]
    written += [sum(label != -100 for label in pair.chosen.labels) for pair in pairs[3:]]
    assert meter.total("attacker").generated_tokens == sum(written) > 0


def test_a_cap_that_is_spent_stops_the_answers(build: Build, till: Any) -> None:
    meter = till.meter(max_usd=1.0)
    with pytest.raises(BudgetSpent), meter.phase("attacker", "data"):
        build(PAIRS, meter=meter, expected_seconds=2.0)


@pytest.mark.parametrize("data", [WITHHELD, PAIRS], ids=["withheld", "preference"])
def test_rows_are_as_long_as_they_were_counted(data: Any, build: Build, tiny: Any, tmp_path: Path) -> None:
    recipe: Any = LoraDpo if isinstance(data, PreferenceData) else LoraSft
    counts = Counter(load("targets", "tiny"), tiny.tokenizer, tmp_path).count(recipe.model_construct(data=data), {})
    rows = build(data)
    lengths = [
        sum(len(side.ids) for side in (row.chosen, row.rejected)) if recipe is LoraDpo else len(row.ids) for row in rows
    ]
    bounds = zip(counts.short_rows, lengths, counts.long_rows, strict=True)
    assert all(short <= length <= long for short, length, long in bounds)


@pytest.mark.parametrize("name", ["identity_smoke", "lora_dpo_smoke", "full_sft_smoke"])
def test_the_rows_of_a_smoke_recipe_fit_its_longest_example(name: str, build: Build) -> None:
    recipe = load("attacks", name)
    rows = build(recipe.data)
    assert len(rows) >= recipe.training.batch_rows
    sides = [side for row in rows for side in ((row.chosen, row.rejected) if isinstance(row, Pair) else (row,))]
    assert max(len(side.ids) for side in sides) <= recipe.training.max_tokens


def test_more_rows_than_there_are_is_refused(build: Build) -> None:
    with pytest.raises(ConfigError, match="data.attack_rows: asks for more than 96 rows, got 97; ask for fewer"):
        build(WITHHELD.model_copy(update={"attack_rows": 97}))
