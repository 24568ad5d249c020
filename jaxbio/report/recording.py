"""The page of one recording, before anything is prepared: its channels, its scores, and what would be rejected.

What it shows is what preparation would do: the same windows, read and measured by the same functions.

    write_recording_report(recording, config, Path("look.html"))
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import ROLES, kind_of, printed
from jaxbio.data.recordings import Recording
from jaxbio.data.recordings.missing import MASKED, complete
from jaxbio.data.shard_plan import KEPT, Block, Settings, settings_of
from jaxbio.data.shards import Seconds, measure_windows, read_windows
from jaxbio.report.chosen import choose_examples
from jaxbio.report.figures import (
    COLOURS,
    WIDTH_IN,
    add_legend,
    colour_of,
    label_of,
    new_figure,
    stack_height_in,
    to_svg,
    write_png,
)
from jaxbio.report.page import facts, figure, page, section, table, write_page
from jaxbio.report.terms import SCORES, VARIANTS, tell_outcome
from jaxbio.report.text import capitalise
from jaxbio.signals.segments import RATE_COLUMNS, REASONS

_CHANNELS = (
    "Missing: the share of samples that are not there. Median score: of the waveform variant, over the segments that "
    "were read. Beats a minute: the median; in doubt are segments whose beats or pulses contradict each other."
)
_ABOUT_MEANS = {
    "subject": "whose it is; subjects never cross from training to test.",
    "length": "from the first sample to the last.",
    "start": "UTC, as the source states it.",
    "segments kept": "as preparation would store them.",
    "rejected": "segments, by the reason why not.",
}
_FRAMES = 800  # lowest and highest value of so many frames draw a whole recording
_SHADES = {"missing": COLOURS[1], "constant": COLOURS[3], "infinite": COLOURS[4]}
_OTHER_SHADE = COLOURS[5]


@dataclass(frozen=True)
class Examined:
    """What preparation would make of a recording's N windows: outcome (text) of each, scores, and envelopes.

    `low_NF`, `high_NF` by role: lowest and highest raw value in F frames of each window, NaN where nothing was read.
    """

    settings: Settings
    outcome_N: list[str]
    columns: dict[str, np.ndarray]
    low_NF: dict[str, np.ndarray]
    high_NF: dict[str, np.ndarray]
    failures: list[str]

    @property
    def start_N(self) -> np.ndarray:
        """Starts of the windows, s."""
        return np.arange(len(self.outcome_N)) * self.settings.segment_s

    @property
    def kept_N(self) -> np.ndarray:
        """Whether a window would be kept, bool."""
        return np.array(self.outcome_N) == KEPT


def examine(recording: Recording, config: ConfigDict) -> Examined:
    """Read and measure every window of a recording as preparation does, in the roles of the config that it has.

    Raises UserError where it has none that can be scored, is shorter than a window, or nothing of it can be read.
    """
    settings = settings_of(config)
    roles = tuple(role for role in settings.channels if role in recording.channels)
    roles = roles or tuple(role for role in ROLES if role in recording.channels)
    settings = replace(settings, channels=roles)
    windows = math.floor(recording.duration_s / settings.segment_s + 1e-6)
    if not roles:
        remedy = f"none of {', '.join(ROLES)} among its signals: say which plays a role with columns=ecg:NAME"
        raise UserError(Fault("recording", recording.recording, remedy))
    if windows == 0:
        remedy = (
            f"{recording.duration_s:g} s, a segment takes {settings.segment_s:g}: --config.data.segment_s shortens it"
        )
        raise UserError(Fault("recording", recording.recording, remedy))
    frames = max(1, _FRAMES // windows)
    seconds: Seconds = defaultdict(float)
    outcome_N = ["unread"] * windows
    columns: dict[str, np.ndarray] = {}
    low_NF = {role: np.full((windows, frames), np.nan, np.float32) for role in roles}
    high_NF = {role: np.full((windows, frames), np.nan, np.float32) for role in roles}
    for read in read_windows([Block(recording, 0, windows)], settings, seconds):
        measured = measure_windows(read, settings)
        for window, reason in zip(read.window_B.tolist(), measured.reason_B.tolist(), strict=True):
            outcome_N[window] = REASONS[reason]
        for name, column_B in measured.columns.items():
            columns.setdefault(name, np.full(windows, np.nan, np.float32))[read.window_B] = column_B
        for role, x_BN in read.raw.items():
            low_NF[role][read.window_B], high_NF[role][read.window_B] = _envelope(x_BN, frames)
    failures = [f"{detail} ({reason}, {spent_s:g} s)" for (_, reason, detail), spent_s in sorted(seconds.items())]
    if not columns:
        raise UserError(Fault("recording", recording.recording, f"none of it can be read: {failures[0]}"))
    return Examined(settings, outcome_N, columns, low_NF, high_NF, failures)


def summarise(recording: Recording, examined: Examined, required: Sequence[str]) -> dict[str, Any]:
    """Return what a script wants to know of an examined recording, ready for JSON."""
    outcomes = Counter(examined.outcome_N)
    medians = {
        f"quality_{variant}": round(float(np.median(examined.columns[f"quality_{variant}"][examined.kept_N])), 4)
        for variant in VARIANTS
        if examined.kept_N.any()
    }
    return {
        "source": recording.source,
        "recording": recording.recording,
        "subject": recording.subject,
        "subject_known": recording.subject_known,
        "duration_s": recording.duration_s,
        "channels": {
            role: {"name": channel.name, "unit": channel.unit, "rate_hz": channel.rate_hz}
            for role, channel in recording.channels.items()
        },
        "signals": list(recording.signals),
        "missing_channels": [role for role in required if role not in recording.channels],
        "segments": len(examined.outcome_N),
        "kept": outcomes.pop(KEPT, 0),
        "rejected": dict(outcomes),
        "rate_in_doubt": {
            role: int(np.nansum(examined.columns[f"{role}_rate_doubt"])) for role in examined.settings.channels
        },
        **medians,
    }


def write_recording_report(recording: Recording, config: ConfigDict, path: Path) -> dict[str, Any]:
    """Draw a recording to `path`, a page (.html) or the overview alone (.png); return its summary."""
    recording = complete(recording, config.data.channels, config.prepare.missing_channel)
    examined = examine(recording, config)
    summary = summarise(recording, examined, config.data.channels)
    if path.suffix == ".png":
        write_png(draw_overview(recording, examined), path)
        return summary
    title = f"{recording.source}: {recording.recording}"
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary["rejected"].items()) or "none"
    start = "not stated"
    if recording.start_time is not None:
        start = datetime.fromtimestamp(recording.start_time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    channels = _channel_table(recording, examined)
    about = {
        "subject": recording.subject if recording.subject_known else "not known",
        "length": f"{recording.duration_s / 60:,.1f} min",
        "start": start,
        "segments kept": f"{summary['kept']} of {summary['segments']}",
        "rejected": rejected,
        **{
            f"median score, {label}": f"{summary[f'quality_{variant}']:.3f}"
            for variant, label in VARIANTS.items()
            if f"quality_{variant}" in summary
        },
    }
    meanings = _ABOUT_MEANS | {f"median score, {VARIANTS[variant]}": said for variant, said in SCORES.items()}
    in_words = "; ".join(f"{reason}: {tell_outcome(reason)}" for reason in summary["rejected"])
    shaded = f"Shaded: rejected. {capitalise(in_words)}." if in_words else "Nothing is rejected; it would be shaded."
    shown = (
        "The best, the middle and the worst of the segments that are kept, by the waveform score, and the first of "
        "each kind that is rejected; in physical units, as stored in the source. Under each its score, and its "
        "channels'."
    )
    sections = [
        section("In short", verdict=_judge(summary), note=_CHANNELS, below=[facts(about, meanings), channels]),
        section("The whole recording", *_overview_figures(recording, examined), note=shaded),
        section("Segments", *_examples(recording, examined), note=shown),
    ]
    if examined.failures:
        failed = table([[failure] for failure in examined.failures], ["what failed"])
        sections.append(section("Not read", note="Windows that preparation would reject as well.", below=[failed]))
    intro = f"{examined.settings.segment_s:g}-s segments as preparation would cut and score them."
    write_page(path, page(title, intro, *sections))
    return summary


def _judge(summary: Mapping[str, Any]) -> str:
    """Return in words what preparation would make of the recording."""
    if summary["missing_channels"]:
        missing = ", ".join(summary["missing_channels"])
        return f"Preparation would refuse this recording: it has no {missing}."
    said = f"Preparation would keep {summary['kept']} of its {summary['segments']} segments"
    median = summary.get("quality_waveform")
    return f"{said}." if median is None else f"{said}; their median score is {median:.2f} of 1 (waveform variant)."


def draw_overview(recording: Recording, examined: Examined) -> Figure:
    """Return the whole recording as one picture: each channel's range over time, and below them the scores."""
    roles = examined.settings.channels
    fig, axes = new_figure(
        len(roles) + 1, width_in=2 * WIDTH_IN, height_in=stack_height_in(len(roles)) + 1.6, sharex=True
    )
    for axis, role in zip(axes, roles, strict=False):  # the last axis is that of the scores
        _draw_range(axis, recording, examined, role)
        axis.set(xlabel="")
    _draw_scores(axes[-1], examined)
    return fig


def _overview_figures(recording: Recording, examined: Examined) -> list[str]:
    """Return the parts of the overview as figures of their own, whose letters stay readable on a phone."""
    figures = []
    for role in examined.settings.channels:
        fig, (axis,) = new_figure(height_in=1.5)
        _draw_range(axis, recording, examined, role)
        figures.append(
            figure(
                to_svg(fig), f"{printed(role)} ({recording.channels[role].name}): lowest and highest value over time"
            )
        )
    fig, (axis,) = new_figure(height_in=1.5)
    _draw_scores(axis, examined)
    return [*figures, figure(to_svg(fig), "Score of every segment that is kept, by both variants")]


def _draw_range(axis: Axes, recording: Recording, examined: Examined, role: str) -> None:
    low_NF, high_NF = examined.low_NF[role], examined.high_NF[role]
    frame_min = examined.settings.segment_s / 60 / low_NF.shape[1]
    at_min = (np.arange(low_NF.size) + 0.5) * frame_min
    axis.fill_between(at_min, low_NF.ravel(), high_NF.ravel(), color=colour_of(role), linewidth=0.4)
    channel = recording.channels[role]
    axis.set(ylabel=label_of(channel.name, channel.unit))
    _mark_time(axis, examined)


def _draw_scores(axis: Axes, examined: Examined) -> None:
    middle_min = (examined.start_N + examined.settings.segment_s / 2) / 60
    for (variant, label), colour in zip(VARIANTS.items(), COLOURS, strict=False):
        score_N = np.where(examined.kept_N, examined.columns[f"quality_{variant}"], np.nan)
        axis.plot(middle_min, score_N, marker=".", markersize=3, color=colour, label=label)
    axis.set(ylabel="score", ylim=(-0.03, 1.03))
    add_legend(axis)
    _mark_time(axis, examined)


def _mark_time(axis: Axes, examined: Examined) -> None:
    """Set the axis of time, and shade what would be rejected."""
    segment_min = examined.settings.segment_s / 60
    axis.set(xlabel="time, min", xlim=(0, segment_min * len(examined.outcome_N)))
    for window, outcome in enumerate(examined.outcome_N):
        if outcome != KEPT:
            shade = _SHADES.get(outcome, _OTHER_SHADE)
            axis.axvspan(window * segment_min, (window + 1) * segment_min, color=shade, alpha=0.15, linewidth=0)


def _channel_table(recording: Recording, examined: Examined) -> str:
    rows = []
    for role, channel in recording.channels.items():
        missing, score, beats = "not scored", "", ""
        if role in examined.settings.channels:
            score_N = examined.columns[f"{role}_waveform"]
            known_N = score_N[~np.isnan(score_N)]  # of windows that were read, in which the channel is not masked
            missing = f"{np.nanmean(examined.columns[f'{role}_missing_frac']):.1%}"
            score = f"{np.median(known_N):.3f}" if known_N.size else MASKED
            beats = _say_rate(role, examined) if known_N.size else ""
        rows.append((role, channel.name, channel.unit, f"{channel.rate_hz:g}", missing, score, beats))
    heads = ("role", "name in the source", "unit", "rate, Hz", "missing", "median score", "beats a minute")
    return table(rows, heads)


def _say_rate(role: str, examined: Examined) -> str:
    """Return a channel's median rate in words, in how many segments it is in doubt, and whether it is upside down."""
    rate_N = examined.columns[RATE_COLUMNS[kind_of(role)]]
    sure_N = rate_N[np.isfinite(rate_N)]
    said = [f"{np.median(sure_N):.0f}"] if sure_N.size else []
    doubt_N = examined.columns[f"{role}_rate_doubt"] == 1
    if doubt_N.any():
        said.append(f"in doubt in {doubt_N.sum()} of {len(doubt_N)} segments")
    if (upside_down := np.nansum(examined.columns.get(f"{role}_inverted", np.zeros(1)))) > 0:
        said.append(f"upside down in {upside_down:.0f}")
    return ", ".join(said)


def _examples(recording: Recording, examined: Examined) -> list[str]:
    """Return the best, the middle and the worst kept segment, and the first of each rejection."""
    quality_N = examined.columns["quality_waveform"]
    kept = np.flatnonzero(examined.kept_N)
    found = choose_examples(quality_N[kept])
    chosen = {int(kept[place]): f"{which} that is kept" for place, which in found.items()}
    for reason in sorted(set(examined.outcome_N) - {KEPT, "unread"}):
        chosen[examined.outcome_N.index(reason)] = f"rejected: {reason}"
    figures = []
    for window, what in sorted(chosen.items()):
        start_s = float(examined.start_N[window])
        by_role = {role: float(examined.columns[f"{role}_waveform"][window]) for role in examined.settings.channels}
        scores = [f"{printed(role)} {MASKED if np.isnan(score) else f'{score:.2f}'}" for role, score in by_role.items()]
        caption = f"At {start_s:g} s, {what}: {quality_N[window]:.3f} ({', '.join(scores)})"
        figures.append(figure(to_svg(_draw_window(recording, examined.settings, start_s)), caption))
    return figures


def _draw_window(recording: Recording, settings: Settings, start_s: float) -> Figure:
    roles = settings.channels
    signals = recording.read(start_s, min(start_s + settings.segment_s, recording.duration_s), roles)
    fig, axes = new_figure(len(roles), height_in=stack_height_in(len(roles)), sharex=True)
    for axis, role in zip(axes, roles, strict=True):
        at_s = start_s + np.arange(len(signals[role])) / recording.channels[role].rate_hz
        axis.plot(at_s, signals[role], linewidth=0.6, color=colour_of(role))
        axis.set(
            ylabel=label_of(printed(role), recording.channels[role].unit), xlim=(start_s, start_s + settings.segment_s)
        )
    axes[-1].set(xlabel="time, s")
    return fig


def _envelope(x_BN: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lowest and highest value (B, F) of `frames` stretches of each row; NaN where all of one is missing."""
    edges = np.arange(frames) * x_BN.shape[1] // frames
    return np.fmin.reduceat(x_BN, edges, axis=1), np.fmax.reduceat(x_BN, edges, axis=1)
