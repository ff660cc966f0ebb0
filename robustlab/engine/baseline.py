"""The node that measures a released target before any attack, once, cached by content and shared by all its cells.

The key of the completions' digests stays in the cache, closed to everybody else: whoever gets a run folder cannot test
a guess of what a model said.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from robustlab.cost.job import WAVE_TOKENS
from robustlab.cost.meter import Meter
from robustlab.data import chat, lm_tasks, references
from robustlab.data.rows import EvalRow
from robustlab.engine.outcome import account_cost
from robustlab.engine.waiting import hold_node
from robustlab.failpoints import reach
from robustlab.measure import (
    api_judge,
    classifier,
    coherence,
    copyrighted,
    deflection,
    instruction_following,
    instructions,
    judge,
    lm_eval,
    measurement,
    phrases,
    reading,
    rubrics,
    second,
    values,
)
from robustlab.measure.bench import Bench
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import measure_rows
from robustlab.models import generate, growing, likelihood, packed, reasoning, scores, waves
from robustlab.models.load import LoadedTarget
from robustlab.record.provenance import collect_versions, source_fingerprint
from robustlab.record.results import AccountCost
from robustlab.record.run_folder import write_json, write_once
from robustlab.record.transcripts import Keep
from robustlab.session import Session
from robustlab.spec.base import content_hash
from robustlab.spec.evals import Eval
from robustlab.spec.plan import Cell
from robustlab.train.generation import expect_seconds


@dataclass(frozen=True)
class Baseline:
    """Verdicts of one eval before any attack.

    Attributes:
        judged: One verdict a row.
        cached: Whether it had been measured before.
        node: Id of the node in the ledger.
        cost: What the laboratory paid for it in this run.
        measuring_ns: What measuring took on the wall clock, be it now or when the cache was filled.
    """

    judged: Sequence[Judged]
    cached: bool
    node: str
    cost: AccountCost
    measuring_ns: int


def load_key(target: LoadedTarget, cache: Path) -> bytes:
    """Key of the digests of one released target's completions: 32 random bytes, made once by whoever comes first."""
    return make_key(target.content_id, cache)


def make_key(content_id: str, cache: Path) -> bytes:
    """The same of any target by the hash of what it is."""
    path = cache / "baselines" / content_id / "key"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(path, secrets.token_bytes(32))
        reach("baseline.key_made")
    return path.read_bytes()


def measure_baseline(cell: Cell, eval_id: str, rows: Sequence[EvalRow], bench: Bench, session: Session) -> Baseline:
    """Measure one eval on the untouched released target, or take it from the cache.

    A cached file that is damaged or was edited is measured and written anew. Nothing is cached where a second judge
    gave no answer.

    Args:
        cell: Its spec of the eval is used, and its budget's laboratory caps.
        eval_id: Id of the eval.
        rows: Its rows.
        bench: The released target.
        session: The run.

    Returns:
        One verdict a row, and what the laboratory paid for them in this run: little more than a file read when cached.

    Raises:
        BudgetSpent: If a laboratory cap does not allow for it.
    """
    spec = cell.evals[eval_id]
    expected = expect_seconds(
        session.pace,
        bench.shape,
        [row.prompt for row in rows],
        batch_rows=spec.batch_rows,
        max_new_tokens=spec.max_new_tokens,
    )

    def measure(meter: Meter, keep: Keep | None) -> list[Judged]:
        return measure_rows(
            spec,
            rows,
            bench,
            lifted=nullcontext,
            expected_seconds=expected,
            meter=meter,
            progress=session.line.advance,
            keep=keep,
        )

    place = Place(bench.target.content_id, _identity(spec, rows, bench.target), f"{eval_id} baseline, {len(rows)} rows")
    return measure_once(cell, eval_id, place, session, measure, expected_seconds=expected)


@dataclass(frozen=True)
class Place:
    """Where the verdicts of one measurement lie, once they have been made.

    Attributes:
        content_id: Hash of what is measured.
        measured: Hash of everything that the verdicts depend on.
        label: How the live line names it.
    """

    content_id: str
    measured: str
    label: str


def measure_once(
    cell: Cell,
    eval_id: str,
    place: Place,
    session: Session,
    measure: Callable[[Meter, Keep | None], list[Judged]],
    *,
    expected_seconds: float,
) -> Baseline:
    """Take verdicts from the cache, or make them on the laboratory's account and keep them there.

    Args:
        cell: Its budget's laboratory caps hold.
        eval_id: Id of the eval.
        place: Where they lie.
        session: The run.
        measure: Makes them, with the meter that pays and what takes the completions.
        expected_seconds: What that should take.

    Returns:
        As ``measure_baseline``; errors too.
    """
    path = session.cache / "baselines" / place.content_id / f"{place.measured}.json"
    node = f"baseline-{place.measured[:12]}"
    with session.meter(node, cell.budget_id, cell.budget) as meter, ExitStack() as held:
        stored = _read_stored(path, place.measured)
        if stored is None:
            held.enter_context(hold_node(node, f"{eval_id} baseline", session, meter))
            # Another process may have made it while this one waited.
            stored = _read_stored(path, place.measured)
        if stored is None:
            judged, measuring_ns = _make(path, eval_id, place, session, meter, measure, expected_seconds)
        else:
            judged, measuring_ns = stored.judged, stored.measuring_ns
            if session.transcripts is not None:
                session.line.say(f"{eval_id} baseline: from the cache, which has no text: no transcript is kept")
    return Baseline(judged, stored is not None, node, account_cost(meter, "laboratory"), measuring_ns)


def _make(
    path: Path,
    eval_id: str,
    place: Place,
    session: Session,
    meter: Meter,
    measure: Callable[[Meter, Keep | None], list[Judged]],
    expected_seconds: float,
) -> tuple[list[Judged], int]:
    """Make verdicts and keep those that hold for another run too; with the wall time that measuring took."""
    meter.settle()
    before = meter.total("laboratory")
    with session.line.stage(place.label, expected_seconds), meter.phase("laboratory", "baseline"):
        judged = measure(meter, session.keeper(f"baseline-{place.measured[:12]}", eval_id, "baseline", 0))
    measuring_ns = (meter.total("laboratory") - before).wall_ns
    if all(_is_lasting(item) for item in judged):
        document = {"measuring_ns": measuring_ns, "judged": [asdict(item) for item in judged]}
        write_json(path, {"sha256": _seal(place.measured, document), **document})
        reach("baseline.kept")
    return judged, measuring_ns


class _Stored(BaseModel):
    """A file of the cache."""

    sha256: str
    measuring_ns: int
    judged: list[Judged]


def _identity(spec: Eval, rows: Sequence[EvalRow], target: LoadedTarget) -> str:
    """Hash of everything that a verdict depends on; the ids of prompts too, for a template may print today's date."""
    return content_hash(
        {
            "released": target.content_id,
            "eval": spec.model_dump(mode="json"),
            "rows": [row.text_sha256 for row in rows],
            "checks": [repr(row.check) for row in rows],
            "prompts": [chat.encode_prompt(target.tokenizer, row.prompt, target.system_prompt) for row in rows],
            "versions": collect_versions(threads=torch.get_num_threads(), device=target.device_name),
            "wave_tokens": WAVE_TOKENS,
            "source": source_fingerprint(
                judge,
                deflection,
                coherence,
                instructions,
                instruction_following,
                measurement,
                reading,
                second,
                classifier,
                api_judge,
                rubrics,
                phrases,
                copyrighted,
                references,
                values,
                lm_tasks,
                lm_eval,
                generate,
                likelihood,
                packed,
                growing,
                waves,
                reasoning,
                scores,
                chat,
            ),
        }
    )


def _is_lasting(item: Judged) -> bool:
    """Whether a verdict holds for another run too: that a server was away is no fact about a target."""
    return all(opinion.says != "unanswered" for opinion in item.opinions.values())


def _seal(measured: str, document: dict[str, object]) -> str:
    return content_hash({"measured": measured, **document})


def _read_stored(path: Path, measured: str) -> _Stored | None:
    """What was stored, None where there is nothing that can be trusted."""
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    document = {"measuring_ns": stored.measuring_ns, "judged": [asdict(item) for item in stored.judged]}
    return stored if stored.sha256 == _seal(measured, document) else None
