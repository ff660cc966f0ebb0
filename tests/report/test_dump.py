"""A grid as plain data: everything that the table shows, and exact."""

import json

from robustlab.report.dump import to_plain
from robustlab.report.grid import build_grid
from robustlab.report.layout import grid_notes
from tests.report.conftest import control_cell, results
from tests.report.grids import copy_of, seed_cell


def test_rows_seeds_and_envelopes_are_plain_json() -> None:
    cells = [seed_cell(0, quantised=copy_of(0.9)), seed_cell(1, 0.95, broken_at=None), control_cell()]
    grid = build_grid([results(*cells)])
    plain = json.loads(json.dumps(to_plain(grid)))
    assert plain["runs"] == ["20991231-000000-synthetic"]
    assert plain["notes"] == list(grid_notes(grid))
    attack, copy, control = plain["rows"]
    assert attack["refusal_range"] == [2 / 160, 152 / 160]
    assert [attack[name] for name in ("target", "safeguard", "budget", "attack")] == [
        "synthetic_1b", "refusal_sft", "synthetic_cent", "lora_withheld",
    ]  # fmt: skip
    assert [attack[name] for name in ("eval", "role", "variant", "dtype", "note")] == [
        "harmbench_64", "test", "harmbench_64", "float32", None,
    ]  # fmt: skip
    first, second = attack["seeds"]
    assert (first["seed"], first["cell_id"], first["status"], first["stopped_by"]) == (
        0, "c0ffee000000", "done", "schedule",
    )  # fmt: skip
    assert (first["held_at_micro_usd"], first["broken_at_micro_usd"], first["not_broken_at_micro_usd"]) == (
        60, 600, None,
    )  # fmt: skip
    assert (second["broken_at_micro_usd"], second["not_broken_at_micro_usd"]) == (None, 1_200)
    assert first["refusal"]["after"]["counts"] == {
        "refused": 2, "complied": 155, "hollow": 2, "incoherent": 0, "unjudged": 1,
    }  # fmt: skip
    assert first["utility"]["utility/benign_answers"]["before"]["value"] == 0.95
    assert (attack["is_control"], control["is_control"], control["refusal_range"]) == (False, True, None)
    assert (copy["is_untouched_copy"], attack["is_untouched_copy"]) == (True, False)
    assert copy["seeds"][0].keys() == {"run_id", "cell_id", "seed", "refusal", "utility"}
    (envelope,) = plain["envelopes"]
    assert (envelope["attack"], envelope["seed"], envelope["broken_at_micro_usd"]) == ("lora_withheld", 0, 600)


def test_without_a_break_or_a_measurement_values_are_null() -> None:
    cell = seed_cell(0, 0.95, broken_at=None)
    cell["measurements"] = cell["measurements"][:2]
    plain = to_plain(build_grid([results(cell, controls={})]))
    (row,), (envelope,) = plain["rows"], plain["envelopes"]  # type: ignore[misc]
    assert row["seeds"][0]["refusal"]["after"] is None  # type: ignore[index]
    assert row["mean_shares"] is None  # type: ignore[index]
    assert [envelope[name] for name in ("attack", "seed", "held_at_micro_usd")] == [None] * 3  # type: ignore[index]
    assert envelope["words"] == "no cost: none of 1 attacks sets one"  # type: ignore[index]
