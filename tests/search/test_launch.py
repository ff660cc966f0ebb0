"""Whole searches on the tiny target: what they leave behind, what ends them, and what a killed one goes on with."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustlab import lab
from robustlab.cost.audit import read_entries
from robustlab.cost.entries import BILLED
from robustlab.cost.meter import Meter
from robustlab.cost.prices import load_price_card
from robustlab.engine.launch import Launched
from robustlab.engine.sums import find_differences
from robustlab.errors import ConfigError, DataError, RecordError
from robustlab.record.journal import Journal
from robustlab.record.results import Measurement, SearchResult, TrialResult
from robustlab.record.run_folder import RunFolder
from robustlab.report.live import LiveLine
from robustlab.report.tables import print_results
from robustlab.search import trial, trials
from robustlab.search.launch import launch_named_search, launch_search, resume_search
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan
from robustlab.tamper import attack
from tests.search.conftest import TINY_PLAN, write_catalogue

NAME = "20261122T021733Z-a1b2c3"
TRIALS = 4
OPTIONS: dict[str, Any] = {"data_csv": None, "shadow_price": None}


def made_up_score(measurement: Measurement) -> float:
    """A value that differs from recipe to recipe: a random model engages with nothing, whatever was done to it."""
    return int(measurement.completions_sha256[:4], 16) / 0xFFFF


class Workplace:
    """A folder with a small catalogue, and runs in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, root / "runs"

    def write(self, **changes: Any) -> Plan:
        write_catalogue(self.root, **{"trials": TRIALS, "caps": "{max_usd: 1}", **changes})
        plan: Plan = load_yaml(self.root / "plan.yaml", schema_of("plan"))
        return plan

    def search(self, plan: Plan, name: str = NAME) -> Launched:
        return launch_search(plan, runs=self.runs, card=load_price_card(None), line=quiet(), run_id=name, **OPTIONS)

    def resume(self, name: str = NAME) -> Launched:
        return resume_search(name, runs=self.runs, line=quiet())

    def folder(self, name: str = NAME) -> RunFolder:
        return RunFolder.open(self.runs, name)

    def entries(self, name: str = NAME) -> Any:
        with Journal.open(self.folder(name).ledger) as journal:
            return read_entries(journal.records())

    def steps_of(self, trial: TrialResult) -> int:
        """Steps that a trial was billed for, repeated ones included."""
        own = [entry for entry in self.entries() if entry.node == trial.cell_id and entry.record in BILLED]
        return sum(entry.quantities.steps for entry in own)

    def differences(self, launched: Launched) -> list[str]:
        """What differs between the results and the ledger up to the record that they name."""
        with Journal.open(self.folder().ledger) as journal:
            records = journal.records()
        last = next(n for n, record in enumerate(records) if record["hash"] == launched.results.ledger_head)
        return find_differences(launched.results, read_entries(records[: last + 1]))


def quiet() -> LiveLine:
    return LiveLine(StringIO(), quiet=True)


def found(launched: Launched) -> SearchResult:
    assert launched.results.search is not None
    return launched.results.search


def decided(result: SearchResult) -> list[dict[str, Any]]:
    """Every trial without its price, which is measured and never twice the same."""
    return [each.model_dump(exclude={"attacker_micro_usd"}) for each in result.trials]


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def surroundings(new_tiny: Any, module_patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all, one thread, no mirror, and values that tell recipes apart."""
    module_patch.setenv("ROBUSTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    module_patch.setenv("WANDB_MODE", "disabled")
    module_patch.setenv("ROBUSTLAB_OFFLINE", "1")
    module_patch.setattr(trial, "score", made_up_score)


@pytest.fixture(scope="module")
def undisturbed(
    surroundings: None, module_patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workplace, Launched]:
    """A search that nothing disturbed."""
    place = Workplace(tmp_path_factory.mktemp("undisturbed"))
    plan = place.write()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.root)
        return place, place.search(plan)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def test_a_search_runs_its_trials_and_confirms_its_winner(undisturbed: tuple[Workplace, Launched]) -> None:
    search = found(undisturbed[1])
    assert [each.number for each in search.trials] == list(range(TRIALS))
    assert [each.seed for each in search.trials] == [7 + n for n in range(TRIALS)]
    assert {each.state for each in search.trials} == {"done", "pruned"}
    done = [each for each in search.trials if each.state == "done"]
    best = min(each.value or 0.0 for each in done)
    winner = search.trials[search.winner or 0]
    assert (winner.state, winner.value, search.stopped_by) == ("done", best, "trials")
    assert [each.seed for each in search.report] == [100]
    cell = undisturbed[1].results.cells[0]
    assert (cell.attack, cell.seed, cell.cell_id) == ("tiny_attack@search", 100, search.report[0].cell_id)
    assert cell.schedule["steps"] == winner.point["steps"]
    assert search.report[0].refusal is not None and search.select is not None
    assert search.cost_to_replay_micro_usd == cell.cost.attacker.micro_usd


def test_a_pruned_trial_stops_at_its_rung_and_is_not_measured_again(undisturbed: tuple[Workplace, Launched]) -> None:
    place, launched = undisturbed
    pruned = [each for each in found(launched).trials if each.state == "pruned"]
    entries = place.entries()
    for each in pruned:
        phases = {entry.phase for entry in entries if entry.node == each.cell_id and entry.account == "attacker"}
        assert each.step in (1, 2) and "milestone" in phases and "final" not in phases


def test_the_attacker_pays_for_everything_and_the_ledger_adds_up(undisturbed: tuple[Workplace, Launched]) -> None:
    place, launched = undisturbed
    search, entries = found(launched), place.entries()
    nodes = {each.cell_id for each in search.trials}
    measuring = [e for e in entries if e.node in nodes and e.phase in ("milestone", "final")]
    assert {entry.account for entry in measuring} == {"attacker"}
    assert sum(each.attacker_micro_usd for each in search.trials) == search.cost_to_find.micro_usd > 0
    assert place.differences(launched) == []
    assert {node.node for node in launched.results.nodes}.isdisjoint(nodes)
    trials_billed = [entry.quantities.trials for entry in entries if entry.node in nodes]
    assert sum(trials_billed) == TRIALS


def test_the_folder_holds_what_a_search_leaves(undisturbed: tuple[Workplace, Launched]) -> None:
    place, launched = undisturbed
    folder = place.folder()
    names = {path.name for path in (folder.path / "search").iterdir()}
    assert names == {"journal.log", "board.jsonl", "winner.yaml", "search.json"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (folder.path / "search").iterdir())
    assert folder.is_finished and folder.check_manifest() >= 10
    assert list(folder.resume.iterdir()) == []
    lines = (folder.path / "search" / "board.jsonl").read_text().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == list(range(TRIALS))
    plan: ResolvedPlan = load_yaml(folder.plan, schema_of("plan"))
    assert [cell.cell_id for cell in plan.cells] == [cell.cell_id for cell in launched.results.cells]
    assert plan.search is not None and plan.search.spec.trials == TRIALS


def test_a_finished_search_is_found_again(undisturbed: tuple[Workplace, Launched], monkeypatch: Any) -> None:
    place, launched = undisturbed
    monkeypatch.chdir(place.root)
    plan: Plan = load_yaml(place.root / "plan.yaml", schema_of("plan"))
    named = {"runs": place.runs, "card": load_price_card(None), "line": quiet(), **OPTIONS}
    assert launch_named_search(plan, NAME, **named).results == launched.results
    other = plan.model_copy(update={"search": plan.search and plan.search.model_copy(update={"trials": 2})})
    with pytest.raises(
        ConfigError,
        match=f"^run '{NAME}': holds another plan: its search is another, or none; take another name, or go",
    ):
        launch_named_search(other, NAME, **named)


def killed_at(step: int, number: int, kill: Callable[[], None]) -> Callable[..., None]:
    """A hook that kills the process at a step of a trial, once."""
    real, left = lab._CellWork._on_step, [1]

    def on_step(self: Any, done: int, loss: float) -> None:
        real(self, done, loss)
        if self._cell.seed == 7 + number and done == step and left:
            left.clear()
            kill()

    return on_step


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("number", "step"), [(2, 1), (0, 3)])
def test_an_interrupted_search_goes_on_and_finds_the_same(
    undisturbed: tuple[Workplace, Launched], place: Workplace, monkeypatch: Any, number: int, step: int
) -> None:
    plan = place.write()
    monkeypatch.setattr(lab._CellWork, "_on_step", killed_at(step, number, interrupt))
    with pytest.raises(KeyboardInterrupt):
        place.search(plan)
    before: Counter[str] = Counter()
    for entry in place.entries():
        before[entry.node] += entry.quantities.steps if entry.record in BILLED else 0
    launched = place.resume()
    search = found(launched)
    assert decided(search) == decided(found(undisturbed[1]))
    assert search.winner == found(undisturbed[1]).winner
    assert [each.completions_sha256 for each in launched.results.cells[0].measurements] == [
        each.completions_sha256 for each in undisturbed[1].results.cells[0].measurements
    ]
    finished, cut = search.trials[:number], search.trials[number]
    # No finished trial took another step, and the one that was cut off repeated at most the step it was in.
    assert [place.steps_of(each) for each in finished] == [before[each.cell_id] for each in finished]
    assert place.steps_of(cut) in (cut.step, cut.step + 1)
    assert place.differences(launched) == []
    assert place.folder().check_manifest() >= 10


def _die_in_a_step(monkeypatch: Any, *, number: int, step: int) -> None:
    """Kill this process at the end of a step that was reserved and is not settled yet."""
    begin, count, seen = trials.Trials._run, Meter.count, {"trial": -1, "steps": 0}

    def run(self: Any, trial: Any) -> Any:
        seen["trial"], seen["steps"] = trial.number, 0
        return begin(self, trial)

    def counted(self: Meter, **counts: int) -> None:
        seen["steps"] += counts.get("steps", 0)
        if seen == {"trial": number, "steps": step}:
            os._exit(9)
        count(self, **counts)

    monkeypatch.setattr(trials.Trials, "_run", run)
    monkeypatch.setattr(Meter, "count", counted)


def test_a_search_that_was_killed_outright_goes_on(
    undisturbed: tuple[Workplace, Launched], place: Workplace, monkeypatch: Any
) -> None:
    plan = place.write()
    child = os.fork()
    if child == 0:
        _die_in_a_step(monkeypatch, number=1, step=2)
        place.search(plan)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not place.folder().is_finished
    launched = place.resume()
    search = found(launched)
    assert decided(search) == decided(found(undisturbed[1]))
    cut = search.trials[1]
    assert any(entry.record == "crash" for entry in place.entries() if entry.node == cut.cell_id)
    assert place.steps_of(cut) in (cut.step, cut.step + 1)  # it went on from the state of its first step
    assert place.differences(launched) == []


def _change_and_resume(place: Workplace, name: str, change: Callable[[str], str]) -> None:
    """Change a file of a half-made search, see the resume refuse it, and put it back."""
    path = place.folder().path / name
    whole = path.read_text(encoding="utf-8")
    assert change(whole) != whole
    path.write_text(change(whole), encoding="utf-8")
    with pytest.raises(RecordError, match=rf"{path.name}: (is not the search that this run began|lacks trials)"):
        place.resume()
    path.write_text(whole, encoding="utf-8")


def test_a_search_that_was_killed_between_search_and_confirmation_goes_on(
    undisturbed: tuple[Workplace, Launched], place: Workplace, monkeypatch: Any
) -> None:
    plan = place.write()
    real = lab._CellWork._on_step

    def on_step(self: Any, done: int, loss: float) -> None:
        real(self, done, loss)
        if self._cell.seed == 100:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lab._CellWork, "_on_step", on_step)
        with pytest.raises(KeyboardInterrupt):
            place.search(plan)
    monkeypatch.setattr(trials.Trials, "run", interrupt)  # the search has ended and is not gone into again
    (ended,) = place.runs.glob("*/search/search.json")
    whole = ended.read_bytes()
    ended.write_bytes(whole[:-9])
    with pytest.raises(RecordError, match=r"search\.json: is not what a search wrote: it was cut or changed"):
        place.resume()
    ended.write_bytes(whole)
    _change_and_resume(place, "plan.yaml", lambda text: re.sub(r"trials: \d+", "trials: 99", text))
    _change_and_resume(place, "search/journal.log", lambda text: "".join(text.splitlines(keepends=True)[:3]))
    launched = place.resume()
    assert decided(found(launched)) == decided(found(undisturbed[1]))
    assert place.differences(launched) == []


def test_the_number_of_trials_is_a_cap_of_the_purse(place: Workplace) -> None:
    launched = place.search(place.write(caps="{max_trials: 2, max_steps: 100}"))
    search = found(launched)
    assert (len(search.trials), search.stopped_by) == (2, "max_trials")
    assert search.caps_used["max_trials"] == 1.0


def test_a_cap_holds_over_all_trials_together(place: Workplace) -> None:
    # Trials take 1 to 4 steps each: 5 steps are spent in the middle of one of the first few.
    launched = place.search(place.write(caps="{max_steps: 5}"))
    search = found(launched)
    assert search.stopped_by == "max_steps"
    assert sum(each.step for each in search.trials) == search.cost_to_find.steps == 5
    assert [each.state for each in search.trials][-1] == "unfinished" and search.trials[-1].reason == "max_steps"
    assert "unfinished" not in {each.state for each in search.trials[:-1]}
    # The confirmation is another stranger with the same purse.
    assert launched.results.cells[0].stopped_by == "schedule"


def test_a_search_without_a_finished_trial_has_no_winner(place: Workplace) -> None:
    launched = place.search(place.write(caps="{max_steps: 2}"))
    search = found(launched)
    assert (search.winner, search.report, search.cost_to_replay_micro_usd) == (None, [], None)
    assert search.stopped_by == "max_steps"
    assert launched.results.cells == [] and launched.results.bill is not None
    assert {purse.budget for purse in launched.results.purses} == {"tiny_purse"}
    assert not (place.folder().path / "search" / "winner.yaml").exists()
    assert place.folder().is_finished and place.folder().report.is_file()
    print_results(launched.results, Console(file=StringIO()))  # a run without cells can be told too
    assert place.differences(launched) == []


def test_a_trial_that_cannot_be_run_is_billed_and_the_search_goes_on(place: Workplace, monkeypatch: Any) -> None:
    real = attack.build_modification

    def build(recipe: Any, target: Any, *, seed: int) -> Any:
        if seed == 8:
            raise DataError("training step 1", "a row does not fit", "shorten it")
        return real(recipe, target, seed=seed)

    monkeypatch.setattr(attack, "build_modification", build)
    search = found(place.search(place.write(trials=3)))
    failed: TrialResult = search.trials[1]
    assert (failed.state, failed.value, failed.step) == ("failed", None, 0)
    assert failed.reason == "training step 1: a row does not fit; shorten it"
    assert [each.state for each in search.trials].count("failed") == 1 and len(search.trials) == 3


def test_a_directed_search_shares_a_board(place: Workplace) -> None:
    directions = """
    - {{name: gentle, attack: tiny_attack, learning_rate: [3e-3, 1e-2], rank: [2]}}
    - {{name: harsh, attack: tiny_attack, learning_rate: [3e-2, 1e-1], rank: [4]}}
"""
    plan = TINY_PLAN.replace("undirected", "directed").replace("directions: []", f"directions:{directions.rstrip()}")
    search = found(place.search(place.write(plan=plan, trials=4)))
    assert [each.direction for each in search.trials] == ["gentle", "harsh", "gentle", "harsh"]
    for each in search.trials:
        assert each.around is None and (each.point["rank"] == 2) == (each.direction == "gentle")
    board = [json.loads(line) for line in (place.folder().path / "search" / "board.jsonl").read_text().splitlines()]
    assert [line["direction"] for line in board] == ["gentle", "harsh", "gentle", "harsh"]


def test_a_plan_without_a_search_is_refused(place: Workplace) -> None:
    plan = place.write().model_copy(update={"search": None, "seeds": (0,)})
    with pytest.raises(ConfigError, match="^plan: has no search; give it one, or run it as it is$"):
        place.search(plan)
    assert not place.runs.exists()
