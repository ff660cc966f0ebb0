"""The winner: chosen, frozen with its warning, and made into confirmations."""

from pathlib import Path
from typing import Any

from robustlab.search.log import Ending, LoggedTrial
from robustlab.search.proposals import Proposal
from robustlab.search.space import build_recipe
from robustlab.search.winner import find_winner, freeze_winner, list_confirmations
from robustlab.spec.catalog import schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.plan import Cell, ResolvedSearch
from tests.search.conftest import make_point, make_search


def trial(number: int, state: Any, value: float | None, **knobs: Any) -> LoggedTrial:
    point = make_point(attack="lora_sft_smoke", learning_rate=2e-2, rank=2, benign_share=0.25, steps=6, **knobs)
    ending = Ending(state, 6, value, None, None)
    return LoggedTrial(number, Proposal(point, None, None), number, str(number), {}, ending)


TRIALS = [trial(0, "done", 0.5), trial(1, "destructive", 0.0), trial(2, "done", 0.25), trial(3, "pruned", None)]


def test_the_best_trial_with_a_working_model_wins() -> None:
    assert find_winner(TRIALS) == TRIALS[2]
    assert find_winner([TRIALS[1], TRIALS[3]]) is None
    assert find_winner([]) is None


def test_the_winner_is_frozen_with_its_warning_first(smoke_cell: Cell, tmp_path: Path) -> None:
    search = ResolvedSearch(spec=make_search(), ranges={}, cells=(smoke_cell,))
    path = tmp_path / "winner.yaml"
    freeze_winner(search, TRIALS[2], path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# SAFETY-DEGRADING") and "never promoted" in first.lower()
    assert load_yaml(path, schema_of("attacks")) == build_recipe(smoke_cell.recipe, TRIALS[2].proposal.point)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_winner_is_confirmed_once_for_each_new_seed(smoke_cell: Cell) -> None:
    search = ResolvedSearch(spec=make_search(confirm_seeds=(100, 101)), ranges={}, cells=(smoke_cell,))
    cells = list_confirmations(search, TRIALS[2])
    assert [cell.seed for cell in cells] == [100, 101]
    assert len({cell.cell_id for cell in cells}) == 2
    assert list_confirmations(search, None) == ()
