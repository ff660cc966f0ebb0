"""The callback that charges every step to a meter, stops before a cap is passed, and calls out at marks.

Order at the end of step k, fixed and tested:
  1. a loss, or a weight, that is not finite undoes the step and ends the attack as diverged;
  2. the step's tokens, FLOPs and time are settled; if stalled time passed a cap, it is undone and booked as overshoot;
  3. the step is kept: its loss is recorded and the weights become the state to which a later step is undone;
  4. if k is a mark, the laboratory measures (RNG, train and eval modes saved and put back around it), and may end the
     training here by the name that it returns;
  5. step k + 1 is reserved at 1.5 times the largest recent step and the longest state that was written; if a cap would
     be passed, the schedule ends here;
  6. if a state is due, or the training ends here, it is written, with what ended it; then step k + 1 is reserved anew.
An undone step leaves the state of the step before it behind, so that a crash in the final measurement costs no step.
Before step 1 the laboratory pays for a probe step and a state of zeros: their times are the first step's reservation.
Nothing is decided at the beginning of a step or between micro-batches: the trainer would take the step all the same, or
drop gradients.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from robustlab.cost.caps import RESERVE_FACTOR
from robustlab.cost.entries import Account
from robustlab.cost.meter import Meter
from robustlab.cost.quantities import Quantities
from robustlab.errors import BudgetSpent
from robustlab.models.modification import Modification
from robustlab.train.generators import read_generators, restore_generators
from robustlab.train.hooks import Hooks, Mark, Outcome, StepPrice
from robustlab.train.state import TrainState, optimizer_tensors

RECENT_STEPS = 8


class Purse(TrainerCallback):
    """Charges steps, stops, undoes, marks and saves, in the order of the module docstring.

    Attributes:
        losses: Loss of every kept step.
        step_loss: Loss of the step under way, summed over its micro-batches.
        stopped_by: The cap that bound, or the name by which a mark ended the training; None while none has.
        diverged: Whether a loss was not finite.
        halvings: How often the micro-batch had to be halved for want of memory.
        optimizer: Set by the trainer before its first step.
    """

    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        meter: Meter,
        modification: Modification,
        prices: Sequence[StepPrice],
        hooks: Hooks,
        *,
        losses: Sequence[float],
        account: Account = "attacker",
    ) -> None:
        """Set the purse up.

        Args:
            meter: Charges the current account.
            modification: What the training changes.
            prices: Price of every step of the schedule, step 1 first.
            hooks: Marks, states and progress.
            losses: Losses of the steps that a resumed state already holds.
            account: Who pays for the steps: the attacker, or the laboratory for a safeguard.
        """
        self._meter = meter
        self._modification = modification
        self._prices = prices
        self._hooks = hooks
        self._kept: Mapping[str, Tensor] = modification.state()
        self._account = account
        self._expected_ns = 0
        self._saving_ns = 0
        self._saved_step: int | None = None
        self._recent_ns: deque[int] = deque(maxlen=RECENT_STEPS)
        self.losses = list(losses)
        self.step_loss = 0.0
        self.stopped_by: str | None = None
        self.diverged = False
        self.halvings = 0

    @property
    def steps(self) -> int:
        """Steps that are done, settled and kept."""
        return len(self.losses)

    @property
    def ended(self) -> bool:
        """Whether a cap, a mark or a loss that is not finite has ended the training."""
        return self.diverged or self.stopped_by is not None

    def end(self, ended_by: str) -> None:
        """Take up how the training ended in an earlier process: a cap's or a mark's name, or ``diverged``."""
        self.diverged = ended_by == "diverged"
        self.stopped_by = None if self.diverged else ended_by

    def outcome(self) -> Outcome:
        """How the training ended; where nothing ended it before, its schedule did."""
        return Outcome(self.steps, tuple(self.losses), self.stopped_by or "schedule", self.diverged, self.halvings)

    def put_back(self) -> None:
        """Give the modification the weights of the last kept step."""
        self._modification.load_state(self._kept)

    def expect_step(self, wall_ns: int, saving_ns: int) -> None:
        """Reserve as if a step had taken ``wall_ns`` and a state ``saving_ns``: what the laboratory's probes took."""
        self._expected_ns, self._saving_ns = wall_ns, saving_ns

    def reserve_next(self) -> bool:
        """Reserve the next step; False, with ``stopped_by`` set, when a cap would be passed."""
        price = self._prices[self.steps]
        time_ns = math.ceil(max(self._recent_ns, default=self._expected_ns) * RESERVE_FACTOR) + self._saving_ns
        need = Quantities(
            wall_ns=time_ns, device_ns=time_ns, train_tokens=price.train_tokens, steps=1, flops=price.flops
        )
        try:
            self._meter.reserve(need)
        except BudgetSpent as spent:
            self.stopped_by = spent.cap
            return False
        return True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Settle the step that just ended, and decide about the next one."""
        if not self._settle():
            if self._hooks.save_every is not None and self._saved_step != self.steps:
                with self._meter.phase("laboratory", "undo"):
                    self._hooks.save(self._state())
            control.should_training_stop = True
            return control
        step = self.steps
        if step in self._hooks.marks:
            with guarded(self._modification.model):
                self.stopped_by = self._hooks.at_mark(Mark(step))
        last = step == len(self._prices)
        goes_on = not (last or self.ended) and self.reserve_next()
        # The final measurement is long: a crash in it must not cost a step that a cap would then forbid.
        if self._hooks.save_every is not None and (not goes_on or step % self._hooks.save_every == 0):
            self._save()
            goes_on = goes_on and self.reserve_next()
        control.should_training_stop = control.should_training_stop or not (goes_on or last)
        return control

    def _save(self) -> None:
        self._meter.settle()
        self._hooks.save(self._state())
        self._saved_step = self.steps
        self._saving_ns = max(self._saving_ns, self._meter.settle().wall_ns)

    def _settle(self) -> bool:
        """Book the step; False when it was undone."""
        price, before = self._prices[self.steps], self._meter.logical(self._account)
        self._meter.count(train_tokens=price.train_tokens, steps=1, flops=price.flops)
        # A gradient can overflow where its loss does not; what the optimiser made of it is no weight any more.
        self.diverged = not (math.isfinite(self.step_loss) and self._is_finite())
        try:
            used = self._meter.settle()
        except BudgetSpent as spent:
            self.stopped_by = spent.cap
        if self.diverged:
            self._meter.rewind(self._account, before)
        if self.diverged or self.stopped_by is not None:
            with self._meter.phase("laboratory", "undo"):
                self.put_back()
            return False
        self._recent_ns.append(used.wall_ns)
        self.losses.append(self.step_loss)
        # Of all the weights there is no room for two copies; the old one goes first.
        self._kept = {}
        self._kept = self._modification.state()
        self._hooks.on_step(self.steps, self.step_loss)
        self.step_loss = 0.0
        return True

    def _is_finite(self) -> bool:
        trained = (parameter for parameter in self._modification.model.parameters() if parameter.requires_grad)
        return all(bool(parameter.isfinite().all()) for parameter in trained)

    def _state(self) -> TrainState:
        return TrainState(
            step=self.steps,
            losses=tuple(self.losses),
            modification=self._kept,
            optimizer=optimizer_tensors(self.optimizer),
            generators=read_generators(),
            logical=self._meter.logical(self._account).to_dict(),
            digest=self._modification.digest(),
            ended_by="diverged" if self.diverged else self.stopped_by,
            halvings=self.halvings,
        )


@contextmanager
def guarded(model: torch.nn.Module) -> Iterator[None]:
    """Run a measurement in the middle of training as if it had not been: RNG and train modes are put back."""
    training = {name: module.training for name, module in model.named_modules()}
    generators = read_generators()
    model.eval()
    try:
        yield
    finally:
        restore_generators(generators)
        for name, module in model.named_modules():
            module.training = training[name]
