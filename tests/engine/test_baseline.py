"""The baseline's cache: one key for everybody, and verdicts only while they are what a measurement would give."""

import json
import secrets
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cost.hardware import find_hardware
from robustlab.cost.pace import read_pace
from robustlab.cost.prices import load_price_card
from robustlab.data import chat
from robustlab.data.rows import EvalRow, load_eval_rows
from robustlab.engine import baseline
from robustlab.engine.baseline import Baseline, load_key, measure_baseline
from robustlab.measure.bench import Bench
from robustlab.measure.second import Panel
from robustlab.models.endpoint import Endpoint
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder
from robustlab.report.live import LiveLine
from robustlab.session import Session
from robustlab.spec.catalog import load
from tests.chat_server import reply_json, reply_text, serve
from tests.measure.second_judges import api_judge

HARDWARE = "cpu_2vcpu_8gb"
EVAL = "smoke_refusal"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    folder = RunFolder.create(tmp_path / "runs", "20261122T021733Z-a1b2c3")
    pace = read_pace(find_hardware(HARDWARE, "test"), "centre")
    line = LiveLine(StringIO(), quiet=True)
    with Journal.open(folder.ledger) as journal:
        yield Session(folder, journal, load_price_card(None), HARDWARE, tmp_path / "cache", line, pace)


@pytest.fixture
def rows() -> list[EvalRow]:
    return load_eval_rows(load("evals", EVAL), data_csv=None)[:4]


@pytest.fixture
def bench(tiny: Any, tiny_spec: Any, session: Session) -> Bench:
    return Bench(tiny, tiny_spec.shape, load_key(tiny, session.cache))


@pytest.fixture
def measure(session: Session, bench: Bench, rows: list[EvalRow]) -> Callable[..., Baseline]:
    """Measures the baseline of four rows, on the bench or on another one."""
    cell: Any = SimpleNamespace(evals={EVAL: load("evals", EVAL)}, budget=load("budgets", "smoke"), budget_id="smoke")
    return lambda on=bench: measure_baseline(cell, EVAL, rows, on, session)


def stored(session: Session, bench: Bench) -> list[Path]:
    return sorted((session.cache / "baselines" / bench.target.content_id).glob("*.json"))


def test_first_runs_at_once_end_with_one_key(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    barrier = Barrier(8, timeout=60)
    real = secrets.token_bytes

    def draw(size: int) -> bytes:
        token = real(size)
        if size == 32:
            drawn.append(token)
            barrier.wait()  # every thread has found no key by now
        return token

    monkeypatch.setattr(secrets, "token_bytes", draw)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(tiny, tmp_path), range(8)))
    assert len(set(drawn)) == 8
    assert len(keys) == 1
    (path,) = (tmp_path / "baselines" / tiny.content_id).iterdir()
    assert keys == {path.read_bytes()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(tiny, tmp_path) in keys
    assert len(drawn) == 8


def test_what_was_measured_is_not_measured_again(measure: Any, session: Session, bench: Bench) -> None:
    first, second = measure(), measure()
    assert (first.cached, second.cached) == (False, True)
    assert (first.judged, first.node) == (second.judged, second.node)
    assert len(stored(session, bench)) == 1


def test_what_was_measured_in_this_run_is_kept_and_what_the_cache_holds_has_no_text(
    measure: Any, session: Session, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Any, list[Any]]] = []
    session.transcripts = SimpleNamespace(save=lambda place, said: kept.append((place, said)))  # type: ignore[assignment]
    told: list[str] = []
    monkeypatch.setattr(session.line, "say", told.append)
    first = measure()
    ((place, said),) = kept
    assert (place.cell_id, place.eval, place.phase, place.step) == (first.node, EVAL, "baseline", 0)
    assert [(each.behavior, each.completion_hmac) for each in said] == [
        (item.behavior, item.completion_hmac) for item in first.judged
    ]
    assert (len(said), told) == (4, [])
    measure()
    assert len(kept) == 1
    assert told == ["smoke_refusal baseline: from the cache, which has no text: no transcript is kept"]


def edited(text: str) -> str:
    document = json.loads(text)
    document["judged"][0]["verdict"] = "refused" if document["judged"][0]["verdict"] != "refused" else "complied"
    return json.dumps(document)


@pytest.mark.parametrize(
    "spoil",
    [
        edited,
        lambda text: json.dumps(json.loads(text) | {"judged": json.loads(text)["judged"][:-1]}),
        lambda text: json.dumps(json.loads(text)["judged"]),
        lambda text: text[:-20],
        lambda text: "",
        lambda text: "\x00",
    ],
)
def test_a_file_that_is_not_what_was_written_is_measured_again(
    measure: Any, session: Session, bench: Bench, spoil: Callable[[str], str]
) -> None:
    first = measure()
    (path,) = stored(session, bench)
    whole = path.read_text(encoding="utf-8")
    path.write_text(spoil(whole), encoding="utf-8")
    again = measure()
    assert not again.cached
    assert again.judged == first.judged
    assert json.loads(path.read_text(encoding="utf-8"))["judged"] == json.loads(whole)["judged"]
    assert measure().cached


def test_what_measuring_took_is_kept_with_the_verdicts(measure: Any, session: Session, bench: Bench) -> None:
    first = measure()
    assert 0 < first.measuring_ns <= first.cost.wall_seconds * 1e9
    assert measure().measuring_ns == first.measuring_ns
    (path,) = stored(session, bench)
    forged = json.loads(path.read_text(encoding="utf-8")) | {"measuring_ns": 1}
    path.write_text(json.dumps(forged), encoding="utf-8")
    assert not measure().cached


def test_a_file_under_another_s_name_is_measured_again(
    measure: Any, session: Session, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure()
    (path,) = stored(session, bench)
    monkeypatch.setattr(baseline, "source_fingerprint", lambda *modules: "other rules")
    measure()
    (other,) = set(stored(session, bench)) - {path}
    other.write_bytes(path.read_bytes())
    assert not measure().cached


def test_another_device_is_measured_anew(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = measure()
    monkeypatch.setattr(type(measure.__defaults__[0].target), "device_name", "NVIDIA Example")
    there = measure()
    assert not there.cached
    assert there.node != here.node


def test_other_prompt_ids_are_measured_anew(measure: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measure()
    real = chat.encode_prompt
    # As a template would that prints the date.
    monkeypatch.setattr(chat, "encode_prompt", lambda *given: [*real(*given), 30])
    assert not measure().cached
    monkeypatch.undo()
    assert measure().cached
    told = replace(bench, target=replace(bench.target, system_prompt="Be kind."))
    assert not measure(told).cached


def test_other_sources_are_measured_anew(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measure()
    seen: list[str] = []
    monkeypatch.setattr(
        baseline, "source_fingerprint", lambda *modules: seen.extend(module.__name__ for module in modules) or "other"
    )
    assert not measure().cached
    assert seen == [
        "robustlab.measure.judge",
        "robustlab.measure.deflection",
        "robustlab.measure.coherence",
        "robustlab.measure.instructions",
        "robustlab.measure.instruction_following",
        "robustlab.measure.measurement",
        "robustlab.measure.reading",
        "robustlab.measure.second",
        "robustlab.measure.classifier",
        "robustlab.measure.api_judge",
        "robustlab.measure.rubrics",
        "robustlab.measure.phrases",
        "robustlab.measure.copyrighted",
        "robustlab.data.references",
        "robustlab.measure.values",
        "robustlab.data.lm_tasks",
        "robustlab.measure.lm_eval",
        "robustlab.models.generate",
        "robustlab.models.likelihood",
        "robustlab.models.packed",
        "robustlab.models.growing",
        "robustlab.models.waves",
        "robustlab.models.reasoning",
        "robustlab.models.scores",
        "robustlab.data.chat",
    ]


def test_what_a_second_judge_did_not_answer_is_not_cached(session: Session, bench: Bench, rows: list[EvalRow]) -> None:
    def measure(*answers: Any) -> Baseline:
        with serve(*answers) as server:
            # The address is a part of what is measured, so the spec keeps one and the server may have another.
            judge = api_judge("http://127.0.0.1:9/v1")
            spec = load("evals", EVAL).model_copy(update={"second_judges": (judge,)})
            panel = Panel(build_endpoint=lambda found: Endpoint(found.model_copy(update={"base_url": server.url})))
            cell: Any = SimpleNamespace(evals={EVAL: spec}, budget=load("budgets", "smoke"), budget_id="smoke")
            return measure_baseline(cell, EVAL, rows, replace(bench, panel=panel), session)

    away = measure(reply_text("no"), reply_json({}, status=500))
    assert [item.opinions["server"].says for item in away.judged] == ["no", "unanswered", "unanswered", "unanswered"]
    assert (away.cached, stored(session, bench)) == (False, [])
    there = measure(reply_text("no"), reply_text("well"))
    assert [item.opinions["server"].says for item in there.judged] == ["no", "unparsable", "unparsable", "unparsable"]
    again = measure(reply_text("yes"))
    assert (there.cached, again.cached) == (False, True)
    assert again.judged == there.judged


def test_second_judges_are_a_part_of_what_a_baseline_is(rows: list[EvalRow], bench: Bench) -> None:
    plain = load("evals", EVAL)
    with_one = plain.model_copy(update={"second_judges": (api_judge("http://127.0.0.1:9/v1"),)})
    another = plain.model_copy(update={"second_judges": (api_judge("http://127.0.0.1:10/v1"),)})
    ids = {baseline._identity(spec, rows, bench.target) for spec in (plain, with_one, another)}
    assert len(ids) == 3
