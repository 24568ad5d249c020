"""Pictures of what an encoder does with patches of a signal: maps drawn over it, and waveforms that stand for a number.

sections = draw_maps(examples.segment_BMCT, examples.rate_hz, {"hidden": hidden_BA, "prior": prior_BA})
sections += draw_waveforms({"code": Waveforms(number_N, share_N, mean_NT)}, examples.rate_hz)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxbio.report import figures, page

_SEGMENTS = 2
_ROW_S = 60.0  # of a long segment; a phone shows the beats of a minute
_MOST_ROWS = 4


@dataclass(frozen=True)
class Waveforms:
    """Numbered waveforms: whose they are, the share of all patches that have this number, and their mean (N, T)."""

    number_N: np.ndarray
    share_N: np.ndarray
    mean_NT: np.ndarray


def draw_maps(segment_BMCT: np.ndarray, rate_hz: float, maps_BA: Mapping[str, np.ndarray]) -> list[str]:
    """Return a section of the first segments with each map over its patches; nothing where there is no map.

    Maps of zeros and ones shade patches, others are drawn as steps between 0 and 1.
    """
    if not maps_BA:
        return []
    count = min(_SEGMENTS, len(segment_BMCT))
    blocks = [
        _map_figure(
            segment_BMCT[place, 0, 0], rate_hz, {name: map_BA[place] for name, map_BA in maps_BA.items()}, place
        )
        for place in range(count)
    ]
    shaded = [name for name, map_BA in maps_BA.items() if _is_mask(map_BA)]
    lines = [name for name in maps_BA if name not in shaded]
    said = [f"Shaded: {', '.join(shaded)}."] if shaded else []
    said += [f"Steps, from 0 to 1: {', '.join(lines)}."] if lines else []
    return [page.section("Maps over the signal", *blocks, note=" ".join(said))]


def draw_waveforms(waveforms: Mapping[str, Waveforms], rate_hz: float) -> list[str]:
    """Return a section with the mean waveform of each number, most used first; nothing where there are none."""
    blocks = []
    for name, found in waveforms.items():
        columns = min(2, len(found.number_N))
        rows = -(-len(found.number_N) // columns)
        fig, axes = figures.new_figure(rows, columns, height_in=0.4 + 0.8 * rows, sharex=True)
        t_T = np.arange(found.mean_NT.shape[1]) / rate_hz
        for panel, number, share, mean_T in zip(axes, found.number_N, found.share_N, found.mean_NT):
            panel.plot(t_T, mean_T, color=figures.COLOURS[0])
            panel.set_title(f"{name} {int(number)}: {share:.1%}")
        for panel in axes[len(found.number_N) :]:
            panel.set_visible(False)
        for panel in axes[-columns:]:
            panel.set(xlabel="time, s")
        caption = f"The {name}s that most patches have: mean waveform, and the share of patches"
        blocks.append(page.figure(figures.to_svg(fig), caption))
    note = "Of held-out segments. A number whose mean is flat stands for patches that have little in common."
    return [page.section("What the numbers stand for", *blocks, note=note)] if blocks else []


def _is_mask(map_BA: np.ndarray) -> bool:
    return bool(np.isin(map_BA, (0, 1)).all())


def _map_figure(x_T: np.ndarray, rate_hz: float, maps_A: Mapping[str, np.ndarray], place: int) -> str:
    """Draw one segment in rows of a minute."""
    rows = int(np.clip(np.ceil(len(x_T) / rate_hz / _ROW_S), 1, _MOST_ROWS))
    fig, axes = figures.new_figure(rows, height_in=0.5 + 0.9 * rows)
    t_T = np.arange(len(x_T)) / rate_hz
    for row, panel in enumerate(axes):
        part = slice(int(row * _ROW_S * rate_hz), int((row + 1) * _ROW_S * rate_hz))
        panel.plot(t_T[part], x_T[part], linewidth=0.6, color=figures.COLOURS[0])
        panel.set_xlim(row * _ROW_S, min((row + 1) * _ROW_S, len(x_T) / rate_hz))
    for colour, (name, map_A) in zip(figures.COLOURS[1:], maps_A.items()):
        edge_A = np.linspace(0, len(x_T) / rate_hz, len(map_A) + 1)
        for panel in axes:
            if _is_mask(map_A):
                for patch in np.flatnonzero(map_A):
                    panel.axvspan(edge_A[patch], edge_A[patch + 1], color=colour, alpha=0.25, linewidth=0)
            else:
                panel.stairs(map_A, edge_A, color=colour, linewidth=0.8, label=name)
    axes[-1].set(xlabel="time, s")
    return page.figure(figures.to_svg(fig), f"Segment {place + 1}: {', '.join(maps_A)}")
