"""Plans are priced with what is on the machine: no network, no spending, and a refusal before the first step."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustlab.cost.estimate import require_fit
from robustlab.cost.hardware import Device, detect_cpu, find_hardware
from robustlab.cost.prices import PriceCard, load_price_card
from robustlab.engine import plan as plan_module
from robustlab.engine.plan import (
    BAND_COLUMNS,
    CAP_COLUMNS,
    _list_sources,
    describe_caps,
    describe_cell,
    describe_end,
    describe_memory,
    describe_purse,
    describe_run,
    resolve_offline,
)
from robustlab.engine.resolve import Resolution, resolve_plan
from robustlab.errors import CannotFit, ConfigError, DataError
from robustlab.models.tiny import build_tiny_tokenizer
from robustlab.spec.catalog import load, package_root
from robustlab.spec.plan import Plan, ResolvedPlan
from robustlab.train.counts import Counter

SMOKE = (package_root() / "budgets" / "smoke.yaml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a budget `tight` to be filled, and an empty cache."""
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "budgets").mkdir()
    return tmp_path


def make_plan(**changes: tuple[str, ...] | tuple[int, ...]) -> Plan:
    ids = {"targets": ("tiny",), "safeguards": ("none",), "attacks": ("lora_sft_smoke",), "budgets": ("smoke",)}
    return Plan.model_validate({"kind": "plan", "evals": ("smoke_refusal",), "seeds": (0,), **ids, **changes})


def resolve_plan_file(plan: Plan | ResolvedPlan, *, shadow_price: str | None = None) -> Resolution:
    return resolve_offline(plan, data_csv=None, shadow_price=shadow_price, card=load_price_card(None))


def resolve(shadow_price: str | None = None, /, **changes: tuple[str, ...] | tuple[int, ...]) -> Resolution:
    return resolve_plan_file(make_plan(**changes), shadow_price=shadow_price)


def pretend(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Let ``plan`` find another device."""
    monkeypatch.setattr(plan_module, "detect_devices", lambda: device)


def test_every_combination_is_a_cell_with_an_estimate(folder: Path) -> None:
    resolution = resolve(attacks=("control_smoke", "lora_sft_smoke"), seeds=(0, 1, 2))
    assert [cell.label for cell in resolution.plan.cells] == [
        f"tiny / none / {attack} / seed {seed}" for attack in ("control_smoke", "lora_sft_smoke") for seed in (0, 1, 2)
    ]
    assert {cell.cell_id for cell in resolution.plan.cells} == set(resolution.estimates)
    assert len(resolution.estimates) == 6


def test_a_schedule_is_fixed_before_the_first_step(folder: Path) -> None:
    (cell,) = resolve().plan.cells
    assert cell.schedule.steps == 10
    # Peak 1e-3 at step 1, then down in a line over the other steps.
    assert 0 < cell.schedule.learning_rates[0] <= cell.recipe.training.optimizer.learning_rate
    assert sorted(cell.schedule.learning_rates[1:], reverse=True) == list(cell.schedule.learning_rates[1:])
    assert all(1 <= mark < 10 for mark in cell.schedule.marks["smoke_refusal"])


def test_a_control_is_the_same_loop_at_rate_zero(folder: Path) -> None:
    control, attack = resolve(attacks=("control_smoke", "lora_sft_smoke")).plan.cells
    assert set(control.schedule.learning_rates) == {0.0}
    assert control.schedule.steps == attack.schedule.steps
    assert control.schedule.marks == attack.schedule.marks


def test_a_cap_cuts_the_schedule_and_is_named(folder: Path) -> None:
    (folder / "budgets" / "tight.yaml").write_text(SMOKE.replace("max_steps: 50", "max_steps: 3"))
    resolution = resolve(budgets=("tight",))
    (cell,) = resolution.plan.cells
    assert (cell.schedule.steps, cell.schedule.cut_by) == (3, "max_steps")
    estimate = resolution.estimates[cell.cell_id]
    assert describe_end(cell, estimate).startswith("may proceed; max_steps will end it; caps used: max_usd ")
    assert "max_steps 100%" in describe_end(cell, estimate)


def test_a_budget_below_one_step_is_refused(folder: Path) -> None:
    (folder / "budgets" / "tight.yaml").write_text(SMOKE.replace("max_train_tokens: 20000", "max_train_tokens: 1"))
    resolution = resolve(budgets=("tight",))
    (cell,) = resolution.plan.cells
    estimate = resolution.estimates[cell.cell_id]
    assert describe_end(cell, estimate).startswith("may not proceed: load, one step and the final evaluation need ")
    with pytest.raises(CannotFit) as caught:
        require_fit(estimate, cell.label)
    message = str(caught.value)
    assert message.startswith("tiny / none / lora_sft_smoke / seed 0: load, one step and the final evaluation need ")
    assert "of max_train_tokens, got 1; raise the cap" in message


def test_a_cell_is_described_with_its_units(folder: Path) -> None:
    resolution = resolve()
    rows = {name: rest for name, *rest in describe_cell(next(iter(resolution.estimates.values())))}
    assert list(rows) == [
        "attacker USD",
        "laboratory USD",
        "shared USD, once",
        "attacker time",
        "laboratory time",
        "of it the final evaluation",
        "start, safeguard and baseline, once",
        "steps",
        "train tokens",
        "memory",
    ]
    assert rows["steps"] == ["10", "10", "10"]
    assert all(value.startswith("$") for value in rows["attacker USD"])
    # Nearly all of it is what Python and its libraries hold.
    assert rows["memory"] == ["0.3 GB", "0.6 GB", "0.8 GB"]
    assert {len(row) for row in describe_cell(next(iter(resolution.estimates.values())))} == {len(BAND_COLUMNS)}


def test_a_resolved_plan_keeps_its_cells(folder: Path) -> None:
    resolution = resolve(seeds=(0, 1))
    again = resolve_plan_file(resolution.plan)
    assert again.plan == resolution.plan
    assert again.estimates.keys() == resolution.estimates.keys()


def test_a_resolved_plan_holds_its_price_card(folder: Path) -> None:
    other = resolve().plan.model_copy(update={"price_card_sha256": "0" * 64})
    with pytest.raises(ConfigError, match=r"^price card: is not the one of the plan, got .*; start a new run, or put"):
        resolve_plan_file(other)


def test_rows_that_were_never_fetched_are_asked_for(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        resolve(evals=("harmbench_64",))
    assert str(caught.value) == (
        "eval harmbench_64: its rows are not in the cache; run `robustlab fetch harmbench_64` first"
    )


def test_rows_that_are_made_need_no_fetching(folder: Path) -> None:
    evals = {name: load("evals", name) for name in ("instructions_60", "smoke_benign")}
    assert _list_sources(evals) == {"eval smoke_benign": evals["smoke_benign"].source}


def test_a_control_of_a_control_is_refused(folder: Path) -> None:
    (folder / "attacks").mkdir()
    (folder / "attacks" / "twice.yaml").write_text("kind: control\nsource: none\nrecipe: control_smoke\n")
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("twice",))
    assert str(caught.value) == (
        "attacks/twice.yaml: recipe: 'control_smoke' is a control itself; name the attack that is controlled"
    )


def test_every_cap_is_described_with_its_unit(folder: Path) -> None:
    (folder / "budgets" / "tight.yaml").write_text(
        SMOKE.replace("laboratory: null", "laboratory: {max_wall_hours: 1}").replace(
            "total_usd: null", "total_usd: 0.9"
        )
    )
    resolution = resolve(budgets=("tight",))
    (estimate,) = resolution.estimates.values()
    rows = {name: rest for name, *rest in describe_caps(estimate, resolution.run.purses["tight"])}
    assert list(rows) == [
        "max_usd", "max_wall_hours", "max_train_tokens", "max_steps", "laboratory.max_wall_hours", "total_usd"
    ]  # fmt: skip
    assert {len(rest) for rest in rows.values()} == {len(CAP_COLUMNS) - 1}
    assert rows["max_steps"] == ["50", "10", "10", "10", "10", "cannot bind: its schedule has 10 steps"]
    assert rows["max_train_tokens"][0] == "20,000"
    assert rows["max_wall_hours"][0] == "0.02 h"
    # 0.02 h x 0.0496 USD
    assert rows["max_usd"][-1].startswith(
        "cannot bind: 0.02 h at $0.0496 are $0.000992, its 10 steps are expected to use at most $0.000"
    )
    assert rows["laboratory.max_wall_hours"][-1].startswith(
        "not expected: its installations and measurements are expected to use at most "
    )
    assert rows["total_usd"][0] == "$0.900000"
    assert rows["total_usd"][-1].startswith(
        "not expected: attacker and laboratory together are expected to use at most $0.00"
    )


def test_a_purse_says_whose_it_is_and_what_nobody_has_checked(folder: Path) -> None:
    (smoke,) = resolve().plan.cells
    assert describe_purse(smoke) == smoke.budget.stands_for
    (folder / "budgets" / "tight.yaml").write_text(f"{SMOKE}details: unverified\n")
    (quoted,) = resolve(budgets=("tight",)).plan.cells
    assert describe_purse(quoted) == f"{smoke.budget.stands_for} (details: unverified)"


def test_the_bill_of_a_run_is_described(folder: Path) -> None:
    (folder / "budgets" / "tight.yaml").write_text(SMOKE.replace("max_steps: 50", "max_steps: 3"))
    whole = ["attacker USD", "laboratory USD", "total USD", "wall time"]
    one = resolve(attacks=("control_smoke", "lora_sft_smoke"))
    assert [row[0] for row in describe_run(one.run)] == whole
    two = resolve(budgets=("smoke", "tight"))
    assert [row[0] for row in describe_run(two.run)] == [
        *whole, *(f"smoke: {name}" for name in whole), *(f"tight: {name}" for name in whole)
    ]  # fmt: skip
    attackers = sum(estimate.attacker.usd.centre for estimate in one.estimates.values())
    assert one.run.attacker.usd.centre == pytest.approx(attackers)


def test_memory_is_held_against_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (estimate,) = resolve().estimates.values()
    assert describe_memory(estimate).endswith(": fits")
    low, high = estimate.memory_bytes.low, estimate.memory_bytes.high
    between = replace(estimate, device_memory_bytes=round((low + high) / 2))
    assert describe_memory(between).endswith(": may not fit")
    pretend(monkeypatch, Device("cpu", "small", 1000, 1))
    (small,) = resolve().estimates.values()
    assert describe_memory(small).endswith(" needed, the device has 0.0 MB: does not fit")
    assert small.refusal == "libraries, weights and what is trained need 0.3 GB of memory, got 1e-06 GB"


def test_a_plan_for_another_device_is_held_against_its_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Device("cpu", "small", 1000, 1))
    (there,) = resolve("h100_sxm").estimates.values()
    assert (there.device_memory_bytes, there.refusal) == (80_000_000_000, None)
    # Without the flag the laptop's own memory is what counts, whoever sells such a machine.
    (here,) = resolve("cpu_2vcpu_8gb").estimates.values()
    assert here.device_memory_bytes == 1000
    (estimate,) = resolve_plan_file(resolve("h100_sxm").plan).estimates.values()
    assert estimate.device_memory_bytes == 80_000_000_000


def test_every_visible_device_is_paid_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = SMOKE.replace("cpu_2vcpu_8gb", "h100_sxm").replace("total_usd: null", "total_usd: 5")
    (folder / "budgets" / "tight.yaml").write_text(budget.replace("max_usd: 0.002", "max_usd: 1"))
    memory = find_hardware("h100_sxm", "here").memory_bytes - 10**9
    one = Device("gpu", "NVIDIA H100 80GB HBM3", memory, None)
    pretend(monkeypatch, one)
    alone = resolve(budgets=("tight",))
    pretend(monkeypatch, replace(one, count=4))
    four = resolve(budgets=("tight",))
    assert (alone.plan.devices, four.plan.devices) == (1, 4)
    (first,), (second,) = alone.estimates.values(), four.estimates.values()
    assert first.device_memory_bytes == memory
    assert second.attacker.seconds == first.attacker.seconds
    assert second.attacker.usd.centre == pytest.approx(4 * first.attacker.usd.centre)
    again = resolve_plan_file(four.plan)
    assert next(iter(again.estimates.values())).attacker.usd == second.attacker.usd
    with pytest.raises(ConfigError) as caught:
        resolve_plan_file(alone.plan)
    assert str(caught.value) == (
        "plan.yaml: devices: is 1, got 4 that are visible; start a new run, or show as many with CUDA_VISIBLE_DEVICES"
    )


def test_cells_that_one_purse_cannot_hold_are_refused(folder: Path) -> None:
    (alone,) = resolve().estimates.values()
    # At best: what one cell needs of the laboratory, and half as much again.
    least = alone.laboratory.usd.low * 1.5
    (folder / "budgets" / "tight.yaml").write_text(
        SMOKE.replace("laboratory: null", f"laboratory: {{max_usd: {least}}}")
    )
    assert [e.refusal for e in resolve(budgets=("tight",)).estimates.values()] == [None]
    two = resolve(budgets=("tight",), seeds=(0, 1))
    cell = two.plan.cells[0]
    with pytest.raises(CannotFit) as caught:
        require_fit(two.estimates[cell.cell_id], cell.label)
    message = str(caught.value)
    assert message.startswith(
        "tiny / none / lora_sft_smoke / seed 0: load, one step and the final evaluation of all 2 cells of budget "
        "'tight' need at least "
    )
    assert " of laboratory.max_usd, got " in message
    assert message.endswith("; raise the cap, shorten the evaluation or choose a smaller target")
    assert describe_end(cell, two.estimates[cell.cell_id]).startswith("may not proceed: load, one step and the final ")


def test_a_safeguard_whose_rows_were_never_fetched_is_asked_for(folder: Path) -> None:
    message = "safeguard refusal_sft: its rows are not in the cache; run `robustlab fetch refusal_sft` first"
    with pytest.raises(DataError) as caught:
        resolve(safeguards=("refusal_sft",), evals=("smoke_benign",))
    assert str(caught.value) == message


def test_installing_a_safeguard_is_part_of_the_price(folder: Path) -> None:
    (folder / "safeguards").mkdir()
    text = (package_root() / "safeguards" / "refusal_sft.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("install:\n")
    (folder / "safeguards" / "mild.yaml").write_text(f"{head}install: null\n{rest[rest.index('install_repeats') :]}")
    plain, guarded = resolve(evals=("smoke_benign",)), resolve(safeguards=("mild",), evals=("smoke_benign",))
    (before,), (after,) = plain.estimates.values(), guarded.estimates.values()
    assert after.shared.seconds.low == before.shared.seconds.low
    # 65 steps of 0.06 s at least
    assert after.shared.seconds.centre > before.shared.seconds.centre + 3.9
    assert after.attacker == before.attacker


@pytest.mark.parametrize(("key", "problem"), [("gold", "is not a known device"), ("cpu_2vcpu_8gb", "has no price in ")])
def test_a_budget_without_a_price_is_told_by_file_and_line(folder: Path, key: str, problem: str) -> None:
    (folder / "budgets" / "tight.yaml").write_text(SMOKE.replace("cpu_2vcpu_8gb", key))
    line = 1 + next(n for n, text in enumerate(SMOKE.splitlines()) if text.startswith("hardware:"))
    card = load_price_card(None)
    devices = {name: price for name, price in card.prices.devices.items() if name != "cpu_2vcpu_8gb"}
    poor = PriceCard(card.prices.model_copy(update={"devices": devices}), card.path, card.sha256)
    with pytest.raises(ConfigError) as caught:
        resolve_offline(make_plan(budgets=("tight",)), data_csv=None, shadow_price=None, card=poor)
    assert str(caught.value).startswith(f"budgets/tight.yaml:{line}: ")
    assert problem in str(caught.value)


def write_attack(folder: Path, name: str, text: str) -> None:
    (folder / "attacks").mkdir(exist_ok=True)
    (folder / "attacks" / f"{name}.yaml").write_text(text, encoding="utf-8")


def attack_text(name: str) -> str:
    return (package_root() / "attacks" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "recipe", "told"),
    [
        (
            "control",
            "ablation_smoke",
            "recipe: 'ablation_smoke' has no learning rate that could be 0; name an attack that trains",
        ),
        (
            "benign_matched",
            "lora_dpo_smoke",
            "recipe: 'lora_dpo_smoke' does not train on single answers, got kind lora_dpo; "
            "name an attack of kind lora_sft or full_sft",
        ),
        (
            "benign_matched",
            "control_smoke",
            "recipe: 'control_smoke' is a control itself; name the attack that is controlled",
        ),
    ],
)
def test_a_control_names_what_it_can_control(folder: Path, kind: str, recipe: str, told: str) -> None:
    text = f"kind: {kind}\nsource: a test\nrecipe: {recipe}\n"
    write_attack(folder, "odd", text + ("benign_rows: 4\nbenign_new_tokens: 4\n" if kind != "control" else ""))
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("odd",))
    assert str(caught.value) == f"attacks/odd.yaml: {told}"


def test_benign_matched_runs_the_recipe_on_the_targets_own_answers(folder: Path) -> None:
    own, matched = (resolve(attacks=(name,)).plan.cells[0] for name in ("lora_sft_smoke", "benign_matched_smoke"))
    assert matched.attack.kind == "benign_matched"
    assert matched.recipe.model_dump(exclude={"data"}) == own.recipe.model_dump(exclude={"data"})
    assert matched.recipe.data.mode == "distilled"
    assert matched.schedule == own.schedule


def test_ranges_are_no_part_of_what_is_run(folder: Path) -> None:
    with_ranges = resolve().plan.cells[0]
    write_attack(folder, "lora_sft_smoke", attack_text("lora_sft_smoke").partition("ranges:")[0])
    assert resolve().plan.cells[0].cell_id == with_ranges.cell_id


def test_a_rank_that_the_target_cannot_have_is_told_by_file_and_line(folder: Path) -> None:
    text = attack_text("lora_sft_smoke").partition("ranges:")[0].replace("rank: 4", "rank: 33")
    write_attack(folder, "wide", text)
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("wide",))
    line = 1 + text[: text.index("rank: 33")].count("\n")
    assert str(caught.value) == (
        f"attacks/wide.yaml:{line}: training.lora.rank: is more than the 32 that k_proj can have, got 33; "
        "choose a lower rank or leave that matrix out"
    )


def test_full_training_needs_a_type_that_holds_small_steps(folder: Path) -> None:
    (folder / "targets").mkdir()
    tiny = (package_root() / "targets" / "tiny.yaml").read_text(encoding="utf-8")
    (folder / "targets" / "half.yaml").write_text(tiny.replace("dtype: float32", "dtype: bfloat16"), encoding="utf-8")
    with pytest.raises(ConfigError, match="full_sft trains weights in place, which loses most small steps in bfloat16"):
        resolve(targets=("half",), attacks=("full_sft_smoke",))
    assert resolve(targets=("half",)).plan.cells


def test_a_hub_set_that_was_never_fetched_is_asked_for(folder: Path) -> None:
    data = attack_text("identity_smoke").partition("data:")
    pins = f"revision: {'a' * 40}, sha256: {'b' * 64}, licence: MIT"
    source = f"{{kind: hub, dataset: a/b, config: null, split: train, {pins}}}"
    mode = f"data: {{mode: user, source: {source}, prompt_field: p, completion_field: c, rows: null}}\n"
    rest = data[2].partition("training:")
    write_attack(folder, "mine", data[0] + mode + rest[1] + rest[2])
    with pytest.raises(DataError) as caught:
        resolve(attacks=("mine",))
    assert str(caught.value) == "attack mine: its rows are not in the cache; run `robustlab fetch mine` first"


def test_rows_that_are_not_there_are_told_with_the_file_that_asks_for_them(folder: Path) -> None:
    write_attack(folder, "many", attack_text("identity_smoke").replace("rows: 10", "rows: 11", 1))
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("many",))
    assert str(caught.value) == "attacks/many.yaml: data.rows: asks for more than 10 rows, got 11; ask for fewer"


def test_a_control_of_nothing_is_told_with_its_file(folder: Path) -> None:
    write_attack(folder, "odd", "kind: control\nsource: a test\nrecipe: nothere\n")
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("odd",))
    assert str(caught.value).startswith("attacks/odd.yaml: recipe: 'nothere' is not in attacks/")


def test_an_adapter_that_a_safeguards_target_cannot_have_is_told_with_its_file(folder: Path) -> None:
    (folder / "safeguards").mkdir()
    text = (package_root() / "safeguards" / "deep_refusal_smoke.yaml").read_text(encoding="utf-8")
    rank = re.sub(r"rank: \d+", "rank: 33", text)
    (folder / "safeguards" / "wide.yaml").write_text(rank, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^safeguards/wide\.yaml: lora\.rank: is more than the 32 that k_proj"):
        resolve(safeguards=("wide",), evals=("smoke_benign",))


def test_a_row_that_is_too_long_is_refused_before_anything_is_spent(folder: Path) -> None:
    def count_exactly(name: str, target: Any) -> Counter:
        return Counter(target, build_tiny_tokenizer(), folder)

    write_attack(folder, "short", attack_text("identity_smoke").replace("max_tokens: 1024", "max_tokens: 20"))
    options: dict[str, Any] = {"card": load_price_card(None), "device": detect_cpu(), "data_csv": None}
    with pytest.raises(
        ConfigError, match=r"^attacks/short\.yaml:\d+: training\.max_tokens: is less than the \d+ tokens"
    ):
        resolve_plan(make_plan(attacks=("short",)), counter_of=count_exactly, shadow_price=None, **options)


def test_a_resolved_plan_without_cells_is_refused(folder: Path) -> None:
    plain = resolve().plan.model_dump(mode="json")
    with pytest.raises(ValueError, match="cells: must hold at least one, got none"):
        ResolvedPlan.model_validate_json(json.dumps({**plain, "cells": []}))
