"""Figures as inline SVG, drawn at a phone's width so that their letters stay readable there.

Matplotlib's object interface only (no pyplot), so that no figure outlives its drawing.

    fig, (axes,) = new_figure()
    axes.plot(step_N, loss_N); axes.set(xlabel="step", ylabel="loss")
    svg = to_svg(fig)
"""

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxbio.config.roles import UNITS, kind_of

WIDTH_IN = 3.6
_STACKED_IN = (0.95, 0.5)  # height of one of several channels below each other: of up to four, and of more
COLOURS = ("#0b6fb8", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#4a5568", "#00798c", "#c05621")
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7ed",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "none",  # letters stay text: small, searchable, in the reader's own font
    "svg.hashsalt": "jaxbio",
    "path.simplify": True,
    "axes.prop_cycle": cycler(color=COLOURS),
}
_figure_numbers = itertools.count()


def new_figure(
    rows: int = 1, columns: int = 1, *, height_in: float = 2.2, width_in: float = WIDTH_IN, sharex: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure and its axes in reading order; `height_in` is that of the whole figure, in inches."""
    with mpl.rc_context(_STYLE):
        fig = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, sharex=sharex)
    return fig, list(axes.flat)


def stack_height_in(channels: int) -> float:
    """Return the height of a figure of so many channels below each other, in inches; twelve leads fit a screen."""
    return 0.5 + channels * _STACKED_IN[channels > 4]


def colour_of(role: str) -> str:
    """Return the colour of a channel: one for each kind, so that twelve leads are one signal."""
    return COLOURS[list(UNITS).index(kind_of(role))]


def add_legend(axes: Axes) -> None:
    """Add a legend in the style of the figures, above the axes: inside it would lie on a dense curve."""
    with mpl.rc_context(_STYLE):
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(labels), borderaxespad=0.1)


def to_svg(fig: Figure) -> str:
    """Return `fig` as an inline SVG element that scales with its box; its ids are unique within the process."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        # tight: the layout is made with the ticks of the axes before it, and more of them may cut a label off
        fig.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.04
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = f"f{next(_figure_numbers)}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    # a hundredth of a point is finer than any screen, and halves the file
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    return svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
