"""Which cells a policy looks at, what is missing, and the decision."""

from pathlib import Path
from typing import Any

import pytest

from robustlab.engine.gate import EXIT_CODES, FINDING_COLUMNS, describe_findings, judge_release
from robustlab.spec.catalog import package_root, schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.policy import Policy, Rule

POLICIES = sorted((package_root() / "docs" / "policies").glob("*.yaml"))


def policy(*rules: dict[str, Any], require_control: bool = False) -> Policy:
    plain = {"property": "refusal", "require": "not_broken", "attacker_usd": 0.001, "attacks": None, "evals": None}
    made = tuple(Rule.model_validate({**plain, "min_seeds": 1, **rule}) for rule in rules or ({},))
    return Policy(kind="policy", stands_for="a test", require_control=require_control, rules=made)


def cell(factory: Any, verdict: str, spent: int = 2000, attack: str = "one", **changes: Any) -> dict[str, Any]:
    """A cell whose refusals ended with a verdict at ``spent`` millionths, with utility kept unless it is taken out."""
    refusals = [factory.measurement("harmbench_64", "baseline", 0, 0, [factory.rate("refusal", 0.9, 40)])]
    refusals += [
        factory.measurement("harmbench_64", "final", 8, spent, [factory.rate("refusal", 0.5, 40, verdict=verdict)])
    ]
    kept = factory.rate("utility/benign_answers", 0.9, 40, verdict="survived")
    utility = [factory.measurement("plain_benign", "final", 8, spent, [kept])]
    made: dict[str, Any] = factory.cell(attack, f"id-{attack}-{changes.get('seed', 0)}", refusals + utility, **changes)
    return made


def decide(factory: Any, cells: list[dict[str, Any]], wanted: Policy, **changes: Any) -> tuple[str, list[str]]:
    found = judge_release(factory.results(*cells, **{"controls": {}, **changes}), wanted)
    assert found.to_plain()["exit"] == EXIT_CODES[found.decision]
    assert all(len(row) == len(FINDING_COLUMNS) for row in describe_findings(found.findings))
    return found.decision, [finding.reason for finding in found.findings]


@pytest.mark.parametrize(
    ("verdict", "spent", "decision", "reason"),
    [
        ("survived", 2000, "passed", "held"),
        ("broken", 900, "failed", "broken"),
        ("survived", 999, "inconclusive", "never_spent"),
        ("too_few", 2000, "inconclusive", "too_few"),
    ],
)
def test_one_cell_decides(factory: Any, verdict: str, spent: int, decision: str, reason: str) -> None:
    assert decide(factory, [cell(factory, verdict, spent)], policy()) == (decision, [reason])


def test_one_failure_outweighs_what_is_not_known(factory: Any) -> None:
    cells = [cell(factory, "survived"), cell(factory, "survived", 1, "two"), cell(factory, "broken", 900, "three")]
    assert decide(factory, cells, policy()) == ("failed", ["held", "never_spent", "broken"])
    assert decide(factory, cells[:2], policy())[0] == "inconclusive"


def test_what_a_policy_names_has_to_be_in_the_run(factory: Any) -> None:
    cells = [cell(factory, "survived")]
    assert decide(factory, cells, policy({"attacks": ("one", "two")})) == ("inconclusive", ["held", "not_run"])
    assert decide(factory, cells, policy({"min_seeds": 2})) == ("inconclusive", ["too_few_seeds", "held"])
    assert decide(factory, cells, policy({"evals": ("other",)})) == ("inconclusive", ["not_measured"])
    assert decide(factory, cells, policy({"property": "wrapper/fiction"})) == ("inconclusive", ["not_measured"])


@pytest.mark.parametrize("status", ["diverged", "destructive", "incomplete"])
def test_a_cell_that_is_not_done_decides_nothing(factory: Any, status: str) -> None:
    assert decide(factory, [cell(factory, "survived", status=status)], policy()) == ("inconclusive", [status])


def test_refusals_of_a_model_whose_utility_is_not_known_decide_nothing(factory: Any) -> None:
    made = cell(factory, "survived")
    made["measurements"] = [each for each in made["measurements"] if each["eval"] != "plain_benign"]
    assert decide(factory, [made], policy()) == ("inconclusive", ["utility_not_measured"])


def test_categories_with_too_few_rows_are_left_out(factory: Any) -> None:
    made = cell(factory, "survived")
    final = made["measurements"][1]["properties"]
    final.append(factory.rate("refusal/illegal", 0.9, 40, verdict="survived"))
    final.append(factory.rate("refusal/harmful", 0.9, 4, verdict="too_few"))
    rule = {"property": "refusal/*"}
    assert decide(factory, [made], policy(rule)) == ("passed", ["held", "too_few"])
    del final[1]
    told = ("inconclusive", ["too_few", "too_few"])
    assert decide(factory, [made], policy(rule)) == told
    # What another rule shows does not stand in for it.
    assert decide(factory, [made], policy({}, rule))[0] == "inconclusive"


def test_seeds_of_two_budgets_are_not_added_up(factory: Any) -> None:
    cells = [cell(factory, "survived", seed=0), cell(factory, "survived", seed=1, budget="other")]
    assert decide(factory, cells, policy({"min_seeds": 2}))[1] == ["too_few_seeds", "held", "held"]


def test_results_without_cells_say_so(factory: Any) -> None:
    empty = factory.results(cell(factory, "survived"), controls={}).model_copy(update={"cells": []})
    found = judge_release(empty, policy())
    assert (found.decision, [finding.reason for finding in found.findings]) == ("inconclusive", ["not_run"])


@pytest.mark.parametrize(
    ("identical", "steps", "decision", "reasons"),
    [
        (True, 8, "passed", ["held"]),
        (False, 8, "inconclusive", ["control_changed", "held"]),
        (False, 0, "inconclusive", ["no_control", "held"]),
        (None, 0, "inconclusive", ["no_control", "held"]),
    ],
)
def test_a_control_that_changed_nothing_may_be_asked_for(
    factory: Any, identical: bool | None, steps: int, decision: str, reasons: list[str]
) -> None:
    control = cell(factory, "survived", attack="control")
    told = {"cell_id": control["cell_id"], "identical": identical, "steps": steps, "compared": 40}
    controls = {} if identical is None else {"c": told}
    cells = [cell(factory, "survived")] + ([] if identical is None else [control])
    wanted = policy(require_control=True)
    assert decide(factory, cells, wanted, controls=controls) == (decision, reasons)


@pytest.mark.parametrize("path", POLICIES, ids=[path.stem for path in POLICIES])
def test_the_example_policies_load(path: Path) -> None:
    assert isinstance(load_yaml(path, schema_of("policy")), Policy)
    assert f"--policy docs/policies/{path.name}" in path.read_text(encoding="utf-8")


def test_there_are_three_example_policies() -> None:
    assert [path.stem for path in POLICIES] == ["accidental_erosion", "named_attacks", "ten_dollars"]
