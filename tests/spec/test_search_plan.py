"""A plan's search: what it may say, and what it may not."""

from pathlib import Path
from typing import Any

import pytest

from robustlab.errors import InvalidFile
from robustlab.search.candidates import narrow_regions
from robustlab.search.space import check_region
from robustlab.spec.base import canonical_json
from robustlab.spec.catalog import find, load, package_root, schema_of
from robustlab.spec.loader import dump_yaml, load_yaml
from robustlab.spec.plan import Plan, ResolvedPlan

HEAD = """\
kind: plan
targets: [tiny]
safeguards: [none]
attacks: [lora_sft_smoke, control_smoke]
budgets: [smoke]
evals: [smoke_refusal, smoke_benign]
"""
SEARCH = """\
search:
  strategy: undirected
  trials: 4
  halving: {first_step: 2, factor: 2}
  objective: smoke_refusal
  utility: smoke_benign
  directions: []
  confirm_seeds: [100, 101]
  seed: 3
"""
TWO = """\
  directions:
    - {name: low, attack: lora_sft_smoke, learning_rate: [1e-3, 1e-2], rank: null}
    - {name: high, attack: lora_sft_smoke, learning_rate: null, rank: [8]}
"""
DIRECTED = SEARCH.replace("undirected", "directed").replace("  directions: []\n", TWO)
PLANS = sorted((package_root() / "docs" / "plans").glob("search_*.yaml"))


def read(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    plan: Plan = load_yaml(path, schema_of("plan"))
    return plan


@pytest.mark.parametrize("search", [SEARCH, DIRECTED])
def test_a_plan_with_a_search_loads_and_round_trips(tmp_path: Path, search: str) -> None:
    plan = read(tmp_path, HEAD + search)
    assert plan.search is not None and plan.search.confirm_seeds == (100, 101) and plan.seeds == ()
    assert read(tmp_path, dump_yaml(plan)) == plan


def test_a_plan_without_a_search_is_written_as_before(tmp_path: Path) -> None:
    plan = read(tmp_path, f"{HEAD}seeds: [0]\n")
    assert "search" not in plan.model_dump() and "search" not in canonical_json(plan)
    resolved = ResolvedPlan.model_construct(
        kind="resolved_plan", hardware="box", price_card_sha256="0" * 64, shadow_price=None, data_csv=None, cells=()
    )
    assert "search" not in canonical_json(resolved) and resolved.priced_cells == ()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("targets: [tiny]", "targets: [tiny, other]", "search: a search has one of the targets, got tiny, other"),
        ("safeguards: [none]", "safeguards: [none, x]", "search: a search has one of the safeguards, got none, x"),
        ("budgets: [smoke]", "budgets: [smoke, usd_1]", "search: a search has one of the budgets, got smoke, usd_1"),
        ("kind: plan\n", "kind: plan\nseeds: [0, 1]\n", "confirm_seeds of its own, got seeds [0, 1] beside them"),
        ("seeds: [100, 101]", "seeds: [100, 6]", "confirm_seeds must be new, got 6, which is the seed of a trial"),
        ("undirected", "directed", "search: must have at least one direction where it is directed, got 0"),
        ("  directions: []\n", TWO, "search: must have no directions where it is undirected, got 2"),
        ("objective: smoke_refusal", "objective: nope", "objective: must be one of the plan's smoke_refusal, smoke_be"),
        ("utility: smoke_benign", "utility: nope", "utility: must be one of the plan's smoke_refusal, smoke_benign, g"),
    ],
)
def test_a_search_that_does_not_fit_its_plan_is_refused(tmp_path: Path, old: str, new: str, fault: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path, (HEAD + SEARCH).replace(old, new))
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: high", "name: low", "search: directions have names of their own, got low, low"),
        ("high, attack: lora_sft_smoke", "high, attack: x", "direction high: must be one of the plan's lora_sft"),
    ],
)
def test_directions_that_do_not_fit_are_refused(tmp_path: Path, old: str, new: str, fault: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path, (HEAD + DIRECTED).replace(old, new))
    assert fault in str(caught.value)


def test_a_plan_without_seeds_and_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"plan.yaml:1: seeds: is missing$"):
        read(tmp_path, HEAD)


def test_a_search_without_new_seeds_is_told_at_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"plan.yaml:7: search.confirm_seeds: is missing$"):
        read(tmp_path, HEAD + SEARCH.replace("  confirm_seeds: [100, 101]\n", ""))


def test_there_are_examples() -> None:
    assert [path.stem for path in PLANS] == ["search_directed", "search_smoke", "search_undirected"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_an_example_names_what_there_is_and_fits_its_recipes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("# Command: robustlab run docs/plans/")
    assert lines[2].startswith("# Cost: ")
    plan: Any = load_yaml(path, schema_of("plan"))
    for kind in ("targets", "safeguards", "attacks", "budgets", "evals"):
        for name in getattr(plan, kind):
            find(kind, name)  # type: ignore[arg-type]
    attacks = {name: load("attacks", name) for name in plan.attacks}
    ranges = {name: attack.ranges for name, attack in attacks.items()}
    whole = {name: check_region(name, attack, ranges) for name, attack in attacks.items()}
    assert len(narrow_regions(plan.search, whole)) == len(plan.search.directions)


def test_the_two_searches_differ_in_their_strategy_only() -> None:
    directed, _, undirected = (load_yaml(path, schema_of("plan")) for path in PLANS)
    changes = {"strategy": "undirected", "directions": ()}
    assert directed.model_copy(update={"search": directed.search.model_copy(update=changes)}) == undirected
