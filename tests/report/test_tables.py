"""Rows of properties, and their print in a terminal and in a pipe."""

import json
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from robustlab.report.tables import control_lines, is_changed, node_lines, print_results, print_table, property_rows
from robustlab.report.wording import HINTS

HOSTILE = "[bold red]x[/] \x1b[31mred\x1b]8;;http://example.org\x07 \u202eevil\n<script>alert(1)</script>"


def printed(show: object, *args: object, terminal: bool = False) -> str:
    stream = StringIO()
    show(*args, Console(file=stream, width=100, force_terminal=terminal))  # type: ignore[operator]
    return stream.getvalue()


def test_rows_hold_before_after_verdict_and_cost(synthetic: SimpleNamespace) -> None:
    row = property_rows(synthetic.results())[0]
    assert row["cell"] == "synthetic_1b / refusal_sft / lora_withheld / seed 0"
    assert (row["property"], row["eval"], row["role"], row["n"]) == ("refusal", "harmbench_64", "test", 160)
    assert (row["before"], row["after"]) == (156 / 160, 2 / 160)
    assert (row["after_low"], row["after_high"]) == (0.0, 2 / 160 + 0.04)
    assert (row["verdict"], row["verdict_text"]) == ("broken", "BROKEN at $0.000600")
    assert (row["held_at_micro_usd"], row["broken_at_micro_usd"]) == (60, 600)
    assert (row["attacker_micro_usd"], row["attacker_train_tokens"], row["stopped_by"]) == (1200, 20480, "schedule")
    assert row["attacker_hours"] == 87 / 3600
    assert (row["laboratory_micro_usd"], row["laboratory_hours"]) == (31000, 0.625)


def test_rows_are_plain_json_and_hold_every_category(synthetic: SimpleNamespace) -> None:
    rows = json.loads(json.dumps(property_rows(synthetic.results())))
    # 3 + 4 categories, 3 + 4, and 1 + 4 of the control.
    assert len(rows) == 7 + 7 + 5
    assert sum(str(row["property"]).startswith("refusal/") for row in rows) == 12


def test_a_destructive_cell_sets_no_cost(synthetic: SimpleNamespace) -> None:
    row = property_rows(synthetic.results(synthetic.broken_cell(status="destructive")))[0]
    assert (row["broken_at_micro_usd"], row["held_at_micro_usd"]) == (None, None)
    assert row["verdict_text"] == "BROKEN (destructive: no cost)"


@pytest.mark.parametrize(
    ("marks", "held"),
    [
        (["survived", "eroded"], 10),
        (["survived", "survived"], 20),
        (["inconclusive", "too_few"], 0),
        (["eroded", "inconclusive"], 0),
        (["broken", "survived"], 20),
    ],
)
def test_only_a_mark_that_survived_held(synthetic: SimpleNamespace, marks: list[str], held: int) -> None:
    made = synthetic.course("harmbench_64", "refusal", [1.0, 0.9, 0.8, 0.1, 0.1], [0, 10, 20, 30, 40], "broken", 30)
    for each, verdict in zip(made[1:3], marks, strict=True):
        each["properties"][0]["verdict"] = verdict
    utility = synthetic.course("plain_benign", "utility/benign_answers", [0.95, 0.9], [0, 40], "survived", n=60)
    row = property_rows(synthetic.results(synthetic.cell("odd", "c0ffee000004", made + utility)))[0]
    assert (row["held_at_micro_usd"], row["broken_at_micro_usd"]) == (held, 30)


@pytest.mark.parametrize("verdict", [None, "absent", "too_few"])
def test_a_cell_without_a_measured_utility_sets_no_cost(synthetic: SimpleNamespace, verdict: str | None) -> None:
    made = synthetic.course("harmbench_64", "refusal", [1.0, 0.1], [0, 40], "broken", 40)
    if verdict is not None:
        made += synthetic.course("plain_benign", "utility/benign_answers", [0.95, 0.9], [0, 40], verdict, n=60)
    results = synthetic.results(synthetic.cell("odd", "c0ffee000004", made))
    row = property_rows(results)[0]
    assert row["verdict_text"] == "BROKEN (no cost: utility not measured)"
    assert (row["held_at_micro_usd"], row["broken_at_micro_usd"]) == (None, None)
    title = "synthetic_1b / refusal_sft / odd / seed 0 (done; the whole schedule was run; utility not measured)"
    assert title in printed(print_results, results).splitlines()


def test_a_property_that_recovered_says_so(synthetic: SimpleNamespace) -> None:
    course = synthetic.course("harmbench_64", "refusal", [1.0, 0.1, 0.8], [0, 50, 90], "eroded", broken_at=50)
    course[-1]["properties"][0]["broken_at_micro_usd"] = None
    row = property_rows(synthetic.results(synthetic.cell("odd", "c0ffee000004", course)))[0]
    assert row["recovered_from_micro_usd"] == 50
    assert row["verdict_text"] == "ERODED (broken at $0.000050, recovered)"


def test_a_cell_without_a_final_measurement(synthetic: SimpleNamespace) -> None:
    course = synthetic.course("harmbench_64", "refusal", [1.0, 0.1, 0.8], [0, 50, 90], "eroded")[:2]
    row = property_rows(synthetic.results(synthetic.cell("odd", "c0ffee000004", course, status="incomplete")))[0]
    assert (row["after"], row["verdict"], row["verdict_text"], row["after_text"]) == (None, None, "NOT MEASURED", "-")


def test_print_fits_100_columns_without_categories(synthetic: SimpleNamespace) -> None:
    for terminal in (False, True):
        text = printed(print_results, synthetic.results(), terminal=terminal)
        assert "refusal/" not in text
        assert "BROKEN at $0.000600" in text
    plain = printed(print_results, synthetic.results())
    assert "\x1b" not in plain
    tables = [
        line for line in plain.splitlines() if line.startswith(("Property", "refusal", "over_refusal", "utility"))
    ]
    assert len(tables) == 3 + 3 + 2 + 2
    assert max(map(len, tables)) <= 100


def test_print_shows_both_accounts_controls_shared_work_and_hints(synthetic: SimpleNamespace) -> None:
    text = printed(print_results, synthetic.results())
    assert "attacker    $0.001200, 1 min 27 s, 20,480 train tokens, 32 steps, 33 steps billed, 11 TFLOP" in text
    assert "laboratory  $0.031000, 37 min 30 s" in text
    assert "byte-identical to the baseline after 32 steps (380 completions compared)" in text
    assert "Shared baseline harmbench_64: $0.005000" in text
    assert "Shared released target synthetic_1b / refusal_sft (made before, found again): $0.000040" in text
    assert text.rstrip().endswith("\n".join(HINTS))


def test_overshoot_is_told(synthetic: SimpleNamespace) -> None:
    cost = {"attacker": synthetic.account(100, 2.0, overshoot_micro_usd=7), "laboratory": synthetic.account(0, 0.0)}
    text = printed(print_results, synthetic.results(synthetic.broken_cell(cost=cost)))
    assert "attacker    $0.000100, 2.0 s, $0.000007 of it beyond a cap" in text


def test_a_control_that_differs_or_lacks_is_told(synthetic: SimpleNamespace) -> None:
    control = {"cell_id": "c0ffee000003", "identical": False, "steps": 1, "compared": 3}
    text = printed(print_results, synthetic.results(controls={"odd": control}))
    label = "synthetic_1b / refusal_sft / control / seed 0"
    assert f"Control {label}: NOT byte-identical to the baseline after 1 step (3 completions compared)" in text
    assert "No control was run" in printed(print_results, synthetic.results(controls={}))


def test_a_control_that_shows_nothing_is_not_read_as_a_change(synthetic: SimpleNamespace) -> None:
    control = {"cell_id": "c0ffee000003", "identical": False, "steps": 0, "compared": 3}
    (line,) = control_lines(synthetic.results(synthetic.broken_cell(), controls={"odd": control}))
    assert line == "Control odd: took no step and shows nothing (3 completions compared)"
    incomplete = synthetic.control_cell(status="incomplete", stopped_by="laboratory.max_usd")
    results = synthetic.results(incomplete, controls={"odd": {**control, "steps": 4}})
    assert control_lines(results) == [
        "Control synthetic_1b / refusal_sft / control / seed 0: not measured in full after 4 steps, which shows "
        "nothing (3 completions compared)"
    ]
    assert not is_changed(results, results.controls["odd"])


def test_the_caps_that_cells_share_are_told_by_purse(synthetic: SimpleNamespace) -> None:
    lines = printed(print_results, synthetic.results(), terminal=False).splitlines()
    assert (
        "Purse synthetic_cent: $0.101640 (attacker $0.003600, laboratory $0.098040); caps used: laboratory.max_usd "
        "49.0 % of $0.200000, laboratory.max_wall_hours 100.4 % of 2 h, total_usd 20.3 % of $0.500000"
    ) in lines
    bare = synthetic.results(purses=[synthetic.purse(caps_used={})])
    assert "Purse" not in printed(print_results, bare)


def test_what_a_resume_finds_of_its_own_run_was_not_made_before(synthetic: SimpleNamespace) -> None:
    released, baseline = synthetic.nodes()
    made = [
        {**released, "cost": synthetic.account(40, 3.0, billed_train_tokens=9)},
        {**baseline, "cached": True, "cost": synthetic.account(5_000, 360.0, generated_tokens=9)},
        {**baseline, "cached": True, "node": "baseline-2", "label": "plain_benign"},
    ]
    assert [line.split(":")[0] for line in node_lines(synthetic.results(nodes=made))] == [
        "Shared released target synthetic_1b / refusal_sft",
        "Shared baseline harmbench_64",
        "Shared baseline plain_benign (made before, found again)",
    ]


def test_two_budgets_are_told_apart(synthetic: SimpleNamespace) -> None:
    cells = [synthetic.control_cell(), synthetic.control_cell(cell_id="c0ffee000009", budget="usd_10")]
    control = {"cell_id": "c0ffee000003", "identical": True, "steps": 32, "compared": 3}
    controls = {"a": control, "b": {**control, "cell_id": "c0ffee000009"}}
    nodes = [{**synthetic.nodes()[1], "budget": "usd_10"}]
    results = synthetic.results(*cells, controls=controls, nodes=nodes)
    text, label = printed(print_results, results), "synthetic_1b / refusal_sft / control / seed 0"
    for expected in (
        f"{label} under usd_10 (done; ",
        f"Control {label} under synthetic_cent: byte-identical",
        f"Control {label} under usd_10: byte-identical",
        "Shared baseline harmbench_64 under usd_10: $0.005000",
    ):
        assert expected in text, expected
    assert [row["budget"] for row in property_rows(results)] == ["synthetic_cent"] * 5 + ["usd_10"] * 5
    assert "under" not in printed(print_results, synthetic.results()).replace("under the", "")


def test_print_table_in_a_pipe_is_aligned_and_never_wrapped() -> None:
    def show(console: Console) -> None:
        print_table(console, "targets", ["id", "what"], [["a", "x" * 150], ["long_id", 7]])

    assert printed(show) == f"targets\nid       what\na        {'x' * 150}\nlong_id  7\n"


def test_hostile_text_is_inert_in_both() -> None:
    def show(console: Console) -> None:
        print_table(console, HOSTILE, ["id"], [[HOSTILE]])

    plain = printed(show)
    assert "[bold red]x[/]" in plain
    assert "\x1b" not in plain
    assert "\u202e" not in plain
    assert "\x07" not in plain
    assert len(plain.splitlines()) == 3
    ruled = printed(show, terminal=True)
    assert "[bold red]x[/]" in ruled
    assert "\x1b[31m" not in ruled
    assert "\x1b]8" not in ruled
    assert "\u202e" not in ruled
