"""What every training on TRL shares: the purse, the fixed schedule, resuming, the probe, and too little memory.

A micro-batch that finds no memory is undone, halved and tried again: gradients and generators are what they were before
it, the loss keeps the denominator of the whole optimiser step, and the smaller size stays for the rest of the training.
The time of the failed try is on the bill, for the clock went on. A batch is flat: tensors of shape (1, T), whose
``position_ids`` begin anew with each sequence. This module knows no loss, and does not measure or price.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, Trainer

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.entries import Account
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.errors import DataError
from robustlab.models.modification import Modification
from robustlab.spec.training import Tuning
from robustlab.train.generators import read_generators, restore_generators
from robustlab.train.hooks import Hooks, Outcome, StepPrice
from robustlab.train.order import Example
from robustlab.train.purse import Purse, guarded
from robustlab.train.state import TrainState, load_optimizer, save_state
from robustlab.units import to_nanoseconds

CPU_REFUSALS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
FLAT_NAMES = ("input_ids", "labels", "position_ids")
Batch = Mapping[str, Tensor]


class MeteredTrainer(Trainer):
    """A trainer whose steps are charged, whose schedule is fixed, and whose micro-batches shrink to fit.

    Attributes:
        purse: Charges the steps.
        rates: Learning rate of every step of the schedule.
        resume: State to go on from, until its generator is put back.
        micro_rows: Rows that are forwarded at once; it only ever shrinks.
        sequences: Sequences of one row in a flat batch.
    """

    purse: Purse
    rates: Sequence[float]
    resume: TrainState | None
    micro_rows: int
    sequences: ClassVar[int] = 1

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one micro-batch, or of its parts; its loss is added to the step's."""
        if self.resume is not None:
            # Not before: making the data loader's iterator draws from the generator.
            restore_generators(self.resume.generators)
            self.resume = None
        whole = super().training_step
        loss = self._in_parts(inputs, lambda part: whole(model, dict(part), num_items_in_batch))
        self.purse.step_loss += float(loss)
        return loss

    def probe_step(self) -> None:
        """Forward and backward of the first step, for its time alone: no weight moves and no gradient stays."""
        model, rows = cast(torch.nn.Module, self.model), cast(Dataset, self.train_dataset)
        model.train()
        size, micro_batches = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        for start in range(0, size * micro_batches, size):
            batch = self.data_collator([rows[row] for row in range(start, start + size)])
            self._in_parts(self._prepare_inputs(batch), lambda part: self._passes(model, part))
        model.zero_grad(set_to_none=True)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Follow the learning rates that the schedule fixed; the resumed part is skipped."""
        rates, done = self.rates, self.purse.steps
        built = cast(torch.optim.Optimizer, optimizer or self.optimizer)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            built, lambda index: rates[min(done + index, len(rates) - 1)]
        )
        self._created_lr_scheduler = True
        self.purse.optimizer = built
        if self.resume is not None:
            load_optimizer(built, self.resume.optimizer)
        return self.lr_scheduler

    def _passes(self, model: torch.nn.Module, part: Batch) -> Tensor:
        loss: Any = self.compute_loss(model, dict(part))
        loss.backward()
        return cast(Tensor, loss.detach())

    def _in_parts(self, inputs: Batch, run: Callable[[Batch], Tensor]) -> Tensor:
        """Loss of a micro-batch, taken in as many parts as the memory needs."""
        bounds = find_bounds(inputs)[:: self.sequences]
        rows, done, losses = len(bounds) - 1, 0, []
        while done < rows:
            end = min(done + self.micro_rows, rows)
            loss = self._try({name: inputs[name][:, bounds[done] : bounds[end]] for name in FLAT_NAMES}, run)
            if loss is None:
                self._halve(end - done, bounds[end] - bounds[done])
            else:
                losses.append(loss)
                done = end
        return torch.stack(losses).sum()

    def _try(self, part: Batch, run: Callable[[Batch], Tensor]) -> Tensor | None:
        """Loss of a part, its gradients added to those there are; None, and nothing has happened, without memory."""
        trained = [p for p in cast(torch.nn.Module, self.model).parameters() if p.requires_grad]
        before = [p.grad for p in trained]
        generators = read_generators()
        for parameter in trained:
            parameter.grad = None
        try:
            loss = run(part)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            loss = None
        # Not in the handler: its traceback would keep the graph, and with it the memory.
        if loss is None:
            restore_generators(generators)
            torch.cuda.empty_cache()
        for parameter, earlier in zip(trained, before, strict=True):
            if loss is None or parameter.grad is None:
                parameter.grad = earlier
            elif earlier is not None:
                parameter.grad = earlier.add_(parameter.grad)
        return loss

    def _halve(self, rows: int, tokens: int) -> None:
        if rows == 1:
            raise DataError(
                f"training step {self.purse.steps + 1}",
                f"a row does not fit in memory by itself, got {tokens} tokens",
                "shorten the rows, quantise the target to nf4, or take a larger device",
            )
        self.micro_rows = math.ceil(rows / 2)
        self.purse.halvings += 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, of whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in CPU_REFUSALS)


def find_bounds(inputs: Batch) -> list[int]:
    """Where each sequence of a flat batch begins, and where the last one ends."""
    positions_T = inputs["position_ids"][0]
    return [*(positions_T == 0).nonzero()[:, 0].tolist(), len(positions_T)]


def label_log_probs(causal: Any, inputs: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the labels of a flat batch, with the LM head on the positions before them only.

    Sequences do not see each other: the block mask is built from position ids, which needs ``use_cache=False`` and no
    attention mask.

    Args:
        causal: A causal LM of Llama's make, without peft's wrapper.
        inputs: ``input_ids``, ``labels`` and ``position_ids`` of shape (1, T).

    Returns:
        Log-probability in nats of each of the N labels, and the label's place in the batch, both of shape (N,).
    """
    labels_T = inputs["labels"][0, 1:]
    kept_N = (labels_T != -100).nonzero()[:, 0]
    hidden_T_D = causal.model(
        input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
    ).last_hidden_state[0]
    logits_N_V = causal.lm_head(hidden_T_D[kept_N]).float()
    # cross_entropy would be 20 times less exact on a CPU in fp32 (1.3e-4 against an fp64 model).
    return logits_N_V.gather(-1, labels_T[kept_N][:, None])[:, 0] - logits_N_V.logsumexp(-1), kept_N + 1


def find_causal(model: Any) -> Any:
    """The causal LM inside peft's wrapper, or the model itself where there is none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_example(where: str, example: Example, max_tokens: int) -> None:
    """Refuse an example that cannot be trained on.

    Args:
        where: Names it in the error, without a word of it.
        example: The example.
        max_tokens: Longest that the recipe allows.

    Raises:
        DataError: If it is longer, or has no completion token.
    """
    if len(example.ids) > max_tokens:
        raise DataError(
            where,
            f"is longer than max_tokens {max_tokens}, got {len(example.ids)} tokens",
            "raise max_tokens in the recipe or shorten the row",
        )
    # Nothing comes before the first token that could predict it.
    if all(label == -100 for label in example.labels[1:]):
        raise DataError(where, "has no completion token, got 0", "give every row a completion")


def shared_settings(tuning: Tuning, *, steps: int, seed: int, scratch: str) -> dict[str, Any]:
    """Settings that every TRL trainer here gets; its own defaults would cast to bf16, checkpoint and save."""
    optimizer = tuning.optimizer
    return {
        "output_dir": scratch,
        "max_steps": steps,
        "per_device_train_batch_size": tuning.micro_batch_rows,
        "gradient_accumulation_steps": tuning.batch_rows // tuning.micro_batch_rows,
        "train_sampling_strategy": "sequential",
        # The scheduler multiplies this by the learning rates that the schedule fixed.
        "learning_rate": 1.0,
        "optim": "adamw_torch",
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "max_length": None,
        "bf16": False,
        "fp16": False,
        "activation_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
        "remove_unused_columns": False,
    }


def run_trainer(
    build: Callable[[int, Purse, str], MeteredTrainer],
    modification: Modification,
    prices: Sequence[StepPrice],
    *,
    learning_rates: Sequence[float],
    meter: Meter,
    hooks: Hooks,
    resume: TrainState | None,
    expected_step_seconds: float,
    account: Account = "attacker",
) -> Outcome:
    """Run a schedule on a trainer, under a meter.

    Args:
        build: Makes the trainer of the steps that are left, given the steps that are done, its purse and a scratch
            folder.
        modification: What is trained; it is changed in place.
        prices: Tokens and FLOPs of every step.
        learning_rates: Learning rate of every step.
        meter: Charged for every step; its current account pays.
        hooks: Marks, states and progress.
        resume: State to go on from; None to begin. One in which the training had ended is only loaded.
        expected_step_seconds: What a step should take; the probe is reserved by it.
        account: Who pays for the steps.

    Returns:
        How it ended. A reached cap is a result.

    Raises:
        DataError: If a single row does not fit in memory, or the optimiser does not.
    """
    if resume is not None:
        modification.load_state(resume.modification)
    purse = Purse(meter, modification, prices, hooks, losses=resume.losses if resume else (), account=account)
    if resume is not None and resume.ended_by is not None:
        purse.end(resume.ended_by)
    if purse.steps == len(prices) or purse.ended:
        # One that goes on finds the size that fits in its probe.
        purse.halvings = resume.halvings if resume is not None else 0
        return purse.outcome()
    with tempfile.TemporaryDirectory(prefix="robustlab-trainer-") as scratch, _lent(modification):
        with _own_dtypes(modification.model, purse):
            trainer = build(purse.steps, purse, scratch)
        # It prints a summary to the standard output, which belongs to the lab.
        trainer.remove_callback(PrinterCallback)
        trainer.purse, trainer.rates, trainer.resume = purse, learning_rates, resume
        trainer.micro_rows = trainer.args.per_device_train_batch_size
        with meter.phase("laboratory", "probe"), guarded(modification.model):
            meter.reserve(Quantities(wall_ns=to_nanoseconds(expected_step_seconds)).scaled(RESERVE_FACTOR))
            _probe(trainer, meter, _blank_state(modification) if hooks.save_every else None, Path(scratch))
        if purse.reserve_next():
            _train(trainer)
    return purse.outcome()


def _train(trainer: MeteredTrainer) -> None:
    try:
        trainer.train()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DataError(
            f"training after step {trainer.purse.steps}",
            "ran out of memory outside of a micro-batch, where no smaller one would help",
            "train an adapter, quantise the target to nf4, or take a larger device",
        ) from error


def _probe(trainer: MeteredTrainer, meter: Meter, blank: TrainState | None, scratch: Path) -> None:
    """Find out what a step takes, and what writing a state does."""
    trainer.probe_step()
    step_ns = meter.settle().wall_ns
    if blank is not None:
        save_state(scratch, blank)
    trainer.purse.expect_step(step_ns, meter.settle().wall_ns)


def _blank_state(modification: Modification) -> TrainState:
    """A state of zeros, as large as a real one: writing it tells what a state takes, and leaves no weights behind."""
    weights = modification.state()
    names = ("weights", "exp_avg", "exp_avg_sq")
    blank = {part: {f"{part}.{name}": torch.zeros_like(found) for name, found in weights.items()} for part in names}
    moments = blank["exp_avg"] | blank["exp_avg_sq"]
    return TrainState(0, (), blank["weights"], moments, read_generators(), {}, "")


@contextmanager
def _lent(modification: Modification) -> Iterator[None]:
    """Give the resident target back as it was: TRL patches its forward, tags it and switches its cache off."""
    lent = [vars(modification.base), vars(modification.base.config)]
    own = [dict(attributes) for attributes in lent]
    try:
        yield
    finally:
        for attributes, before in zip(lent, own, strict=True):
            attributes.clear()
            attributes.update(before)
        modification.model.eval()


@contextmanager
def _own_dtypes(model: torch.nn.Module, purse: Purse) -> Iterator[None]:
    """Undo a trainer's cast of what is trained: TRL makes the adapters of a 4-bit model bf16, and loses their bits."""
    before = {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, dtype in before.items():
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.to(dtype)
    purse.put_back()
