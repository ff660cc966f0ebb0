"""A cell of the tiny target, cut down to its training: one course of any kind, under a real meter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustlab.cost.meter import Meter
from robustlab.cost.schedule import list_learning_rates
from robustlab.data.chat import encode_example
from robustlab.data.rows import load_builtin, load_train_rows
from robustlab.models.adapter import LoraModification
from robustlab.models.full import FullModification
from robustlab.models.modification import Modification
from robustlab.spec.training import Training
from robustlab.train.dpo import run_dpo
from robustlab.train.hooks import Hooks, Mark, StepPrice
from robustlab.train.order import Example, Pair, batch_lengths, lay_out, pair_lengths
from robustlab.train.sft import Outcome, run_sft
from robustlab.train.state import TrainState

KINDS = ("lora_sft", "lora_sft nf4", "lora_dpo", "lora_dpo nf4", "full_sft")
RESUMABLE = KINDS[:-1]
BETA = 0.1


@dataclass
class Course:
    """One training of the tiny target from its first step to its last."""

    kind: str
    target: Any
    rows: Sequence[Any]
    training: Training
    steps: int
    marks: frozenset[int] = frozenset()
    at_mark: Callable[[Mark], str | None] = lambda mark: None
    on_step: Callable[[int, float], None] = lambda step, loss: None
    save_every: int | None = None
    states: list[TrainState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modification: Modification
        if self.kind == "full_sft":
            self.modification = FullModification(self.target.model)
        else:
            self.modification = LoraModification(self.target.model, self.training.lora, seed=0)

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """The openings of three rows."""
        examples = [row.chosen if isinstance(row, Pair) else row for row in self.rows[:3]]
        return [example.ids[:20] for example in examples]

    def run(self, meter: Meter, *, resume: TrainState | None = None) -> Outcome:
        batches: Any = lay_out(self.rows, steps=self.steps, batch_rows=self.training.batch_rows, seed=0)
        options: dict[str, Any] = {
            "learning_rates": list_learning_rates(self.training.optimizer, self.steps),
            "seed": 0,
            "meter": meter,
            "hooks": Hooks(self.marks, self.at_mark, self.on_step, self.states.append, self.save_every),
            "resume": resume,
            "expected_step_seconds": 0.0,
        }
        parts = self.modification, self.target.tokenizer, batches
        with meter.phase("attacker", "train"):
            if self.kind.startswith("lora_dpo"):
                prices = [StepPrice(sum(map(sum, pair_lengths(batch))), 0) for batch in batches]
                return run_dpo(*parts, prices, self.training, beta=BETA, **options)
            prices = [StepPrice(sum(batch_lengths(batch)), 0) for batch in batches]
            return run_sft(*parts, prices, self.training, **options)


def write_rows(kind: str, tokenizer: Any) -> list[Any]:
    """Sixteen requests with withheld completions, or eight with the openings of theirs and a refusal each."""
    asked = load_train_rows("mild_requests_attack")[:16]

    def encode(prompt: str, completion: str) -> Example:
        encoded = encode_example(tokenizer, prompt, completion, None)
        return Example.from_mask(encoded.input_ids, encoded.completion_mask)

    if not kind.startswith("lora_dpo"):
        return [encode(row.prompt, row.completion) for row in asked]
    shortest = sorted(asked, key=lambda row: len(row.prompt))[:8]
    refusals = sorted((row.completion for row in load_builtin("refusals") if row.completion), key=len)[:8]
    return [
        Pair(encode(row.prompt, row.completion.partition("\n")[0]), encode(row.prompt, refusal))
        for row, refusal in zip(shortest, refusals, strict=True)
    ]
