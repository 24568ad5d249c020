"""The page of an evaluation: what it means, who was fitted and tested, metrics with intervals, what was predicted."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from jaxbio.evaluation.comparison import CONSTANT, PRETRAINED, RANDOM, Comparison
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.tasks import Task
from jaxbio.evaluation.verdict import Verdict
from jaxbio.report import figures, page
from jaxbio.report.terms import METRICS
from jaxbio.report.text import capitalise

_TITLES = {PRETRAINED: "pretrained", RANDOM: "same network, random initialisation"}
_FACTS_MEAN = {
    "encoder": "the network that the export holds.",
    "steps": "of its pretraining; 0: none.",
    "segments tested": "each predicted once, by a model that has not seen its subject.",
    "subjects tested": "patients, as far as the sources tell who they are.",
    "subjects fitted on": "whom the linear model has learnt from, by turns where it is cross-validated.",
    "segments seen in pretraining": "left out of the test.",
    "subjects seen in pretraining": "left out of the test.",
    "tested by class": "segments of each class among those tested.",
}


def write_probe_report(
    path: Path,
    task: Task,
    compared: Comparison,
    label_B: np.ndarray,
    facts: Mapping[str, object],
    protocol: str,
    verdict: Verdict,
) -> Path:
    """Write the page to `path`; `protocol` says in words who was fitted on and who was tested."""
    true_N = label_B[compared.row_N]
    draw = _draw_classes if task.classes else _draw_numbers
    pictures = [
        page.figure(
            draw(task, true_N, predicted_N), f"{capitalise(_title(task, name))}: {_scores(task, compared, name)}"
        )
        for name, predicted_N in compared.predictions.items()
        if name != CONSTANT
    ]
    meanings = " ".join(f"{capitalise(_spaced(metric))}: {METRICS[metric]}." for metric in task.metrics)
    lacking = " Draws that lack a class are left out." if task.classes else ""
    html = page.page(
        f"Linear probe: {task.title}",
        "What a linear model reads from the frozen features of an encoder, on subjects that it was not fitted on.",
        page.section("What it means", verdict=verdict.result, note=verdict.trust),
        page.section("Data", note=protocol, below=[page.facts(facts, _FACTS_MEAN)]),
        page.section(
            "Metrics",
            note=f"Value and 95 % interval of a bootstrap that draws whole subjects.{lacking} {meanings}",
            below=[page.table(_rows(task, compared.intervals), _header(task))],
        ),
        page.section(
            "Pretrained minus the other",
            note="Both on the same draws of subjects: an interval without 0 is a difference. For an error (mae), less "
            f"is better, so that a negative difference speaks for the pretrained encoder.{lacking}",
            below=[page.table(_rows(task, compared.gains), _header(task))],
        ),
        page.section("Predictions", *pictures, note=_PICTURES[bool(task.classes)]),
    )
    return page.write_page(path, html)


_PICTURES = {
    False: "Each segment tested is a point: what was predicted over what is true. On the line both agree.",
    True: "Segments tested, by their true class and the predicted one; a cell's colour is its share of its true class. "
    "Right answers lie on the diagonal from the top left.",
}


def _title(task: Task, name: str) -> str:
    constant = "majority class of the training subjects" if task.classes else "mean of the training subjects"
    return constant if name == CONSTANT else _TITLES[name]


def _scores(task: Task, compared: Comparison, name: str) -> str:
    return ", ".join(f"{_spaced(metric)} {_text(compared.intervals[metric][name])}" for metric in task.metrics)


def _spaced(metric: str) -> str:
    return metric.replace("_", " ")


def _header(task: Task) -> tuple[str, ...]:
    return ("", *(f"{metric} ({task.unit})" if metric == "mae" else _spaced(metric) for metric in task.metrics))


def _rows(task: Task, found: Mapping[str, Mapping[str, Interval]]) -> list[list[str]]:
    names = next(iter(found.values()))
    return [[_title(task, name), *(_text(by_name[name]) for by_name in found.values())] for name in names]


def _text(interval: Interval) -> str:
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return f"{interval.value:.3g} (no interval)"
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _draw_classes(task: Task, true_N: np.ndarray, predicted_N: np.ndarray) -> str:
    count = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(count, (true_N.astype(int), predicted_N.astype(int)), 1)
    fig, (axes,) = figures.new_figure(height_in=3.0)
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*count.shape):
        # rectangles instead of an image: an image has its colours in points, and would not follow the page's
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, color=figures.COLOURS[0], alpha=0.6 * share[row, column])
        axes.add_patch(cell)
        axes.text(column, row, str(count[row, column]), ha="center", va="center", fontsize=8)
    places = range(len(task.classes))
    axes.set_xticks(places, task.classes, rotation=30)
    axes.set_yticks(places, task.classes)
    edges = (-0.5, len(task.classes) - 0.5)
    axes.set(xlabel="predicted", ylabel="true (segments)", xlim=edges, ylim=edges[::-1], aspect="equal")
    axes.grid(visible=False)
    return figures.to_svg(fig)


def _draw_numbers(task: Task, true_N: np.ndarray, predicted_N: np.ndarray) -> str:
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.plot(true_N, predicted_N, ".", markersize=3, alpha=0.6)
    ends = [min(true_N.min(), predicted_N.min()), max(true_N.max(), predicted_N.max())]
    axes.plot(ends, ends, color=figures.COLOURS[5], linewidth=0.8)
    axes.set(xlabel=f"true, {task.unit}", ylabel=f"predicted, {task.unit}")
    return figures.to_svg(fig)
