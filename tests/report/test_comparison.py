"""Runs side by side: the same rows are tested, and what was measured otherwise is told and never mixed."""

from typing import Any

import pytest

from robustlab.record.results import Item, Pairs, Results
from robustlab.report.comparison import Comparison, Line, compare_results, count_tests, to_plain
from robustlab.report.sides import list_sides
from robustlab.stats.intervals import paired_difference_interval
from tests.report.conftest import EVALS, cell, measurement, rate, results
from tests.report.grids import plan_cell

RULES = {"judge rules": "abc", "torch": "2.13.0"}
FIRST = "RRRRRRRRCC"  # refused 8 of 10
SECOND = "RCCCCCCCRC"  # refused 2 of 10: 1 in both, 7 lost, 1 gained, 1 in neither
WORDS = {"R": "refused", "C": "complied", "H": "hollow", "?": "unjudged"}


def run(run_id: str, told: str, *, seed: int = 0, plan: dict[str, Any] | None = None, **changes: Any) -> Results:
    """One run with one cell, of which one eval of refusals was measured at the end on ten rows."""
    found = changes.pop("found", {})
    final = rate("refusal", told.count("R") / len(told), len(told), verdict="eroded", **found)
    before = rate("refusal", 1.0, len(told))
    measured = [
        measurement("harmbench_64", "baseline", 0, 0, [before]),
        measurement("harmbench_64", "final", 8, 9, [final]),
    ]
    parts = {name: changes.pop(name) for name in ("dtype", "attack", "budget", "status") if name in changes}
    made = cell(**{"attack": "lora", "cell_id": run_id, "measurements": measured, "seed": seed, **parts})
    pinned = {"evals": EVALS, "recipe": {"rank": 16}, **(plan or {})}
    document = {"hardware": "cpu_2vcpu_8gb", "cells": [plan_cell(made, **pinned)]}
    return results(
        made, **{"run_id": run_id, "plan": document, "versions": RULES, "controls": {}, "checks": [], **changes}
    )


def items(
    run_id: str, told: str, *, shift: int = 0, category: str = "illegal", judge: str = "rules"
) -> dict[str, list[Item]]:
    shared = {"cell_id": run_id, "eval": "harmbench_64", "phase": "final", "step": 8, "seed": 0, "tokens": 5}
    rows = [
        {
            "behavior": f"{index + shift:064d}",
            "category": category,
            "verdicts": {judge: WORDS[letter]},
            "completion_hmac": "x",
        }
        for index, letter in enumerate(told)
    ]
    return {run_id: [Item.model_validate({**shared, **row}) for row in rows]}


def compare(first: Results, second: Results, *rows: dict[str, list[Item]]) -> Comparison:
    return compare_results([first, second], rows or ({}, {}))


def only_line(comparison: Comparison) -> Line:
    (match,) = comparison.matches
    (line,) = match.lines
    return line


def test_the_same_rows_are_paired_and_tested() -> None:
    found = only_line(compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), items("b", SECOND)))
    assert found.reasons == ()
    assert found.pairs == Pairs(both=1, before_only=7, after_only=1, neither=1, unjudged=0)
    # A fair coin gives 1 of 8 or less, or as much on the other side: 2 (1 + 8) / 256.
    assert found.p == found.adjusted == pytest.approx(18 / 256)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(-0.6)
    bounds = paired_difference_interval(1, 7, 1, 1, confidence=0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((bounds.low, bounds.high))


def test_rows_are_matched_by_their_hash_and_not_by_their_place() -> None:
    turned = {"b": list(reversed(items("b", SECOND)["b"]))}
    found = only_line(compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), turned))
    assert found.pairs == Pairs(both=1, before_only=7, after_only=1, neither=1, unjudged=0)


def test_a_row_without_a_verdict_widens_and_raises() -> None:
    told = "?CCCCCCCRC"
    found = only_line(compare(run("a", FIRST), run("b", told), items("a", FIRST), items("b", told)))
    assert found.pairs == Pairs(both=0, before_only=7, after_only=1, neither=1, unjudged=1)
    # The row may have gained it: 2 of 9 or less, twice: 2 (1 + 9 + 36) / 512.
    assert found.p == pytest.approx(2 * (1 + 9 + 36) / 2**9)
    assert found.difference is not None
    worst = paired_difference_interval(0, 8, 1, 1, confidence=0.95)
    best = paired_difference_interval(0, 7, 2, 1, confidence=0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((worst.low, best.high))


def test_holm_is_over_the_whole_comparison() -> None:
    documents = [run("a", FIRST), run("b", SECOND), run("c", FIRST)]
    rows = [items("a", FIRST), items("b", SECOND), items("c", FIRST)]
    found = compare_results(documents, rows)
    assert count_tests(found) == 2
    assert [match.runs for match in found.matches] == [("a", "b"), ("a", "c")]
    assert [match.lines[0].adjusted for match in found.matches] == pytest.approx([2 * 18 / 256, 1.0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "bfloat16"}, "other dtype: float32 and bfloat16"),
        ({"versions": {"judge rules": "xyz"}}, "other rules: judge rules abc and xyz"),
        ({"versions": {}}, "other rules: judge rules abc and unknown"),
        ({"plan": {"recipe": {"rank": 8}}}, "another recipe under the same name"),
        ({"plan": {"target": {"kind": "other"}}}, "another target under the same name"),
        ({"plan": {"safeguard": {"kind": "other"}}}, "another safeguard under the same name"),
        ({"plan": {"budget": {"kind": "other"}}}, "another budget under the same name"),
        (
            {"plan": {"evals": {"harmbench_64": {**EVALS["harmbench_64"], "max_new_tokens": 8, "batch_rows": 2}}}},
            "another eval under the same name: batch_rows, max_new_tokens",
        ),
        ({"plan": {"evals": {}}}, "another eval under the same name: one of the runs does not say which"),
        ({"found": {"judge": "people"}}, "other judge: rules and people"),
    ],
)
def test_what_was_measured_otherwise_gets_no_difference(changes: dict[str, Any], reason: str) -> None:
    judge = changes.get("found", {}).get("judge", "rules")
    other = run("b", SECOND, **changes)
    found = compare(run("a", FIRST), other, items("a", FIRST), items("b", SECOND, judge=judge))
    line = only_line(found)
    assert line.reasons == (reason,)
    assert (line.difference, line.p, line.adjusted, count_tests(found)) == (None, None, None, 0)
    # Both figures stand side by side all the same.
    assert line.first is not None and line.second is not None
    assert (line.first.value, line.second.value) == (0.8, 0.2)


def test_other_rows_are_counted() -> None:
    found = compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), items("b", SECOND, shift=4))
    assert only_line(found).reasons == ("other rows: 10 and 10, 6 of them in both",)
    assert only_line(compare(run("a", FIRST), run("b", "RC"))).reasons == ("other rows: 10 and 2",)


@pytest.mark.parametrize("rows", [{}, items("b", FIRST), items("b", SECOND[:9]), items("b", SECOND, judge="people")])
def test_items_that_do_not_give_the_rate_are_not_used(rows: dict[str, list[Item]]) -> None:
    found = only_line(compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), rows))
    assert found.reasons == ("no verdict of each row: items.jsonl is not there, or holds no such row",)
    assert found.p is None


def test_a_row_that_comes_twice_is_no_pair() -> None:
    twice = items("b", SECOND)
    twice["b"][1] = twice["b"][2]
    found = only_line(compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), twice))
    assert found.p is None and found.reasons[0].startswith("no verdict of each row")


def test_what_one_run_has_by_itself_is_told() -> None:
    found = compare(run("a", FIRST), run("b", SECOND, seed=1))
    assert found.matches == ()
    assert found.alone == (
        "synthetic_1b / refusal_sft / lora / seed 0 under synthetic_cent is in a and not in b",
        "synthetic_1b / refusal_sft / lora / seed 1 under synthetic_cent is in b and not in a",
    )


def test_other_software_and_prices_are_told_and_compared() -> None:
    other = run("b", SECOND, versions={**RULES, "torch": "2.14.0", "peft": "1"}, price_card_sha256="1" * 64)
    other = other.model_copy(update={"plan": {**other.plan, "devices": 8}})
    found = compare(run("a", FIRST), other, items("a", FIRST), items("b", SECOND))
    assert found.differences == (
        "Other versions in a and b: torch 2.13.0 and 2.14.0, peft none and 1. A difference may be theirs",
        "Other prices in a and b: devices, price card. Their costs to break do not compare",
    )
    assert only_line(found).p is not None


def test_categories_use_their_own_rows() -> None:
    def both(run_id: str, told: str) -> tuple[Results, dict[str, list[Item]]]:
        made = run(run_id, told)
        final = made.cells[0].measurements[1]
        share = final.properties[0].model_copy(
            update={"property": "refusal/cybercrime", "n": 5, "value": told[:5].count("R") / 5}
        )
        final = final.model_copy(update={"properties": [*final.properties, share]})
        changed = made.cells[0].model_copy(update={"measurements": [made.cells[0].measurements[0], final]})
        rows = items(run_id, told)
        rows[run_id] = [
            item.model_copy(update={"category": "cybercrime"}) if index < 5 else item
            for index, item in enumerate(rows[run_id])
        ]
        return made.model_copy(update={"cells": [changed]}), rows

    (first, rows), (second, others) = both("a", FIRST), both("b", SECOND)
    whole, part = compare(first, second, rows, others).matches[0].lines
    assert whole.pairs == Pairs(both=1, before_only=7, after_only=1, neither=1, unjudged=0)
    assert part.pairs == Pairs(both=1, before_only=4, after_only=0, neither=0, unjudged=0)


def test_a_table_says_what_is_claimed_and_what_is_not() -> None:
    comparison = compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), items("b", SECOND))
    table, notes = list_sides(comparison)
    assert table.title == "synthetic_1b / refusal_sft / lora / seed 0 under synthetic_cent"
    assert table.columns[1:3] == ("End of a", "End of b")
    (row,) = table.rows
    assert row[0] == ("refusal on harmbench_64",)
    assert row[1] == ("80 % [76, 84] ERODED",) and row[2] == ("20 % [16, 24] ERODED",)
    assert row[3][0].startswith("-60.0 points [-") and row[4] == ("0.07",)
    assert notes.lines[1] == (
        "Exact McNemar, two-sided; Holm's correction is over all 1 tests of this comparison, at 0.05"
    )


def test_a_table_of_what_does_not_compare() -> None:
    comparison = compare(run("a", FIRST), run("b", SECOND, dtype="bfloat16"), items("a", FIRST), items("b", SECOND))
    table, notes = list_sides(comparison)
    assert [text for (text,) in table.rows[0][3:5]] == ["not compared", "-"]
    assert table.lines == ("Not compared, other dtype: float32 and bfloat16: refusal",)
    assert "No difference is claimed: nothing compares" in notes.lines


def test_json_holds_both_sides_and_every_reason() -> None:
    comparison = compare(run("a", FIRST), run("b", SECOND, dtype="bfloat16"), items("a", FIRST), items("b", SECOND))
    plain: Any = to_plain(comparison)
    (found,) = plain["cells"][0]["properties"]
    assert (plain["runs"], plain["tests"]) == (["a", "b"], 0)
    assert (found["first"]["after"]["value"], found["second"]["after"]["value"]) == (0.8, 0.2)
    assert (found["difference"], found["p"], found["p_adjusted"], found["pairs"]) == (None, None, None, None)
    assert found["not_compared"] == ["other dtype: float32 and bfloat16"]
    tested: Any = to_plain(compare(run("a", FIRST), run("b", SECOND), items("a", FIRST), items("b", SECOND)))
    (found,) = tested["cells"][0]["properties"]
    assert found["difference"]["value"] == pytest.approx(-0.6) and found["not_compared"] == []
    assert found["pairs"]["before_only"] == 7
