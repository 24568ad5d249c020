"""The page of an evaluation: who was fitted and tested, the metrics with their intervals, what was predicted."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxbio.evaluation.comparison import CONSTANT, PRETRAINED, RANDOM, Comparison
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.tasks import Task
from jaxbio.report import figures, page

_TITLES = {PRETRAINED: "pretrained", RANDOM: "same network, random initialisation"}


def write_probe_report(
    path: Path, task: Task, compared: Comparison, label_B: np.ndarray, facts: Mapping[str, object], protocol: str
) -> Path:
    """Write the page to `path`; `protocol` says in words who was fitted on and who was tested."""
    true_N = label_B[compared.row_N]
    draw = _draw_classes if task.classes else _draw_numbers
    pictures = [
        page.figure(draw(task, true_N, predicted_N), f"{_title(task, name)}: predicted against true")
        for name, predicted_N in compared.predictions.items()
        if name != CONSTANT
    ]
    html = page.page(
        f"Linear probe: {task.title}",
        f"What a linear model reads from the frozen encoder. {protocol}",
        page.section("Data", page.facts(facts)),
        page.section(
            "Metrics",
            page.table(_rows(task, compared.intervals), _header(task)),
            note="Value and 95 % interval of a bootstrap that draws whole subjects."
            + (" Draws that lack a class are left out." if task.classes else ""),
        ),
        page.section(
            "Pretrained minus the other",
            page.table(_rows(task, compared.gains), _header(task)),
            note="Both on the same draws of subjects: an interval without 0 is a difference. "
            "For an error (mae), less is better.",
        ),
        page.section("Predictions", *pictures),
    )
    return page.write_page(path, html)


def _title(task: Task, name: str) -> str:
    constant = "majority class of the training subjects" if task.classes else "mean of the training subjects"
    return constant if name == CONSTANT else _TITLES[name]


def _header(task: Task) -> tuple[str, ...]:
    return ("", *(f"{metric} ({task.unit})" if metric == "mae" else metric for metric in task.metrics))


def _rows(task: Task, found: Mapping[str, Mapping[str, Interval]]) -> list[list[str]]:
    names = next(iter(found.values()))
    return [[_title(task, name), *(_text(by_name[name]) for by_name in found.values())] for name in names]


def _text(interval: Interval) -> str:
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _draw_classes(task: Task, true_N: np.ndarray, predicted_N: np.ndarray) -> str:
    count = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(count, (true_N.astype(int), predicted_N.astype(int)), 1)
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.imshow(count / np.maximum(count.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0.0, vmax=1.6)
    for row, column in np.ndindex(*count.shape):
        axes.text(column, row, str(count[row, column]), ha="center", va="center")
    places = range(len(task.classes))
    axes.set_xticks(places, task.classes, rotation=30)
    axes.set_yticks(places, task.classes)
    axes.set(xlabel="predicted", ylabel="true (segments)")
    axes.grid(visible=False)
    return figures.to_svg(fig)


def _draw_numbers(task: Task, true_N: np.ndarray, predicted_N: np.ndarray) -> str:
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.plot(true_N, predicted_N, ".", markersize=3, alpha=0.6)
    ends = [min(true_N.min(), predicted_N.min()), max(true_N.max(), predicted_N.max())]
    axes.plot(ends, ends, color="#4a5568", linewidth=0.8)
    axes.set(xlabel=f"true, {task.unit}", ylabel=f"predicted, {task.unit}")
    return figures.to_svg(fig)
