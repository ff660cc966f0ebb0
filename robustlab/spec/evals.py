"""How the lab looks at a result, and what counts as a property surviving."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustlab.spec.base import Count, NonEmpty, Share, Spec
from robustlab.spec.sources import GeneratedSource, Source

Functional = Literal["standard", "contextual", "copyright"]
WrapperName = Literal["fiction", "hypothetical", "agreement"]
SemanticCategory = Literal[
    "chemical_biological",
    "cybercrime_intrusion",
    "illegal",
    "misinformation_disinformation",
    "harassment_bullying",
    "harmful",
    "copyright",
]


# A few words: longer ones would be an answer of their own, and nobody has priced them.
Opening = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class Criterion(Spec):
    """When a property counts as kept or broken. The bounds are those of the paired change from the baseline."""

    direction: Literal["higher_is_safer", "lower_is_safer"]
    """Which way is safer."""
    scale: Literal["ratio", "difference"]
    """Whether keep and break are after / before or after - before."""
    keep: float
    """SURVIVED when the interval lies on the safe side of this."""
    break_: Annotated[float, Field(alias="break")]
    """BROKEN when the interval lies on the unsafe side of this."""
    min_baseline: Share
    """ABSENT when the baseline is on the unsafe side of this: a target with no safeguard survives nothing."""
    min_n: Count
    """TOO FEW below this many rows."""


class Coherence(Spec):
    """When a completion is read as broken text. A target that an attack broke is not a robust one."""

    max_perplexity: Annotated[float, Field(gt=1)]
    """Highest perplexity of the completion by itself, under the untouched target."""
    min_perplexity_tokens: Count
    """Shorter completions have too noisy a perplexity and pass."""
    min_distinct_trigrams: Share
    """Smallest share of distinct word trigrams among all."""
    min_repetition_words: Count
    """Shorter completions cannot show a loop and pass."""
    min_script_share: Share
    """Smallest share of letters in a script that the prompt uses."""


class Milestones(Spec):
    """Measurements in the middle of an attack."""

    per_decade: Count
    """Marks in each tenfold of the attacker's spending, between the first step's cost and the last step's."""
    rows: Count
    """Size of the fixed stratified subset that is measured at a mark."""


class EvalBase(Spec):
    """What every eval states."""

    variant: NonEmpty
    """Name of the protocol's variant, such as ``harmbench_64``; results of two variants are never mixed."""
    source: Source | GeneratedSource
    """Where the rows come from."""
    max_new_tokens: Count
    """Longest completion."""
    batch_rows: Count
    """Rows that are generated together; part of the deterministic batch plan."""
    rows: Count | None
    """Size of a fixed stratified subset; null for all rows."""
    milestones: Milestones | None
    """Measurements between the baseline and the end; null for none."""
    judge: Literal["rules", "program"]
    """Who gives the verdicts."""
    coherence: Coherence
    """The gate before the judge."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Level of every interval."""
    criterion: Criterion
    """When the property survives."""


class ReadEval(EvalBase):
    """What every eval states whose rows are read from a file and whose verdicts are those of the rules."""

    source: Source
    """Where the file comes from."""
    format: Literal["harmbench_lines", "harmbench_csv", "json_list", "builtin"]
    """How the rows are laid out in it."""
    judge: Literal["rules"]
    """The rule-based judge."""


class RefusalEval(ReadEval):
    """Share of improper requests that are refused, overall and by semantic category."""

    kind: Literal["refusal"]
    split: Literal["test", "val", "all"]
    """Upstream's split of the benchmark."""
    functional: tuple[Functional, ...]
    """Which functional types are measured."""
    by_category: bool
    """Whether each semantic category is a property of its own."""
    # Left out of the content hash while they are null, so that older baselines keep their ids.
    wrapper: Annotated[WrapperName | None, Field(exclude_if=lambda wrapper: wrapper is None)] = None
    """Frame that is put around each request, so that the property is ``wrapper/<name>``; null for none."""
    prefill: Annotated[Opening | None, Field(exclude_if=lambda prefill: prefill is None)] = None
    """Words with which each answer is made to begin, so that the property is ``prefill``; null for none."""

    @model_validator(mode="after")
    def _is_one_property(self) -> Self:
        if self.wrapper is not None and self.prefill is not None:
            raise ValueError("wrapper and prefill must not both be set, got both; measure one of them")
        if self.property_id != "refusal" and self.by_category:
            raise ValueError(f"by_category must be false for {self.property_id}, got true; its rows are one property")
        return self

    @property
    def property_id(self) -> str:
        """Id of what the share over all rows is a measure of."""
        if self.wrapper is not None:
            return f"wrapper/{self.wrapper}"
        return "refusal" if self.prefill is None else "prefill"


class OverRefusalEval(ReadEval):
    """Share of benign but alarming-sounding prompts that are refused."""

    kind: Literal["over_refusal"]


class BenignAnswersEval(ReadEval):
    """Share of plain benign prompts that get a real answer: the utility floor."""

    kind: Literal["benign_answers"]


class InstructionFollowingEval(EvalBase):
    """Share of made instructions that are followed, as a program finds; no utility floor, so it wrecks no cell."""

    kind: Literal["instruction_following"]
    source: GeneratedSource
    """The program that makes the rows."""
    judge: Literal["program"]
    """The check that travels with each row, after the coherence gate and the refusals of the rules."""


Eval = Annotated[
    RefusalEval | OverRefusalEval | BenignAnswersEval | InstructionFollowingEval, Field(discriminator="kind")
]
