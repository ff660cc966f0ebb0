from pathlib import Path

import pytest

from robustlab.data.rows import load_builtin, load_eval_rows
from robustlab.spec.attacks import LoraSft
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
