"""The project's FLOP formulas against torch's own counter, within 5 %, on eager attention.

The counter sees whole S x S score matrices, the formulas their causal half: every attention term is proportional to the
number of heads, so the causal factor is removed by pricing the same target with twice the heads.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from robustlab.cost.flops import (
    count_adapter_parameters,
    decode,
    dpo_step,
    forward_per_token,
    full_step,
    lora_step,
    prefill,
)
from robustlab.data.sources import cache_root, fetch_source, is_fetched
from robustlab.models.adapter import LoraModification
from robustlab.models.generate import generate_greedy
from robustlab.models.load import load_pinned
from robustlab.models.waves import count_shared
from robustlab.spec.catalog import load
from robustlab.spec.targets import GgufTarget, Shape
from robustlab.spec.training import Lora
from robustlab.train.sft import FlatSFTTrainer

BOUND = 0.05
# At 640 tokens the score matrices are a quarter of the work, so that no attention term can hide.
LENGTHS = (96, 640)
LORA = Lora(rank=8, alpha=16, dropout=0.0, modules="all-linear")
# heads * head_dim = 384 is not the hidden width, so that neither can stand for the other.
SIZES = {"layers": 4, "hidden": 256, "intermediate": 704, "heads": 8, "kv_heads": 2, "head_dim": 48, "vocab": 4096}
NON_REENTRANT = {"use_reentrant": False}


def config_of(sizes: dict[str, int], *, tied: bool) -> dict[str, Any]:
    return {
        "vocab_size": sizes["vocab"],
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "head_dim": sizes["head_dim"],
        "max_position_embeddings": 2048,
        "tie_word_embeddings": tied,
        "attn_implementation": "eager",
    }


def build_llama(sizes: dict[str, int] = SIZES, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**config_of(sizes, tied=tied)))


def shape_of(sizes: dict[str, int], *, tied: bool = True) -> Shape:
    """The shape as a target's YAML would state it: matrices of the blocks by hand, and lm_head."""
    queries, keys = sizes["heads"] * sizes["head_dim"], sizes["kv_heads"] * sizes["head_dim"]
    block = sizes["hidden"] * (2 * queries + 2 * keys + 3 * sizes["intermediate"])
    head = sizes["vocab"] * sizes["hidden"]
    norms = sizes["hidden"] * (2 * sizes["layers"] + 1)
    matmul = sizes["layers"] * block + head
    return Shape(**sizes, parameters=matmul + norms + (0 if tied else head), matmul_parameters=matmul)


def whole_scores(shape: Shape) -> Shape:
    """The same target with the causal factor removed: twice the attention, the same N."""
    return shape.model_copy(update={"heads": 2 * shape.heads})


def random_ids(length: int, vocab: int = SIZES["vocab"]) -> Tensor:
    return torch.randint(3, vocab, (1, length), generator=torch.Generator().manual_seed(length))


def counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@torch.inference_mode()
def read(model: Any, length: int) -> None:
    """One forward pass with logits at every position."""
    model(input_ids=random_ids(length, model.config.vocab_size), use_cache=False)


def train(model: Any, lengths: Iterable[int]) -> None:
    """Forward and backward of each example, with a label at every position."""
    model.train()
    for length in lengths:
        ids = random_ids(length)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()


def adapted(model: LlamaForCausalLM) -> LoraModification:
    return LoraModification(model.requires_grad_(False), LORA, seed=0)


def assert_close(formula: int, counter: int) -> None:
    assert formula / counter == pytest.approx(1, abs=BOUND)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter does not know MKL's product with weights that were laid out before."""
    monkeypatch.setattr("robustlab.models.packed.PACKED_BYTES", 0)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_shape_holds_the_parameters_of_the_model(tied: bool) -> None:
    model, shape = build_llama(tied=tied), shape_of(SIZES, tied=tied)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(module.weight.numel() for module in linear) == shape.matmul_parameters
    adapter = adapted(model).model
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == count_adapter_parameters(shape, LORA)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_forward(tied: bool) -> None:
    model, shape = build_llama(tied=tied).eval(), whole_scores(shape_of(SIZES, tied=tied))
    short, long = LENGTHS
    assert_close(short * forward_per_token(shape, short), counted(lambda: read(model, short)))
    assert_close(long * forward_per_token(shape, long), counted(lambda: read(model, long)))


def test_the_tiny_target_forward(tiny: Any) -> None:
    shape = whole_scores(load("targets", "tiny").shape)
    tiny.model.set_attn_implementation("eager")
    assert_close(prefill(shape, 640), counted(lambda: read(tiny.model, 640)))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_low_rank_step(tied: bool) -> None:
    shape = shape_of(SIZES, tied=tied)
    price = lora_step(whole_scores(shape), LENGTHS, adapter_parameters=count_adapter_parameters(shape, LORA))
    model = adapted(build_llama(tied=tied)).model
    assert_close(price, counted(lambda: train(model, LENGTHS)))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_full_step(tied: bool) -> None:
    model = build_llama(tied=tied)
    price = full_step(whole_scores(shape_of(SIZES, tied=tied)), LENGTHS)
    assert_close(price, counted(lambda: train(model, LENGTHS)))


def test_low_rank_step_with_checkpointing() -> None:
    shape = shape_of(SIZES)
    model = build_llama()
    modification = adapted(model)
    model.activation_checkpointing_enable(NON_REENTRANT)
    model.enable_input_require_grads()
    adapter = count_adapter_parameters(shape, LORA)
    price = lora_step(whole_scores(shape), LENGTHS, adapter_parameters=adapter, checkpointing=True)
    assert_close(price, counted(lambda: train(modification.model, LENGTHS)))


def test_full_step_with_checkpointing() -> None:
    model = build_llama()
    model.activation_checkpointing_enable(NON_REENTRANT)
    price = full_step(whole_scores(shape_of(SIZES)), LENGTHS, checkpointing=True)
    assert_close(price, counted(lambda: train(model, LENGTHS)))


def dpo(modification: LoraModification, pairs: Iterable[tuple[int, int]]) -> None:
    """The loss of Rafailov et al. on each pair, its reference read with the adapter off."""

    def score(length: int) -> Tensor:
        ids = random_ids(length)
        logits = modification.model(input_ids=ids, use_cache=False).logits[0, :-1]
        return logits.log_softmax(-1).gather(-1, ids[0, 1:, None]).sum()

    modification.model.train()
    for chosen, rejected in pairs:
        with torch.no_grad(), modification.lifted():
            reference = score(chosen) - score(rejected)
        margin = score(chosen) - score(rejected) - reference
        (-torch.nn.functional.logsigmoid(0.1 * margin)).backward()


def test_preference_step_with_the_adapter_off_as_reference() -> None:
    shape, modification = shape_of(SIZES), adapted(build_llama())
    pairs = [(96, 128), (640, 512)]
    price = dpo_step(whole_scores(shape), pairs, adapter_parameters=count_adapter_parameters(shape, LORA))
    assert_close(price, counted(lambda: dpo(modification, pairs)))


@torch.inference_mode()
def write(model: LlamaForCausalLM, prompt_tokens: int, new_tokens: int) -> None:
    cache, ids = DynamicCache(config=model.config), random_ids(prompt_tokens)
    for _ in range(new_tokens):
        ids = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)


@pytest.mark.parametrize(("prompt", "new"), [(640, 24), (4, 60)])
def test_greedy_decoding(prompt: int, new: int) -> None:
    model, shape = build_llama().eval(), shape_of(SIZES)
    first = counted(lambda: write(model, prompt, 1))
    assert_close(prefill(whole_scores(shape), prompt), first)
    # A pass with a cache has no causal half, so nothing is doubled. Alone, or the prefill would hide it.
    assert_close(decode(shape, prompt, new), counted(lambda: write(model, prompt, new)) - first)


def test_the_labs_decoder_saves_lm_head_on_all_of_the_prompt_but_its_end() -> None:
    model, shape = build_llama().eval(), shape_of(SIZES)
    prompts = [[first, *random_ids(199)[0].tolist()] for first in (1, 2)]
    counter = counted(
        lambda: generate_greedy(
            model,
            prompts,
            batch_rows=2,
            max_new_tokens=20,
            eos_ids=frozenset(),
            pad_id=0,
            before_wave=lambda wave: None,
            after_wave=lambda wave, completions: None,
        )
    )
    price = 2 * (prefill(whole_scores(shape), 200) + decode(shape, 200, 20))
    assert_close(price - 2 * 199 * 2 * shape.vocab * shape.hidden, counter)
    assert price > 1.1 * counter


def test_the_labs_decoder_reads_once_what_all_prompts_begin_with() -> None:
    model, shape = build_llama().eval(), shape_of(SIZES)
    # Short, so that attention, whose counter knows no causal half, weighs little.
    opening = random_ids(30)[0].tolist()
    prompts = [[*opening, own, *random_ids(9)[0].tolist()] for own in (1, 2, 3)]
    counter = counted(
        lambda: generate_greedy(
            model,
            prompts,
            batch_rows=3,
            max_new_tokens=2,
            eos_ids=frozenset(),
            pad_id=0,
            before_wave=lambda wave: None,
            after_wave=lambda wave, completions: None,
        )
    )
    whole, shared = whole_scores(shape), count_shared(prompts)
    assert shared == 30
    price = 3 * (prefill(whole, 40) + decode(shape, 40, 2)) - 2 * prefill(whole, shared)
    saved = (3 * (40 - shared - 1) + shared - 1) * 2 * shape.vocab * shape.hidden
    assert_close(price - saved, counter)


def test_the_labs_trainer_saves_lm_head_on_the_prompt() -> None:
    shape = shape_of(SIZES)
    model = adapted(build_llama()).model.train()
    ids, prompt = random_ids(320), 240
    labels = ids.masked_fill(torch.arange(320) < prompt, -100)
    inputs = {"input_ids": ids, "labels": labels, "position_ids": torch.arange(320)[None]}
    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(unwrap_model=lambda wrapped: wrapped))
    counter = counted(lambda: FlatSFTTrainer.compute_loss(trainer, model, inputs).backward())
    price = lora_step(whole_scores(shape), [320], adapter_parameters=count_adapter_parameters(shape, LORA))
    assert_close(price - prompt * 4 * shape.vocab * shape.hidden, counter)
    assert price > 1.1 * counter


def test_a_mixture_of_experts_by_its_active_parameters() -> None:
    config = config_of(SIZES, tied=False) | {"num_local_experts": 8, "num_experts_per_tok": 2}
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**config, experts_implementation="eager")).eval()
    dense = shape_of(SIZES, tied=False)
    expert, router = 3 * SIZES["hidden"] * SIZES["intermediate"], 8 * SIZES["hidden"]
    active = dense.matmul_parameters + SIZES["layers"] * (expert + router)
    shape = dense.model_copy(
        update={"matmul_parameters": active, "parameters": sum(p.numel() for p in model.parameters())}
    )
    assert_close(prefill(whole_scores(shape), 256), counted(lambda: read(model, 256)))
    assert_close(full_step(whole_scores(shape), [256]), counted(lambda: train(model, [256])))


@pytest.mark.slow
def test_low_rank_step_of_smollm2() -> None:
    name = "smollm2_135m_instruct"
    target = load("targets", name)
    assert isinstance(target, GgufTarget)
    if not is_fetched(target.source):
        pytest.skip(f"SmolLM2 is not in the cache: run `robustlab fetch {name}`")
    loaded = load_pinned(name, target, artefact=fetch_source(target.source), cache=cache_root())
    loaded.model.set_attn_implementation("eager")
    modification = LoraModification(loaded.model, LORA, seed=0)
    adapter = count_adapter_parameters(target.shape, LORA)
    price = lora_step(whole_scores(target.shape), [128], adapter_parameters=adapter)
    assert_close(price, counted(lambda: train(modification.model, [128])))
