"""Full weights: nothing until they are trained, lifted and put back byte for byte, and gone without a trace."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab.models.full import FullModification
from robustlab.models.modification import tensors_digest

IDS = torch.tensor([[1, 40, 41, 42, 43]])
WATCH: dict[str, list[str] | None] = {"opened": None}


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.clone()


def train(modification: FullModification, steps: int = 2) -> None:
    """A few steps that move every weight."""
    model: Any = modification.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def weights(model: Any) -> str:
    return tensors_digest(model.state_dict())


def test_fresh_it_changes_nothing_byte_for_byte(tiny: Any) -> None:
    before, digest = logits(tiny.model), weights(tiny.model)
    modification = FullModification(tiny.model)
    assert modification.model is modification.base is tiny.model
    assert torch.equal(logits(tiny.model), before)
    assert weights(tiny.model) == digest


def test_every_parameter_can_be_trained_and_tied_ones_are_held_once(tiny: Any) -> None:
    modification = FullModification(tiny.model)
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())
    # Embedding, last norm, and nine tensors in each of two layers; lm_head is the embedding.
    assert len(modification.state()) == 2 + 2 * 9
    assert sum(tensor.numel() for tensor in modification.state().values()) == 90624
    train(modification)
    assert tiny.model.lm_head.weight is tiny.model.model.embed_tokens.weight


def test_lifted_shows_the_untouched_target_and_puts_the_attacked_weights_back(tiny: Any) -> None:
    before, released = logits(tiny.model), weights(tiny.model)
    modification = FullModification(tiny.model)
    train(modification)
    attacked, digest = logits(tiny.model), modification.digest()
    assert not torch.equal(attacked, before)
    for _ in range(2):
        with modification.lifted():
            assert torch.equal(logits(tiny.model), before)
            with modification.lifted():
                assert weights(tiny.model) == released
            assert weights(tiny.model) == released
        assert torch.equal(logits(tiny.model), attacked)
        assert modification.digest() == digest


def test_the_attacked_weights_come_back_after_an_error_too(tiny: Any) -> None:
    modification = FullModification(tiny.model)
    train(modification)
    digest = modification.digest()
    with pytest.raises(KeyError), modification.lifted():
        raise KeyError("in the middle of a measurement")
    assert modification.digest() == digest


def test_lifting_in_the_middle_does_not_change_a_training(new_tiny: Any) -> None:
    digests = []
    for lifts in (False, True):
        modification = FullModification(new_tiny().model)
        optimizer = torch.optim.AdamW(modification.model.parameters(), lr=1e-2)
        for _ in range(3):
            modification.model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if lifts:
                with modification.lifted():
                    logits(modification.model)
        digests.append(modification.digest())
    assert digests[0] == digests[1]


def test_state_is_a_copy_that_load_state_puts_back(tiny: Any) -> None:
    modification = FullModification(tiny.model)
    fresh, digest = modification.state(), modification.digest()
    train(modification)
    assert modification.digest() != digest
    modification.load_state(fresh)
    assert modification.digest() == digest
    next(iter(fresh.values())).fill_(9)
    assert modification.digest() == digest


def test_the_digest_is_that_of_the_weights(tiny: Any) -> None:
    modification = FullModification(tiny.model)
    assert modification.digest() == tensors_digest(modification.state())


def test_dispose_leaves_the_target_as_it_was(tiny: Any) -> None:
    released, before = weights(tiny.model), logits(tiny.model)
    places = {name: parameter.data_ptr() for name, parameter in tiny.model.named_parameters()}
    modification = FullModification(tiny.model)
    train(modification)
    tiny.model(input_ids=IDS, labels=IDS).loss.backward()
    assert weights(tiny.model) != released
    modification.dispose()
    assert weights(tiny.model) == released
    assert torch.equal(logits(tiny.model), before)
    # Not a copy: the very tensors that it was loaded into.
    assert {name: parameter.data_ptr() for name, parameter in tiny.model.named_parameters()} == places
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in tiny.model.parameters())


def test_disposing_twice_is_disposing_once(tiny: Any) -> None:
    released = weights(tiny.model)
    modification = FullModification(tiny.model)
    train(modification)
    modification.dispose()
    modification.dispose()
    assert weights(tiny.model) == released


def test_a_target_can_be_attacked_again_after_dispose(tiny: Any) -> None:
    digests = []
    for _ in range(2):
        modification = FullModification(tiny.model)
        train(modification)
        digests.append(modification.digest())
        modification.dispose()
    assert digests[0] == digests[1]


def _watch(event: str, args: tuple[Any, ...]) -> None:
    opened = WATCH["opened"]
    if event == "open" and opened is not None and set(str(args[1])) & set("wxa+"):
        opened.append(str(args[0]))


def test_no_weight_ever_reaches_the_disk(tiny: Any) -> None:
    # An audit hook cannot be taken off again; it is deaf outside of this test.
    sys.addaudithook(_watch)
    WATCH["opened"] = opened = []
    try:
        modification = FullModification(tiny.model)
        train(modification)
        with modification.lifted():
            modification.load_state(modification.state())
        modification.dispose()
    finally:
        WATCH["opened"] = None
    assert opened == []
