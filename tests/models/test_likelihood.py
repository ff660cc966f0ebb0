"""Mean log-probabilities: those of log-softmax, and the right side of a limit where bfloat16 is asked first."""

import math
from typing import Any

import pytest
import torch

from robustlab.models import likelihood
from robustlab.models.likelihood import NEAR_NATS, mean_log_probabilities
from robustlab.record import provenance

TEXTS = [[40, 41, 42], [], [50], [9, 8, 7, 6, 5]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, lively: Any) -> list[tuple[bool, int]]:
    """Each forward pass on a processor that is fast in bfloat16: whether it was in bfloat16, and its rows."""
    passes: list[tuple[bool, int]] = []
    forward = type(lively).forward

    def count(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        found = forward(self, input_ids=input_ids, **kwargs)
        passes.append((found.logits.dtype == torch.bfloat16, len(input_ids)))
        return found

    monkeypatch.setattr(type(lively), "forward", count)
    monkeypatch.setattr(likelihood, "_is_fast_in_bfloat16", lambda: True)
    return passes


def by_hand(model: Any, text: list[int]) -> float:
    ids = torch.tensor([[2, *text]])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), dim=-1)
    return sum(float(log_probs[place, token]) for place, token in enumerate(text)) / len(text)


def score(model: Any, limit: float | None = None) -> list[float | None]:
    return mean_log_probabilities(model, TEXTS, start_id=2, batch_tokens=6, limit=limit)


def test_mean_log_probability_is_that_of_log_softmax(lively: Any) -> None:
    found = score(lively)
    assert found[1] is None
    for text, value in zip(TEXTS, found, strict=True):
        assert value is None if not text else math.isclose(float(value or 0), by_hand(lively, text), rel_tol=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(tiny: Any) -> None:
    for parameter in tiny.model.parameters():
        parameter.data.zero_()
    # All logits are 0: each token has probability 1 / 259.
    (found,) = mean_log_probabilities(tiny.model, [[7, 8, 9]], start_id=2, batch_tokens=3)
    assert found == pytest.approx(-math.log(259), rel=1e-6)


def test_far_from_the_limit_bfloat16_is_enough(lively: Any, asked: list[tuple[bool, int]]) -> None:
    exact = score(lively)
    asked.clear()
    found = score(lively, limit=0.0)
    assert asked == [(True, 2), (True, 1)]
    for one, other in zip(exact, found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or abs(one - float(other or 0)) < NEAR_NATS / 5
    assert found != exact


def test_near_the_limit_float32_is_asked(lively: Any, asked: list[tuple[bool, int]]) -> None:
    exact = [value for value in score(lively) if value is not None]
    asked.clear()
    limit = exact[0] + 0.9 * NEAR_NATS
    near = [value for value in exact if abs(value - limit) < NEAR_NATS]
    assert 0 < len(near) < 3
    found = score(lively, limit)
    assert asked[:2] == [(True, 2), (True, 1)] and sum(rows for fast, rows in asked if not fast) == len(near)
    assert found[0] == pytest.approx(exact[0], rel=1e-6)


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_asked_again(
    lively: Any, asked: list[tuple[bool, int]], monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    exact, real = score(lively), likelihood._score

    def fail(model: Any, texts: Any, start_id: int) -> list[float]:
        found = list(real(model, texts, start_id))
        return [broken] * len(found) if torch.is_autocast_enabled("cpu") else found

    monkeypatch.setattr(likelihood, "_score", fail)
    assert score(lively, limit=0.0) == exact


def test_without_a_limit_or_a_fast_processor_all_is_exact(
    lively: Any, asked: list[tuple[bool, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = score(lively)
    monkeypatch.setattr(likelihood, "_is_fast_in_bfloat16", lambda: False)
    assert score(lively, limit=0.0) == exact
    assert not any(fast for fast, _ in asked)
    monkeypatch.setattr(likelihood, "_is_fast_in_bfloat16", lambda: True)
    asked.clear()
    score(lively.double(), limit=0.0)
    assert not any(fast for fast, _ in asked)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu amx_bf16 avx\n", True),
        ("model name\t: x\nflags\t\t: fpu avx512_bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_the_processor_says_what_it_can_do(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: bool
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(provenance, "_CPUINFO", path)
    assert likelihood._is_fast_in_bfloat16.__wrapped__() == expected


def test_a_batch_holds_only_so_many_tokens_with_filler(lively: Any, asked: list[tuple[bool, int]]) -> None:
    mean_log_probabilities(lively, [[5] * 4, [5] * 2, [5] * 3, [5] * 9], start_id=2, batch_tokens=9)
    # 2 and 3 tokens are 2 x 3 with filler, a third row of 4 would be 12; 9 alone are as many as may be.
    assert [rows for _, rows in asked] == [2, 1, 1]
