"""Pictures of an evaluation, as SVG: what was answered, what was wrong, and what features hold.

svg = draw_confusion(truth, answer, ("false alarm", "true alarm"))
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.patches import Rectangle

from jaxbio.config.roles import printed, unit_of
from jaxbio.evaluation.class_measures import BINS, bins_of
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.report import figures
from jaxbio.report.ranking import roc_points
from jaxbio.report.text import printable, shorten

_MOST_CURVES = 6
_SHORT = 14  # characters of a name of which three fit beside each other
MOST_SHOWN = 12  # classes that are named one by one
_WORST = 4
_LONGEST_S = 10.0  # of a segment that is drawn: beats are to be seen


def draw_confusion(truth: Truth, answer: Answer, classes: Sequence[str]) -> str:
    """Return segments by their true class and the one decided for."""
    count = np.zeros((len(classes), len(classes)), int)
    np.add.at(count, (truth.label_N.astype(int), answer.decision_N.astype(int)), 1)
    fig, (axes,) = figures.new_figure(height_in=3.0)
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*count.shape):
        # rectangles instead of an image: an image has its colours in points, and would not follow the page's
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, color=figures.COLOURS[0], alpha=0.6 * share[row, column])
        axes.add_patch(cell)
        if len(classes) <= MOST_SHOWN:
            axes.text(column, row, str(count[row, column]), ha="center", va="center", fontsize=8)
    if len(classes) <= MOST_SHOWN:
        places, names = range(len(classes)), [shorten(printable(name), _SHORT) for name in classes]
        axes.set_xticks(places, names, rotation=90 if len(classes) > 3 else 0)
        axes.set_yticks(places, names)
    edges = (-0.5, len(classes) - 0.5)
    axes.set(xlabel="decided for", ylabel="true (segments)", xlim=edges, ylim=edges[::-1], aspect="equal")
    axes.grid(visible=False)
    return figures.to_svg(fig)


def draw_curves(truth: Truth, answers: dict[str, Answer], *, recall: bool) -> str:
    """Return ROC curves by name, or precision over recall; the second class is the positive one."""
    fig, (axes,) = figures.new_figure(height_in=3.0)
    ones = np.ones((1, len(truth.label_N)))
    for name, answer in list(answers.items())[:_MOST_CURVES]:
        true_DU, false_DU = roc_points(truth.label_N == 1, answer.score_NK[:, 1], ones)
        true_U, false_U = true_DU[0], false_DU[0]
        if recall:
            axes.step(true_U / true_U[-1], true_U / (true_U + false_U), where="post", label=name)
        else:
            axes.plot(np.append(0, false_U / false_U[-1]), np.append(0, true_U / true_U[-1]), label=name)
    if recall:
        axes.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    else:
        axes.plot([0, 1], [0, 1], color=figures.COLOURS[5], linewidth=0.8)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.02))
    figures.add_legend(axes)
    return figures.to_svg(fig)


def draw_calibration(truth: Truth, answer: Answer) -> str:
    """Return the share that came true over the probability that was stated, in ten bins."""
    bin_N, said_N, true_N = bins_of(truth, answer)
    count_U = np.bincount(bin_N, minlength=BINS)
    held = count_U > 0
    said_U = np.bincount(bin_N, said_N, minlength=BINS)[held] / count_U[held]
    true_U = np.bincount(bin_N, true_N, minlength=BINS)[held] / count_U[held]
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.plot([0, 1], [0, 1], color=figures.COLOURS[5], linewidth=0.8)
    axes.plot(said_U, true_U, "o-", markersize=4)
    for x, y, count in zip(said_U, true_U, count_U[held]):
        axes.annotate(str(count), (x, y), textcoords="offset points", xytext=(4, -8), fontsize=7)
    axes.set(xlabel="probability stated (of 1)", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1.02))
    return figures.to_svg(fig)


def draw_bland_altman(truth: Truth, answer: Answer, unit: str) -> str:
    """Return the error over the mean of predicted and true, with bias and 1.96 deviations."""
    said_N = answer.score_NK[:, 0]
    error_N = said_N - truth.label_N
    bias, reach = error_N.mean(), 1.96 * error_N.std(ddof=1)
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.plot((said_N + truth.label_N) / 2, error_N, ".", markersize=3, alpha=0.6)
    for height, name in ((bias, "bias"), (bias - reach, "-1.96 SD"), (bias + reach, "+1.96 SD")):
        axes.axhline(height, color=figures.COLOURS[1], linewidth=0.8, linestyle="-" if name == "bias" else "--")
        axes.annotate(f"{name} {height:.3g}", (1, height), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      fontsize=7)  # fmt: skip
    axes.set(xlabel=f"mean of predicted and true, {unit}", ylabel=f"predicted - true, {unit}")
    return figures.to_svg(fig)


def draw_numbers(truth: Truth, answer: Answer, unit: str) -> str:
    """Return what was predicted over what is true."""
    said_N = answer.score_NK[:, 0]
    fig, (axes,) = figures.new_figure(height_in=3.0)
    axes.plot(truth.label_N, said_N, ".", markersize=3, alpha=0.6)
    ends = [min(truth.label_N.min(), said_N.min()), max(truth.label_N.max(), said_N.max())]
    axes.plot(ends, ends, color=figures.COLOURS[5], linewidth=0.8)
    axes.set(xlabel=f"true, {unit}", ylabel=f"predicted, {unit}")
    return figures.to_svg(fig)


def draw_map(feature_ND: np.ndarray, group_N: np.ndarray, names: Sequence[str], legend: bool) -> str:
    """Return features in the two directions in which they vary most (principal components), by groups."""
    centred_ND = feature_ND - feature_ND.mean(axis=0)
    scale_D = centred_ND.std(axis=0)
    unit_ND = centred_ND / np.where(scale_D > 0, scale_D, 1.0)
    _, _, direction_ND = np.linalg.svd(unit_ND, full_matrices=False)
    place_N2 = unit_ND @ direction_ND[:2].T
    fig, (axes,) = figures.new_figure(height_in=3.0)
    for code, name in enumerate(names):
        here = group_N == code
        colour = figures.COLOURS[code % len(figures.COLOURS)]
        axes.plot(*place_N2[here].T, ".", markersize=3, alpha=0.7, color=colour, label=shorten(printable(name), _SHORT))
    axes.set(xlabel="first component (deviations)", ylabel="second component (deviations)")
    if legend:
        figures.add_legend(axes)
    return figures.to_svg(fig)


def draw_numbers_map(feature_ND: np.ndarray, value_N: np.ndarray) -> str:
    """Return the same with the labels in four classes of equal size, in their unit."""
    edge_K = np.unique(np.quantile(value_N, [0.25, 0.5, 0.75]))
    group_N = np.digitize(value_N, edge_K)
    ends = [value_N.min(), *edge_K, value_N.max()]
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(ends)]
    return draw_map(feature_ND, group_N, names, legend=True)


def draw_segment(x_CT: np.ndarray, rate_hz: float, channels: Sequence[str]) -> str:
    """Return the end of a segment, channel by channel, in the units that it was read in."""
    shown = min(x_CT.shape[1], round(_LONGEST_S * rate_hz))
    time_s_T = (np.arange(shown) + x_CT.shape[1] - shown) / rate_hz
    fig, rows = figures.new_figure(len(channels), height_in=figures.stack_height_in(len(channels)), sharex=True)
    for axes, x_T, role in zip(rows, x_CT[:, -shown:], channels):
        axes.plot(time_s_T, x_T, color=figures.colour_of(role), linewidth=0.8)
        axes.set_ylabel(f"{printed(role)}, {unit_of(role)}")
    rows[-1].set_xlabel("time in the segment, s")
    return figures.to_svg(fig)


def draw_courses(true_T: np.ndarray, said_T: np.ndarray, rate_hz: float, unit: str) -> str:
    """Return the end of a course and of what was predicted of it."""
    shown = min(len(true_T), round(_LONGEST_S * rate_hz))
    time_s_T = (np.arange(shown) + len(true_T) - shown) / rate_hz
    fig, (axes,) = figures.new_figure(height_in=3.0)
    for x_T, name in ((true_T, "true"), (np.broadcast_to(said_T, true_T.shape), "predicted")):
        axes.plot(time_s_T, x_T[-shown:], linewidth=0.8, label=name)
    axes.set(xlabel="time in the segment, s", ylabel=f"pressure, {unit}")
    figures.add_legend(axes)
    return figures.to_svg(fig)


def find_worst(truth: Truth, answer: Answer, classes: int) -> np.ndarray:
    """Return the places of the worst answers, worst first, of different subjects."""
    return find_order(truth, answer, classes)[:_WORST]


def find_order(truth: Truth, answer: Answer, classes: int) -> np.ndarray:
    """Return the place of each subject's worst answer, worst first."""
    if classes:
        off_N = 1 - answer.score_NK[np.arange(len(truth.label_N)), truth.label_N.astype(int)]
    else:
        off_N = np.abs(answer.score_NK - truth.label_N.reshape(len(truth.label_N), -1)).mean(axis=1)
    order = np.argsort(-off_N, kind="stable")
    _, first = np.unique(truth.subject_N[order], return_index=True)
    return order[np.sort(first)]
