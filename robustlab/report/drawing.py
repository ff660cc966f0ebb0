"""The look of every figure, and its export as inert, deterministic SVG text that stands inside a page.

Knows matplotlib (imported inside) and nothing of what is drawn.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from robustlab.report.wording import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#5b6470", "#e3e6ea"
# Okabe and Ito's colours, which colour-blind readers tell apart, without yellow: too faint for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robustlab",
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.formatter.use_mathtext": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw with the project's style; leave matplotlib's own settings as they were."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # Text stays text in the SVG: the reader's browser picks a font for what DejaVu cannot show.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        yield


def figure_text(text: str, limit: int = 32) -> str:
    """Make a name inert, and short enough to leave room for the figure; the tables beside it hold it in full."""
    plain = plain_text(text)
    return plain if len(plain) <= limit else f"{plain[: limit - 3]}..."


def to_svg(figure: "Figure", name: str) -> str:
    """Export a figure as one ``<svg>`` element without prologue, metadata, date or fixed size.

    Args:
        figure: What was drawn, inside ``drawing_style``.
        name: Prefix of every id, so that several figures can stand in one page; letters, digits and hyphens.

    Returns:
        The same text for the same figure.
    """
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg).strip()


def percent_axis(axes: "Axes", axis: str) -> None:
    """Label an axis of rates from 0 to 100 %."""
    ticks = [0, 0.25, 0.5, 0.75, 1]
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_ticks(ticks, labels=[f"{100 * tick:.0f} %" for tick in ticks])
