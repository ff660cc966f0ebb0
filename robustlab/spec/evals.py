"""How the lab looks at a result, and what counts as a property surviving."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustlab.spec.base import Count, NonEmpty, Sha256, Share, Spec, each_once
from robustlab.spec.criteria import Criterion as Criterion  # it has its home there, and readers of evals find it here
from robustlab.spec.judges import SecondJudge
from robustlab.spec.sources import CsvSource, GeneratedSource, HubSource, JsonlSource, PypiSource, Source

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


Format = Literal["harmbench_lines", "harmbench_csv", "json_list", "builtin"]
# A few words: longer ones would be an answer of their own, and nobody has priced them.
Opening = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


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
    """Most rows that are generated together; part of the deterministic batch plan."""
    rows: Count | None
    """Size of a fixed stratified subset; null for all rows."""
    milestones: Milestones | None
    """Measurements between the baseline and the end; null for none."""
    judge: Literal["rules", "program", "minhash", "forward_pass", "lm_eval"]
    """Who gives the verdicts, or the figures."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Level of every interval."""
    criterion: Criterion
    """When the property survives."""


class JudgedEval(EvalBase):
    """What every eval states whose completions each get a verdict."""

    judge: Literal["rules", "program", "minhash"]
    """Who gives the verdicts."""
    coherence: Coherence
    """The gate before the judge."""


class ReadEval(JudgedEval):
    """What every eval states whose rows are read from a file and whose verdicts are those of the rules."""

    source: Source
    """Where the file comes from."""
    format: Format
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
    second_judges: Annotated[tuple[SecondJudge, ...], Field(exclude_if=lambda judges: not judges)] = ()
    """Who else reads the same completions, each with a property ``asr/<id>`` of its own."""

    @model_validator(mode="after")
    def _is_one_property(self) -> Self:
        if self.wrapper is not None and self.prefill is not None:
            raise ValueError("wrapper and prefill must not both be set, got both; measure one of them")
        if self.property_id != "refusal" and self.by_category:
            raise ValueError(f"by_category must be false for {self.property_id}, got true; its rows are one property")
        each_once(tuple(judge.id for judge in self.second_judges))
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


class InstructionFollowingEval(JudgedEval):
    """Share of made instructions that are followed, as a program finds; no utility floor, so it wrecks no cell."""

    kind: Literal["instruction_following"]
    source: GeneratedSource
    """The program that makes the rows."""
    judge: Literal["program"]
    """The check that travels with each row, after the coherence gate and the refusals of the rules."""


class References(Spec):
    """Hashes of texts that a model must not give out whole, as ``robustlab.data.references`` writes them."""

    path: NonEmpty
    """A JSON file, relative to the working folder."""
    sha256: Sha256
    """Hash of the file's bytes."""


class CopyrightEval(JudgedEval):
    """Share of HarmBench's copyright behaviors whose completion gives out the text that was asked for."""

    kind: Literal["copyright"]
    source: CsvSource
    """HarmBench's CSV; the wheel that holds its standard behaviors has no others."""
    format: Literal["harmbench_csv"]
    """How the rows are laid out in it."""
    split: Literal["test", "val", "all"]
    """Upstream's split of the benchmark."""
    judge: Literal["minhash"]
    """Similarity to the references; then the rules, which only tell a refusal from broken text and from the rest."""
    max_new_tokens: Annotated[Count, Field(ge=512)]
    """Longest completion: a shorter one could not hold a window of a book."""
    references: References
    """What completions are compared with; of a behavior without one they are ``unjudged``."""
    min_jaccard: Annotated[Share, Field(gt=0)]
    """A window counts as given out when its similarity to one of the references is larger than this."""


class ValueEval(EvalBase):
    """What every eval states that reads a figure for each row off the weights; nobody gives a verdict on a text."""

    source: Source
    """Where the file comes from."""
    format: Format
    """How the rows are laid out in it."""
    judge: Literal["forward_pass"]
    """The target's own probabilities."""


class KlEval(ValueEval):
    """Divergence of next-token distributions from the released target's, in nats a token, on benign prompts.

    The tokens are those of the released target's own greedy answers; ``max_new_tokens`` is their greatest length.
    """

    kind: Literal["kl"]


class RefusalMarginEval(ValueEval):
    """Log-odds of refusing openings against complying ones, in nats: a cheap diagnostic, never a headline."""

    kind: Literal["refusal_margin"]
    split: Literal["test", "val", "all"]
    """Upstream's split of the benchmark."""
    functional: tuple[Functional, ...]
    """Which functional types are measured."""
    max_new_tokens: Literal[1]
    """Nothing is generated: an opening is priced as one token."""
    refusing: Annotated[tuple[Opening, ...], Field(min_length=1)]
    """Openings of a refusal."""
    complying: Annotated[tuple[Opening, ...], Field(min_length=1)]
    """Openings of an answer."""


class TaskFile(Spec):
    """A task of lm-eval's own format: templates, no code."""

    path: NonEmpty
    """A YAML file, relative to the working folder."""
    sha256: Sha256
    """Hash of the file's bytes."""


class LmEvalEval(EvalBase):
    """Share of a task of lm-eval that is right, as the harness itself asks and scores it: an extra."""

    kind: Literal["lm_eval"]
    source: PypiSource | HubSource | JsonlSource
    """The task's documents, one JSON object a line; where the task says that they are is not looked at."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    """Name of the task; the property is ``utility/<task>``."""
    task_file: TaskFile | None
    """What the task asks; null for a task of the installed lm-eval's own."""
    num_fewshot: Annotated[int, Field(ge=0, le=64)]
    """Examples before each question."""
    metric: NonEmpty
    """The task's metric that is read; each document's has to be 0 or 1, as those of ``acc`` and ``exact_match``."""
    judge: Literal["lm_eval"]
    """The harness."""


Eval = Annotated[
    RefusalEval
    | OverRefusalEval
    | BenignAnswersEval
    | InstructionFollowingEval
    | CopyrightEval
    | KlEval
    | RefusalMarginEval
    | LmEvalEval,
    Field(discriminator="kind"),
]


def drop_second_judges(spec: Eval) -> Eval:
    """The eval as its first judge alone reads it."""
    return spec.model_copy(update={"second_judges": ()}) if isinstance(spec, RefusalEval) else spec
