"""The page of a run, drawn from its folder while it trains: what it learns, whether it collapses, where time goes.

It reads `config.json`, `metrics.jsonl` and `examples.npz` and knows no objective: keys are drawn by their area, and
what an objective wants shown comes as `Examples`. What a key means, `terms.py` and the objective's family say.

    write_run_report(workdir)                                   # -> workdir/report.html
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config import fields
from jaxbio.config.changes import plain
from jaxbio.config.faults import Fault, UserError
from jaxbio.report import figures, page
from jaxbio.report.examples import draw_examples, read_examples
from jaxbio.report.series import Record, Series
from jaxbio.report.terms import describe, read_probe
from jaxbio.report.text import capitalise
from jaxbio.report.verdict import EXPLAINABLE, EXPLAINED, judge_codes, judge_encoders, judge_terms, words_of

_POINTS = 300  # of a curve; more are drawn as the mean and range of as many bins
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
_MEMORY = {
    "memory/host_resident_bytes": "host, GiB",
    "memory/host_peak_bytes": "host peak, GiB",
    "memory/device_peak_bytes": "device peak, GiB",
}
_MONITORS = (
    "batch_spread",
    "effective_rank",
    "teacher_entropy",
    "student_entropy",
    "student_mean_entropy",
    "output_spread",
    "code_perplexity",
    "unused_codes",
    "identical_codes",
)
_NORMS = ("grad_norm", "param_norm", "update_norm")
_NOW = {
    "train/loss": "loss",
    "eval/loss": "held-out loss",
    "perf/pairs_per_s": "pairs/s",
    "perf/mfu": "share of the peak",
    "train/nonfinite": "refused updates",
    "time/starts": "starts",
}
_CLEAR = 0.1  # share of an error by which two answers must differ to be called different, where no interval is known


def write_run_report(workdir: os.PathLike | str, record: Record | None = None) -> Path:
    """Write `report.html` into a run's folder, from what lies there, and return its path.

    Whoever draws it again and again keeps the `record` of that folder, so that only new lines are read.

    Raises UserError where the folder holds no run.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    objective = config["objective.name"]
    series = (record or Record(workdir)).read()
    examples = read_examples(workdir)
    step = max((int(step_N[-1]) for step_N, _ in series.values()), default=0)
    intro = f"Run folder {workdir}. The page is drawn anew while the run goes on; the record is metrics.jsonl."
    sections = [
        _now_section(config, series, step),
        _curves_section("Does it learn?", _judged(series), series, objective, _LEARNS, words_of(judge_terms(series))),
        _curves_section(
            "Does it collapse?",
            _monitors(series),
            series,
            objective,
            _COLLAPSE,
            words_of([*judge_encoders(series), *judge_codes(series)]),
        ),
        _loss_section(series, objective),
        _curves_section(
            "What each channel is worth", _by_channels(series), series, objective, _CHANNELS, from_zero=False
        ),
        _curves_section("What linear probes read", _probes(series), series, objective, _PROBES, judge_probes(series)),
        _curves_section("Schedules", _each(_schedules(series)), series, objective, "As the run used them."),
        _curves_section("Norms", _each(_norms(series)), series, objective, _NORMS_SAY),
        _curves_section("Speed", _each(_SPEED), series, objective, "How fast it goes, and what holds it up."),
        _time_section(series, objective),
        _curves_section(
            "Memory",
            _each(_MEMORY),
            _in_gib(series),
            objective,
            "What process 0 holds, and its devices at most, in GiB (2^30 bytes).",
        ),
        *(draw_examples(examples, objective) if examples else []),
        _rest_section(series, objective),
        _settings_section(config),
    ]
    name = f"{config['model.name']} · {objective}"
    return page.write_page(workdir / "report.html", page.page(name, intro, *filter(None, sections)))


_LEARNS = (
    "On held-out segments, at every evaluation. Explained is the share of the way that a loss has come from the best "
    "prediction that is the same for every segment, 0, to the least there can be, 1; below 0 a constant does better. "
    "Explainable is the length of that way: where it is nothing, there is nothing to learn."
)
_COLLAPSE = (
    "A collapsed encoder gives every segment the same vector: spread and effective rank of the pooled features (the "
    "mean over an encoder's tokens) fall towards nothing. They are measured on held-out segments at every evaluation. "
    "Where there is a teacher, it is what is exported: a few tenths of its spread at step 0 are health, a hundredth is "
    "not. The student dips first. Entropies say how sharp the compared distributions are, one by one and in the mean. "
    "A collapsed codebook gives every patch one code, which is then identical in every view: its perplexity falls to 1."
)
_PROBES = (
    "A linear model on the frozen features, fitted on segments of the train split and tested on validation, by the "
    "store's own labels; the constant is the mean, or the commonest class, of the former and sees no segment."
)
_CHANNELS = (
    "Held-out segments answered from all their channels, and from those of one kind alone, as for somebody who has no "
    "others. Training drops channels with the probability augment.drop_channel."
)
_NORMS_SAY = (
    "Lengths (roots of sums of squares) over all parameters together. A gradient that grows without end, or an update "
    "that is no small part of the parameters, foretells a run that diverges."
)


def read_config(workdir: os.PathLike | str) -> dict[str, Any]:
    """Return the run's configuration, dotted name -> value; raises UserError where the folder holds no run."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(Fault("--workdir", str(workdir), "no config.json there; name the folder of a run"))
    return json.loads(path.read_text())


def _now_section(config: Mapping[str, Any], series: Series, step: int) -> str:
    """Say what a glance should tell: how far, how fast, how well."""
    steps = config["train.steps"]
    said = {"step": f"{step:,} of {steps:,}"}
    meanings = {"step": "updates of the optimiser: done, and planned (train.steps)."}
    for key, label in _NOW.items():
        if key in series:
            said[label] = f"{series[key][1][-1]:.4g}"
            meanings[label] = describe(key, config["objective.name"])
    if "held-out loss" in said:
        meanings["held-out loss"] = "the same of segments of the validation split, without dropout or augmentation."
    if spent := _time_parts(series):
        said["running"] = _duration(sum(spent.values()))
        meanings["running"] = "over all starts of the run, without what was lost between them."
    return page.section("Now", below=[page.facts(said, meanings)])


def _time_parts(series: Series) -> dict[str, float]:
    """Return the seconds spent so far in each part of the run."""
    return {
        key.removeprefix("time/").removesuffix("_s"): float(value_N[-1])
        for key, (_, value_N) in series.items()
        if key.startswith("time/") and key.endswith("_s")
    }


def _loss_section(series: Series, objective: str) -> str:
    """Draw the loss and each of its terms, training and held-out together."""
    skipped = {"train/nonfinite", *_schedules(series), *(key for key in series if key.endswith((*_MONITORS, *_NORMS)))}
    terms = [key.removeprefix("train/") for key in series if key.startswith("train/") and key not in skipped]
    terms.sort(key=lambda term: term != "loss")  # the sum first, then its terms
    if not terms:
        return page.section("Losses", page.paragraph("No step has been logged yet."))
    panels = {term.replace("_", " "): {"training": f"train/{term}", "held out": f"eval/{term}"} for term in terms}
    note = (
        "On batches of training, and held out: on pairs of other subjects, at every evaluation. "
        "A self-distillation loss alone says little: before training, teacher and student are one network and agree, "
        "so it may rise above step 0 without harm. Look at its other terms and at the collapse monitors."
    )
    return _curves_section("Losses", panels, series, objective, note, from_zero=False)


def _schedules(series: Series) -> dict[str, str]:
    """Return the label of every schedule that the run logged; those of `optimizer.groups[1]` end in `_group_1`."""
    return {
        key: label + key.removeprefix(plain_key).replace("_", " ")
        for plain_key, label in _SCHEDULES.items()
        for key in series
        if key == plain_key or key.startswith(f"{plain_key}_group_")
    }


def _norms(series: Series) -> dict[str, str]:
    return {key: key.partition("/")[2].replace("_", " ") for key in series if key.endswith(_NORMS)}


def _each(labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return a panel of one line for each key with its label."""
    return {label: {"": key} for key, label in labels.items()}


def _by_channels(series: Series) -> dict[str, dict[str, str]]:
    """Return a panel for each metric that was measured from one kind of channel alone, a line for each."""
    panels: dict[str, dict[str, str]] = {}
    for key in series:
        if found := re.fullmatch(r"(eval/(\w+))_([a-z]+)_only", key):
            lines = panels.setdefault(found[2], {"all channels": found[1]})
            lines[f"{found[3].upper()} only"] = key
    return panels


def _judged(series: Series) -> dict[str, dict[str, str]]:
    """Return for each term that can be judged a panel of it beside what it is judged by, of how much of it is
    explained, and of how much there is to explain.
    """
    panels: dict[str, dict[str, str]] = {}
    for term in [key.removesuffix(EXPLAINED) for key in series if key.endswith(EXPLAINED)]:
        name = term.removeprefix("eval/").replace("_", " ")
        beside = {
            "held out": term,
            "a prediction that says nothing": f"{term}_uniform",
            "the best constant": f"{term}_constant",
            "the least there can be": f"{term}_floor" if f"{term}_floor" in series else "eval/teacher_entropy",
        }
        panels[name] = {label: key for label, key in beside.items() if key in series}
        panels[f"{name} explained"] = {"held out": f"{term}{EXPLAINED}"}
        if f"{term}{EXPLAINABLE}" in series:
            panels[f"{name} explainable"] = {"held out": f"{term}{EXPLAINABLE}"}
    return panels


def _monitors(series: Series) -> dict[str, dict[str, str]]:
    """Return a panel for each monitor, with a line for each encoder, or for training and held-out segments."""
    panels: dict[str, dict[str, str]] = {}
    for monitor in _MONITORS:
        for key in series:
            if key.endswith(monitor):
                area, _, name = key.partition("/")
                whose = name.removesuffix(monitor).replace("_", " ").strip()
                line = whose or ("held out" if area == "eval" else "training")
                panels.setdefault(monitor.replace("_", " "), {})[line] = key
    return {name: dict(sorted(lines.items(), reverse=True)) for name, lines in panels.items()}


def _probes(series: Series) -> dict[str, dict[str, str]]:
    """Return a panel for each task of the linear probes, with a line for each who answers."""
    panels: dict[str, dict[str, str]] = {}
    for key in series:
        if probe := read_probe(key):
            task, metric, answerer = probe
            panels.setdefault(f"{task} {metric}".replace("_", " "), {})[answerer] = key
    return panels


def judge_probes(series: Series) -> str:
    """Return in words what the encoders tell of each task beside the constant, and beside themselves at the start."""
    said = []
    for lines in _probes(series).values():
        last = {answerer: float(series[key][1][-1]) for answerer, key in lines.items()}
        constant = last.pop("constant", None)
        if constant is None or not last:
            continue
        task, metric, _ = read_probe(next(iter(lines.values()))) or ("", "", "")
        sign = -1.0 if metric == "mae" else 1.0
        best = max(last, key=lambda answerer: sign * last[answerer])
        first = float(series[lines[best]][1][0])
        reads = "is read from" if sign * (last[best] - constant) > _CLEAR * constant else "is hardly read from"
        moved = sign * (last[best] - first) / max(abs(first), 1e-12)
        trend = "better than" if moved > _CLEAR else "worse than" if moved < -_CLEAR else "much as"
        said.append(
            f"{capitalise(task.replace('_', ' '))} {reads} the {best} ({metric.replace('_', ' ')} {last[best]:.3g}; "
            f"the constant {constant:.3g}), {trend} at the run's first evaluation ({first:.3g})."
        )
    if not said:
        return ""
    trust = "Few segments and no interval: less than a tenth may be chance. tools/evaluate.py says it with intervals."
    return " ".join([*said, trust])


def _curves_section(
    heading: str,
    panels: Mapping[str, Mapping[str, str]],
    series: Series,
    objective: str,
    note: str,
    verdict: str = "",
    *,
    from_zero: bool = True,
) -> str:
    """Draw a figure for each panel, name -> {line: key}, of which the run logged a key; nothing where there is none."""
    blocks = []
    for number, (name, lines) in enumerate(panels.items()):
        logged = {line: key for line, key in lines.items() if key in series}
        if logged:
            colours = [figures.COLOURS[(number * (len(lines) == 1) + place) % 8] for place in range(len(logged))]
            svg = _draw_panel(name, {line: series[key] for line, key in logged.items()}, colours, from_zero=from_zero)
            meanings = dict.fromkeys(_without_whom(key, objective) for key in logged.values())
            blocks.append(page.figure(svg, f"{capitalise(name)}: {' '.join(meanings)}"))
    return page.section(heading, *blocks, note=note, verdict=verdict) if blocks else ""


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


def _time_section(series: Series, objective: str) -> str:
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
    meanings = " ".join(f"{capitalise(name)}: {describe(f'time/{name}_s', objective)}" for name, _ in ordered[::-1])
    caption = f"Where {_duration(total)} went; shares of the whole. {meanings}"
    note = "Of all starts of the run; what was done again after a stop counts twice, what was lost between starts not."
    return page.section("Where the time went", page.figure(figures.to_svg(fig), caption), note=note)


def _rest_section(series: Series, objective: str) -> str:
    """List the last value of every key, and what it is."""
    rows = [
        (key, _number(value_N[-1]), f"{int(step_N[-1]):,}", describe(key, objective))
        for key, (step_N, value_N) in sorted(series.items())
    ]
    note = "Everything that metrics.jsonl holds, at the step at which it was last written."
    return (
        page.section("Last values", note=note, below=[page.table(rows, ("key", "value", "step", "what it is"))])
        if rows
        else ""
    )


def _settings_section(config: Mapping[str, Any]) -> str:
    """List what differs from the table of fields, and then every field."""
    table = fields.table(config["model.name"], config["objective.name"])
    rows = [
        (name, _shown(value), _shown(table[name].default), table[name].reason)
        for name, value in config.items()
        if name in table and value != plain(table[name].default)
    ]
    note = "Fields that differ from their default; config.json in the run's folder has all of them."
    return page.section("Settings", note=note, below=[page.table(rows, ("field", "value", "default", "what it is"))])


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


def _in_gib(series: Series) -> Series:
    return {key: (step_N, value_N / 2**30) for key, (step_N, value_N) in series.items() if key in _MEMORY}


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.6g}"


def _shown(value: Any) -> str:
    return str(tuple(value) if isinstance(value, list) else value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
