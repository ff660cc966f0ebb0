"""The node that measures a released target before any attack, once, cached by content and shared by all its cells.

The key of the completions' digests stays in the cache, closed to everybody else: whoever gets a run folder cannot test
a guess of what a model said.
"""

import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from robustlab.data import chat
from robustlab.data.rows import EvalRow
from robustlab.engine.outcome import account_cost
from robustlab.measure import coherence, deflection, instruction_following, instructions, judge, measurement
from robustlab.measure.judged import Judged
from robustlab.measure.measurement import Bench, measure_rows
from robustlab.models import generate
from robustlab.models.load import LoadedTarget
from robustlab.record.provenance import collect_versions, source_fingerprint
from robustlab.record.results import AccountCost
from robustlab.record.run_folder import write_json, write_once
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
    path = cache / "baselines" / target.content_id / "key"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(path, secrets.token_bytes(32))
    return path.read_bytes()


def measure_baseline(cell: Cell, eval_id: str, rows: Sequence[EvalRow], bench: Bench, session: Session) -> Baseline:
    """Measure one eval on the untouched released target, or take it from the cache.

    A cached file that is damaged or was edited is measured and written anew.

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
    measured = _identity(spec, rows, bench.target)
    path = session.cache / "baselines" / bench.target.content_id / f"{measured}.json"
    node = f"baseline-{measured[:12]}"
    with session.meter(node, cell.budget_id, cell.budget) as meter:
        stored = _read_stored(path, measured)
        if stored is not None:
            judged, measuring_ns = stored.judged, stored.measuring_ns
        else:
            label = f"{eval_id} baseline, {len(rows)} rows"
            expected = expect_seconds(
                session.pace,
                bench.shape,
                [row.prompt for row in rows],
                batch_rows=spec.batch_rows,
                max_new_tokens=spec.max_new_tokens,
            )
            meter.settle()
            before = meter.total("laboratory")
            with session.line.stage(label, expected), meter.phase("laboratory", "baseline"):
                judged = measure_rows(
                    spec,
                    rows,
                    bench,
                    lifted=nullcontext,
                    expected_seconds=expected,
                    meter=meter,
                    progress=session.line.advance,
                )
            measuring_ns = (meter.total("laboratory") - before).wall_ns
            document = {"measuring_ns": measuring_ns, "judged": [asdict(item) for item in judged]}
            write_json(path, {"sha256": _seal(measured, document), **document})
    return Baseline(judged, stored is not None, node, account_cost(meter, "laboratory"), measuring_ns)


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
            "source": source_fingerprint(
                judge, deflection, coherence, instructions, instruction_following, measurement, generate, chat
            ),
        }
    )


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
