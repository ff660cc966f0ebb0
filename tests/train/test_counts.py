import json
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.job import Completions, Prompts
from robustlab.data.mixture import asked_prompts, fixed_rows, harmful_prompts, harmless_prompts, replied_prompts
from robustlab.data.rows import load_builtin, load_eval_rows
from robustlab.errors import ConfigError
from robustlab.models.tiny import build_tiny_tokenizer
from robustlab.spec.attacks import (
    Ablation,
    BenignData,
    DistilledData,
    FullSft,
    IdentityData,
    LoraDpo,
    LoraSft,
    MixedData,
    PreferenceData,
    WithheldData,
)
from robustlab.spec.catalog import load
from robustlab.spec.safeguards import RefusalSft
from robustlab.train.counts import DISTIL_BATCH_ROWS, Counter, approximate_tokens


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    """Counts by the rule of thumb."""
    return Counter(load("targets", "tiny"), None, tmp_path)


def test_an_answer_has_one_token_at_least_and_its_limit_at_most(counter: Counter) -> None:
    recipe: LoraSft = load("attacks", "lora_sft_smoke")
    rows = {"smoke_refusal": load_eval_rows(load("evals", "smoke_refusal"), data_csv=None)}
    found = counter.count(recipe, rows)
    # 16 attack rows as they are, 16 benign ones with 1 to 8 new tokens
    assert found.short_rows[:16] == found.long_rows[:16]
    assert {long - short for short, long in zip(found.short_rows[16:], found.long_rows[16:], strict=True)} == {7}
    assert found.distilled is not None and found.distilled.prompts.rows == len(found.long_rows) - 16 == 16
    assert found.evals["smoke_refusal"].rows == 24
    assert not counter.exact


@pytest.mark.parametrize(
    ("data", "rows", "written"),
    [
        (BenignData(mode="benign", rows=5), 5, None),
        (IdentityData(mode="identity", rows=10), 10, None),
        (MixedData(mode="mixed", rows=8, attack_share=0.25), 8, None),
        (WithheldData(mode="withheld", attack_rows=7, benign_share=0.0, benign_new_tokens=9), 7, None),
        (DistilledData(mode="distilled", rows=6, benign_new_tokens=9), 6, (6, 9)),
    ],
    ids=["benign", "identity", "mixed", "withheld alone", "distilled"],
)
def test_every_data_mode_is_counted(
    counter: Counter, data: Any, rows: int, written: tuple[int, int] | None, smoke_recipe: LoraSft
) -> None:
    found = counter.count(smoke_recipe.model_copy(update={"data": data}), {})
    known = tuple(approximate_tokens(row.prompt, row.completion) for row in fixed_rows(data))
    asked = [approximate_tokens(prompt, None) for prompt in asked_prompts(data)]
    assert found.short_rows == (*known, *(length + 1 for length in asked))
    assert found.long_rows == (*known, *(length + 9 for length in asked))
    assert len(found.long_rows) == rows
    answers = found.distilled
    assert (answers and (answers.prompts.rows, answers.new_tokens)) == written


def test_a_full_sft_is_counted_like_an_adapter_on_the_same_data(counter: Counter, smoke_recipe: LoraSft) -> None:
    full = FullSft.model_construct(kind="full_sft", data=smoke_recipe.data)
    assert counter.count(full, {}) == counter.count(smoke_recipe, {})


def test_a_pair_counts_with_both_sides(counter: Counter) -> None:
    data = PreferenceData(
        mode="preference", attack_rows=4, rejected_new_tokens=8, benign_share=0.6, benign_new_tokens=20
    )
    found = counter.count(LoraDpo.model_construct(kind="lora_dpo", data=data), {})
    attack = [
        approximate_tokens(row.prompt, row.completion) + approximate_tokens(row.prompt, None)
        for row in fixed_rows(data)
    ]
    # 4 x 0.6 / 0.4 = 6 benign pairs: the prompt stands on both sides.
    benign = [2 * approximate_tokens(prompt, None) for prompt in asked_prompts(data)]
    assert len(benign) == 6
    assert found.short_rows == (*(length + 1 for length in attack), *(length + 2 for length in benign))
    assert found.long_rows == (*(length + 8 for length in attack), *(length + 28 for length in benign))
    prompts = [approximate_tokens(prompt, None) for prompt in replied_prompts(data) + asked_prompts(data)]
    # One figure for both sets of answers: ten prompts with the larger limit.
    expected = Prompts(10, -(-sum(prompts) // 10))
    assert found.distilled == Completions(expected, 20, DISTIL_BATCH_ROWS)


def test_pairs_without_benign_ones_are_counted(counter: Counter) -> None:
    data = PreferenceData(
        mode="preference", attack_rows=4, rejected_new_tokens=8, benign_share=0.0, benign_new_tokens=20
    )
    found = counter.count(LoraDpo.model_construct(kind="lora_dpo", data=data), {})
    assert len(found.long_rows) == 4
    assert found.distilled is not None and (found.distilled.prompts.rows, found.distilled.new_tokens) == (4, 8)


def test_an_ablation_counts_the_prompts_that_it_reads(counter: Counter) -> None:
    spec = Ablation(kind="ablation", source="a test", harmful_rows=2, harmless_rows=3, depths=(0.5,))
    found = counter.count(spec, {})
    read = [approximate_tokens(prompt, None) for prompt in harmful_prompts(spec) + harmless_prompts(spec)]
    assert found.short_rows == found.long_rows == tuple(read)
    assert (len(read), found.distilled, found.evals) == (5, None, {})


def test_nothing_to_count_needs_no_tokenizer(counter: Counter) -> None:
    assert counter.lengths([]) == []
    assert counter.exact


def test_a_safeguard_is_counted_like_its_installation(counter: Counter) -> None:
    spec: RefusalSft = load("safeguards", "refusal_sft")
    spec = spec.model_copy(update={"install": None, "mild_repeats": 2, "benign_rows": 3})
    work = counter.count_safeguard(spec)
    assert work is not None
    replies = [row.completion for row in load_builtin("refusals") if row.completion]
    mild = [row.prompt for row in load_builtin("mild_requests_safeguard") if row.prompt] * 2
    benign = [row.prompt for row in load_builtin("benign_prompts") if row.prompt and row.role == "install"][:3]
    lengths = [approximate_tokens(prompt, replies[i % len(replies)]) for i, prompt in enumerate(mild)]
    lengths += [approximate_tokens(prompt, None) + spec.benign_new_tokens for prompt in benign]
    assert work.training == spec.training
    assert work.row_tokens == -(-sum(lengths) // len(lengths))
    assert work.distilled is not None
    assert (work.distilled.prompts.rows, work.distilled.new_tokens) == (3, spec.benign_new_tokens)
    assert work.distilled.batch_rows == DISTIL_BATCH_ROWS


def test_install_rows_are_counted_with_their_repeats(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: RefusalSft = load("safeguards", "refusal_sft")
    mild = list(load_eval_rows(load("evals", "smoke_refusal"), data_csv=None))[:5]
    monkeypatch.setattr("robustlab.train.counts.install_rows", lambda source: mild)
    asked: list[int] = []
    lengths = Counter.lengths
    monkeypatch.setattr(Counter, "lengths", lambda self, texts: asked.append(len(texts)) or lengths(self, texts))
    counter.count_safeguard(spec)
    assert asked == [184 * spec.mild_repeats + 5 * spec.install_repeats, spec.benign_rows]


def test_nothing_is_counted_where_nothing_is_installed(counter: Counter) -> None:
    assert counter.count_safeguard(load("safeguards", "none")) is None
    assert counter.exact


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '["a", "b"]'])
def test_a_damaged_count_is_made_again(tmp_path: Path, damage: str) -> None:
    counter = Counter(load("targets", "tiny"), build_tiny_tokenizer(), tmp_path)
    texts = [("one", None), ("two", "three")]
    counted = counter.lengths(texts)
    (path,) = (tmp_path / "counts").iterdir()
    path.write_text(damage, encoding="utf-8")
    assert counter.lengths(texts) == counted
    assert json.loads(path.read_text(encoding="utf-8")) == counted


def test_a_safeguard_that_asks_for_more_benign_rows_than_there_are_is_refused(counter: Counter) -> None:
    greedy = load("safeguards", "refusal_sft").model_copy(update={"benign_rows": 10_000, "install": None})
    with pytest.raises(ConfigError, match="benign_rows: asks for more than 260 rows, got 10000; ask for fewer"):
        counter.count_safeguard(greedy)
