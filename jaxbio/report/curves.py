"""Curves of a run's record over its steps: a figure a panel, which names its lines and their keys (panels.py).

curves_section("Norms", one_line_panels(norm_labels(series)), series, objective, "Lengths over all parameters.")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxbio.report import figures, page
from jaxbio.report.series import Series
from jaxbio.report.terms import describe, read_probe
from jaxbio.report.text import capitalise

_POINTS = 300  # of a curve; more are drawn as the mean and range of as many bins


def curves_section(
    heading: str,
    panels: Mapping[str, Mapping[str, str]],
    series: Series,
    objective: str,
    note: str,
    verdict: str = "",
    *,
    from_zero: bool = True,
    below: Sequence[str] = (),
) -> str:
    """Draw a figure for each panel, name -> {line: key}, of which the run logged a key; nothing where there is none.

    `below` takes the whole width under them.
    """
    blocks = []
    for number, (name, lines) in enumerate(panels.items()):
        logged = {line: key for line, key in lines.items() if key in series}
        if logged:
            colours = [figures.COLOURS[(number * (len(lines) == 1) + place) % 8] for place in range(len(logged))]
            svg = _draw_panel(name, {line: series[key] for line, key in logged.items()}, colours, from_zero=from_zero)
            meanings = dict.fromkeys(_without_whom(key, objective) for key in logged.values())
            blocks.append(page.figure(svg, f"{capitalise(name)}: {' '.join(meanings)}"))
    return page.section(heading, *blocks, note=note, verdict=verdict, below=below) if blocks else ""


def _without_whom(key: str, objective: str) -> str:
    """Return what a key means; of a probe, what all its lines have in common."""
    meaning = describe(key, objective)
    return meaning.rpartition(": ")[2] if read_probe(key) else meaning


def _draw_panel(
    name: str, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], colours: list[str], *, from_zero: bool
) -> str:
    fig, (axes,) = figures.new_figure()
    for colour, (line, (step_N, value_N)) in zip(colours, lines.items()):
        if line == "held out" and len(lines) > 1:
            axes.plot(step_N, value_N, "o-", color=colour, markersize=3, label=line)
        else:
            _draw(axes, (step_N, value_N), line or None, colour)
    if len(lines) > 1:
        figures.add_legend(axes)
    axes.set(xlabel="step", ylabel=figures.label_of(name))
    if from_zero:
        low = min(value_N.min() for _, value_N in lines.values())
        high = max(value_N.max() for _, value_N in lines.values())
        axes.set_ylim(min(0.0, 1.08 * low), max(1.08 * high, 1e-12))
    return figures.to_svg(fig)


def _draw(axes: Any, curve: tuple[np.ndarray, np.ndarray], label: str | None, colour: str) -> None:
    """Plot a curve; a long one as the mean of bins with their range behind it."""
    step_N, value_N = curve
    if len(step_N) <= _POINTS:
        axes.plot(step_N, value_N, color=colour, label=label, marker="." if len(step_N) == 1 else None)
        return
    edges = np.linspace(0, len(step_N), _POINTS + 1).astype(int)[:-1]
    counts = np.diff([*edges, len(step_N)])
    centre = np.add.reduceat(step_N, edges) / counts
    axes.fill_between(
        centre,
        np.minimum.reduceat(value_N, edges),
        np.maximum.reduceat(value_N, edges),
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    axes.plot(centre, np.add.reduceat(value_N, edges) / counts, color=colour, label=label)
