"""Floating-point operations of training and generation, from a target's shape and the lengths of its sequences.

One multiply-add counts as two. ``N`` is the number of parameters that are active in a matrix product for one token,
with lm_head at every position and without the embedding look-up; ``A = layers * heads * head_dim``. A token at
position t attends to t positions, which costs 4*A*t in a forward pass; over a causal sequence of S tokens the mean of
t is S/2, so a token costs ``F = 2N + 2*A*S`` on average. Norms, rotary embeddings and softmax are left out.

The formulas are blind to how the work is done: they count neither padding nor repeated work. This module does not know
hardware or prices.
"""

from collections.abc import Iterable

from robustlab.errors import ConfigError
from robustlab.spec.targets import Shape
from robustlab.spec.training import Lora
from robustlab.units import Flops


def forward_per_token(shape: Shape, sequence: int) -> Flops:
    """FLOPs of one token's forward pass, averaged over a causal sequence of ``sequence`` tokens: 2N + 2*A*S."""
    return Flops(2 * shape.matmul_parameters + 2 * _attention_width(shape) * sequence)


def full_per_token(shape: Shape, sequence: int) -> Flops:
    """FLOPs of one token of full fine-tuning, forward and backward: 3F."""
    return Flops(3 * forward_per_token(shape, sequence))


def lora_per_token(shape: Shape, sequence: int, *, adapter_parameters: int) -> Flops:
    """FLOPs of one token of low-rank fine-tuning: 4N + 6*A*S, and 6 for each parameter of the adapter.

    The weight gradient of frozen matrices is skipped, which saves a third of their 6N; attention has none to skip.
    """
    attention = 6 * _attention_width(shape) * sequence
    return Flops(4 * shape.matmul_parameters + attention + 6 * adapter_parameters)


def lora_step(
    shape: Shape,
    lengths: Iterable[int],
    *,
    adapter_parameters: int,
    checkpointing: bool = False,
    reference: bool = False,
) -> Flops:
    """FLOPs of one optimiser step of low-rank fine-tuning.

    Args:
        shape: The target's sizes.
        lengths: Tokens of each example of the step, padding left out; for DPO the chosen and the rejected ones.
        adapter_parameters: Trainable parameters.
        checkpointing: Whether the forward pass is run again in the backward pass (+F).
        reference: Whether the untouched target is run too, as DPO with the adapter off does (+F).

    Returns:
        Operations of all examples together; 0 where ``lengths`` is empty.
    """
    extra_forwards = int(checkpointing) + int(reference)
    total = 0
    for length in lengths:
        trained = lora_per_token(shape, length, adapter_parameters=adapter_parameters)
        total += length * (trained + extra_forwards * forward_per_token(shape, length))
    return Flops(total)


def prefill(shape: Shape, prompt_tokens: int) -> Flops:
    """FLOPs of reading one prompt: its tokens times F."""
    return Flops(prompt_tokens * forward_per_token(shape, prompt_tokens))


def decode(shape: Shape, prompt_tokens: int, new_tokens: int) -> Flops:
    """FLOPs of writing one completion with a key-value cache, after its prompt was read.

    The first new token comes out of the prefill; each of the other ``new_tokens - 1`` is one pass of 2N + 4*A*S over
    the S tokens so far, S = prompt_tokens + 1, prompt_tokens + 2, ...

    Args:
        shape: The target's sizes.
        prompt_tokens: Length of the prompt.
        new_tokens: Length of the completion; 0 and 1 cost nothing here.

    Returns:
        Operations of all passes after the prefill.
    """
    passes = max(new_tokens - 1, 0)
    contexts = passes * prompt_tokens + passes * (passes + 1) // 2
    return Flops(passes * 2 * shape.matmul_parameters + 4 * _attention_width(shape) * contexts)


def generation(shape: Shape, prompt_tokens: int, new_tokens: int) -> Flops:
    """FLOPs of one completion, the prompt's prefill included."""
    return Flops(prefill(shape, prompt_tokens) + decode(shape, prompt_tokens, new_tokens))


def count_adapter_parameters(shape: Shape, lora: Lora) -> int:
    """Trainable parameters of an adapter on a Llama-like block: rank * (inputs + outputs) of each adapted matrix.

    Args:
        shape: The target's sizes; every layer has the same matrices.
        lora: The adapter's rank and the matrices that it adapts; ``all-linear`` is all seven of a block.

    Returns:
        How many there are over all layers.

    Raises:
        ConfigError: If the adapter names a matrix whose size the shape does not give.
    """
    sizes = _linear_sizes(shape)
    names = tuple(sizes) if lora.modules == "all-linear" else lora.modules
    unknown = [name for name in names if name not in sizes]
    if unknown:
        problem = f"names a matrix of unknown size, got {unknown[0]!r}"
        raise ConfigError("lora.modules", problem, f"use all-linear or some of {', '.join(sizes)}")
    return shape.layers * lora.rank * sum(sum(sizes[name]) for name in names)


def _linear_sizes(shape: Shape) -> dict[str, tuple[int, int]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden, queries),
        "k_proj": (shape.hidden, keys),
        "v_proj": (shape.hidden, keys),
        "o_proj": (queries, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }


def _attention_width(shape: Shape) -> int:
    return shape.layers * shape.heads * shape.head_dim
