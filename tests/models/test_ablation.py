"""The refusal direction: read at the last token, projected out as weight orthogonalisation does it, scored by hand."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab.errors import ConfigError, DataError
from robustlab.models.ablation import (
    AblationModification,
    choose_layers,
    find_layers,
    is_direction,
    mean_refusal,
    mean_residuals,
    project_out,
    refusal_log_odds,
)
from robustlab.models.generate import generate_greedy
from robustlab.models.modification import tensors_digest
from robustlab.models.quantize import quantize_nf4

IDS = torch.tensor([[1, 40, 41, 42, 43]])
PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53, 54], [1, 60], [1, 70, 71, 72]]


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.clone()


def some_direction() -> Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(3))


def streams(model: Any, ids: Tensor) -> list[Tensor]:
    """What every layer is given, and what the last norm is given."""
    found: list[Tensor] = []
    readers = [*model.model.layers, model.model.norm]
    handles = [reader.register_forward_pre_hook(lambda module, args: found.append(args[0])) for reader in readers]
    with torch.no_grad():
        model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return found


def orthogonalised(model: Any, direction_D: Tensor) -> Any:
    """A copy of the model with the direction taken out of every weight that writes to the residual stream."""
    unit_D = direction_D / direction_D.norm()
    changed = copy.deepcopy(model)
    changed.lm_head.weight = torch.nn.Parameter(changed.lm_head.weight.clone())
    with torch.no_grad():
        embedding = changed.model.embed_tokens.weight
        embedding -= (embedding @ unit_D)[:, None] * unit_D
        for layer in changed.model.layers:
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                weight -= unit_D[:, None] * (unit_D @ weight)
    return changed


def test_without_a_direction_nothing_changes(tiny: Any) -> None:
    before = logits(tiny.model)
    modification = AblationModification(tiny.model)
    assert modification.model is modification.base is tiny.model
    assert torch.equal(logits(tiny.model), before)
    assert modification.state() == {}
    assert modification.digest() == tensors_digest({})


def test_projecting_is_subtracting_the_part_along_the_direction() -> None:
    # r = (3, 4)/5 and x = (5, 10): x . r = 3 + 8 = 11, x - 11 r = (5 - 6.6, 10 - 8.8) = (-1.6, 1.2).
    found = project_out(torch.tensor([[5.0, 10.0]]), torch.tensor([0.6, 0.8]))
    assert torch.allclose(found, torch.tensor([[-1.6, 1.2]]), atol=1e-6)
    assert project_out(torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([1.0, 0.0])).tolist() == [[0, 1], [0, 1]]


def test_hooks_are_weight_orthogonalisation(tiny: Any) -> None:
    before = logits(tiny.model)
    modification = AblationModification(tiny.model)
    modification.set_direction(some_direction())
    ablated = logits(tiny.model)
    assert (ablated - before).abs().max() > 1e-2
    assert (ablated - logits(orthogonalised(tiny.model, some_direction()))).abs().max() < 1e-5


def test_nothing_of_the_direction_is_left_in_the_residual_stream(tiny: Any) -> None:
    unit_D = some_direction() / some_direction().norm()
    assert all(float((stream @ unit_D).abs().max()) > 1e-3 for stream in streams(tiny.model, IDS))
    AblationModification(tiny.model).set_direction(some_direction())
    found = streams(tiny.model, IDS)
    assert len(found) == 3
    assert all(float((stream @ unit_D).abs().max()) < 1e-6 for stream in found)


def test_a_generation_in_batches_is_ablated_like_a_single_pass(tiny: Any) -> None:
    # A random model with tied embeddings repeats its last token; it cannot without that token's own direction.
    direction_D = tiny.model.model.embed_tokens.weight[41].clone()

    def complete(model: Any) -> Any:
        quiet: Any = {"before_wave": lambda wave: None, "after_wave": lambda wave, completions: None}
        return generate_greedy(
            model, PROMPTS, batch_rows=3, max_new_tokens=4, eos_ids=frozenset({2}), pad_id=0, **quiet
        )

    untouched, wanted = complete(tiny.model), complete(orthogonalised(tiny.model, direction_D))
    AblationModification(tiny.model).set_direction(direction_D)
    assert complete(tiny.model) == wanted != untouched


def test_lifted_shows_the_untouched_target_and_puts_the_hooks_back(tiny: Any) -> None:
    before = logits(tiny.model)
    modification = AblationModification(tiny.model)
    with modification.lifted():
        assert torch.equal(logits(tiny.model), before)
    assert torch.equal(logits(tiny.model), before)
    modification.set_direction(some_direction())
    ablated = logits(tiny.model)
    with modification.lifted():
        assert torch.equal(logits(tiny.model), before)
        with modification.lifted():
            pass
        assert torch.equal(logits(tiny.model), before)
    assert torch.equal(logits(tiny.model), ablated)
    with pytest.raises(KeyError), modification.lifted():
        raise KeyError("in the middle of a measurement")
    assert torch.equal(logits(tiny.model), ablated)


def test_state_is_a_copy_that_load_state_puts_back_bit_by_bit(tiny: Any) -> None:
    before = logits(tiny.model)
    modification = AblationModification(tiny.model)
    modification.set_direction(some_direction())
    state, digest, ablated = modification.state(), modification.digest(), logits(tiny.model)
    assert set(state) == {"direction"}
    assert float(state["direction"].norm()) == pytest.approx(1)
    modification.load_state({})
    assert torch.equal(logits(tiny.model), before)
    modification.load_state(state)
    assert modification.digest() == digest
    state["direction"].fill_(9)
    assert torch.equal(logits(tiny.model), ablated)
    assert modification.digest() == digest


def test_a_second_direction_takes_the_place_of_the_first(new_tiny: Callable[[], Any]) -> None:
    found = []
    for directions in ([some_direction()], [torch.ones(64), some_direction()]):
        tiny = new_tiny()
        modification = AblationModification(tiny.model)
        for direction_D in directions:
            modification.set_direction(direction_D)
        found.append((modification.digest(), logits(tiny.model).tolist()))
    assert found[0] == found[1]


def test_dispose_leaves_the_target_as_it_was(tiny: Any) -> None:
    before, weights = logits(tiny.model), tensors_digest(tiny.model.state_dict())
    modification = AblationModification(tiny.model)
    modification.set_direction(some_direction())
    modification.dispose()
    assert torch.equal(logits(tiny.model), before)
    assert tensors_digest(tiny.model.state_dict()) == weights
    assert not any(module._forward_hooks for module in tiny.model.modules())
    assert modification.state() == {}


def test_it_works_on_a_4_bit_target(tiny: Any) -> None:
    nf4 = quantize_nf4(tiny)
    before = logits(nf4.model)
    modification = AblationModification(nf4.model)
    modification.set_direction(some_direction())
    unit_D = some_direction() / some_direction().norm()
    assert all(float((stream @ unit_D).abs().max()) < 1e-6 for stream in streams(nf4.model, IDS))
    modification.dispose()
    assert torch.equal(logits(nf4.model), before)


@pytest.mark.parametrize(
    ("direction_D", "message"),
    [
        (torch.ones(3), "must have shape (64,), got (3,); take it from the residual stream of this target"),
        (torch.zeros(64), "must have a finite length above 0, got 0.0; read prompts that differ"),
        (torch.full((64,), math.nan), "must have a finite length above 0, got nan; read prompts that differ"),
        (torch.full((64,), math.inf), "must have a finite length above 0, got inf; read prompts that differ"),
    ],
)
def test_what_is_no_direction_is_refused(tiny: Any, direction_D: Tensor, message: str) -> None:
    before = logits(tiny.model)
    modification = AblationModification(tiny.model)
    with pytest.raises(DataError) as caught:
        modification.set_direction(direction_D)
    assert str(caught.value) == f"direction: {message}"
    assert torch.equal(logits(tiny.model), before)
    assert not is_direction(direction_D) or direction_D.shape != (64,)


def test_a_target_that_is_not_like_a_llama_is_refused(tiny: Any) -> None:
    del tiny.model.model.layers[0].mlp
    with pytest.raises(ConfigError) as caught:
        AblationModification(tiny.model)
    assert str(caught.value) == (
        "attack of kind ablation: needs a target whose layers have self_attn and mlp, got LlamaForCausalLM; "
        "use another target or another attack"
    )
    tiny.model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError):
        find_layers(tiny.model)


def test_the_mean_is_over_the_last_token_of_every_prompt_behind_every_layer(tiny: Any) -> None:
    # The reference reads one prompt at a time; behind layer k is before layer k + 1, and before the last norm.
    single = [torch.stack(streams(tiny.model, torch.tensor([prompt]))[1:])[:, 0, -1] for prompt in PROMPTS]
    wanted_L_D = torch.stack(single).double().mean(0)
    found_L_D = mean_residuals(tiny.model, PROMPTS, batch_rows=3, pad_id=0)
    assert found_L_D.shape == (2, 64)
    assert (found_L_D - wanted_L_D).abs().max() < 1e-5
    assert not any(module._forward_hooks for module in tiny.model.modules())


def test_what_stands_to_the_right_of_a_shorter_prompt_does_not_matter(tiny: Any) -> None:
    found = [mean_residuals(tiny.model, PROMPTS, batch_rows=4, pad_id=pad) for pad in (0, 99)]
    assert torch.equal(found[0], found[1])
    scores = [mean_refusal(tiny.model, PROMPTS, [5], batch_rows=4, pad_id=pad) for pad in (0, 99)]
    assert scores[0] == scores[1]


def test_the_order_of_the_prompts_does_not_matter(tiny: Any) -> None:
    found = [mean_residuals(tiny.model, prompts, batch_rows=2, pad_id=0) for prompts in (PROMPTS, PROMPTS[::-1])]
    assert torch.equal(found[0], found[1])


def test_log_odds_by_hand() -> None:
    # Probabilities 1/2, 1/4, 1/8, 1/8. Of {0}: 1/2 to 1/2. Of {1, 2}: 3/8 to 5/8.
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]])
    for shift in (0.0, 7.0):
        logits_B_V = probabilities.log() + shift
        assert refusal_log_odds(logits_B_V, [0]).tolist() == pytest.approx([0, math.log(1 / 3)], abs=1e-6)
        assert refusal_log_odds(logits_B_V, [1, 2]).tolist() == pytest.approx([math.log(3 / 5), 0], abs=1e-6)


def test_the_refusal_score_is_the_mean_over_the_prompts_of_the_log_odds_at_their_last_token(tiny: Any) -> None:
    odds = []
    for prompt in PROMPTS:
        with torch.no_grad():
            chances = tiny.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
        share = float(chances[5] + chances[9])
        odds.append(math.log(share / (1 - share)))
    found = mean_refusal(tiny.model, PROMPTS, [5, 9], batch_rows=3, pad_id=0)
    assert found == pytest.approx(sum(odds) / 4, abs=1e-5)


def test_depths_are_shares_of_the_number_of_layers() -> None:
    # Of 30 layers: 0.3 x 30 = 9, 0.55 x 30 = 16.5, half up.
    assert choose_layers([0.55, 0.3], 30) == (9, 17)
    assert choose_layers([0.0, 1.0], 30) == (1, 30)
    # Of 2 layers: 0.8, 1, 1.2 and 1.6 are 1, 1, 1 and 2.
    assert choose_layers([0.4, 0.5, 0.6, 0.8], 2) == (1, 2)
