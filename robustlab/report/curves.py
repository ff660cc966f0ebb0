"""The cost-effect curve: what the attacker had spent against what was left of each property.

One figure for each released target. This module draws rates and intervals as they are recorded; it computes none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING

from robustlab.record.results import CellResult, PropertyResult, Results
from robustlab.report.drawing import GRID, MUTED, PALETTE, drawing_style, figure_text, percent_axis, to_svg
from robustlab.report.wording import plain_text
from robustlab.units import MICRO_PER_USD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_INCHES, _HEIGHT_INCHES = 8.6, 4.3
_LABEL_GAP = 0.055
_SOLID, _DASHED, _DOTTED = (0, ()), (0, (5, 2)), (0, (1, 2))


@dataclass(frozen=True)
class Line:
    """One property of one cell over the attacker's spending.

    Attributes:
        cell: Whose it is.
        eval: Id of the eval that yields it.
        property: Its id.
        usd: Attacker's spending at each measurement in US dollars, 0 at the baseline, ascending.
        found: The property at each measurement.
    """

    cell: CellResult
    eval: str
    property: str
    usd: tuple[float, ...]
    found: tuple[PropertyResult, ...]


def cost_effect_groups(results: Results) -> dict[str, list[CellResult]]:
    """Group the cells by released target, ``target / safeguard``: one figure each."""
    groups: dict[str, list[CellResult]] = {}
    for cell in results.cells:
        groups.setdefault(plain_text(f"{cell.target} / {cell.safeguard}"), []).append(cell)
    return groups


def cost_effect_svg(results: Results, cells: Sequence[CellResult], name: str) -> str:
    """Draw the curve of some cells as an inline ``<svg>``.

    Args:
        results: The document, which knows the controls.
        cells: Cells of one released target.
        name: Prefix of the ids in the SVG.

    Returns:
        The same bytes for the same results.
    """
    from matplotlib.figure import Figure

    lines = [line for cell in cells for line in _lines(cell)]
    origin, end = _cost_range(lines)
    colours = _colours(results, cells)
    with drawing_style():
        figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
        axes = figure.add_subplot()
        _draw_axes(axes, origin, end)
        for line in sorted(lines, key=lambda each: each.property == "refusal"):
            _draw_line(axes, line, origin, colours[line.cell.cell_id])
        _label_lines(axes, [line for line in lines if line.property == "refusal"], colours, end)
        _draw_key(axes, lines)
        return to_svg(figure, name)


def _lines(cell: CellResult) -> list[Line]:
    found: dict[tuple[str, str], list[tuple[float, PropertyResult]]] = {}
    for measurement in cell.measurements:
        for each in measurement.properties:
            point = (measurement.attacker_micro_usd / MICRO_PER_USD, each)
            found.setdefault((measurement.eval, each.property), []).append(point)
    return [
        Line(cell, eval_id, name, tuple(usd for usd, _ in points), tuple(each for _, each in points))
        for (eval_id, name), points in found.items()
        if not name.startswith("refusal/")
    ]


def _cost_range(lines: Sequence[Line]) -> tuple[float, float]:
    """Choose where the baseline stands, left of the first whole decade, and where the axis ends, in US dollars."""
    paid = [usd for line in lines for usd in line.usd if usd > 0] or [1.0]
    return 10.0 ** (floor(log10(min(paid))) - 0.5), max(paid) * 1.6


def _colours(results: Results, cells: Sequence[CellResult]) -> dict[str, str]:
    """Give each attack a colour that its seeds share; controls are grey."""
    controls = {control.cell_id for control in results.controls.values()}
    attacks = list(dict.fromkeys(cell.attack for cell in cells if cell.cell_id not in controls))
    return {
        cell.cell_id: MUTED if cell.cell_id in controls else PALETTE[attacks.index(cell.attack) % len(PALETTE)]
        for cell in cells
    }


def _draw_axes(axes: "Axes", origin: float, end: float) -> None:
    powers = range(round(log10(origin) + 0.5), floor(log10(end)) + 1)
    names = [f"${10**power:,}" if power >= 0 else f"${10.0**power:.{-power}f}" for power in powers]
    axes.set_xscale("log")
    axes.set_xlim(origin * 0.75, end)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks([origin, *(10.0**power for power in powers)], labels=["before\n($0)", *names])
    axes.minorticks_off()
    percent_axis(axes, "y")
    axes.set_xlabel("attacker's spending so far, US dollars (log scale; the baseline costs nothing)")
    axes.set_ylabel("rate, with its interval")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(origin * 10**0.25, color=GRID, linewidth=6)


def _draw_line(axes: "Axes", line: Line, origin: float, colour: str) -> None:
    leading = line.property == "refusal"
    usd = [cost if cost > 0 else origin for cost in line.usd]
    rates = [each.value for each in line.found]
    below = [max(0.0, each.value - each.low) for each in line.found]
    above = [max(0.0, each.high - each.value) for each in line.found]
    axes.errorbar(
        usd,
        rates,
        yerr=[below, above],
        color=colour,
        linestyle=_dash(line.property),
        linewidth=2.4 if leading else 1.0,
        marker="o",
        markersize=5.5 if leading else 2.5,
        elinewidth=1.2 if leading else 0.7,
        capsize=2.5 if leading else 0,
        alpha=1.0 if leading else 0.75,
    )
    broken_at = line.found[-1].broken_at_micro_usd
    first = [(x, y) for x, y in zip(usd, rates, strict=True) if broken_at and x * MICRO_PER_USD >= broken_at - 0.5][:1]
    for x, y in first if leading else []:
        axes.plot(x, y, marker="o", markersize=12, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.4)


def _label_lines(axes: "Axes", lines: Sequence[Line], colours: dict[str, str], end: float) -> None:
    """Write each refusal line's name right of the plot, at the height of its end, kept apart from its neighbours."""
    several = len({line.eval for line in lines}) > 1
    height = -_LABEL_GAP
    for line in sorted(lines, key=lambda each: each.found[-1].value):
        height = max(height + _LABEL_GAP, line.found[-1].value)
        state = " (destructive)" if line.cell.status == "destructive" else ""
        which = f" on {figure_text(line.eval)}" if several else ""
        axes.annotate(
            f" {figure_text(line.cell.attack)}, seed {line.cell.seed}{which}{state}",
            (end, height),
            xycoords="data",
            color=colours[line.cell.cell_id],
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _draw_key(axes: "Axes", lines: Sequence[Line]) -> None:
    from matplotlib.lines import Line2D

    names = dict.fromkeys(line.property for line in sorted(lines, key=lambda each: each.property != "refusal"))
    handles = [
        Line2D(
            [],
            [],
            color=MUTED,
            linestyle=_dash(name),
            linewidth=2.4 if name == "refusal" else 1.0,
            label=figure_text(name),
        )
        for name in names
    ]
    ring = Line2D([], [], color=MUTED, marker="o", markersize=9, markerfacecolor="none", linestyle="none")
    ring.set_label("broken from here to the end")
    handles.append(ring)
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=8.5, handlelength=2.6)


def _dash(name: str) -> tuple[float, tuple[float, ...]]:
    return {"refusal": _SOLID, "over_refusal": _DASHED}.get(name, _DOTTED)
