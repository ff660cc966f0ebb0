"""The 4-bit copy: the target stays as it is, and an attack on it learns the same whether it is measured or not."""

import importlib.util
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bitsandbytes
import numpy
import pytest
import torch
from bitsandbytes import cextension
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16
from bitsandbytes.nn import Linear4bit
from torch import Tensor

from robustlab.errors import DataError
from robustlab.models.adapter import LoraModification
from robustlab.models.load import LoadedTarget
from robustlab.models.modification import tensors_digest
from robustlab.models.quantize import quantize_nf4, require_nf4
from robustlab.models.tiny import build_tiny_model, build_tiny_tokenizer
from robustlab.spec.attacks import LoraSft
from robustlab.spec.base import content_hash
from robustlab.train.hooks import Hooks, StepPrice
from robustlab.train.order import Example, batch_lengths
from robustlab.train.sft import Outcome, run_sft

IDS = torch.tensor([[1, *range(40, 72)]])
BATCHES = [[Example.from_mask([1, *range(20 + n, 19 + 2 * n)], [0] * 4 + [1] * (n - 4)) for n in (6, 8, 10, 12)]] * 3


@pytest.fixture
def lora(smoke_recipe: LoraSft) -> Any:
    return smoke_recipe.training.lora


@pytest.fixture
def nf4(tiny: Any) -> LoadedTarget:
    return quantize_nf4(tiny)


def layers_of(model: Any) -> list[Linear4bit]:
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits.clone()


def disturbed(target: LoadedTarget, lora: Any) -> LoraModification:
    """An adapter on the target with weights in both factors, as a training would leave it."""
    modification = LoraModification(target.model, lora, seed=0)
    generator = torch.Generator().manual_seed(11)
    state = modification.state()
    modification.load_state({name: torch.randn(t.shape, generator=generator) * 0.1 for name, t in state.items()})
    return modification


def gradients(modification: LoraModification) -> dict[str, Tensor]:
    model: Any = modification.model
    model.train()
    model.zero_grad(set_to_none=True)
    model(input_ids=IDS, labels=IDS).loss.backward()
    model.eval()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_matrices_of_all_blocks_become_nf4_and_nothing_else_does(tiny: Any, nf4: LoadedTarget) -> None:
    # Seven matrices in each of two blocks, two numbers in a byte.
    plain = dict(tiny.model.named_parameters())
    four_bit = {name for name, p in nf4.model.named_parameters() if p.dtype == torch.uint8}
    assert len(four_bit) == 14 == len(layers_of(nf4.model))
    for name, parameter in nf4.model.named_parameters():
        if name in four_bit:
            assert parameter.numel() == plain[name].numel() // 2
            assert parameter.quant_state.quant_type == "nf4" and parameter.quant_state.nested
        else:
            assert torch.equal(parameter, plain[name]) and parameter.dtype == torch.float32
    assert nf4.model.lm_head.weight is nf4.model.model.embed_tokens.weight
    assert not any(parameter.requires_grad for parameter in nf4.model.parameters())
    assert not any(module.training for module in nf4.model.modules())


def test_a_weight_is_the_nearest_of_16_levels_of_its_block_of_64(tiny: Any, nf4: LoadedTarget) -> None:
    # The widest gap of the 16 levels on [-1, 1] is 0.304, so nothing is further off than 0.152 of the block's largest
    # weight, and a little for the scale, which is kept in 8 bits.
    matrices = [module for module in tiny.model.modules() if is_block_matrix(module)]
    for module, plain in zip(layers_of(nf4.model), matrices, strict=True):
        found = dequantize_4bit(module.weight.data, module.weight.quant_state).reshape(-1, 64)
        wanted = plain.weight.reshape(-1, 64)
        scale = wanted.abs().amax(1, keepdim=True)
        assert 0 < float(((found - wanted).abs() / scale).max()) < 0.16


def is_block_matrix(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) and module.out_features != 259


def test_the_target_stays_as_it_is(new_tiny: Any) -> None:
    tiny = new_tiny()
    weights, before, config = tensors_digest(tiny.model.state_dict()), logits(tiny.model), tiny.model.config.to_dict()
    copy = quantize_nf4(tiny)
    assert (logits(copy.model) - before).abs().max() > 1e-3
    assert tensors_digest(tiny.model.state_dict()) == weights
    assert tiny.model.config.to_dict() == config
    assert torch.equal(logits(tiny.model), before)


def test_the_copy_is_addressed_by_what_it_was_made_from(tiny: Any, nf4: LoadedTarget) -> None:
    settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    types = {"bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8"}
    assert nf4.content_id == content_hash({"released": tiny.content_id, "quantization": "nf4", **settings, **types})
    other = quantize_nf4(replace(tiny, content_id="0" * 64))
    assert len({tiny.content_id, nf4.content_id, other.content_id}) == 3
    assert (nf4.tokenizer, nf4.system_prompt) == (tiny.tokenizer, tiny.system_prompt)


def test_what_ends_a_completion_stays_the_same(new_tiny: Callable[[], Any]) -> None:
    tiny = new_tiny()
    tiny.model.generation_config.eos_token_id = [2, 7]
    assert quantize_nf4(tiny).eos_ids == tiny.eos_ids == {2, 7}


def test_two_copies_are_equal_and_no_generator_moves(new_tiny: Callable[[], Any]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), str(numpy.random.get_state())
    digests = {tensors_digest(quantize_nf4(new_tiny()).model.state_dict()) for _ in range(2)}
    assert len(digests) == 1
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(numpy.random.get_state())) == before[1:]


def test_nothing_is_written_to_the_disk(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were written")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(type(tiny.model), "save_pretrained", refuse)
    quantize_nf4(tiny)


def test_sizes_that_are_no_multiple_of_64_run(tiny_spec: Any) -> None:
    # 36 x 50 = 1800 weights are 28 blocks and an eighth.
    shape = tiny_spec.shape.model_copy(update={"hidden": 36, "intermediate": 50, "head_dim": 8})
    odd = build_tiny_model(tiny_spec.model_copy(update={"shape": shape}))
    copy = quantize_nf4(LoadedTarget(odd, build_tiny_tokenizer(), None, "0" * 64))
    assert torch.isfinite(logits(copy.model)).all()


def test_the_adapter_finds_the_4_bit_layers_and_leaves_them_as_they_were(nf4: LoadedTarget, lora: Any) -> None:
    before, weights = logits(nf4.model), tensors_digest(nf4.model.state_dict())
    modification = LoraModification(nf4.model, lora, seed=0)
    wrapped = [module for module in modification.model.modules() if type(module).__name__ == "Linear4bit"]
    assert sum(type(module).__module__ == "peft.tuners.lora.bnb" for module in wrapped) == 14
    assert len(modification.state()) == 7 * 2 * 2
    assert torch.equal(logits(nf4.model), before)
    modification.dispose()
    assert tensors_digest(nf4.model.state_dict()) == weights
    assert torch.equal(logits(nf4.model), before)
    assert not any(module.support_avx512bf16_for_cpu for module in layers_of(nf4.model))


def test_an_adapter_is_lifted_byte_for_byte(nf4: LoadedTarget, lora: Any) -> None:
    before = logits(nf4.model)
    modification = disturbed(nf4, lora)
    assert not torch.equal(logits(nf4.model), before)
    with modification.lifted():
        assert torch.equal(logits(nf4.model), before)


def test_gradients_are_the_same_after_an_evaluation(nf4: LoadedTarget, lora: Any) -> None:
    modification = disturbed(nf4, lora)
    before = gradients(modification)
    logits(modification.model)
    after = gradients(modification)
    assert len(before) == 7 * 2 * 2
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_evaluation_computes_what_training_does(nf4: LoadedTarget, lora: Any) -> None:
    model: Any = disturbed(nf4, lora).model
    evaluated = logits(model)
    model.train()
    assert torch.equal(model(input_ids=IDS).logits, evaluated)


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit:UserWarning")
@pytest.mark.skipif(not has_avx512bf16(), reason="this processor has no AVX512-BF16, so nothing is ever repacked")
def test_without_the_guard_an_evaluation_takes_the_gradient(nf4: LoadedTarget, lora: Any) -> None:
    modification = disturbed(nf4, lora)
    before = gradients(modification)
    for module in layers_of(nf4.model):
        module.support_avx512bf16_for_cpu = True
    logits(modification.model)
    after = gradients(modification)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    norms = [float(torch.stack([g.norm() for g in found.values()]).norm()) for found in (before, after)]
    assert norms[1] < 0.9 * norms[0]


def train(target: LoadedTarget, recipe: LoraSft, meter: Any, *, measured: bool) -> tuple[Outcome, str]:
    """Three steps with an evaluation before the first and after it, or without any."""
    modification = LoraModification(target.model, recipe.training.lora, seed=0)

    def look(mark: Any) -> None:
        if measured:
            logits(target.model)

    look(None)
    hooks = Hooks(frozenset({1}), look, lambda step, loss: None, lambda state: None, None)
    prices = [StepPrice(sum(batch_lengths(batch)), 1) for batch in BATCHES]
    with meter.phase("attacker", "train"):
        outcome = run_sft(
            modification,
            target.tokenizer,
            BATCHES,
            prices,
            recipe.training,
            learning_rates=[1e-2] * len(BATCHES),
            seed=0,
            meter=meter,
            hooks=hooks,
            resume=None,
            expected_step_seconds=0.0,
        )
    return outcome, modification.digest()


def test_the_trainer_takes_the_copy_and_measuring_changes_nothing(new_tiny: Any, smoke_recipe: Any, till: Any) -> None:
    copies = [quantize_nf4(new_tiny()) for _ in range(2)]
    weights = tensors_digest(copies[0].model.state_dict())
    runs = [train(c, smoke_recipe, till.meter(), measured=m) for c, m in zip(copies, (False, True), strict=True)]
    assert runs[0] == runs[1]
    assert (runs[0][0].steps, runs[0][0].diverged) == (3, False)
    assert runs[0][0].losses[2] < runs[0][0].losses[0]
    frozen = {n: p for n, p in copies[0].model.state_dict().items() if "lora_" not in n}
    assert tensors_digest({name.replace(".base_layer", ""): p for name, p in frozen.items()}) == weights


def test_bitsandbytes_runs_here() -> None:
    require_nf4()


def test_the_package_kernels_is_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, kernels=object())
    with pytest.raises(DataError) as caught:
        quantize_nf4(tiny)
    assert str(caught.value) == (
        "nf4: bitsandbytes would fetch and run unpinned code from the hub, got an importable package 'kernels'; "
        "pip uninstall kernels"
    )


def test_a_missing_bitsandbytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, bitsandbytes=None)
    with pytest.raises(DataError) as caught:
        require_nf4()
    assert str(caught.value) == (
        "nf4: bitsandbytes cannot be imported, got no package of that name; "
        "install the versions that constraints.txt pins"
    )


def hide(monkeypatch: pytest.MonkeyPatch, **specs: Any) -> None:
    """Let some packages seem to be there, or not."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: specs[name] if name in specs else find(name))


def test_a_missing_native_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cextension, "lib", cextension.ErrorHandlerMockBNBNativeLibrary("no library"))
    with pytest.raises(DataError) as caught:
        require_nf4()
    assert str(caught.value) == (
        f"nf4: bitsandbytes {bitsandbytes.__version__} has no native library here, "
        "got ErrorHandlerMockBNBNativeLibrary; "
        "install its wheel for this platform, or take a recipe without quantization"
    )


def test_a_device_that_bitsandbytes_does_not_know_is_refused(tiny: Any) -> None:
    nowhere = replace(tiny, model=tiny.model.to("meta"))
    with pytest.raises(DataError) as caught:
        quantize_nf4(nowhere)
    assert str(caught.value) == (
        "nf4: bitsandbytes cannot compute where the target lies, got 'meta'; use one of cpu, cuda, hpu, mps, npu, xpu"
    )
