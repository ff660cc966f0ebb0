"""From ids to pinned cells with a schedule and an estimate each, before anything is spent. Loads no torch.

Lengths come from the counter that the caller hands in: exact where a tokenizer or the cache has counted, else a rule of
thumb that the resolution marks as such.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from robustlab.cost.bill import PricedCell, RunEstimate, estimate_run, refuse_together
from robustlab.cost.caps import check_bill_is_capped
from robustlab.cost.estimate import Estimate, estimate_cell
from robustlab.cost.flops import count_adapter_parameters
from robustlab.cost.hardware import Device, Hardware, check_hardware, find_hardware, match_device
from robustlab.cost.job import Job, SafeguardWork, TokenCounts
from robustlab.cost.prices import PriceCard
from robustlab.cost.recipes import count_trainable
from robustlab.cost.schedule import plan_schedule
from robustlab.data.lm_tasks import require_lm_eval
from robustlab.data.overlap import refuse_overlap
from robustlab.data.rows import EvalRow, load_eval_rows
from robustlab.engine.weights import refuse_what_needs_weights
from robustlab.errors import ConfigError, InvalidFile
from robustlab.spec.attacks import (
    Ablation,
    Attack,
    BenignMatched,
    Control,
    DistilledData,
    FullSft,
    LoraDpo,
    LoraSft,
    TrainedAttack,
    Untouched,
    UserData,
)
from robustlab.spec.catalog import Kind, load, locate
from robustlab.spec.evals import Eval
from robustlab.spec.plan import Cell, Plan, ResolvedPlan
from robustlab.spec.safeguards import Safeguard
from robustlab.spec.sources import HubSource, JsonlSource
from robustlab.spec.targets import OpenAiTarget, Target
from robustlab.tamper.control import silence
from robustlab.train.counts import Counter

CounterOf = Callable[[str, Target], Counter]


@dataclass(frozen=True)
class Resolution:
    """A plan that is ready to run.

    Attributes:
        plan: Every cell, pinned.
        estimates: Estimate of each cell, by its id; refused where its purse cannot hold all of its cells.
        run: Estimate of the whole run.
        rows: Rows of each eval, by its id.
        exact: Whether all lengths were counted; False when a rule of thumb stood in.
    """

    plan: ResolvedPlan
    estimates: Mapping[str, Estimate]
    run: RunEstimate
    rows: Mapping[str, Sequence[EvalRow]]
    exact: bool


def resolve_plan(
    plan: Plan,
    *,
    card: PriceCard,
    device: Device,
    counter_of: CounterOf,
    data_csv: Path | None,
    shadow_price: str | None,
) -> Resolution:
    """Pin every cell of a plan and fix its schedule.

    Args:
        plan: Ids.
        card: The price card.
        device: The device that was found.
        counter_of: Makes the counter of a target.
        data_csv: File that ``--data`` named; None for none.
        shadow_price: Item of the card that the user wants to be billed by; None for the budget's own.

    Returns:
        Cells in the order in which they run, those of one released target and budget together, with rows and estimates.

    Raises:
        ConfigError: If an id does not exist, a file is not valid, a budget does not fit the device, or an eval has no
            rows left.
        DataError: If an eval's rows cannot be had or are not what was pinned.
    """
    evals: dict[str, Eval] = {name: load("evals", name) for name in plan.evals}
    require_lm_eval(evals)
    rows = {name: load_eval_rows(spec, data_csv=data_csv) for name, spec in evals.items()}
    bench = _Bench(card, device, shadow_price, evals, rows)
    counters = {name: counter_of(name, load("targets", name)) for name in plan.targets}
    priced: list[PricedCell] = []
    for target_id, safeguard_id, budget_id in product(plan.targets, plan.safeguards, plan.budgets):
        for attack_id, seed in product(plan.attacks, plan.seeds):
            names = _Names(target_id, safeguard_id, attack_id, budget_id)
            priced.append(bench.pin(names, seed, counters[target_id]))
    resolved = ResolvedPlan(
        kind="resolved_plan",
        hardware=bench.hardware_of(plan.budgets[0]),
        devices=device.count,
        price_card_sha256=card.sha256,
        shadow_price=shadow_price,
        data_csv=str(data_csv.resolve()) if data_csv else None,
        cells=tuple(each.cell for each in priced),
    )
    return _resolution(resolved, priced, rows, counters)


def reopen_plan(plan: ResolvedPlan, *, card: PriceCard, device: Device, counter_of: CounterOf) -> Resolution:
    """Take a resolved plan as it is: same cells, same schedules; rows and estimates are found again.

    Args:
        plan: What a run wrote as ``plan.yaml``.
        card: The price card; it must be the one that the plan names.
        device: The device that was found.
        counter_of: Makes the counter of a target.

    Returns:
        The plan unchanged, with its rows and estimates.

    Raises:
        ConfigError: If the price card or the number of devices has changed, or a file is missing.
        DataError: If an eval's rows cannot be had or are not what was pinned.
    """
    if card.sha256 != plan.price_card_sha256:
        problem = f"is not the one of the plan, got {card.sha256[:12]}, the plan names {plan.price_card_sha256[:12]}"
        raise ConfigError("price card", problem, "start a new run, or put the old card back")
    if device.count != plan.devices:
        problem = f"devices: is {plan.devices}, got {device.count} that are visible"
        raise ConfigError("plan.yaml", problem, "start a new run, or show as many with CUDA_VISIBLE_DEVICES")
    data_csv = Path(plan.data_csv) if plan.data_csv else None
    specs = {name: spec for cell in plan.cells for name, spec in cell.evals.items()}
    require_lm_eval(specs)
    rows = {name: load_eval_rows(spec, data_csv=data_csv) for name, spec in specs.items()}
    counters = {cell.target_id: counter_of(cell.target_id, cell.target) for cell in plan.cells}
    for cell in plan.cells:
        where = f"plan.yaml, budget {cell.budget_id}"
        check_bill_is_capped(cell.budget, on_cpu=device.kind == "cpu", where=where)
        check_hardware(cell.budget.hardware, device, shadow_price=plan.shadow_price, card=card, where=where)
    rate, hardware = card.device_rate(plan.hardware, "plan.yaml"), find_hardware(plan.hardware, "plan.yaml")
    memory, priced = _memory_of(plan.hardware, hardware, device), []
    for cell in plan.cells:
        counter = counters[cell.target_id]
        counts = counter.count(cell.recipe, {name: rows[name] for name in cell.evals})
        work = counter.count_safeguard(cell.safeguard)
        job = Job(cell.target, cell.recipe, cell.budget, cell.evals, counts, hardware, rate, plan.devices, work)
        priced.append(PricedCell(cell, job, estimate_cell(job, cell.schedule, memory_bytes=memory)))
    return _resolution(plan, priced, rows, counters)


def find_recipe(attack_id: str, attack: Attack) -> TrainedAttack:
    """What an attack runs: itself, or for a control the recipe that it names, silenced or on benign answers.

    Args:
        attack_id: Names the file at fault in the message.
        attack: Spec of the attack or control.

    Returns:
        A recipe without ranges; of a ``control``, one whose learning rate is 0.

    Raises:
        ConfigError: If a control names something that is no training recipe.
    """
    if not isinstance(attack, Control | BenignMatched):
        return fix_recipe(attack)
    where = f"attacks/{attack_id}.yaml"
    try:
        recipe = load("attacks", attack.recipe)
    except InvalidFile:
        raise
    except ConfigError as error:
        raise ConfigError(f"{where}: recipe", f"{attack.recipe!r} {error.problem}", error.remedy) from None
    if isinstance(recipe, Control | BenignMatched):
        raise ConfigError(where, f"recipe: {attack.recipe!r} is a control itself", "name the attack that is controlled")
    if isinstance(attack, Control):
        silenced = silence(fix_recipe(recipe))
        if silenced is None:
            problem = f"recipe: {attack.recipe!r} has no learning rate that could be 0"
            raise ConfigError(where, problem, "name an attack that trains")
        return silenced
    if isinstance(recipe, LoraDpo | Ablation | Untouched):
        problem = f"recipe: {attack.recipe!r} does not train on single answers, got kind {recipe.kind}"
        raise ConfigError(where, problem, "name an attack of kind lora_sft or full_sft")
    data = DistilledData(mode="distilled", rows=attack.benign_rows, benign_new_tokens=attack.benign_new_tokens)
    return fix_recipe(recipe.model_copy(update={"data": data}))


def find_user_source(recipe: TrainedAttack) -> HubSource | JsonlSource | None:
    """Where the user's own set lies that a recipe trains on; None for the built-in ones."""
    if isinstance(recipe, Ablation | Untouched) or not isinstance(recipe.data, UserData):
        return None
    return recipe.data.source


def fix_recipe(recipe: TrainedAttack) -> TrainedAttack:
    """The recipe without the ranges over which a search may vary it: they are no part of what is run."""
    return recipe if isinstance(recipe, Ablation | Untouched) else recipe.model_copy(update={"ranges": None})


@dataclass(frozen=True)
class _Names:
    """Ids of one cell."""

    target: str
    safeguard: str
    attack: str
    budget: str


@dataclass(frozen=True)
class _Bench:
    """What all cells of one plan share while they are pinned."""

    card: PriceCard
    device: Device
    shadow_price: str | None
    evals: Mapping[str, Eval]
    rows: Mapping[str, Sequence[EvalRow]]
    # Cells share files: each is read once.
    read: Callable[[Kind, str], Any] = field(default_factory=lambda: cache(load))
    locate: Callable[..., str] = field(default_factory=lambda: cache(locate))

    def hardware_of(self, budget_id: str) -> str:
        """Item of the price card by which a budget's cells are billed."""
        budget, where = self.read("budgets", budget_id), self.locate("budgets", budget_id)
        check_bill_is_capped(budget, on_cpu=self.device.kind == "cpu", where=where)
        where = self.locate("budgets", budget_id, "hardware")
        return check_hardware(budget.hardware, self.device, shadow_price=self.shadow_price, card=self.card, where=where)

    def check_adapter(self, names: _Names, recipe: TrainedAttack) -> None:
        """Refuse what the target cannot be trained with, and say in which file it stands."""
        target: Target = self.read("targets", names.target)
        if isinstance(recipe, FullSft) and target.dtype != "float32":
            problem = f"kind: full_sft trains weights in place, which loses most small steps in {target.dtype}"
            raise ConfigError(self.locate("attacks", names.attack), problem, "choose a float32 target or a LoRA recipe")
        try:
            count_trainable(target.shape, recipe)
        except ConfigError as error:
            line = self.locate("attacks", names.attack, "training", *error.where.split("."))
            raise ConfigError(f"{line}: training.{error.where}", error.problem, error.remedy) from None

    def count(self, names: _Names, recipe: TrainedAttack, counter: Counter) -> TokenCounts:
        """Lengths of all that a cell reads; what its data lack is told with the file that asks for it."""
        try:
            counts = counter.count(recipe, self.rows)
        except ConfigError as error:
            raise ConfigError(f"attacks/{names.attack}.yaml: {error.where}", error.problem, error.remedy) from None
        if (
            isinstance(recipe, LoraSft | FullSft)
            and counter.exact
            and max(counts.short_rows) > recipe.training.max_tokens
        ):
            longest, line = max(counts.short_rows), self.locate("attacks", names.attack, "training", "max_tokens")
            problem = f"is less than the {longest} tokens of its longest row, got {recipe.training.max_tokens}"
            raise ConfigError(f"{line}: training.max_tokens", problem, "raise it, or shorten the row")
        return counts

    def count_safeguard(self, names: _Names, safeguard: Safeguard, counter: Counter) -> SafeguardWork | None:
        """What installing a safeguard takes, its file told where there are not enough rows or too wide an adapter."""
        try:
            work = counter.count_safeguard(safeguard)
            if work is not None:
                count_adapter_parameters(self.read("targets", names.target).shape, work.training.lora)
        except ConfigError as error:
            where = f"safeguards/{names.safeguard}.yaml: {error.where}"
            raise ConfigError(where, error.problem, error.remedy) from None
        return work

    def pin(self, names: _Names, seed: int, counter: Counter) -> PricedCell:
        """Make one cell and its estimate."""
        listed: Attack = self.read("attacks", names.attack)
        attack = listed if isinstance(listed, Control | BenignMatched) else fix_recipe(listed)
        safeguard: Safeguard = self.read("safeguards", names.safeguard)
        recipe = find_recipe(names.attack, listed)
        key, where = self.hardware_of(names.budget), self.locate("budgets", names.budget, "hardware")
        target: Target = self.read("targets", names.target)
        if isinstance(target, OpenAiTarget):
            refuse_what_needs_weights(
                self.locate("targets", names.target), (names.safeguard, safeguard), (names.attack, recipe), self.evals
            )
        self.check_adapter(names, recipe)
        counts = self.count(names, recipe, counter)
        refuse_overlap(names.safeguard, safeguard, names.attack, recipe, self.rows)
        job = Job(
            target=target,
            recipe=recipe,
            budget=self.read("budgets", names.budget),
            evals=self.evals,
            counts=counts,
            hardware=find_hardware(key, where),
            usd_per_device_hour=self.card.device_rate(key, where),
            devices=self.device.count,
            safeguard=self.count_safeguard(names, safeguard, counter),
        )
        schedule = plan_schedule(job)
        cell = Cell(
            target_id=names.target,
            target=job.target,
            safeguard_id=names.safeguard,
            safeguard=safeguard,
            attack_id=names.attack,
            attack=attack,
            recipe=recipe,
            budget_id=names.budget,
            budget=job.budget,
            evals=dict(self.evals),
            seed=seed,
            schedule=schedule,
        )
        memory = _memory_of(key, job.hardware, self.device)
        return PricedCell(cell, job, estimate_cell(job, schedule, memory_bytes=memory))


def _memory_of(key: str, hardware: Hardware, device: Device) -> int:
    """Memory of the device that was found, or of the one that the plan is made for where that is another."""
    same = hardware.kind == device.kind and (device.kind == "cpu" or match_device(device.name) == key)
    return device.memory_bytes if same else hardware.memory_bytes


def _resolution(
    plan: ResolvedPlan,
    priced: Sequence[PricedCell],
    rows: Mapping[str, Sequence[EvalRow]],
    counters: Mapping[str, Counter],
) -> Resolution:
    run = estimate_run(priced)
    exact = all(counter.exact for counter in counters.values())
    return Resolution(plan, refuse_together(priced, run), run, rows, exact)
