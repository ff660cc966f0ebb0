"""Floating-point operations of training and generation, from a target's shape and the lengths of its sequences.

One multiply-add counts as two. ``N`` is the number of parameters that are active in a matrix product for one token
(``Shape.matmul_parameters``), with lm_head at every position and without the embedding look-up. Of a mixture of experts
it is what one token is routed through, with the router and shared experts, so that idle experts cost nothing.
``A = layers * heads * head_dim``. A token at position t attends to t positions, which costs 4*A*t in a forward pass;
over a causal sequence of S tokens the mean of t is S/2, so a token costs ``F = 2N + 2*A*S`` on average. Norms, rotary
embeddings and softmax are left out.

The formulas are blind to how the work is done: they leave out padding, and they count what a clever program skips. The
lab's own trainer runs lm_head on completion tokens only (4 * vocab * hidden less for each prompt token of a low-rank
step), and its decoder on a prompt's last token only (2 * vocab * hidden less for each other one); both are charged the
formula all the same. This module does not know hardware or prices.
"""

from collections.abc import Iterable

from robustlab.errors import ConfigError
from robustlab.spec.targets import Shape
from robustlab.spec.training import Lora
from robustlab.units import Flops, to_seconds


def forward_per_token(shape: Shape, sequence: int) -> Flops:
    """FLOPs of one token's forward pass, averaged over a causal sequence of ``sequence`` tokens: 2N + 2*A*S."""
    return Flops(2 * shape.matmul_parameters + 2 * _attention_width(shape) * sequence)


def full_per_token(shape: Shape, sequence: int) -> Flops:
    """FLOPs of one token of full fine-tuning, forward and backward: 3F, which is 6N + 6*A*S."""
    return Flops(3 * forward_per_token(shape, sequence))


def lora_per_token(shape: Shape, sequence: int, *, adapter_parameters: int) -> Flops:
    """FLOPs of one token of low-rank fine-tuning: 4N + 6*A*S, and 6 for each parameter of the adapter.

    The weight gradient of frozen matrices is skipped, which saves a third of their 6N; attention has none to skip.
    """
    attention = 6 * _attention_width(shape) * sequence
    return Flops(4 * shape.matmul_parameters + attention + 6 * adapter_parameters)


def full_step(shape: Shape, lengths: Iterable[int], *, checkpointing: bool = False) -> Flops:
    """FLOPs of one optimiser step of full fine-tuning: sum over its examples of S * 3F.

    Checkpointing runs the blocks again, as in ``lora_step``; each without its last product, whose output nothing needs.

    Args:
        shape: The target's sizes.
        lengths: Tokens of each example of the step, padding left out.
        checkpointing: Whether the blocks are run again in the backward pass.

    Returns:
        Operations of all examples together; 0 where ``lengths`` is empty.
    """
    total = 0
    for length in lengths:
        total += 3 * prefill(shape, length)
        if checkpointing:
            last_products = 2 * shape.layers * shape.intermediate * shape.hidden
            total += length * (_blocks_per_token(shape, length) - last_products)
    return Flops(total)


def lora_step(shape: Shape, lengths: Iterable[int], *, adapter_parameters: int, checkpointing: bool = False) -> Flops:
    """FLOPs of one optimiser step of low-rank fine-tuning: sum over its examples of S * (4N + 6*A*S + 6 * adapter).

    Checkpointing runs the blocks again, adapter included: S * (F - 2 * vocab * hidden + 2 * adapter). lm_head lies in
    no block, and a fifth of SmolLM2's F is lm_head.

    Args:
        shape: The target's sizes.
        lengths: Tokens of each example of the step, prompts included and padding left out.
        adapter_parameters: Trainable parameters that a token meets.
        checkpointing: Whether the blocks are run again in the backward pass.

    Returns:
        Operations of all examples together; 0 where ``lengths`` is empty.
    """
    total = 0
    for length in lengths:
        total += length * lora_per_token(shape, length, adapter_parameters=adapter_parameters)
        if checkpointing:
            total += length * (_blocks_per_token(shape, length) + 2 * adapter_parameters)
    return Flops(total)


def dpo_step(
    shape: Shape, pairs: Iterable[tuple[int, int]], *, adapter_parameters: int, checkpointing: bool = False
) -> Flops:
    """FLOPs of one optimiser step of direct preference optimisation with an adapter.

    Both answers of a pair are trained on as in ``lora_step``, and read once more by the reference, which is the target
    with the adapter off: S * (4N + 6*A*S + 6 * adapter + F) each. Their prompt is counted twice, once with each answer.

    Args:
        shape: The target's sizes.
        pairs: Tokens of the chosen and of the rejected sequence of each pair, prompt included and padding left out.
        adapter_parameters: Trainable parameters that a token meets.
        checkpointing: Whether the trained blocks are run again in the backward pass, see ``lora_step``.

    Returns:
        Operations of all pairs together; 0 where ``pairs`` is empty.

    Source: Rafailov et al. 2023, arXiv 2305.18290, for the objective and its reference.
    """
    lengths = [length for pair in pairs for length in pair]
    trained = lora_step(shape, lengths, adapter_parameters=adapter_parameters, checkpointing=checkpointing)
    return Flops(trained + sum(prefill(shape, length) for length in lengths))


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


def utilisation(flops: int, device_ns: int, peak_flops: float) -> float | None:
    """Model FLOPs utilisation (MFU) of a stretch of work: flops / (device seconds * peak).

    Args:
        flops: Operations of the stretch, by this module's formulas. With checkpointing left out it is the paper's MFU;
            with it, the hardware's utilisation (HFU). The paper counts the whole score matrix of the attention, this
            module its causal half.
        device_ns: Nanoseconds, summed over all devices.
        peak_flops: Dense peak of one device in the dtype of the work, operations a second, greater than 0.

    Returns:
        A share of the peak, above 1 only where the peak is wrong; None where no device time or no operation is known.

    Source: Chowdhery et al. 2022 (PaLM), arXiv 2204.02311, appendix B.
    """
    if device_ns <= 0 or flops <= 0:
        return None
    return flops / (to_seconds(device_ns) * peak_flops)


def count_adapter_parameters(shape: Shape, lora: Lora) -> int:
    """Trainable parameters of an adapter on a Llama-like block: rank * (inputs + outputs) of each adapted matrix.

    Args:
        shape: The target's sizes; every layer has the same matrices.
        lora: The adapter's rank and the matrices that it adapts; ``all-linear`` is all seven of a block.

    Returns:
        How many there are over all layers.

    Raises:
        ConfigError: If the adapter names a matrix whose size the shape does not give, or its rank is higher than that
            of a matrix can be.
    """
    sizes = _linear_sizes(shape)
    names = tuple(sizes) if lora.modules == "all-linear" else lora.modules
    unknown = [name for name in names if name not in sizes]
    if unknown:
        problem = f"names a matrix of unknown size, got {unknown[0]!r}"
        raise ConfigError("lora.modules", problem, f"use all-linear or some of {', '.join(sizes)}")
    narrowest = min(names, key=lambda name: min(sizes[name]))
    if lora.rank > min(sizes[narrowest]):
        problem = f"is more than the {min(sizes[narrowest])} that {narrowest} can have, got {lora.rank}"
        raise ConfigError("lora.rank", problem, "choose a lower rank or leave that matrix out")
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


def _blocks_per_token(shape: Shape, sequence: int) -> int:
    return forward_per_token(shape, sequence) - 2 * shape.vocab * shape.hidden


def _attention_width(shape: Shape) -> int:
    return shape.layers * shape.heads * shape.head_dim
