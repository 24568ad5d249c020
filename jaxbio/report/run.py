"""The page of a run, drawn from its folder while it trains: what it learns, whether it collapses, where time goes.

It reads `config.json`, `metrics.jsonl` and `examples.npz` and knows no objective: keys are drawn by their area, and
what an objective wants shown comes as `Examples`.

    write_run_report(workdir)                                   # -> workdir/report.html
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config import fields
from jaxbio.config.changes import plain
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import printed
from jaxbio.report import figures, page, verdict
from jaxbio.report.series import Series, read_series
from jaxbio.report.verdict import judge

_POINTS = 300  # of a curve; more are drawn as the mean and range of as many bins
_PAIRS = 2
_SCHEDULES = {
    "train/learning_rate": "learning rate",
    "train/weight_decay": "weight decay",
    "train/ema_momentum": "teacher momentum",
}
_SPEED = {
    "perf/pairs_per_s": "pairs/s",
    "perf/mfu": "share of the peak",
    "perf/step_s": "step, s",
    "data/wait_s": "loader wait, s",
}
_MEMORY = {"memory/host_resident_bytes": "host, GiB", "memory/device_peak_bytes": "device peak, GiB"}
_MONITORS = ("batch_spread", "effective_rank", "teacher_entropy")
_NORMS = ("grad_norm", "param_norm", "update_norm")


@dataclass(frozen=True)
class Examples:
    """Pairs to draw: `segment_BMCT` as the network sees them, and curves (target_BCS, output_BCS) by name.

    `rate_hz` is the segments' sampling rate, `bin_hz` the distance between two bins of the curves.
    """

    segment_BMCT: np.ndarray
    rate_hz: float
    channels: Sequence[str]
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    bin_hz: float


def write_run_report(workdir: os.PathLike | str) -> Path:
    """Write `report.html` into a run's folder, from what lies there, and return its path.

    Raises UserError where the folder holds no run.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    series = read_series(workdir)
    examples = read_examples(workdir)
    step = max((int(step_N[-1]) for step_N, _ in series.values()), default=0)
    name = f"{config.get('model.name', 'run')} · {config.get('objective.name', '')}"
    intro = f"Run folder {workdir}. The page is drawn anew while the run goes on; the record is metrics.jsonl."
    sections = [
        page.section("Now", page.facts(_state_of(config, series, step))),
        _verdict_section(series),
        _loss_section(series),
        _curves_section(
            "Does it collapse?",
            {key: _label(key) for key in series if key.endswith(_MONITORS)},
            series,
            "A collapsed encoder gives every segment the same vector: spread and effective rank of the pooled features "
            "fall towards nothing. They are measured on held-out segments at every evaluation. Where there is a "
            "teacher, it is what is exported: a few tenths of its spread at step 0 are health, a hundredth is not. The "
            "student dips first.",
        ),
        _curves_section(
            "What linear probes read",
            {key: _label(key) for key in series if key.startswith("eval/probe_")},
            series,
            "A linear model on the frozen features, fitted on segments of the train split and tested on validation, by "
            "the store's own labels; the constant sees no segment.",
        ),
        _curves_section("Schedules", _schedules(series), series, "As the run used them, step by step."),
        _curves_section(
            "Norms",
            {key: _label(key) for key in series if key.endswith(_NORMS)},
            series,
            "Of all gradients, parameters and updates together.",
        ),
        _curves_section("Speed", _SPEED, series, "Pairs of segments a second over all devices, and what holds it up."),
        _time_section(series),
        _curves_section("Memory", _MEMORY, _in_gib(series), "Of process 0: resident, and the device's peak."),
        *(_example_sections(examples) if examples else []),
        _rest_section(series),
        _settings_section(config),
    ]
    return page.write_page(workdir / "report.html", page.page(name, intro, *filter(None, sections)))


def read_config(workdir: os.PathLike | str) -> dict[str, Any]:
    """Return the run's configuration, dotted name -> value; raises UserError where the folder holds no run."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(Fault("--workdir", str(workdir), "no config.json there; name the folder of a run"))
    return json.loads(path.read_text())


def write_examples(workdir: os.PathLike | str, examples: Examples) -> Path:
    """Write `examples.npz` into a run's folder, in one move; return its path."""
    path = Path(workdir) / "examples.npz"
    unfinished = path.with_name(f".{path.name}")
    arrays: dict[str, Any] = {
        "segment_BMCT": examples.segment_BMCT,
        "rate_hz": examples.rate_hz,
        "bin_hz": examples.bin_hz,
        "channels": np.array(examples.channels),
    }
    for name, (target_BCS, output_BCS) in examples.curves.items():
        arrays |= {f"target/{name}": target_BCS, f"output/{name}": output_BCS}
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(path)
    return path


def read_examples(workdir: os.PathLike | str) -> Examples | None:
    """Return what `write_examples` wrote; None where nothing was."""
    path = Path(workdir) / "examples.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        names = [key.removeprefix("target/") for key in stored.files if key.startswith("target/")]
        curves = {name: (stored[f"target/{name}"], stored[f"output/{name}"]) for name in names}
        channels = tuple(map(str, stored["channels"]))
        return Examples(stored["segment_BMCT"], float(stored["rate_hz"]), channels, curves, float(stored["bin_hz"]))


def _state_of(config: Mapping[str, Any], series: Series, step: int) -> dict[str, str]:
    """Return what a glance should tell: how far, how fast, how well."""
    steps = config.get("train.steps")
    last = {key: value_N[-1] for key, (_, value_N) in series.items()}
    said = {"step": f"{step:,} of {steps:,}" if steps else f"{step:,}"}
    for key, label in (
        ("train/loss", "loss"),
        ("eval/loss", "held-out loss"),
        ("perf/pairs_per_s", "pairs/s"),
        ("perf/mfu", "share of the peak"),
        ("train/nonfinite", "refused updates"),
        ("time/starts", "starts"),
    ):
        if key in last:
            said[label] = f"{last[key]:.4g}"
    spent = _time_parts(series)
    return {**said, "running": _duration(sum(spent.values()))} if spent else said


def _time_parts(series: Series) -> dict[str, float]:
    """Return the seconds spent so far in each part of the run."""
    return {
        key.removeprefix("time/").removesuffix("_s"): float(value_N[-1])
        for key, (_, value_N) in series.items()
        if key.startswith("time/") and key.endswith("_s")
    }


def _loss_section(series: Series) -> str:
    """Draw the loss and each of its terms, training and held-out together."""
    skipped = {"train/nonfinite", *_schedules(series), *(key for key in series if key.endswith((*_MONITORS, *_NORMS)))}
    terms = [key.removeprefix("train/") for key in series if key.startswith("train/") and key not in skipped]
    terms.sort(key=lambda term: term != "loss")  # the sum first, then its terms
    blocks = []
    for term in terms:
        fig, (axes,) = figures.new_figure()
        _draw(axes, series[f"train/{term}"], "training", figures.COLOURS[0])
        if f"eval/{term}" in series:
            step_N, value_N = series[f"eval/{term}"]
            axes.plot(step_N, value_N, "o-", color=figures.COLOURS[1], markersize=3, label="held out")
            figures.add_legend(axes)
        axes.set(xlabel="step", ylabel=term.replace("_", " "))
        blocks.append(page.figure(figures.to_svg(fig), f"{term.replace('_', ' ').capitalize()} by step"))
    if not blocks:
        return page.section("Losses", page.paragraph("No step has been logged yet."))
    note = (
        "A self-distillation loss alone says little: before training, teacher and student are one network and agree, "
        "so it may rise above step 0 without harm. Look at its other terms and at the collapse monitors."
    )
    return page.section("Losses", *blocks, note=note)


def _verdict_section(series: Series) -> str:
    """Say in words what the evaluations show, beside the share of the main loss that is explained."""
    findings = judge(series)
    if not findings:
        return ""
    words = [page.paragraph(finding.words) for finding in findings]
    labels = {key: _label(key) for key in series if key.endswith("_explained")}
    note = (
        "Judged on held-out segments at every evaluation. Explained: the share of the way from the best prediction that "
        "is the same for every segment, 0, to the least that the term can be, 1; below 0 it is worse than a constant. "
        f"A share of {verdict.LEARNS:g} counts as learning. An encoder has collapsed when it gives every segment nearly "
        f"the same vector: under {verdict.LEAST_SPREAD:.0%} of the spread, or {verdict.LEAST_RANK:.0%} of the effective "
        "rank, of its first evaluation."
    )
    curves = _curves_section("Does it learn?", labels, series, note)
    said = "".join(words)
    return (
        curves.replace('<div class="blocks">', f'{said}<div class="blocks">', 1)
        if curves
        else page.section("Does it learn?", *words, note=note)
    )


def _schedules(series: Series) -> dict[str, str]:
    """Return the label of every schedule that the run logged; those of `optimizer.groups[1]` end in `_group_1`."""
    return {
        key: label + key.removeprefix(plain_key).replace("_", " ")
        for plain_key, label in _SCHEDULES.items()
        for key in series
        if key == plain_key or key.startswith(f"{plain_key}_group_")
    }


def _curves_section(heading: str, labels: Mapping[str, str], series: Series, note: str) -> str:
    """Draw one figure for each key of `labels` that the run logged; nothing where it logged none."""
    blocks = []
    for colour, (key, label) in zip(figures.COLOURS * 4, labels.items()):
        if key in series:
            fig, (axes,) = figures.new_figure(height_in=1.8)
            _draw(axes, series[key], None, colour)
            axes.set(xlabel="step", ylabel=label)
            values = series[key][1]
            axes.set_ylim(min(0.0, 1.08 * values.min()), max(1.08 * values.max(), 1e-12))
            blocks.append(page.figure(figures.to_svg(fig), f"{key} by step"))
    return page.section(heading, *blocks, note=note) if blocks else ""


def _time_section(series: Series) -> str:
    """Draw the cumulative seconds of `time/<part>_s` as bars."""
    parts = _time_parts(series)
    if not parts:
        return ""
    total = max(sum(parts.values()), 1e-9)
    ordered = sorted(parts.items(), key=lambda part: part[1])
    fig, (axes,) = figures.new_figure(height_in=0.6 + 0.25 * len(ordered))
    bars = axes.barh([name.replace("_", " ") for name, _ in ordered], [seconds for _, seconds in ordered])
    axes.bar_label(bars, [f"{seconds / total:.1%}" for _, seconds in ordered], fontsize=7.5, padding=2)
    axes.set(xlabel="s")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.18)
    caption = f"Where {_duration(total)} went; shares of the whole"
    return page.section("Where the time went", page.figure(figures.to_svg(fig), caption))


def _example_sections(examples: Examples) -> list[str]:
    """Draw pairs, and the curves the network made of the worse member beside those of the better one."""
    pairs = min(_PAIRS, len(examples.segment_BMCT))
    blocks = [_pair_figure(examples, pair) for pair in range(pairs)]
    note = "As the network sees them, prepared. It is trained to find in the worse member what the better one shows."
    sections = [page.section("Pairs", *blocks, note=note)]
    blocks = [
        _curve_figure(examples, name, pair, place)
        for pair in range(pairs)
        for name, curves in examples.curves.items()
        for place in range(min(len(examples.channels), *(curve_BCS.shape[1] for curve_BCS in curves)))
    ]
    if blocks:
        note = "Target: of the better member. Output: what the network makes of the worse one."
        sections.append(page.section("Reconstruction beside the target", *blocks, note=note))
    return sections


def _pair_figure(examples: Examples, pair: int) -> str:
    segment_MCT = examples.segment_BMCT[pair]
    members = ("better", "worse") if len(segment_MCT) == 2 else tuple(f"member {m}" for m in range(len(segment_MCT)))
    rows = [(role, c, m) for c, role in enumerate(examples.channels) for m in range(len(segment_MCT))]
    fig, axes = figures.new_figure(len(rows), height_in=figures.stack_height_in(len(rows)), sharex=True)
    for panel, (role, c, m) in zip(axes, rows):
        t_T, x_T = _envelope(segment_MCT[m, c], examples.rate_hz)
        panel.plot(t_T, x_T, linewidth=0.7, color=figures.COLOURS[m])
        panel.set(ylabel=f"{printed(role)}\n{members[m]}" if len(members) > 1 else printed(role))
    axes[-1].set(xlabel="time, s")
    return page.figure(figures.to_svg(fig), f"Pair {pair + 1}: amplitudes in scaled units")


def _curve_figure(examples: Examples, name: str, pair: int, place: int) -> str:
    # without bin 0, the mean of the signal, beside which the others would not be seen
    target_S, output_S = (array[pair, place, 1:] for array in examples.curves[name])
    frequency_S = np.arange(1, len(target_S) + 1) * examples.bin_hz
    fig, (axes,) = figures.new_figure(height_in=1.8)
    axes.plot(frequency_S, target_S, linewidth=0.8, color=figures.COLOURS[5], label="target")
    axes.plot(frequency_S, output_S, linewidth=0.8, color=figures.COLOURS[1], label="output")
    axes.set(xlabel="frequency, Hz", ylabel=f"{name}, z-score")
    figures.add_legend(axes)
    return page.figure(figures.to_svg(fig), f"Pair {pair + 1}, {printed(examples.channels[place])}: {name}")


def _rest_section(series: Series) -> str:
    """List the last value of every key."""
    rows = [(key, f"{int(step_N[-1]):,}", _number(value_N[-1])) for key, (step_N, value_N) in sorted(series.items())]
    return page.section("Last values", page.table(rows, ("key", "step", "value"))) if rows else ""


def _settings_section(config: Mapping[str, Any]) -> str:
    """List what differs from the table of fields, and then every field."""
    table = fields.table(config["model.name"], config["objective.name"])
    rows = [
        (name, _shown(value), _shown(table[name].default), table[name].reason)
        for name, value in config.items()
        if name in table and value != plain(table[name].default)
    ]
    note = "Fields that differ from their default; config.json in the run's folder has all of them."
    return page.section("Settings", page.table(rows, ("field", "value", "default", "what it is")), note=note)


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


def _envelope(x_T: np.ndarray, rate_hz: float, points: int = 900) -> tuple[np.ndarray, np.ndarray]:
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


def _in_gib(series: Series) -> Series:
    return {key: (step_N, value_N / 2**30) for key, (step_N, value_N) in series.items() if key in _MEMORY}


def _label(key: str) -> str:
    return key.partition("/")[2].replace("/", " ").replace("_", " ")


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.6g}"


def _shown(value: Any) -> str:
    return str(tuple(value) if isinstance(value, list) else value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
