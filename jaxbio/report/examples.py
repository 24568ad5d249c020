"""Pairs of segments on the page of a run, with their scores and with what the network makes of them.

The run writes them into its folder, whoever draws the page reads them there.

    write_examples(workdir, examples)
    sections = draw_examples(read_examples(workdir), objective)
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config.roles import printed
from jaxbio.data.whole_files import whole_file
from jaxbio.report import figures, page
from jaxbio.report.patches import Waveforms, draw_maps, draw_waveforms
from jaxbio.report.terms import describe
from jaxbio.report.text import capitalise

_PAIRS = 2
_FLAT = 0.05  # below this share of the variance explained a curve is called flat
_PREPARED = (
    "As the network sees them, prepared: amplitudes in scaled units. It is trained to find in the worse member what "
    "the better one shows. The caption has their quality scores, from 0 to 1 by the variant that the recipe chose "
    "(quality.variant): the mean over channels and, in brackets, each channel's."
)
_CURVES = (
    "Target: of the better member. Output: what the network makes of the worse one. Both are z-scores over the "
    "frequencies. Explained: the share of the target's variance that the output gets right; 100 % is the target. A "
    "flat output, 0 %, is what a network gives that knows nothing of a curve: near the average its error is least."
)


@dataclass(frozen=True)
class Examples:
    """Pairs to draw: `segment_BMCT` as the network sees them, and curves (target_BCS, output_BCS) by name.

    `rate_hz` is the segments' sampling rate, `bin_hz` the distance between two bins of the curves. `score_BM` and, by
    channel, `score_BMC` are quality scores, NaN where a channel is masked; None where the folder does not say. `maps`
    (B, A) lie over the patches of the segments, `waveforms` stand for numbers that patches have.
    """

    segment_BMCT: np.ndarray
    rate_hz: float
    channels: Sequence[str]
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    bin_hz: float
    score_BM: np.ndarray | None = None
    score_BMC: np.ndarray | None = None
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    waveforms: Mapping[str, Waveforms] = field(default_factory=dict)


def write_examples(workdir: os.PathLike | str, examples: Examples) -> Path:
    """Write `examples.npz` into a run's folder, in one move; return its path."""
    path = Path(workdir) / "examples.npz"
    arrays: dict[str, Any] = {
        "segment_BMCT": examples.segment_BMCT,
        "rate_hz": examples.rate_hz,
        "bin_hz": examples.bin_hz,
        "channels": np.array(examples.channels),
    }
    for name in ("score_BM", "score_BMC"):
        if getattr(examples, name) is not None:
            arrays[name] = getattr(examples, name)
    for name, (target_BCS, output_BCS) in examples.curves.items():
        arrays |= {f"target/{name}": target_BCS, f"output/{name}": output_BCS}
    arrays |= {f"map/{name}": map_BA for name, map_BA in examples.maps.items()}
    for name, found in examples.waveforms.items():
        arrays |= {f"waveform/{name}/{part}": array for part, array in vars(found).items()}
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)
    return path


def read_examples(workdir: os.PathLike | str) -> Examples | None:
    """Return what `write_examples` wrote; None where nothing was."""
    path = Path(workdir) / "examples.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        parts = [name.split("/") for name in _named(stored, "waveform/")]
        scores = {name: stored[name] for name in ("score_BM", "score_BMC") if name in stored.files}
        return Examples(
            stored["segment_BMCT"],
            float(stored["rate_hz"]),
            tuple(map(str, stored["channels"])),
            {name: (stored[f"target/{name}"], stored[f"output/{name}"]) for name in _named(stored, "target/")},
            float(stored["bin_hz"]),
            maps={name: stored[f"map/{name}"] for name in _named(stored, "map/")},
            waveforms={
                name: Waveforms(**{part: stored[f"waveform/{name}/{part}"] for whose, part in parts if whose == name})
                for name in dict.fromkeys(name for name, _ in parts)
            },
            **scores,
        )


def _named(stored: Any, beginning: str) -> list[str]:
    """Return the names of arrays that begin so, without the beginning."""
    return [key.removeprefix(beginning) for key in stored.files if key.startswith(beginning)]


def draw_examples(examples: Examples, objective: str) -> list[str]:
    """Return a section of pairs, and one of the curves that the network made of the worse members, where it makes any.

    `objective` is the name by which the curves are described.
    """
    pairs = range(min(_PAIRS, len(examples.segment_BMCT)))
    single = examples.segment_BMCT.shape[1] == 1
    sections = [
        page.section(
            "Segments" if single else "Pairs", *(_pair_figure(examples, pair) for pair in pairs), note=_PREPARED
        )
    ]
    explained: dict[str, list[float]] = {}
    blocks = []
    for pair in pairs:
        for name, curves in examples.curves.items():
            for place in range(min(len(examples.channels), *(curve_BCS.shape[1] for curve_BCS in curves))):
                # without bin 0, the mean of the signal, beside which the others would not be seen
                target_S, output_S = (curve_BCS[pair, place, 1:] for curve_BCS in curves)
                share = explained_share(target_S, output_S)
                caption = f"Pair {pair + 1}, {printed(examples.channels[place])}: {name}, {_percent(share)} explained."
                if name not in explained:
                    caption += f" {capitalise(name)} is judged by the {describe(f'eval/{name}', objective)}"
                explained.setdefault(name, []).append(share)
                blocks.append(_curve_figure(target_S, output_S, examples.bin_hz, name, caption))
    if blocks:
        sections.append(
            page.section("Reconstruction beside the target", *blocks, note=_CURVES, verdict=_judge(explained))
        )
    sections += draw_maps(examples.segment_BMCT, examples.rate_hz, examples.maps)
    return sections + draw_waveforms(examples.waveforms, examples.rate_hz)


def explained_share(target_S: np.ndarray, output_S: np.ndarray) -> float:
    """Return 1 - squared error / squared distance of the target from its mean; 0 where the target does not vary."""
    spread = float(np.sum((target_S - target_S.mean()) ** 2))
    return 1.0 - float(np.sum((target_S - output_S) ** 2)) / spread if spread > 0 else 0.0


def _judge(explained: Mapping[str, Sequence[float]]) -> str:
    """Return in words which of the curves drawn the network follows."""
    said = []
    for name, share_N in explained.items():
        median = float(np.median(share_N))
        does = "stays flat" if median < _FLAT else "follows its target"
        said.append(f"{name} {does} ({_percent(median)} explained)")
    return f"{capitalise('; '.join(said))}. Of few segments: the held-out losses of these names are over many."


def _percent(share: float) -> str:
    return f"{100 * max(share, 0.0):.0f} %"


def _pair_figure(examples: Examples, pair: int) -> str:
    segment_MCT = examples.segment_BMCT[pair]
    members = _members(len(segment_MCT))
    rows = [(role, c, m) for c, role in enumerate(examples.channels) for m in range(len(segment_MCT))]
    fig, axes = figures.new_figure(len(rows), height_in=figures.stack_height_in(len(rows)), sharex=True)
    for panel, (role, c, m) in zip(axes, rows):
        t_T, x_T = envelope(segment_MCT[m, c], examples.rate_hz)
        panel.plot(t_T, x_T, linewidth=0.7, color=figures.COLOURS[m])
        panel.set(ylabel=f"{printed(role)}\n{members[m]}" if len(members) > 1 else printed(role))
    axes[-1].set(xlabel="time, s")
    what = "Pair" if len(members) > 1 else "Segment"
    return page.figure(figures.to_svg(fig), f"{what} {pair + 1}: {_scores(examples, pair, members)}")


def _members(count: int) -> tuple[str, ...]:
    if count == 1:
        return ("score",)
    return ("better", "worse") if count == 2 else tuple(f"member {number}" for number in range(count))


def _scores(examples: Examples, pair: int, members: Sequence[str]) -> str:
    """Return the scores of a pair's members in words."""
    if examples.score_BM is None or examples.score_BMC is None:
        return "scores not known: an earlier version wrote them down"
    said = []
    for name, score, score_C in zip(members, examples.score_BM[pair], examples.score_BMC[pair], strict=True):
        of_channels = [
            f"{printed(role)} {'masked' if math.isnan(value) else f'{value:.2f}'}"
            for role, value in zip(examples.channels, score_C.tolist(), strict=True)
        ]
        said.append(f"{name} {score:.2f} ({', '.join(of_channels)})")
    return ", ".join(said)


def _curve_figure(target_S: np.ndarray, output_S: np.ndarray, bin_hz: float, name: str, caption: str) -> str:
    frequency_S = np.arange(1, len(target_S) + 1) * bin_hz
    fig, (axes,) = figures.new_figure(height_in=1.8)
    axes.plot(frequency_S, target_S, linewidth=0.8, color=figures.COLOURS[5], label="target")
    axes.plot(frequency_S, output_S, linewidth=0.8, color=figures.COLOURS[1], label="output")
    axes.set(xlabel="frequency, Hz", ylabel=f"{name}, z-score")
    figures.add_legend(axes)
    return page.figure(figures.to_svg(fig), caption)


def envelope(x_T: np.ndarray, rate_hz: float, points: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values of a signal thinned to the minimum and maximum of short bins, so that peaks stay."""
    width = max(1, math.ceil(2 * len(x_T) / points))
    if width <= 2:
        return np.arange(len(x_T)) / rate_hz, x_T
    whole = len(x_T) // width * width
    bins = x_T[:whole].reshape(-1, width)
    ends = np.sort(np.stack([bins.argmin(axis=1), bins.argmax(axis=1)], axis=1), axis=1)
    return (
        (ends + np.arange(len(bins))[:, None] * width).ravel() / rate_hz,
        np.take_along_axis(bins, ends, axis=1).ravel(),
    )
