"""Plans are priced with what is on the machine: no network, no spending, and a refusal before the first step."""

from pathlib import Path

import pytest

from robustlab.cost.estimate import require_fit
from robustlab.engine.plan import describe_cell, describe_end, resolve_offline
from robustlab.engine.resolve import Resolution
from robustlab.errors import CannotFit, ConfigError, DataError
from robustlab.spec.catalog import package_root
from robustlab.spec.plan import Plan

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


def resolve(**changes: tuple[str, ...] | tuple[int, ...]) -> Resolution:
    return resolve_offline(make_plan(**changes), data_csv=None, shadow_price=None)


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


def test_a_budget_without_caps_has_none_to_show(folder: Path) -> None:
    head, _, _ = SMOKE.partition("attacker:")
    (folder / "budgets" / "tight.yaml").write_text(f"{head}attacker: {{}}\nlaboratory: null\ntotal_usd: null\n")
    resolution = resolve(budgets=("tight",))
    (cell,) = resolution.plan.cells
    ending = describe_end(cell, resolution.estimates[cell.cell_id])
    assert ending == "may proceed; its 10 steps will end it; caps used: there are none"


def test_a_cell_is_described_with_its_units(folder: Path) -> None:
    resolution = resolve()
    rows = {name: rest for name, *rest in describe_cell(next(iter(resolution.estimates.values())))}
    assert list(rows) == [
        "attacker USD",
        "laboratory USD",
        "attacker time",
        "laboratory time",
        "start and baseline, once",
        "steps",
        "train tokens",
        "memory",
    ]
    assert rows["steps"] == ["10", "10", "10"]
    assert all(value.startswith("$") for value in rows["attacker USD"])
    assert all(value.endswith(" GB") for value in rows["memory"])


def test_a_resolved_plan_keeps_its_cells(folder: Path) -> None:
    resolution = resolve(seeds=(0, 1))
    again = resolve_offline(resolution.plan, data_csv=None, shadow_price=None)
    assert again.plan == resolution.plan
    assert again.estimates.keys() == resolution.estimates.keys()


def test_a_resolved_plan_holds_its_price_card(folder: Path) -> None:
    other = resolve().plan.model_copy(update={"price_card_sha256": "0" * 64})
    with pytest.raises(ConfigError, match=r"^price card: is not the one of the plan, got .*; start a new run, or put"):
        resolve_offline(other, data_csv=None, shadow_price=None)


def test_rows_that_were_never_fetched_are_asked_for(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        resolve(evals=("harmbench_64",))
    assert str(caught.value) == (
        "eval harmbench_64: its rows are not in the cache; run `robustlab fetch harmbench_64` first"
    )


def test_a_control_of_a_control_is_refused(folder: Path) -> None:
    (folder / "attacks").mkdir()
    (folder / "attacks" / "twice.yaml").write_text("kind: control\nsource: none\nrecipe: control_smoke\n")
    with pytest.raises(ConfigError) as caught:
        resolve(attacks=("twice",))
    assert str(caught.value) == (
        "attacks/twice.yaml: recipe: 'control_smoke' is a control itself; name the attack that is controlled"
    )
