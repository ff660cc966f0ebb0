"""How a comparison of runs is laid out: a table for each cell that two runs have in common, and what does not compare.

Everything is looked up in the comparison; nothing is computed here.
"""

from collections.abc import Sequence

from robustlab.report.blocks import Block, Lines, one_line
from robustlab.report.comparison import FAMILY_LEVEL, Comparison, Line, Match, count_tests
from robustlab.report.rows import names_category
from robustlab.report.wording import format_rate, verdict_word

_NOTE = (
    "The difference is that of the rate at the end, other run minus first, on the same rows; a row without a verdict "
    "in either run widens its interval and raises p"
)
_COSTS = "Costs to break stand side by side and are not tested: each is an interval of one seed"


def list_sides(comparison: Comparison, *, categories: bool = True) -> list[Block]:
    """Lay a comparison out.

    Args:
        comparison: The comparison.
        categories: Whether semantic categories of refusals have rows of their own.

    Returns:
        A table for each match, then one that says what stands alone and what else differs.
    """
    blocks = [_match_block(match, categories=categories) for match in comparison.matches]
    tests = count_tests(comparison)
    holm = (
        f"Exact McNemar, two-sided; Holm's correction is over all {tests} tests of this comparison, at {FAMILY_LEVEL:g}"
    )
    counted = [_NOTE, holm] if tests else ["No difference is claimed: nothing compares"]
    told = [*comparison.differences, *(f"Not compared: {text}" for text in comparison.alone)]
    title = f"What differs besides, and how to read this: {' and '.join(comparison.runs)}"
    return [*blocks, Block(title, (), (), (*told, *counted, _COSTS), claims=len(told))]


def _match_block(match: Match, *, categories: bool) -> Block:
    first, second = match.runs
    columns = ("Property", f"End of {first}", f"End of {second}", "Difference", "p after Holm", "Cost to break, each")
    shown = [line for line in match.lines if categories or not names_category(line.view.property)]
    reasons: dict[str, list[str]] = {}
    for line in shown:
        for reason in line.reasons:
            reasons.setdefault(reason, []).append(line.view.property)
    told = tuple(f"Not compared, {reason}: {', '.join(dict.fromkeys(names))}" for reason, names in reasons.items())
    return Block(match.name, columns, tuple(_write_line(line) for line in shown), told, claims=len(told))


def _write_line(line: Line) -> tuple[Lines, ...]:
    costs = " / ".join(found.words for found in line.breaks)
    return one_line(
        f"{line.view.property} on {line.view.eval}",
        *_write_ends(line),
        "not compared" if line.difference is None else _write_difference(line),
        "-" if line.adjusted is None else f"{line.adjusted:.2g}",
        costs,
    )


def _write_ends(line: Line) -> Sequence[str]:
    return [
        "-" if found is None else f"{format_rate(found)} {verdict_word(found)}" for found in (line.first, line.second)
    ]


def _write_difference(line: Line) -> str:
    found = line.difference
    if found is None:
        return "-"
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
