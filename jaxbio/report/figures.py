"""Figures as inline SVG, drawn at a phone's width so that their letters stay readable there, in the page's colours.

Matplotlib's object interface only (no pyplot), so that no figure outlives its drawing. Texts are shown as they are:
Matplotlib would read what stands between two dollar signs as a formula.

    fig, (axes,) = new_figure()
    axes.plot(step_N, loss_N); axes.set(xlabel="step", ylabel="loss")
    svg = to_svg(fig)
"""

import io
import itertools
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from jaxbio.config.roles import ROLES, UNITS, kind_of
from jaxbio.data.whole_files import whole_file
from jaxbio.report.colours import GRID, INK, SERIES, refer
from jaxbio.report.text import printable, shorten

WIDTH_IN = 3.6
_STACKED_IN = (0.95, 0.5)  # height of one of several channels below each other: of up to four, and of more
COLOURS = tuple(colour.light for colour in SERIES)
_LEGEND_PT = 7.5
_HANDLE_PT = 5 * _LEGEND_PT  # width of a line beside its label in a legend, with the gaps around both
_LABEL_MOST = 24  # characters that fit the height of a figure of 1.5 in
_STYLE: Any = {
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": _LEGEND_PT,
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
    with _styled():
        fig = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, sharex=sharex)
    return fig, list(axes.flat)


def stack_height_in(channels: int) -> float:
    """Return the height of a figure of so many channels below each other, in inches; twelve leads fit a screen."""
    return 0.5 + channels * _STACKED_IN[channels > 4]


def colour_of(role: str) -> str:
    """Return the colour of a channel: one for each kind, so that twelve leads are one signal, and one for features."""
    return COLOURS[list(UNITS).index(kind_of(role)) if role in ROLES else len(UNITS)]


def add_legend(axes: Axes) -> None:
    """Add a legend in the style of the figures, above the axes: inside it would lie on a dense curve."""
    with _styled():
        handles, labels = axes.get_legend_handles_labels()
        room_pt = 72 * axes.figure.bbox.width / axes.figure.dpi - 2 * _LEGEND_PT
        labels = [_fit(printable(label), room_pt - _HANDLE_PT) for label in labels]
        columns = next((n for n in (3, 2) if n <= len(labels) and _legend_width_pt(labels, n) <= room_pt), 1)
        axes.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, borderaxespad=0.1)


def _legend_width_pt(labels: Sequence[str], columns: int) -> float:
    """Return the width of a legend of so many columns; one wider than its figure leaves no room for the axes."""
    columned = np.array_split(np.array(labels, dtype=object), columns)
    return sum(max(map(_width_pt, column)) + _HANDLE_PT for column in columned)


def _fit(label: str, room_pt: float) -> str:
    width_pt = _width_pt(label)
    return label if width_pt <= room_pt else shorten(label, int(len(label) * room_pt / width_pt))


def _width_pt(label: str) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(label, FontProperties(size=_LEGEND_PT), ismath=False)
    return width


def label_of(name: str, unit: str = "") -> str:
    """Return the label of an axis from a name and a unit of whatever source: shown as it is, a long one shortened."""
    return shorten(printable(f"{name}, {unit}" if unit else name), _LABEL_MOST)


def to_svg(fig: Figure) -> str:
    """Return `fig` as an inline SVG element that scales with its box and takes its colours from the page.

    Its ids are unique within the process.
    """
    svg = _render(fig, transparent=True)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return refer(svg)


def to_picture(fig: Figure) -> str:
    """Return `fig` as an SVG image of its own, with a size and a light background."""
    return _render(fig, transparent=False)


def write_png(fig: Figure, path: Path) -> None:
    """Write `fig` as a picture of points, twice as fine as a screen."""
    with _styled():
        _show_as_they_are(fig)
        with whole_file(path) as unfinished:
            fig.savefig(unfinished, dpi=200, format="png")


def _styled() -> AbstractContextManager[None]:
    """Return a context with the style of the figures, whatever a user's matplotlibrc says."""
    return style.context(["default", _STYLE])


def _show_as_they_are(fig: Figure) -> None:
    """Let no text of `fig` be read as a formula, also one that was made outside the style, and each be visible."""
    for text in fig.findobj(Text):
        text.set_parse_math(False)
        text.set_text("\n".join(printable(line) for line in text.get_text().split("\n")))


def _render(fig: Figure, *, transparent: bool) -> str:
    buffer = io.StringIO()
    with _styled():
        _show_as_they_are(fig)
        # tight: the layout is made with the ticks of the axes before it, and more of them may cut a label off
        fig.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None},
            bbox_inches="tight",
            pad_inches=0.04,
            transparent=transparent,
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = f"f{next(_figure_numbers)}-"
    return re.sub(r"<[^<>]*>", lambda tag: _tidy(tag[0], prefix), svg)


def _tidy(tag: str, prefix: str) -> str:
    """Return a tag of an SVG with `prefix` before every id, and with as many digits as can be seen."""
    tag = re.sub(r'\bid="', f'id="{prefix}', tag)
    # a hundredth of a point is finer than any screen, and halves the file
    tag = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), tag)
    return tag.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
