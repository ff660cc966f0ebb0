"""How much memory a job needs at its peak. Rough, and meant to be: it refuses what is hopeless, it promises nothing.

Weights and the state of what is trained are exact. Activations are counted for a Llama-like block that keeps what its
backward pass needs, with attention that keeps no scores; logits are counted for every position of a micro-batch. What
libraries, fragmentation and a second copy during loading take is left to the band: a half more.
"""

from robustlab.cost.job import Completions, Job
from robustlab.cost.recipes import count_micro_rows, is_quantised
from robustlab.spec.attacks import FullSft

TRAINABLE_BYTES = 16
LOGIT_BYTES = 12
NF4_BYTES = 0.52
"""Half a byte a weight, and a quantised scale for each block of 64."""
FRAGMENTATION = 1.5
PACKED_BYTES = 2**30
"""Weights up to this size are held once more while a processor decodes in float32 (``robustlab.models.packed``)."""
LIBRARY_BYTES = (300_000_000, 550_000_000, 800_000_000)
"""What Python and its libraries hold on a processor, measured at 0.63 GB with the tiny target; a third either way."""


def needed_bytes(job: Job) -> tuple[int, int, int]:
    """Peak memory of one device that holds the whole target.

    Args:
        job: The cell before it has a schedule; its widest training micro-batch and generation batch are what counts.

    Returns:
        Low (weights and the state of what is trained), centre (with activations or the key-value cache) and high (half
        more); on a processor each with the libraries, which share its memory.
    """
    standing = job.weight_bytes + TRAINABLE_BYTES * job.trainable_parameters + _copied_bytes(job)
    sets = [job.final_completions(name) for name in job.evals]
    sets += [] if job.counts.distilled is None else [job.counts.distilled]
    passing = max([_training_bytes(job), *(_generation_bytes(job, completions) for completions in sets)])
    bounds = standing, standing + passing, round(FRAGMENTATION * (standing + passing))
    libraries = LIBRARY_BYTES if job.hardware.kind == "cpu" else (0, 0, 0)
    low, centre, high = (need + held for need, held in zip(bounds, libraries, strict=True))
    return low, centre, high


def _copied_bytes(job: Job) -> int:
    """What stays beside the released target: its 4-bit copy, or its own weights while all of them are trained."""
    shape = job.target.shape
    if is_quantised(job.recipe):
        # The copy shares the embeddings.
        return round(NF4_BYTES * max(shape.parameters - shape.vocab * shape.hidden, 0))
    # Of the two copies, that which puts the target back and that to which a step is undone, one is counted above.
    return job.weight_bytes if isinstance(job.recipe, FullSft) else 0


def _training_bytes(job: Job) -> int:
    """Per token and layer: eight vectors of the residual width, q, k, v and o once each, four of the feed-forward."""
    shape = job.target.shape
    tokens = count_micro_rows(job.recipe) * job.counts.longest_row
    widths = 8 * shape.hidden + 2 * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * shape.intermediate
    kept = shape.layers * widths * job.element_bytes
    return tokens * (kept + shape.vocab * LOGIT_BYTES)


def _generation_bytes(job: Job, completions: Completions) -> int:
    """Keys and values of every position of a batch, the logits of one, and what a processor lays out to be faster."""
    shape = job.target.shape
    length = completions.prompts.tokens_per_row + completions.new_tokens
    position = 2 * shape.layers * shape.kv_heads * shape.head_dim * job.element_bytes
    is_packed = job.hardware.kind == "cpu" and job.element_bytes == 4 and job.weight_bytes <= PACKED_BYTES
    packed = job.weight_bytes if is_packed else 0
    return packed + completions.wave_rows * (length * position + shape.vocab * LOGIT_BYTES)
