"""Cells in rows: what stands together, what never does, and the cheapest break."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.report.columns import name_row
from robustlab.report.grid import Grid, Row, build_grid, count_cells, describe_envelope, find_cheapest
from tests.report.conftest import EVALS, control_cell, results
from tests.report.grids import control_of, copy_of, never_began, plan_cell, seed_cell


def rows_of(grid: Grid) -> list[Row]:
    return [row for section in grid.sections for row in section.rows]


def seeds_of(grid: Grid) -> list[tuple[str, list[int]]]:
    return [(row.attack, [seed.cell.seed for seed in row.seeds]) for row in rows_of(grid)]


def test_the_seeds_of_an_attack_stand_in_one_row_in_their_order() -> None:
    cells = [seed_cell(2, 0.05), seed_cell(0), control_cell(), seed_cell(1, attack="lora_identity")]
    grid = build_grid([results(*cells)])
    assert seeds_of(grid) == [("lora_withheld", [0, 2]), ("control", [0]), ("lora_identity", [1])]
    (section,) = grid.sections
    assert (section.target, section.safeguard, section.budget) == ("synthetic_1b", "refusal_sft", "synthetic_cent")
    assert (section.eval, section.role, section.variant) == ("harmbench_64", "test", "harmbench_64")
    assert section.described == "harmbench_64 (standard, test rows, 64 new tokens)"
    first = section.rows[0].seeds[1]
    assert (first.refusal.before.value, first.refusal.after.value) == (156 / 160, 8 / 160)  # type: ignore[union-attr]
    assert (first.breaks.held_micro_usd, first.breaks.broken_micro_usd) == (60, 600)
    change = first.utility["utility/benign_answers"]
    assert (change.before.value, change.after.value) == (57 / 60, 54 / 60)  # type: ignore[union-attr]
    assert [row.is_control for row in section.rows] == [False, True, False]


@pytest.mark.parametrize("name", ["safeguard", "target", "budget"])
def test_another_safeguard_target_or_budget_is_another_section(name: str) -> None:
    grid = build_grid([results(seed_cell(0), seed_cell(1, **{name: "other"}), seed_cell(2))])
    assert [getattr(section, name) for section in grid.sections][1] == "other"
    assert seeds_of(grid) == [("lora_withheld", [0, 2]), ("lora_withheld", [1])]
    assert not any(row.note for row in rows_of(grid))


def test_element_types_of_a_target_are_never_put_together() -> None:
    grid = build_grid([results(seed_cell(0), seed_cell(1, dtype="bfloat16"))])
    assert [(row.dtype, len(row.seeds)) for row in rows_of(grid)] == [("float32", 1), ("bfloat16", 1)]


@pytest.mark.parametrize("key", ["variant", "role"])
def test_variants_and_roles_of_an_eval_are_never_put_together(key: str) -> None:
    other = seed_cell(1)
    for each in other["measurements"]:
        each[key] = "other"
    grid = build_grid([results(seed_cell(0), other)])
    assert [getattr(section, key) for section in grid.sections][1] == "other"
    assert seeds_of(grid) == [("lora_withheld", [0]), ("lora_withheld", [1])]


@pytest.mark.parametrize(
    "pinned",
    [
        {"recipe": {"steps": 9}},
        {"schedule": {"steps": 9}},
        {"budget": {"max_usd": 9}},
        {"evals": {"harmbench_64": {**EVALS["harmbench_64"], "max_new_tokens": 512}}},
    ],
)
def test_what_a_plan_pins_otherwise_under_one_name_is_never_put_together(pinned: dict[str, Any]) -> None:
    cells = [seed_cell(0), seed_cell(1), seed_cell(2)]
    like = {"recipe": {"steps": 8}, "schedule": {"steps": 8}, "budget": {"max_usd": 1}, "evals": EVALS}
    plan = [plan_cell(cells[0], **like), plan_cell(cells[1], **like), plan_cell(cells[2], **{**like, **pinned})]
    grid = build_grid([results(*cells, plan={"cells": plan})])
    assert seeds_of(grid) == [("lora_withheld", [0, 1]), ("lora_withheld", [2])]
    assert [name_row(row) for row in rows_of(grid)] == [
        "lora_withheld (run 20991231-000000-synthetic, cell c0ffee000000)",
        "lora_withheld (run 20991231-000000-synthetic, cell c0ffee000002)",
    ]


@pytest.mark.parametrize(
    "changes",
    [{"price_card_sha256": "99" * 32}, {"plan": {"hardware": "h100_sxm"}}, {"plan": {"shadow_price": "h100_sxm"}}],
)
def test_costs_by_other_prices_are_never_put_together(changes: dict[str, Any]) -> None:
    document = results(seed_cell(0), plan={})
    changed = {**changes} if "plan" in changes else {"plan": changes, "price_card_sha256": changes["price_card_sha256"]}
    other = results(seed_cell(1), run_id="other", ledger_head="77" * 32, **changed)
    assert seeds_of(build_grid([document, other])) == [("lora_withheld", [0]), ("lora_withheld", [1])]


def test_seeds_of_several_runs_stand_together_and_one_run_counts_once() -> None:
    first = results(seed_cell(0), seed_cell(1))
    second = results(seed_cell(2), run_id="second", ledger_head="77" * 32)
    grid = build_grid([first, second, first])
    assert seeds_of(grid) == [("lora_withheld", [0, 1, 2])]
    assert [seed.run_id for seed in rows_of(grid)[0].seeds] == ["20991231-000000-synthetic"] * 2 + ["second"]
    assert (len(grid.documents), count_cells(grid)) == (2, 3)


def test_one_seed_of_two_runs_is_no_second_seed() -> None:
    again = results(seed_cell(0, 0.05), run_id="again", ledger_head="77" * 32)
    grid = build_grid([results(seed_cell(0), seed_cell(1)), again])
    assert seeds_of(grid) == [("lora_withheld", [0, 1]), ("lora_withheld", [0])]
    assert [row.note for row in rows_of(grid)] == [
        "run 20991231-000000-synthetic, cell c0ffee000000",
        "run again, cell c0ffee000000",
    ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from(["float32", "bfloat16"]))))
def test_every_cell_stands_in_one_row_with_seeds_that_differ(made: list[tuple[str, int, str]]) -> None:
    cells = [
        control_cell(attack=attack, seed=seed, dtype=dtype, cell_id=f"{number:012x}")
        for number, (attack, seed, dtype) in enumerate(made)
    ]
    document = results().model_dump(mode="json") | {"cells": cells, "controls": {}}
    grid = build_grid([type(results()).model_validate(document)])
    shown = [seed.cell.cell_id for row in rows_of(grid) for seed in row.seeds]
    assert sorted(shown) == sorted(cell["cell_id"] for cell in cells)
    for row in rows_of(grid):
        assert len({seed.cell.seed for seed in row.seeds}) == len(row.seeds)
        assert {(seed.cell.attack, seed.cell.dtype) for seed in row.seeds} == {(row.attack, row.dtype)}
    assert len({name_row(row) + row.dtype for row in rows_of(grid)}) == len(rows_of(grid))


def test_two_evals_of_refusals_are_two_sections() -> None:
    cell = seed_cell(0)
    cell["measurements"] += [{**each, "eval": "harmbench_512"} for each in cell["measurements"][:4]]
    grid = build_grid([results(cell)])
    assert [section.eval for section in grid.sections] == ["harmbench_64", "harmbench_512"]
    assert count_cells(grid) == 1


def test_a_utility_of_two_evals_is_told_apart() -> None:
    cell = seed_cell(0)
    cell["measurements"] += [{**each, "eval": "more_benign"} for each in cell["measurements"][4:]]
    ((row,),) = (section.rows for section in build_grid([results(cell)]).sections)
    assert list(row.seeds[0].utility) == ["plain_benign utility/benign_answers", "more_benign utility/benign_answers"]


def test_a_quantised_copy_stands_below_its_attack_once() -> None:
    copies = [copy_of(0.95), copy_of(0.95), copy_of(0.9, "ef")]
    grid = build_grid([results(*(seed_cell(number, quantised=copy) for number, copy in enumerate(copies)))])
    attack, copy = rows_of(grid)
    assert (attack.is_untouched, copy.is_untouched, copy.attack) == (False, True, "lora_withheld")
    assert [seed.refusal.after.value for seed in copy.seeds] == [0.95, 0.9]  # type: ignore[union-attr]
    assert [seed.refusal.before.value for seed in copy.seeds] == [0.975, 0.975]  # type: ignore[union-attr]
    assert copy.seeds[0].utility["utility/benign_answers"].after.value == 0.85  # type: ignore[union-attr]
    assert copy.seeds[0].breaks.words == "-"
    assert not any(row.note for row in (attack, copy))


def test_a_cell_that_never_began_stands_with_its_seeds() -> None:
    cells = [never_began(seed=0), seed_cell(1)]
    plan = [plan_cell(cell, evals=EVALS) for cell in cells]
    grid = build_grid([results(*cells, plan={"cells": plan}, controls={})])
    assert seeds_of(grid) == [("lora_withheld", [0, 1])]
    assert [seed.breaks.words for seed in rows_of(grid)[0].seeds] == ["never began", "$0.00006-0.0006"]


def test_without_any_eval_of_refusals_a_cell_is_still_shown() -> None:
    (section,) = build_grid([results(never_began())]).sections
    assert (section.eval, section.role, section.variant, section.described) == ("-", "-", "-", "no eval of refusals")
    assert len(section.rows) == 1


def test_the_cheapest_break_is_the_minimum_over_attacks_and_seeds() -> None:
    cells = [
        seed_cell(0, broken_at=600),
        seed_cell(1, broken_at=1_200, attack="lora_identity"),
        seed_cell(2, broken_at=60, attack="lora_identity"),
        seed_cell(3, broken_at=60, attack="full", status="destructive"),
        seed_cell(4, 0.95, broken_at=None, attack="lora_benign"),
        seed_cell(5, broken_at=60, attack="control"),
    ]
    (section,) = build_grid([results(*cells, controls=control_of("c0ffee000005"))]).sections
    cheapest = find_cheapest(section)
    assert cheapest is not None
    assert (cheapest[0].attack, cheapest[1].cell.seed, cheapest[1].breaks.broken_micro_usd) == ("lora_identity", 2, 60)
    # Broken at the first mark, so it may have broken at once: 0 to 60. The control is no attack: 4 are left.
    assert describe_envelope(section) == "$0-0.00006 by lora_identity, seed 2; 2 of 4 attacks broke it"


def test_where_nothing_broke_the_envelope_names_what_was_spent() -> None:
    held = [seed_cell(0, 0.95, broken_at=None), seed_cell(1, 0.95, broken_at=None, attack="full")]
    unclear = seed_cell(2, 0.8, broken_at=None, verdict="inconclusive", attack="ablation")
    (section,) = build_grid([results(*held, unclear, controls={})]).sections
    assert find_cheapest(section) is None
    assert describe_envelope(section) == "not broken by 2 of 3 attacks, which spent $0.001200"
    (section,) = build_grid([results(unclear, controls={})]).sections
    assert describe_envelope(section) == "no cost: none of 1 attacks sets one"


def test_one_attack_counts_once_however_many_rows_it_has() -> None:
    copies = seed_cell(0, 0.95, broken_at=None, quantised=copy_of(0.9))
    other = seed_cell(1, 0.95, broken_at=None, dtype="bfloat16")
    (section,) = build_grid([results(copies, other, controls={})]).sections
    assert len(section.rows) == 3
    assert describe_envelope(section) == "not broken by 1 of 1 attacks, which spent $0.001200"


def test_an_empty_document_has_an_empty_grid() -> None:
    document = results().model_dump(mode="json") | {"cells": [], "controls": {}}
    grid = build_grid([type(results()).model_validate(document)])
    assert (grid.sections, count_cells(grid)) == ((), 0)
