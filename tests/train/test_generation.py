"""What generation puts on the bill: tokens as they were asked, operations as they were done."""

from typing import Any

import pytest

from robustlab.cost.flops import decode, prefill
from robustlab.models import waves
from robustlab.train.generation import generate_metered

PROMPTS = [[1, 7, 8, 9, 10, 30], [1, 7, 8, 9, 10, 31, 32], [1, 7, 40], [1, 7, 50, 51]]


def test_what_is_read_once_is_counted_once(
    tiny: Any, tiny_spec: Any, till: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waves, "KIN_TOKENS", 3)
    meter, shape = till.meter(), tiny_spec.shape
    with meter.phase("laboratory", "baseline"):
        completions = generate_metered(
            tiny, shape, PROMPTS, batch_rows=4, max_new_tokens=3, expected_seconds=0.0, meter=meter,
            progress=lambda done, rows: None,
        )  # fmt: skip
    new = [len(completion.ids) + completion.ended for completion in completions]
    # Two tokens open all four prompts, and three more two of them.
    read = prefill(shape, 2) + (prefill(shape, 5) - prefill(shape, 2))
    rests = [(6, 5), (7, 5), (3, 2), (4, 2)]
    read += sum(prefill(shape, whole) - prefill(shape, known) for whole, known in rests)
    written = sum(decode(shape, len(prompt), count) for prompt, count in zip(PROMPTS, new, strict=True))
    used = meter.total("laboratory")
    assert used.flops == read + written
    assert (used.prompt_tokens, used.generated_tokens) == (20, sum(new))


def test_the_opening_is_read_with_the_first_wave_alone(tiny: Any, tiny_spec: Any, till: Any) -> None:
    meter, shape = till.meter(), tiny_spec.shape
    with meter.phase("laboratory", "baseline"):
        generate_metered(
            tiny, shape, PROMPTS, batch_rows=2, max_new_tokens=1, expected_seconds=0.0, meter=meter,
            progress=lambda done, rows: None,
        )  # fmt: skip
    rests = sum(prefill(shape, len(prompt)) - prefill(shape, 2) for prompt in PROMPTS)
    assert meter.total("laboratory").flops == prefill(shape, 2) + rests
