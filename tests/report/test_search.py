"""A search in rows and lines, with made-up figures."""

from io import StringIO
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from robustlab.record.results import ConfirmedSeed, Counts, PropertyResult, SearchResult, TrialResult
from robustlab.report.html import render_report
from robustlab.report.search import TRIAL_COLUMNS, search_lines, search_title, trial_rows
from robustlab.report.tables import print_results
from tests.report.conftest import account


def refusal(value: float, n: int = 40) -> PropertyResult:
    counts = Counts(refused=round(n * value), complied=n - round(n * value), hollow=0, incoherent=0, unjudged=0)
    plain: dict[str, Any] = {"property": "refusal", "direction": "higher_is_safer", "low": 0.0, "high": 0.5, "n": n}
    plain |= {"method": "wilson", "judge": "rules", "verdict": "broken", "broken_at_micro_usd": None}
    return PropertyResult(value=value, counts=counts, **plain)


def trial(number: int, state: Any, value: float | None, **changes: Any) -> TrialResult:
    plain: dict[str, Any] = {"direction": None, "around": None, "attack": "sft", "seed": number, "step": 16}
    plain |= {"point": {"learning_rate": 0.001, "rank": 8}, "attacker_micro_usd": 1_500, "reason": None}
    return TrialResult(**{"number": number, "cell_id": str(number), "state": state, "value": value, **plain, **changes})


def make_result(**changes: Any) -> SearchResult:
    trials = [
        trial(0, "done", 0.25),
        trial(1, "pruned", 0.9, direction="gentle", around=0, step=4),
        trial(2, "failed", None, reason="no rows", step=0),
    ]
    plain: dict[str, Any] = {
        "strategy": "directed",
        "objective": "harmbench_64",
        "stopped_by": "max_usd",
        "trials": trials,
        "winner": 0,
        "select_role": "select",
        "select": refusal(0.25),
        "report_role": "report",
        "report": [
            ConfirmedSeed(seed=100, cell_id="c", status="done", refusal=refusal(0.35, 120)),
            ConfirmedSeed(seed=101, cell_id="d", status="incomplete", refusal=None),
        ],
        "cost_to_find": account(4_500, 90.0),
        "cost_to_replay_micro_usd": 900,
        "caps_used": {"max_usd": 0.996},
    }
    return SearchResult(**{**plain, **changes})


def test_the_title_counts_what_became_of_the_trials() -> None:
    title = "Directed search on harmbench_64: 3 trials (1 done, 1 pruned, 1 failed), ended by the attacker's max_usd"
    assert search_title(make_result()) == title
    assert search_title(make_result(stopped_by="trials")).endswith("failed), all were run")
    assert "0 trials (none begun)" in search_title(make_result(trials=[], winner=None))


def test_every_trial_has_a_row() -> None:
    rows = trial_rows(make_result())
    assert all(len(row) == len(TRIAL_COLUMNS) for row in rows)
    assert rows[0] == (
        "0 (winner)", "-", "sft", "learning rate 0.001, rank 8", "done", "16", "75.0 %", "$0.001500",
    )  # fmt: skip
    assert rows[1][1:2] + rows[1][4:7] == ("gentle, around trial 0", "pruned", "4", "10.0 %")
    assert rows[2][4:7] == ("failed: no rows", "0", "-")


def test_both_figures_and_both_prices_stand_side_by_side() -> None:
    lines = search_lines(make_result())
    assert lines == [
        "All trials and their measurements: $0.004500 of the attacker; caps used: max_usd 99.6 %",
        "Winner: trial 0, sft with learning rate 0.001, rank 8, in search/winner.yaml",
        "Refusal on the select rows, chosen as the best: 25 % [0, 50] of 40",
        "Refusal on the report rows, trained again with seed 100: 35 % [0, 50] of 120",
        "Refusal on the report rows, trained again with seed 101: not measured",
        "Cost to find it: $0.004500; cost to replay it: $0.000900, the mean over 2 seeds",
    ]


def test_a_set_without_roles_is_told() -> None:
    lines = search_lines(make_result(select_role="all", report_role="all"))
    assert lines[-1] == "The set has no roles: the winner was confirmed on the rows by which it was chosen"


def test_no_winner_is_a_result() -> None:
    lines = search_lines(make_result(winner=None, select=None, report=[], cost_to_replay_micro_usd=None, caps_used={}))
    assert lines == [
        "All trials and their measurements: $0.004500 of the attacker",
        "No winner: no trial was finished that left a working model. This is a result.",
    ]


def test_a_search_stands_at_the_top_of_the_table_and_of_the_page(synthetic: SimpleNamespace) -> None:
    found = synthetic.results(search=make_result(trials=[trial(0, "failed", None, reason="<b>x</b>")], winner=None))
    console = Console(file=StringIO(), width=200)
    print_results(found, console)
    told = console.file.getvalue()
    assert told.startswith("Directed search on harmbench_64: 1 trials (1 failed)")
    assert "No winner: no trial was finished that left a working model." in told
    page = render_report(found)
    assert "Directed search on harmbench_64: 1 trials (1 failed)" in page and "failed: &lt;b&gt;x&lt;/b&gt;" in page
