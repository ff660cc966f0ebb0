"""Two or more runs side by side: the same cells, property by property, tested on the same rows where both hold them.

The first run is held against each of the others. What was measured otherwise, such as by other rules, on other rows or
in another element type, stands side by side and gets no difference; the reason stands in its place. This module reads
no file and knows no layout.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from robustlab.record.results import CellResult, Item, Pairs, PropertyResult, Results
from robustlab.report.breaks import Break, find_break
from robustlab.report.pins import plan_cell, planned_eval
from robustlab.report.subjects import Part, View, final_of, first_of, list_views
from robustlab.report.wording import eval_spec
from robustlab.stats.estimates import Estimate
from robustlab.stats.intervals import mcnemar_cautious, paired_difference_interval
from robustlab.stats.multiplicity import adjust_holm

CONFIDENCE = 0.95
FAMILY_LEVEL = 0.05
NOT_MEASURED = "not measured in both runs"
NO_ITEMS = "no verdict of each row: items.jsonl is not there, or holds no such row"
A_MEAN = "a mean, which has no test here"
_REFUSED = ("refusal", "over_refusal", "prefill")
_TREATMENT = {"target": "target", "safeguard": "safeguard", "attack": "attack", "recipe": "recipe", "budget": "budget"}
_PRICING = ("hardware", "devices", "shadow_price")
Items = Mapping[str, Sequence[Item]]
"""Final items of one run by the id of their cell."""


@dataclass(frozen=True)
class Line:
    """One property of one cell in two runs.

    Attributes:
        view: The property, as one eval sees it.
        first: At the end of the first run; None where it was not measured.
        second: At the end of the other.
        before: The same of both before the attack.
        breaks: What each says of the cost to break it.
        pairs: How the rows did in both, the first run as before and the other as after; None where they are not paired.
        difference: Rate of the other minus that of the first, with its paired interval; None where nothing is claimed.
        p: Exact McNemar, two-sided; None likewise.
        adjusted: The same after Holm's correction over all tests of the comparison.
        reasons: Why nothing is claimed; empty where something is.
    """

    view: View
    first: PropertyResult | None
    second: PropertyResult | None
    before: tuple[PropertyResult | None, PropertyResult | None]
    breaks: tuple[Break, Break]
    pairs: Pairs | None
    difference: Estimate | None
    p: float | None
    adjusted: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """One cell that two runs have in common.

    Attributes:
        name: Target, safeguard, attack, seed and budget.
        runs: Ids of the two runs.
        lines: Its properties, diagnostics aside.
    """

    name: str
    runs: tuple[str, str]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: Their ids, the first of which the others are held against.
        matches: The cells that they have in common.
        alone: Cells that the first or another run has by itself, in words.
        differences: What else differs between runs, in words: software, prices.
    """

    runs: tuple[str, ...]
    matches: tuple[Match, ...]
    alone: tuple[str, ...]
    differences: tuple[str, ...]


def compare_results(documents: Sequence[Results], items: Sequence[Items]) -> Comparison:
    """Hold the first of some results against each of the others.

    Args:
        documents: At least two, each once.
        items: Final items of each, in the same order; empty where they are not there.

    Returns:
        Cells matched by target, safeguard, attack, budget and seed.
    """
    pairs = [(documents[0], other, items[0], read) for other, read in zip(documents[1:], items[1:], strict=True)]
    matches = [match for pair in pairs for match in _match_cells(*pair)]
    return Comparison(
        runs=tuple(results.run_id for results in documents),
        matches=_correct(matches),
        alone=tuple(text for first, second, _, _ in pairs for text in _list_alone(first, second)),
        differences=tuple(text for first, second, _, _ in pairs for text in _list_differences(first, second)),
    )


def count_tests(comparison: Comparison) -> int:
    """How many exact tests a comparison makes: the family of Holm's correction."""
    return sum(line.p is not None for match in comparison.matches for line in match.lines)


def _key(cell: CellResult) -> tuple[str, str, str, str, int]:
    return cell.target, cell.safeguard, cell.attack, cell.budget, cell.seed


def _name(cell: CellResult) -> str:
    return f"{cell.target} / {cell.safeguard} / {cell.attack} / seed {cell.seed} under {cell.budget}"


def _match_cells(first: Results, second: Results, items: Items, others: Items) -> Iterator[Match]:
    found = {_key(cell): cell for cell in second.cells}
    for cell in first.cells:
        other = found.get(_key(cell))
        if other is None:
            continue
        parts = Part(first, cell), Part(second, other)
        barred = _bar_cell(*parts)
        rows = items.get(cell.cell_id, ()), others.get(other.cell_id, ())
        lines = tuple(_compare(view, parts, rows, barred) for view in list_views(parts))
        yield Match(_name(cell), (first.run_id, second.run_id), lines)


def _compare(
    view: View, parts: tuple[Part, Part], rows: tuple[Sequence[Item], Sequence[Item]], barred: Sequence[str]
) -> Line:
    first, second = (_final(part, view) for part in parts)
    breaks = tuple(find_break(part.cell, view.eval, view.property) for part in parts)
    before = first_of(parts[0].cell, view), first_of(parts[1].cell, view)
    line = Line(view, first, second, before, (breaks[0], breaks[1]), None, None, None, None, ())
    if first is None or second is None:
        return replace(line, reasons=(NOT_MEASURED,))
    reasons = [*barred, *_bar_measuring(view, parts, first, second)]
    chosen = [_events(view, found, each) for found, each in zip((first, second), rows, strict=True)]
    if None not in chosen:
        reasons += _bar_rows(*(events for events in chosen if events is not None))
    elif first.n != second.n:
        reasons.append(f"other rows: {first.n} and {second.n}")
    if reasons:
        return replace(line, reasons=tuple(reasons))
    if chosen[0] is None or chosen[1] is None:
        return replace(line, reasons=(A_MEAN if first.unit != "rate" else NO_ITEMS,))
    pairs = _pair(chosen[0], chosen[1])
    confidence = eval_spec(parts[0].results, view.eval).get("confidence")
    level = confidence if isinstance(confidence, float) else CONFIDENCE
    p = mcnemar_cautious(pairs.before_only, pairs.after_only, pairs.unjudged)
    return replace(line, pairs=pairs, p=p, difference=_difference(pairs, second.value - first.value, level))


def _final(part: Part, view: View) -> PropertyResult | None:
    found = final_of(part.cell, view)
    return None if found is None else found[1]


def _bar_cell(first: Part, second: Part) -> list[str]:
    """What makes two cells of one name two different things."""
    planned = plan_cell(*first), plan_cell(*second)
    names = dict.fromkeys(what for key, what in _TREATMENT.items() if planned[0].get(key) != planned[1].get(key))
    reasons = [f"another {what} under the same name" for what in names]
    if first.cell.dtype != second.cell.dtype:
        reasons.append(f"other dtype: {first.cell.dtype} and {second.cell.dtype}")
    return reasons


def _bar_measuring(view: View, parts: tuple[Part, Part], first: PropertyResult, second: PropertyResult) -> list[str]:
    """What keeps two figures of one property from being the same measurement, their rows aside."""
    pinned = [planned_eval(*part, view.eval) for part in parts]
    reasons = []
    if pinned[0] != pinned[1]:
        reasons.append(f"another eval under the same name: {_describe_change(*pinned)}")
    if first.judge != second.judge:
        reasons.append(f"other judge: {first.judge} and {second.judge}")
    names = (f"judge {first.judge}", "judge program", "second judges")
    told = [
        (name, *(part.results.versions.get(name, "unknown") for part in parts)) for name in _fingerprints(view, names)
    ]
    reasons += [f"other rules: {name} {one} and {other}" for name, one, other in told if one != other]
    return reasons


def _fingerprints(view: View, names: Sequence[str]) -> Sequence[str]:
    """Which fingerprints a property depends on."""
    if view.property == "utility/instructions":
        return names[1:2]
    return names[2:] if view.property.startswith("asr/") else names[:1]


def _describe_change(first: object, second: object) -> str:
    if not isinstance(first, dict) or not isinstance(second, dict):
        return "one of the runs does not say which"
    return ", ".join(sorted(name for name in {*first, *second} if first.get(name) != second.get(name)))


def _events(view: View, found: PropertyResult, items: Sequence[Item]) -> dict[str, bool | None] | None:
    """Whether each row has the event, by its hash, None without a verdict; None where that does not give the rate."""
    category = view.property.removeprefix("refusal/") if view.property.startswith("refusal/") else None
    chosen = [each for each in items if each.eval == view.eval and category in (None, each.category)]
    judge = view.property.removeprefix("asr/")
    wanted = "refused" if category is not None or view.property in _REFUSED else "complied"
    verdicts = {each.behavior: each.verdicts.get(judge if "asr/" in view.property else found.judge) for each in chosen}
    if len(verdicts) != len(chosen) or len(chosen) != found.n or found.unit != "rate" or None in verdicts.values():
        return None
    events = {name: None if said == "unjudged" else said == wanted for name, said in verdicts.items()}
    # Whatever a property means by its rate, these verdicts must give it.
    return events if sum(map(bool, events.values())) == round(found.value * found.n) else None


def _bar_rows(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    common = len(first.keys() & second.keys())
    if len(first) == len(second) == common:
        return []
    return [f"other rows: {len(first)} and {len(second)}, {common} of them in both"]


def _pair(first: Mapping[str, bool | None], second: Mapping[str, bool | None]) -> Pairs:
    times = Counter((first[name], second[name]) for name in first)
    settled = {
        "both": (True, True),
        "before_only": (True, False),
        "after_only": (False, True),
        "neither": (False, False),
    }
    counts = {name: times[key] for name, key in settled.items()}
    return Pairs(**counts, unjudged=len(first) - sum(counts.values()))


def _difference(pairs: Pairs, value: float, confidence: float) -> Estimate:
    """Interval of the difference; a row without a verdict in either run counts both ways in the bounds."""
    both, lost, gained, neither = pairs.both, pairs.before_only, pairs.after_only, pairs.neither
    worst = paired_difference_interval(both, lost + pairs.unjudged, gained, neither, confidence=confidence)
    best = paired_difference_interval(both, lost, gained + pairs.unjudged, neither, confidence=confidence)
    return Estimate(worst.low, best.high, worst.method, value)


def _correct(matches: Sequence[Match]) -> tuple[Match, ...]:
    """Correct every p over the whole comparison."""
    adjusted = iter(adjust_holm([line.p for match in matches for line in match.lines if line.p is not None]))
    return tuple(
        replace(
            match,
            lines=tuple(line if line.p is None else replace(line, adjusted=next(adjusted)) for line in match.lines),
        )
        for match in matches
    )


def _list_alone(first: Results, second: Results) -> Iterator[str]:
    for results, other in ((first, second), (second, first)):
        known = {_key(cell) for cell in other.cells}
        yield from (
            f"{_name(cell)} is in {results.run_id} and not in {other.run_id}"
            for cell in results.cells
            if _key(cell) not in known
        )


def _list_differences(first: Results, second: Results) -> Iterator[str]:
    where = f"{first.run_id} and {second.run_id}"
    names = dict.fromkeys([*first.versions, *second.versions])
    changed = [name for name in names if first.versions.get(name) != second.versions.get(name)]
    told = [f"{name} {first.versions.get(name, 'none')} and {second.versions.get(name, 'none')}" for name in changed]
    if told:
        yield f"Other versions in {where}: {', '.join(told)}. A difference may be theirs"
    priced = [name for name in _PRICING if first.plan.get(name) != second.plan.get(name)]
    if first.price_card_sha256 != second.price_card_sha256:
        priced.append("price card")
    if priced:
        yield f"Other prices in {where}: {', '.join(priced)}. Their costs to break do not compare"


def to_plain(comparison: Comparison) -> dict[str, object]:
    """Turn a comparison into plain data that JSON can hold: rates in [0, 1], money in millionths of a US dollar."""
    return {
        "runs": list(comparison.runs),
        "tests": count_tests(comparison),
        "cells": [
            {"cell": match.name, "runs": list(match.runs), "properties": [_plain_line(line) for line in match.lines]}
            for match in comparison.matches
        ],
        "alone": list(comparison.alone),
        "differences": list(comparison.differences),
    }


def _plain_line(line: Line) -> dict[str, object]:
    sides = {"first": (line.before[0], line.first), "second": (line.before[1], line.second)}
    return {
        "eval": line.view.eval,
        "property": line.view.property,
        **{
            name: {
                "before": None if before is None else before.model_dump(mode="json"),
                "after": None if after is None else after.model_dump(mode="json"),
                "cost_to_break": found.words,
                "held_micro_usd": found.held_micro_usd,
                "broken_micro_usd": found.broken_micro_usd,
            }
            for (name, (before, after)), found in zip(sides.items(), line.breaks, strict=True)
        },
        "pairs": None if line.pairs is None else line.pairs.model_dump(mode="json"),
        "difference": None
        if line.difference is None
        else {name: getattr(line.difference, name) for name in ("value", "low", "high", "method")},
        "p": line.p,
        "p_adjusted": line.adjusted,
        "not_compared": list(line.reasons),
    }
