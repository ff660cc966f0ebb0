"""What a reconciliation found, as tables and lines for a terminal and as plain data.

Everything that is said is marked as measured in the run or as assumed of somebody else's target. This module computes
nothing and prints nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from robustlab.cost.purchases import lora_flops, trainer_overcount
from robustlab.cost.quantities import Quantities
from robustlab.cost.reconcile import Factor, Reckoning, Rig, Route, Spread, Swing
from robustlab.cost.references import ProjectedTarget, Reference
from robustlab.report.wording import format_percent
from robustlab.units import NS_PER_SECOND, format_count, format_flops, format_usd, usd_to_micro

_ENDS = ("Low", "Centre", "High")


@dataclass(frozen=True)
class AccountReckoning:
    """The estimates of what one account used.

    Attributes:
        label: Whose account: a cell's attacker, or the laboratory over the whole run.
        cell_id: The cell; None for the laboratory.
        rig: The device that did the work, as billed.
        total: Everything that was billed.
        training: The part of it in phases that trained.
        reckonings: A, then B where a reference names prices per token, then C where a peak is known.
        mfu: MFU that the training reached; None without training or peak.
        matmul_parameters: N of the target that was trained; None for the laboratory, which may have trained several.
    """

    label: str
    cell_id: str | None
    rig: Rig
    total: Quantities
    training: Quantities
    reckonings: tuple[Reckoning, ...]
    mfu: float | None
    matmul_parameters: int | None


@dataclass(frozen=True)
class BreakReading:
    """When one cell's refusals broke on one eval.

    Attributes:
        cell_id: The cell.
        seed: Its seed.
        outcome: The verdict of refusal at the end, in words.
        tokens_to_break: Train tokens at the first mark from which refusal stayed broken; None when it has no such mark.
        tokens_used: Train tokens of the whole trajectory.
    """

    cell_id: str
    seed: int
    outcome: str
    tokens_to_break: int | None
    tokens_used: int


@dataclass(frozen=True)
class Projection:
    """All seeds of one attack on one eval, and what their tokens would cost at the published target.

    Attributes:
        label: Target, safeguard, attack and budget.
        eval: The eval of refusals.
        readings: One for each seed.
        tokens: Tokens to break over the seeds that broke; None when none did.
        reckonings: By B and by C; empty when nothing broke or no reference was named.
    """

    label: str
    eval: str
    readings: tuple[BreakReading, ...]
    tokens: Factor | None
    reckonings: tuple[Reckoning, ...]


@dataclass(frozen=True)
class Purchase:
    """What the published purse buys by one route.

    Attributes:
        route: By which estimate.
        item: Item of the price card, with the number of devices or the assumptions.
        rate: Its price.
        buys: What is had for it.
    """

    route: Route
    item: str
    rate: str
    buys: str


@dataclass(frozen=True)
class Reconciliation:
    """A finished run, held against three estimates and a published attack.

    Attributes:
        run_id: The run.
        card: The price card, as people should name it.
        shadow_price: Item that the user had the run billed by instead of its own device; None for none.
        attackers: One for each cell that attacks.
        laboratory: The laboratory's account over the whole run; None when it was billed nothing.
        projections: One for each attack and eval of refusals.
        reference_id: The published attack; None when none was named.
        reference: What is published of it.
        purchases: What its purse buys.
    """

    run_id: str
    card: str
    shadow_price: str | None
    attackers: tuple[AccountReckoning, ...]
    laboratory: AccountReckoning | None
    projections: tuple[Projection, ...]
    reference_id: str | None
    reference: Reference | None
    purchases: tuple[Purchase, ...]


@dataclass(frozen=True)
class Section:
    """A part of the description: a table, empty where there is none, and lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]


def describe(found: Reconciliation) -> list[Section]:
    """Put a reconciliation into tables and lines.

    Args:
        found: The reconciliation.

    Returns:
        Sections in the order in which they are read: the accounts, what broke when, what the published purse buys, the
        projection, and what is claimed elsewhere. A section without rows is its title and its lines.
    """
    accounts = [*found.attackers, *([found.laboratory] if found.laboratory else [])]
    sections = [_account_section(account, found) for account in accounts]
    sections += [_break_section(projection) for projection in found.projections]
    reference = found.reference
    if found.reference_id is None or reference is None or reference.projection is None:
        return [*sections, _basis_section(found, None)]
    sections.append(_purchase_section(found, reference, reference.projection))
    sections += [_projection_section(each, reference.projection) for each in found.projections if each.reckonings]
    return [*sections, _basis_section(found, reference)]


def to_dict(found: Reconciliation) -> dict[str, object]:
    """A reconciliation as JSON can hold it.

    Args:
        found: The reconciliation.

    Returns:
        Plain values; money in US dollars, as floats, each band as ``low``, ``centre`` and ``high``.
    """
    accounts = {
        "attackers": [_account_dict(account) for account in found.attackers],
        "laboratory": None if found.laboratory is None else _account_dict(found.laboratory),
    }
    reference = None if found.reference is None else found.reference.model_dump(mode="json")
    return {
        "run_id": found.run_id,
        "prices": found.card,
        "shadow_price": found.shadow_price,
        **accounts,
        "projections": [_projection_dict(each) for each in found.projections],
        "reference_id": found.reference_id,
        "reference": reference,
        "purchases": [vars(each) for each in found.purchases],
    }


def _account_section(account: AccountReckoning, found: Reconciliation) -> Section:
    rows = [row for each in account.reckonings for row in _reckoning_rows(each, _arithmetic(each, account))]
    columns = ("Estimate", *_ENDS, "Depends on")
    return Section(account.label, columns, tuple(rows), tuple(_account_lines(account, found)))


def _account_lines(account: AccountReckoning, found: Reconciliation) -> Iterator[str]:
    rig, training = account.rig, account.training
    if account.mfu is not None and rig.peak_flops is not None:
        reached = f"{format_flops(training.flops)} of training / ({training.device_ns / NS_PER_SECOND:,.1f} device-s x "
        yield f"implied MFU {_share(account.mfu)}: {reached}{_peak(rig)})"
    if training.train_tokens and account.matmul_parameters is not None:
        per_token = format_flops(round(training.flops / training.train_tokens))
        by_shape = format_flops(lora_flops(account.matmul_parameters))
        yield f"{per_token} per train token as recorded; 4N = {by_shape}, the rest is attention and adapter"
    if rig.peak_flops is None:
        yield f"no estimate C: no {rig.dtype} peak of {rig.key} is known, or the cells differ in element type"
    if found.reference is None:
        yield "no estimate B: a token of this target has no price; --reference names one's"
    if found.shadow_price is not None:
        yield f"billed by --shadow-price {found.shadow_price}: rate, peak and MFU are that device's, the time is not"


def _reckoning_rows(reckoning: Reckoning, arithmetic: str) -> Iterator[tuple[str, ...]]:
    usd = reckoning.usd
    yield (reckoning.route, _usd(usd.low), _usd(usd.centre), _usd(usd.high), arithmetic)
    for swing in reckoning.swings:
        yield _swing_row(swing)


def _swing_row(swing: Swing) -> tuple[str, ...]:
    factor, spread = swing.factor, swing.factor.spread
    ends = (spread.centre,) if spread.is_point else tuple(dict.fromkeys((spread.low, spread.centre, spread.high)))
    values = " to ".join(_value(factor, end) for end in ends)
    at_low, at_high = ("-", "-") if spread.is_point else (_usd(swing.at_low), _usd(swing.at_high))
    return (f"  {factor.name} alone", at_low, "", at_high, f"{values} ({factor.basis}: {factor.source})")


def _arithmetic(reckoning: Reckoning, account: AccountReckoning) -> str:
    total, rig = account.total, account.rig
    rate = f"{_rate(rig.rate.spread.centre)} an hour"
    match reckoning.route:
        case "A device-billed":
            return f"{total.device_ns / NS_PER_SECOND:,.1f} device-s x {rate}"
        case "B token-billed":
            counts = (total.train_tokens, total.prompt_tokens, total.generated_tokens)
            return "{} train, {} prompt and {} generated tokens x their rates".format(*map(format_count, counts))
        case "C FLOP-derived":
            return f"{format_flops(total.flops)} / ({_share(rig.utilisation.spread.centre)} of {_peak(rig)}) x {rate}"


def _break_section(projection: Projection) -> Section:
    rows = tuple(
        (
            str(reading.seed),
            reading.outcome,
            "-" if reading.tokens_to_break is None else format_count(reading.tokens_to_break),
            format_count(reading.tokens_used),
        )
        for reading in projection.readings
    )
    columns = ("Seed", "Refusal", "Train tokens to break", "Train tokens used")
    title = f"Tokens to break, measured: {projection.label} on {projection.eval}"
    return Section(title, columns, rows, tuple(_break_lines(projection)))


def _break_lines(projection: Projection) -> Iterator[str]:
    held = [reading.tokens_used for reading in projection.readings if reading.tokens_to_break is None]
    if projection.tokens is None:
        most = format_count(max(held))
        yield f"nothing broke at a price: a lower bound, {most} train tokens were not enough; no break is projected"
        return
    if held:
        others = f"the others used up to {format_count(max(held))} tokens"
        yield f"{projection.tokens.source}: the band is of those, {others}"
    yield "exact, from the ledger: tokens of the steps up to the first mark from which refusal stayed broken"


def _purchase_section(found: Reconciliation, reference: Reference, target: ProjectedTarget) -> Section:
    rows = tuple((each.route, each.item, each.rate, each.buys) for each in found.purchases)
    title = f"What {reference.cost.text.removeprefix('< ')} and {reference.cost.hours:g} h buy, all of it assumed"
    lora = f"{lora_flops(target.active_parameters):.3g} FLOP a token ({target.active_parameters:.3g} active parameters)"
    times = float(trainer_overcount(target.parameters, target.active_parameters))
    lines = (
        f"C takes 4N for LoRA on {target.target}: {lora}, without attention",
        f"a trainer's total_flos, 6 x all {target.parameters:.3g} parameters, would be {times:.0f} times too high",
    )
    return Section(title, ("Route", "Item", "Rate", "Buys"), rows, lines)


def _projection_section(projection: Projection, target: ProjectedTarget) -> Section:
    rows = []
    for each in projection.reckonings:
        centre = each.swings[0].factor.spread.centre
        arithmetic = f"{format_count(round(centre))} tokens (measured) x $ per token of {target.target} (assumed)"
        rows += list(_reckoning_rows(each, arithmetic))
    title = f"Projection, not measurement: {projection.label} on {projection.eval} -> {target.target}"
    line = (
        f"assumed too: that {target.target} breaks after as many tokens; train tokens only, no load and no failed try"
    )
    return Section(title, ("Route", *_ENDS, "Depends on"), tuple(rows), (line,))


def _basis_section(found: Reconciliation, reference: Reference | None) -> Section:
    lines = [
        f"run {found.run_id}, {found.card}",
        "measured: device time, tokens, idle share, tokens to break; FLOPs by the project's own formulas",
        "assumed: every price, every MFU but the implied one, and all that is said of another target",
    ]
    if reference is not None:
        lines += [
            f"{found.reference_id}: {reference.claim} ({reference.source})",
            f"details {reference.details}" + (f": {reference.unverified}" if reference.unverified else ""),
        ]
    if reference is not None and reference.effect is not None:
        rate = f"{100 * reference.effect.refusal_after:g} %"
        lines.append(f"the {rate} is a claim about refusals, not about harmfulness and not an attack success rate")
    return Section("What this rests on", (), (), tuple(lines))


def _account_dict(account: AccountReckoning) -> dict[str, object]:
    return {
        "label": account.label,
        "cell_id": account.cell_id,
        "hardware": account.rig.key,
        "quantities": account.total.to_dict(),
        "estimates": [_reckoning_dict(each) for each in account.reckonings],
        "implied_mfu": account.mfu,
    }


def _projection_dict(projection: Projection) -> dict[str, object]:
    return {
        "label": projection.label,
        "eval": projection.eval,
        "seeds": [vars(reading) for reading in projection.readings],
        "tokens_to_break": None if projection.tokens is None else _spread_dict(projection.tokens.spread),
        "kind": "projection, not measurement",
        "estimates": [_reckoning_dict(each) for each in projection.reckonings],
    }


def _reckoning_dict(reckoning: Reckoning) -> dict[str, object]:
    swings = [
        {
            "factor": swing.factor.name,
            "unit": swing.factor.unit,
            "basis": swing.factor.basis,
            "source": swing.factor.source,
            "values": _spread_dict(swing.factor.spread),
            "usd_at_low": float(swing.at_low),
            "usd_at_high": float(swing.at_high),
        }
        for swing in reckoning.swings
    ]
    return {"route": reckoning.route, "usd": _spread_dict(reckoning.usd), "sensitivity": swings}


def _spread_dict(spread: Spread) -> dict[str, float]:
    return {"low": float(spread.low), "centre": float(spread.centre), "high": float(spread.high)}


def _value(factor: Factor, value: Fraction) -> str:
    match factor.unit:
        case "usd_per_hour":
            return f"{_rate(value)}/h"
        case "usd_per_million_tokens":
            return f"{_rate(value)}/M"
        case "share":
            return _share(value)
        case "tokens":
            return format_count(round(value))


def _peak(rig: Rig) -> str:
    return f"{format_flops(rig.peak_flops or 0)}/s {rig.dtype} peak of {rig.key}"


def _usd(usd: Fraction) -> str:
    return format_usd(usd_to_micro(usd))


def _rate(usd: Fraction) -> str:
    return f"${float(usd):,.2f}" if usd >= 1 else f"${float(usd):.3g}"


def _share(share: Fraction | float) -> str:
    return f"{format_percent(float(share))} %"
