"""How long the parts of a job take on a device, in three readings of what the device can do.

``fast`` takes every speed at its highest and every delay at its lowest; completions end after a quarter of their limit
and need no perplexity, and whatever can lie in a cache does. ``slow`` is its mirror: full-length completions, all of
them scored, nothing cached; ``centre`` lies between and differs from ``slow`` in its speeds and delays alone. All work
is taken to run on one device, whatever number is billed. What is left untouched costs its baseline alone, and a target
behind HTTP takes the time and the fees that its own spec states. Estimates only: nothing is billed by them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from robustlab.cost.fees import fee_of
from robustlab.cost.flops import count_adapter_parameters, decode, lora_step, prefill
from robustlab.cost.hardware import Hardware
from robustlab.cost.job import Completions, Job
from robustlab.cost.judging import judging_fee_usd, judging_seconds, loading_bytes
from robustlab.cost.prices import price_fee
from robustlab.cost.recipes import count_micro_rows, count_step_rows, is_quantised, step_flops
from robustlab.spec.attacks import Ablation, LoraDpo, TrainedAttack, Untouched
from robustlab.spec.judges import ApiJudge
from robustlab.spec.targets import OpenAiTarget, Shape
from robustlab.spec.training import Training

Reading = Literal["fast", "centre", "slow"]
READINGS: tuple[Reading, ...] = ("fast", "centre", "slow")
SHORTEST_COMPLETION = 4
PASSES_PER_STEP = 3
JUDGE_SECONDS: Mapping[str, float] = {"fast": 0.2, "centre": 1.0, "slow": 10.0}
"""What a server of second judges takes for an answer of a few tokens: a rule of thumb, not measured."""
QUANTISING_LOADS = 2
"""Loading and then quantising every matrix in memory, in plain loads."""


@dataclass(frozen=True)
class Range:
    """A figure with its bounds, low <= centre <= high."""

    low: float
    centre: float
    high: float

    @classmethod
    def across(cls, values: Iterable[float]) -> "Range":
        """The range of three readings."""
        return cls(*sorted(values))


@dataclass(frozen=True)
class Pace:
    """One reading of a device.

    Attributes:
        startup_seconds: From the process's creation until a model can be loaded.
        cell_start_seconds: What the laboratory pays between the work of a cell.
        trainer_seconds: Building a trainer and saving its last state.
        step_overhead_seconds: What one optimiser step costs, however small.
        wave_seconds: What one batch of completions costs, however small.
        record_seconds: Writing a run's results, items and report.
        load_bytes_per_second: Speed at which weights get into memory.
        layer_pass_seconds: Time of one layer in one forward pass, however small the batch.
        lora_flops_per_second: Speed of low-rank training.
        prefill_flops_per_second: Speed of reading prompts.
        decode_flops_per_second: Speed of writing completions.
        judge_seconds: What a second judge behind a server takes for one answer.
        optimistic: Whether completions are short and need no score, and everything that can be cached is.
    """

    startup_seconds: float
    cell_start_seconds: float
    trainer_seconds: float
    step_overhead_seconds: float
    wave_seconds: float
    record_seconds: float
    load_bytes_per_second: float
    layer_pass_seconds: float
    lora_flops_per_second: float
    prefill_flops_per_second: float
    decode_flops_per_second: float
    judge_seconds: float
    optimistic: bool

    def row_tokens(self, job: Job) -> int:
        """Mean training example of the job."""
        return job.counts.least_mean_row if self.optimistic else job.counts.mean_row

    def load_seconds(self, job: Job) -> float:
        """Time to load the target's weights, or to save them."""
        return job.weight_bytes / self.load_bytes_per_second

    def step_seconds(self, job: Job, row_tokens: int) -> float:
        """Time of one step on rows of ``row_tokens`` tokens."""
        return self.recipe_seconds(job.target.shape, job.recipe, row_tokens)

    def recipe_seconds(self, shape: Shape, recipe: TrainedAttack, row_tokens: int) -> float:
        """Time of one step of an attack of any kind on rows of ``row_tokens`` tokens."""
        if isinstance(recipe, Untouched):
            return 0.0
        flops, rows = step_flops(shape, recipe, row_tokens), count_step_rows(recipe)
        if isinstance(recipe, Ablation):
            return self.step_overhead_seconds + flops / self.prefill_flops_per_second
        # The reference of a preference is one more forward pass of each micro-batch.
        passes = PASSES_PER_STEP + isinstance(recipe, LoraDpo)
        layers = passes * _count_batches(rows, count_micro_rows(recipe)) * shape.layers
        return self.step_overhead_seconds + flops / self.lora_flops_per_second + layers * self.layer_pass_seconds

    def training_seconds(self, shape: Shape, training: Training, row_tokens: int) -> float:
        """Time of one optimiser step of any low-rank training on examples of ``row_tokens`` tokens."""
        adapter = count_adapter_parameters(shape, training.lora)
        flops = lora_step(shape, [row_tokens] * training.batch_rows, adapter_parameters=adapter)
        micro_batches = _count_batches(training.batch_rows, training.micro_batch_rows)
        passes = PASSES_PER_STEP * micro_batches * shape.layers
        return self.step_overhead_seconds + flops / self.lora_flops_per_second + passes * self.layer_pass_seconds

    def generation_seconds(self, shape: Shape, completions: Completions) -> float:
        """Time to generate a set of completions in batches."""
        rows, prompt = completions.prompts.rows, completions.prompts.tokens_per_row
        new_tokens = self._new_tokens(completions)
        waves = _count_batches(rows, completions.wave_rows)
        return (
            waves * self.wave_seconds
            + rows * prefill(shape, prompt) / self.prefill_flops_per_second
            + rows * decode(shape, prompt, new_tokens) / self.decode_flops_per_second
            + waves * new_tokens * shape.layers * self.layer_pass_seconds
        )

    def evaluation_seconds(self, job: Job, sets: Iterable[Completions]) -> float:
        """Time to generate several sets of completions and to have them read; the rules take no time to speak of."""
        return sum((self._writing_seconds(job, each) + self.judging_seconds(each) for each in sets), 0.0)

    def judging_seconds(self, completions: Completions) -> float:
        """Time in which the second judges read a set of completions."""
        rows, asked, new_tokens = self._measure(completions)
        flops, answer = self.prefill_flops_per_second, self.judge_seconds
        return sum(
            judging_seconds(judge, rows, asked, new_tokens, answer_seconds=answer, flops=flops)
            for judge in completions.judges
        )

    def judging_fee_usd(self, completions: Completions) -> float:
        """Fees of the second judges for a set of completions, in US dollars."""
        rows, asked, new_tokens = self._measure(completions)
        return sum(
            judging_fee_usd(judge, rows, asked, new_tokens, answer_tokens=self._shorten(judge.max_new_tokens))
            for judge in completions.judges
            if isinstance(judge, ApiJudge)
        )

    def data_seconds(self, job: Job) -> float:
        """Time in which the target writes the attacker's benign answers."""
        distilled = job.counts.distilled
        return 0.0 if distilled is None else self.generation_seconds(job.target.shape, distilled)

    def preparation_seconds(self, job: Job) -> float:
        """The attacker's time beside the steps: load the target, have it write benign answers, build the trainer."""
        if isinstance(job.recipe, Untouched):
            return 0.0
        loads = QUANTISING_LOADS if is_quantised(job.recipe) else 1
        return loads * self.load_seconds(job) + self.data_seconds(job) + self.trainer_seconds

    def final_seconds(self, job: Job) -> float:
        """Time of one measurement of all evals in full."""
        return self.evaluation_seconds(job, (job.final_completions(name) for name in job.evals))

    def final_fee_usd(self, job: Job) -> float:
        """Fees of one measurement of all evals in full by their second judges, in US dollars."""
        if isinstance(job.recipe, Untouched):
            return 0.0
        return sum(self.judging_fee_usd(job.final_completions(name)) for name in job.evals)

    def ending_seconds(self, job: Job) -> float:
        """The least of the laboratory's time: its set-up, the probe step before step 1 and the final measurement."""
        if isinstance(job.recipe, Untouched):
            return self.cell_start_seconds
        return self.cell_start_seconds + self.step_seconds(job, self.row_tokens(job)) + self.final_seconds(job)

    def setup_seconds(self, job: Job) -> float:
        """Time to install the safeguard and measure the baseline of a released target; none where both are cached."""
        # What is behind a server today is asked today: nothing of it is cached.
        is_cached = self.optimistic and not isinstance(job.target, OpenAiTarget)
        if is_cached:
            return 0.0
        return self._installation_seconds(job) + self._judge_loading_seconds(job) + self.final_seconds(job)

    def setup_fee_usd(self, job: Job) -> float:
        """Fees of measuring the baseline, in US dollars: those of a served target and those of second judges."""
        sets = [job.final_completions(name) for name in job.evals]
        judged = sum(self.judging_fee_usd(each) for each in sets)
        if not isinstance(job.target, OpenAiTarget):
            return 0.0 if self.optimistic else judged
        read = sum(each.prompts.rows * each.prompts.tokens_per_row for each in sets)
        written = sum(each.prompts.rows * self._new_tokens(each) for each in sets)
        return judged + float(price_fee(fee_of(job.target.endpoint, read, written)))

    def _installation_seconds(self, job: Job) -> float:
        work, shape = job.safeguard, job.target.shape
        if work is None:
            return 0.0
        answers = 0.0 if work.distilled is None else self.generation_seconds(shape, work.distilled)
        step = work.step_factor * self.training_seconds(shape, work.training, work.row_tokens)
        steps = (work.training.steps + 1) * step
        return 2 * self.load_seconds(job) + answers + self.trainer_seconds + steps

    def _judge_loading_seconds(self, job: Job) -> float:
        """Time to load the weights of the second judges, once."""
        judges = {judge.id: judge for name in job.evals for judge in job.final_completions(name).judges}
        return sum(loading_bytes(judge) for judge in judges.values()) / self.load_bytes_per_second

    def _writing_seconds(self, job: Job, completions: Completions) -> float:
        if isinstance(job.target, OpenAiTarget):
            return completions.prompts.rows * self._new_tokens(completions) / job.target.tokens_per_second
        shape = job.target.shape
        return self.generation_seconds(shape, completions) + self._scoring_seconds(shape, completions)

    def _measure(self, completions: Completions) -> tuple[int, int, int]:
        """Rows, tokens of a prompt and tokens of a completion."""
        prompts = completions.prompts
        return prompts.rows, prompts.tokens_per_row, self._new_tokens(completions)

    def _scoring_seconds(self, shape: Shape, completions: Completions) -> float:
        scored = 0 if self.optimistic else completions.prompts.rows
        return scored * prefill(shape, completions.new_tokens) / self.prefill_flops_per_second

    def _new_tokens(self, completions: Completions) -> int:
        return self._shorten(completions.new_tokens)

    def _shorten(self, longest: int) -> int:
        return _count_batches(longest, SHORTEST_COMPLETION if self.optimistic else 1)


def read_pace(hardware: Hardware, reading: Reading) -> Pace:
    """One of the three readings of a device."""
    delay, speed = {"fast": ("low", "high"), "centre": ("centre", "centre"), "slow": ("high", "low")}[reading]
    return Pace(
        startup_seconds=getattr(hardware.startup_seconds, delay),
        cell_start_seconds=getattr(hardware.cell_start_seconds, delay),
        trainer_seconds=getattr(hardware.trainer_seconds, delay),
        step_overhead_seconds=getattr(hardware.step_overhead_seconds, delay),
        wave_seconds=getattr(hardware.wave_seconds, delay),
        record_seconds=getattr(hardware.record_seconds, delay),
        load_bytes_per_second=getattr(hardware.load_bytes_per_second, speed),
        layer_pass_seconds=getattr(hardware.layer_pass_seconds, delay),
        lora_flops_per_second=getattr(hardware.lora_flops_per_second, speed),
        prefill_flops_per_second=getattr(hardware.prefill_flops_per_second, speed),
        decode_flops_per_second=getattr(hardware.decode_flops_per_second, speed),
        judge_seconds=JUDGE_SECONDS[reading],
        optimistic=reading == "fast",
    )


def _count_batches(rows: int, batch_rows: int) -> int:
    return -(-rows // batch_rows)
