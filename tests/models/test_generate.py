"""Greedy decoding in waves: the same tokens as transformers' own loop, whatever shares the batch."""

from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from robustlab.models import generate, waves
from robustlab.models.generate import Completion, generate_greedy
from robustlab.models.waves import Part, Wave, count_shared, plan_reading, plan_waves

PROMPTS = [[1, 40, 41, 42, 43], [1, 50], [1, 60, 61], [1, *range(70, 90)], [1, 50, 51], [1, 9], [1, 60, 61], [1, 99, 3]]
NO_EOS = frozenset({-1})


def complete(
    model: Any, prompts: list[list[int]], *, batch_rows: int = 8, new: int = 12, eos: frozenset[int] = NO_EOS
) -> list[Completion]:
    return generate_greedy(
        model,
        prompts,
        batch_rows=batch_rows,
        max_new_tokens=new,
        eos_ids=eos,
        pad_id=0,
        before_wave=lambda wave: None,
        after_wave=lambda wave, completions: None,
    )


def ending(model: Any) -> tuple[frozenset[int], list[Completion]]:
    """An end token that some completions reach early and others do not, and the completions without one."""
    free = complete(model, PROMPTS)
    counts = {token: sum(token in completion.ids for completion in free) for c in free for token in c.ids}
    token = next(token for token, count in sorted(counts.items()) if 0 < count < len(PROMPTS))
    return frozenset({token}), free


def test_own_loop_equals_that_of_transformers_token_for_token(lively: Any) -> None:
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    theirs = lively.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert [list(completion.ids) for completion in complete(lively, PROMPTS)] == theirs[:, width:].tolist()
    assert len({completion.ids for completion in complete(lively, PROMPTS)}) > 3


def test_end_tokens_are_those_of_transformers_too(lively: Any) -> None:
    eos, free = ending(lively)
    (end,) = eos
    for prompt, ours, unended in zip(PROMPTS, complete(lively, PROMPTS, eos=eos), free, strict=True):
        theirs = lively.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(ours.ids) == [token for token in theirs if token != end]
        assert ours.ended == (end in theirs) == (end in unended.ids)


@pytest.mark.parametrize("batch_rows", [1, 3, 5])
def test_rows_that_end_leave_and_the_others_stay_as_they_are(lively: Any, batch_rows: int) -> None:
    eos, _ = ending(lively)
    together = complete(lively, PROMPTS, eos=eos)
    assert {completion.ended for completion in together} == {True, False}
    assert complete(lively, PROMPTS, eos=eos, batch_rows=batch_rows) == together


def test_the_end_token_is_no_part_of_a_completion_and_may_be_the_first(tiny: Any) -> None:
    first = complete(tiny.model, PROMPTS[:1], new=1)[0].ids[0]
    assert complete(tiny.model, PROMPTS[:1], eos=frozenset({first})) == [Completion((), ended=True)]


@pytest.mark.parametrize("new", [1, 2, 7])
def test_a_completion_is_cut_at_its_limit(tiny: Any, new: int) -> None:
    found = complete(tiny.model, PROMPTS, new=new)
    assert [(len(completion.ids), completion.ended) for completion in found] == [(new, False)] * len(PROMPTS)


def test_what_all_prompts_begin_with_is_read_once(lively: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[1, 7, 8, 9, *prompt[1:]] for prompt in PROMPTS]
    lengths: list[int] = []
    forward = type(lively).forward

    def count(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        lengths.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **kwargs)

    alone = [complete(lively, [prompt])[0] for prompt in prompts]
    monkeypatch.setattr(type(lively), "forward", count)
    assert complete(lively, prompts, batch_rows=3, new=1) == [Completion(each.ids[:1], ended=False) for each in alone]
    # The four shared tokens, then three waves of rests of 1, 1, 2 | 2, 2, 2 | 4, 20 tokens with filler.
    assert lengths == [4, 3 * 2, 3 * 2, 2 * 20]
    assert complete(lively, prompts) == alone


def test_shared_tokens_are_counted_and_leave_each_prompt_one() -> None:
    assert count_shared([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 2
    assert count_shared([[1, 2], [1, 2], [1, 2, 3]]) == 1
    assert count_shared([[1, 2], [3, 2]]) == 0
    assert count_shared([[1, 2, 3]]) == 0 and count_shared([]) == 0


def test_a_wave_that_is_read_in_parts_ends_in_the_same_completions(
    lively: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    eos, _ = ending(lively)
    whole = complete(lively, PROMPTS, eos=eos)
    monkeypatch.setattr(waves, "PART_TOKENS", 6)
    assert complete(lively, PROMPTS, eos=eos) == whole


def test_kin_are_read_together_after_what_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "KIN_TOKENS", 2)
    monkeypatch.setattr(waves, "PART_TOKENS", 8)
    prompts = [[1, 5, 6, 7, 8], [1, 9, 9, 9, 9, 9], [1, 5, 6, 7, 2, 3], [1, 4, 4], [1, 9, 9], [1, 5, 6, 3, 3, 3, 3]]
    (wave,) = plan_waves(prompts, 8)
    planned = plan_reading(prompts, wave, 1)
    # Beyond the opening 0, 2 and 5 share two tokens. 4 is no longer than such a beginning, so that 1 is alone too.
    assert planned.parts == (Part((3, 4), 1), Part((1,), 1), Part((0, 2), 3), Part((5,), 3))
    assert planned.rows == (3, 4, 1, 0, 2, 5) and planned.prompt_tokens == wave.prompt_tokens == 30


def test_kin_end_in_the_same_completions(lively: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[1, 7, *prompt[1:]] for prompt in PROMPTS] + [[1, 7, 8, 9, 10, last] for last in (30, 31, 32)]
    alone = [complete(lively, [prompt])[0] for prompt in prompts]
    monkeypatch.setattr(waves, "KIN_TOKENS", 3)
    told: list[Wave] = []
    found = generate_greedy(
        lively, prompts, batch_rows=16, max_new_tokens=12, eos_ids=NO_EOS, pad_id=0,
        before_wave=lambda wave: None, after_wave=lambda wave, completions: told.append(wave),
    )  # fmt: skip
    assert found == alone
    assert [part.shared for part in told[0].parts] == [2, 5] and len(told[0].parts[1].rows) == 3


def test_a_wave_holds_only_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "WAVE_TOKENS", 20)
    # With 4 new tokens the lengths are 6 6 7 7 7 7 9 25: 6 6 7 would be 3 * 7 = 21, and 25 stands alone.
    found = plan_waves(PROMPTS, 8, max_new_tokens=4)
    assert [len(wave.rows) for wave in found] == [2, 2, 2, 1, 1]
    assert sorted(row for wave in found for row in wave.rows) == list(range(8))


def test_a_model_that_forgets_is_decoded_as_transformers_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    config = MistralConfig(
        vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    monkeypatch.setattr(waves, "PART_TOKENS", 6)
    prompts = [[1, 5, *prompt[1:]] for prompt in PROMPTS]
    for prompt, ours in zip(prompts, complete(model, prompts), strict=True):
        theirs = model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert list(ours.ids) == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("vocabulary", [128, 512, 259])
def test_the_highest_logit_is_that_of_argmax(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    # Rounded, so that rows have ties within a block and between blocks; the first wins.
    logits = torch.randn(64, vocabulary, generator=generator).mul(2).round()
    logits[1], logits[2, 7] = 0.0, float("nan")
    assert torch.equal(generate._most_likely(logits), logits.argmax(-1))
    assert torch.equal(generate._most_likely(logits[:, ::2]), logits[:, ::2].argmax(-1))


def test_the_batch_plan_depends_on_the_prompts_alone() -> None:
    # Sorted by length, then content, then position: [1,9] [1,50] | [1,50,51] [1,60,61] [1,60,61] ...
    assert [wave.rows for wave in plan_waves(PROMPTS, 3)] == [(5, 1, 4), (2, 6, 7), (0, 3)]
    assert [wave.prompt_tokens for wave in plan_waves(PROMPTS, 3)] == [2 + 2 + 3, 3 + 3 + 3, 5 + 21]
    assert plan_waves(PROMPTS, 3) == plan_waves([list(prompt) for prompt in PROMPTS], 3)
    shuffled = [tuple(PROMPTS[::-1][row]) for wave in plan_waves(PROMPTS[::-1], 3) for row in wave.rows]
    assert shuffled == [tuple(PROMPTS[row]) for wave in plan_waves(PROMPTS, 3) for row in wave.rows]
    assert plan_waves([], 3) == []


def test_a_caller_is_told_before_and_after_each_wave_and_may_stop_before_one(tiny: Any) -> None:
    told: list[tuple[str, tuple[int, ...]]] = []

    def before(wave: Wave) -> None:
        if len(told) == 4:
            raise InterruptedError("no more")
        told.append(("before", wave.rows))

    def after(wave: Wave, completions: list[Completion]) -> None:
        assert len(completions) == len(wave.rows)
        told.append(("after", wave.rows))

    with pytest.raises(InterruptedError, match="no more"):
        generate_greedy(
            tiny.model, PROMPTS, batch_rows=3, max_new_tokens=1, eos_ids=NO_EOS, pad_id=0,
            before_wave=before, after_wave=after,
        )  # fmt: skip
    assert told == [("before", (5, 1, 4)), ("after", (5, 1, 4)), ("before", (2, 6, 7)), ("after", (2, 6, 7))]


def test_completions_come_back_in_the_order_of_the_prompts(lively: Any) -> None:
    assert complete(lively, PROMPTS[::-1]) == complete(lively, PROMPTS)[::-1]
