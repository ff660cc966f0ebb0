"""The adapter: nothing while it is zero, gone without a trace, and merged only for good."""

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from robustlab.errors import ConfigError, DataError
from robustlab.models.adapter import LoraModification, pack_adapter
from robustlab.models.full import FullModification
from robustlab.models.modification import tensors_digest
from robustlab.spec.attacks import LoraSft
from robustlab.spec.training import Lora

IDS = torch.tensor([[1, 40, 41, 42, 43]])


@pytest.fixture
def lora(smoke_recipe: LoraSft) -> Lora:
    return smoke_recipe.training.lora


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.clone()


def disturb(modification: LoraModification) -> None:
    """Give both factors of the adapter weights, as a training would."""
    generator = torch.Generator().manual_seed(11)
    state = modification.state()
    modification.load_state({name: torch.randn(t.shape, generator=generator) * 0.1 for name, t in state.items()})


def modules(model: Any) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in model.named_modules()}


def test_a_fresh_adapter_changes_nothing_byte_for_byte(tiny: Any, lora: Lora) -> None:
    before = logits(tiny.model)
    modification = LoraModification(tiny.model, lora, seed=0)
    assert torch.equal(logits(tiny.model), before)
    assert torch.equal(logits(modification.model), before)


def test_lifted_shows_the_untouched_target_byte_for_byte_and_puts_the_adapter_back(tiny: Any, lora: Lora) -> None:
    before = logits(tiny.model)
    modification = LoraModification(tiny.model, lora, seed=0)
    disturb(modification)
    attacked = logits(tiny.model)
    assert not torch.equal(attacked, before)
    for _ in range(2):
        with modification.lifted():
            assert torch.equal(logits(tiny.model), before)
        assert torch.equal(logits(tiny.model), attacked)


def test_only_the_adapter_can_be_trained_after_lifting_too(tiny: Any, lora: Lora) -> None:
    modification = LoraModification(tiny.model, lora, seed=0)
    with modification.lifted():
        pass
    trainable = {name for name, parameter in modification.model.named_parameters() if parameter.requires_grad}
    assert trainable == set(modification.state())
    # Seven linear layers in each of two blocks, two factors each.
    assert len(trainable) == 7 * 2 * 2


def test_state_is_a_copy_that_load_state_puts_back(tiny: Any, lora: Lora) -> None:
    modification = LoraModification(tiny.model, lora, seed=0)
    fresh, digest = modification.state(), modification.digest()
    disturb(modification)
    assert modification.digest() != digest
    modification.load_state(fresh)
    assert modification.digest() == digest
    next(iter(fresh.values())).fill_(9)
    assert modification.digest() == digest


def test_the_digest_comes_from_the_seed_and_leaves_the_global_generator_alone(new_tiny: Any, lora: Lora) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    digests = [LoraModification(new_tiny().model, lora, seed=seed).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_dispose_leaves_the_target_as_it_was(tiny: Any, lora: Lora) -> None:
    weights, structure, before = tensors_digest(tiny.model.state_dict()), modules(tiny.model), logits(tiny.model)
    modification = LoraModification(tiny.model, lora, seed=0)
    disturb(modification)
    modification.dispose()
    assert tensors_digest(tiny.model.state_dict()) == weights
    assert modules(tiny.model) == structure
    assert torch.equal(logits(tiny.model), before)
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_a_target_can_be_modified_again_after_dispose(tiny: Any, lora: Lora) -> None:
    first = LoraModification(tiny.model, lora, seed=0)
    digest = first.digest()
    first.dispose()
    assert LoraModification(tiny.model, lora, seed=0).digest() == digest


def test_merging_equals_the_adapter(tiny: Any, lora: Lora) -> None:
    structure = modules(tiny.model)
    modification = LoraModification(tiny.model, lora, seed=0)
    disturb(modification)
    attacked = logits(tiny.model)
    merged = modification.merge()
    assert modules(merged) == structure
    assert (logits(merged) - attacked).abs().max() < 1e-4


def test_named_modules_get_an_adapter_and_no_others(tiny: Any, lora: Lora) -> None:
    some = lora.model_copy(update={"modules": ("q_proj", "v_proj")})
    names = LoraModification(tiny.model, some, seed=0).state()
    assert len(names) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_a_module_that_is_not_there_is_refused_with_those_that_are(tiny: Any, lora: Lora) -> None:
    wrong = lora.model_copy(update={"modules": ("q_proj", "w_pack")})
    with pytest.raises(ConfigError) as caught:
        LoraModification(tiny.model, wrong, seed=0)
    there = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert str(caught.value) == f"training.lora.modules: the target has no module 'w_pack'; it has {there}"


def test_digests_tell_names_shapes_and_types_apart() -> None:
    zeros = torch.zeros(2, 3)
    digests = {
        tensors_digest({"a": zeros}),
        tensors_digest({"b": zeros}),
        tensors_digest({"a": zeros.reshape(3, 2)}),
        tensors_digest({"a": zeros.int()}),
    }
    assert len(digests) == 4
    assert tensors_digest({"a": zeros, "b": zeros}) == tensors_digest({"b": zeros.T.contiguous().T, "a": zeros})


def test_it_is_packed_in_memory_with_what_it_says_of_itself(tiny: Any, lora: Lora) -> None:
    modification = LoraModification(tiny.model, lora, seed=0)
    disturb(modification)
    packed = pack_adapter(modification, {"robustlab.safety_degraded": "true"})
    assert tensors_digest(safetensors.torch.load(packed)) == modification.digest()
    header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])["__metadata__"]
    assert header["robustlab.safety_degraded"] == "true"
    assert Lora.model_validate_json(header["robustlab.lora"]) == lora


def test_nothing_but_an_adapter_is_packed(tiny: Any) -> None:
    with pytest.raises(DataError) as caught:
        pack_adapter(FullModification(tiny.model), {})
    assert str(caught.value) == (
        "modification: must be an adapter to be written, got FullModification; "
        "keep what an attack of kind lora_sft or lora_dpo makes"
    )
