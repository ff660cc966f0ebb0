"""When a search ends, and how its trials are told."""

from typing import Any

import pytest

from robustlab.search.log import Ending, LoggedTrial
from robustlab.search.proposals import Proposal
from robustlab.search.trials import describe_ending, describe_proposal, find_end
from robustlab.spec.budgets import Budget
from tests.search.conftest import make_point, make_search

DONE = Ending("done", 16, 0.25, None, None)


def purse(**attacker: Any) -> Budget:
    plain = {"kind": "budget", "stands_for": "a test", "hardware": "box", "attacker": attacker}
    return Budget.model_validate(plain | {"laboratory": None, "total_usd": None})


def ended(*endings: Ending | None) -> list[LoggedTrial]:
    proposal = Proposal(make_point(), None, None)
    return [LoggedTrial(n, proposal, n, str(n), {}, ending) for n, ending in enumerate(endings)]


@pytest.mark.parametrize(
    ("trials", "caps", "end"),
    [
        (0, {}, None),
        (2, {}, None),
        (3, {}, "trials"),
        (2, {"max_trials": 2}, "max_trials"),
        (1, {"max_trials": 2}, None),
        (3, {"max_trials": 3}, "trials"),
        (3, {"max_trials": 9}, "trials"),
    ],
)
def test_a_search_ends_with_its_trials_or_its_purse(trials: int, caps: Any, end: str | None) -> None:
    assert find_end(make_search(trials=3), purse(**caps), ended(*[DONE] * trials)) == end


def test_a_trial_that_a_cap_ended_ends_the_search() -> None:
    cut = Ending("unfinished", 3, None, "max_usd", None)
    assert find_end(make_search(trials=3), purse(max_usd=1), ended(DONE, cut)) == "max_usd"


def test_a_trial_is_told_in_words() -> None:
    point = make_point(learning_rate=0.00123, benign_share=None)
    assert describe_proposal(Proposal(point, None, None)) == "first, learning rate 0.00123, rank 8, steps 16"
    assert describe_proposal(Proposal(point, "harsh", None)).startswith("harsh: first, ")
    assert describe_ending(DONE) == "done after 16 steps, 75% of the select rows engaged with"
    assert describe_ending(Ending("failed", 0, None, "no rows", None)) == "failed after 0 steps (no rows)"
