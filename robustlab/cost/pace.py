"""How long the parts of a job take on a device, in three readings of what the device can do.

``fast`` takes every speed at its highest and every delay at its lowest, and completions that end after a quarter of
their limit; ``slow`` is its mirror with full-length completions; ``centre`` lies between, with full-length completions.
All work is taken to run on one device, whatever number is billed. Estimates only: nothing is billed by them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from robustlab.cost.flops import count_adapter_parameters, decode, lora_step, prefill
from robustlab.cost.hardware import Hardware
from robustlab.cost.job import Completions, Job
from robustlab.spec.targets import Shape
from robustlab.spec.training import Training

Reading = Literal["fast", "centre", "slow"]
READINGS: tuple[Reading, ...] = ("fast", "centre", "slow")
SHORTEST_COMPLETION = 4
PASSES_PER_STEP = 3


@dataclass(frozen=True)
class Pace:
    """One reading of a device.

    Attributes:
        startup_seconds: From the process's creation until a model can be loaded.
        load_bytes_per_second: Speed at which weights get into memory.
        layer_pass_seconds: Time of one layer in one forward pass, however small the batch.
        lora_flops_per_second: Speed of low-rank training.
        prefill_flops_per_second: Speed of reading prompts.
        decode_flops_per_second: Speed of writing completions.
        completion_divisor: Completions are this many times shorter than their limit.
    """

    startup_seconds: float
    load_bytes_per_second: float
    layer_pass_seconds: float
    lora_flops_per_second: float
    prefill_flops_per_second: float
    decode_flops_per_second: float
    completion_divisor: int

    def load_seconds(self, job: Job) -> float:
        """Time to load the target's weights."""
        return job.weight_bytes / self.load_bytes_per_second

    def step_seconds(self, job: Job, row_tokens: int) -> float:
        """Time of one optimiser step on examples of ``row_tokens`` tokens."""
        return self.training_seconds(job.target.shape, job.recipe.training, row_tokens)

    def training_seconds(self, shape: Shape, training: Training, row_tokens: int) -> float:
        """Time of one optimiser step of any low-rank training on examples of ``row_tokens`` tokens."""
        adapter = count_adapter_parameters(shape, training.lora)
        flops = lora_step(shape, [row_tokens] * training.batch_rows, adapter_parameters=adapter)
        micro_batches = _count_batches(training.batch_rows, training.micro_batch_rows)
        passes = PASSES_PER_STEP * micro_batches * shape.layers
        return flops / self.lora_flops_per_second + passes * self.layer_pass_seconds

    def generation_seconds(self, shape: Shape, completions: Completions) -> float:
        """Time to generate a set of completions in batches."""
        rows, prompt = completions.prompts.rows, completions.prompts.tokens_per_row
        new_tokens = _count_batches(completions.new_tokens, self.completion_divisor)
        passes = _count_batches(rows, completions.batch_rows) * new_tokens * shape.layers
        return (
            rows * prefill(shape, prompt) / self.prefill_flops_per_second
            + rows * decode(shape, prompt, new_tokens) / self.decode_flops_per_second
            + passes * self.layer_pass_seconds
        )

    def evaluation_seconds(self, job: Job, sets: Iterable[Completions]) -> float:
        """Time to generate several sets of completions; judging by rules takes no time worth counting."""
        return sum((self.generation_seconds(job.target.shape, completions) for completions in sets), 0.0)

    def preparation_seconds(self, job: Job) -> float:
        """The attacker's time before step 1: load the target and have it write the benign answers."""
        sets = [] if job.counts.distilled is None else [job.counts.distilled]
        return self.load_seconds(job) + self.evaluation_seconds(job, sets)

    def ending_seconds(self, job: Job) -> float:
        """The least of the laboratory's time: the probe step before step 1 and the final measurement."""
        final = self.evaluation_seconds(job, (job.final_completions(name) for name in job.evals))
        return self.step_seconds(job, job.counts.mean_row) + final


def read_pace(hardware: Hardware, reading: Reading) -> Pace:
    """One of the three readings of a device."""
    delay, speed = {"fast": ("low", "high"), "centre": ("centre", "centre"), "slow": ("high", "low")}[reading]
    return Pace(
        startup_seconds=getattr(hardware.startup_seconds, delay),
        load_bytes_per_second=getattr(hardware.load_bytes_per_second, speed),
        layer_pass_seconds=getattr(hardware.layer_pass_seconds, delay),
        lora_flops_per_second=getattr(hardware.lora_flops_per_second, speed),
        prefill_flops_per_second=getattr(hardware.prefill_flops_per_second, speed),
        decode_flops_per_second=getattr(hardware.decode_flops_per_second, speed),
        completion_divisor=SHORTEST_COMPLETION if reading == "fast" else 1,
    )


def _count_batches(rows: int, batch_rows: int) -> int:
    return -(-rows // batch_rows)
