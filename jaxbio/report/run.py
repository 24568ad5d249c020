"""The page of a run, drawn from its folder while it trains: what it learns, whether it collapses, where time goes.

It reads `config.json`, `metrics.jsonl` and `examples.npz` and knows no objective: keys are drawn by their area, and
what an objective wants shown comes as `Examples`. What a key means, `terms.py` and the objective's family say.

    write_run_report(workdir)                                   # -> workdir/report.html
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbio.config import fields
from jaxbio.config.changes import plain
from jaxbio.config.faults import Fault, UserError
from jaxbio.report import figures, page
from jaxbio.report.curves import curves_section
from jaxbio.report.examples import draw_examples, read_examples
from jaxbio.report.panels import (
    MONITORS,
    NORMS,
    channel_panels,
    judged_panels,
    monitor_panels,
    norm_labels,
    one_line_panels,
    schedule_labels,
)
from jaxbio.report.probes import judge_probes, probe_panels
from jaxbio.report.series import Record, Series
from jaxbio.report.terms import describe
from jaxbio.report.text import capitalise
from jaxbio.report.verdict import judge_codes, judge_encoders, judge_terms, words_of

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
_DEVICE_PARTS = {
    "memory/params_bytes": "parameters, GiB",
    "memory/opt_state_bytes": "optimiser, GiB",
    "memory/objective_state_bytes": "objective, GiB",
    "memory/resident_bytes": "data, GiB",
    "memory/temporaries_bytes": "temporaries, GiB",
}
_NOW = {
    "train/loss": "loss",
    "eval/loss": "held-out loss",
    "perf/pairs_per_s": "pairs/s",
    "perf/mfu": "share of the peak",
    "train/nonfinite": "refused updates",
    "time/starts": "starts",
}


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
        curves_section(
            "Does it learn?", judged_panels(series), series, objective, _LEARNS, words_of(judge_terms(series))
        ),
        curves_section(
            "Does it collapse?",
            monitor_panels(series),
            series,
            objective,
            _COLLAPSE,
            words_of([*judge_encoders(series), *judge_codes(series)]),
        ),
        _loss_section(series, objective),
        curves_section(
            "What each channel is worth", channel_panels(series), series, objective, _CHANNELS, from_zero=False
        ),
        curves_section(
            "What linear probes read", probe_panels(series), series, objective, _PROBES, judge_probes(series)
        ),
        curves_section(
            "Schedules", one_line_panels(schedule_labels(series)), series, objective, "As the run used them."
        ),
        curves_section("Norms", one_line_panels(norm_labels(series)), series, objective, _NORMS_SAY),
        curves_section("Speed", one_line_panels(_SPEED), series, objective, "How fast it goes, and what holds it up."),
        _time_section(series, objective),
        curves_section(
            "Memory",
            one_line_panels(_MEMORY),
            _in_gib(series),
            objective,
            "What process 0 holds, and its devices at most, in GiB (2^30 bytes).",
            below=_device_parts(series, objective),
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
    skipped = {
        "train/nonfinite",
        *schedule_labels(series),
        *(key for key in series if key.endswith((*MONITORS, *NORMS))),
    }
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
    return curves_section("Losses", panels, series, objective, note, from_zero=False)


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


def _device_parts(series: Series, objective: str) -> list[str]:
    """Say what one device holds by part, as of the last start; nothing where the run did not write it."""
    held = {label: key for key, label in _DEVICE_PARTS.items() if key in series}
    said = {label: f"{series[key][1][-1] / 2**30:.3g}" for label, key in held.items()}
    return [page.facts(said, {label: describe(key, objective) for label, key in held.items()})] if said else []


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
