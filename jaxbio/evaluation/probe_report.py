"""The page of an evaluation: what it means, who was fitted and tested, metrics with intervals, what was answered."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxbio.evaluation import pictures
from jaxbio.evaluation.comparison import (
    CONSTANT,
    DETECTOR,
    HAND_MADE,
    HAND_MADE_BOOSTED,
    OWN_START,
    PRETRAINED,
    RANDOM,
    Comparison,
    grade_answers,
)
from jaxbio.evaluation.measure import Answer
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.tasks import Segments, Task
from jaxbio.evaluation.verdict import Verdict
from jaxbio.report import page
from jaxbio.report.terms import METRICS, spell
from jaxbio.report.text import capitalise

_TITLES = {
    PRETRAINED: "pretrained",
    DETECTOR: "the detector's own answers",
    OWN_START: "what the run started from",
    RANDOM: "same network, random initialisation",
    HAND_MADE: "hand-made features, linear",
    HAND_MADE_BOOSTED: "hand-made features, boosted trees",
}
_CURVES = {
    DETECTOR: "detector",
    OWN_START: "own start",
    RANDOM: "fresh",
    HAND_MADE: "by hand",
    HAND_MADE_BOOSTED: "trees",
}  # fit a legend
_FACTS_MEAN = {
    "encoder": "the network that the export holds.",
    "which": "of its objective's encoders.",
    "steps": "of its pretraining; 0: none.",
    "segment s": "seconds of a segment.",
    "seed": "of the folds, of the few labels and of the fresh initialisations: each is drawn once.",
    "train subjects": "the store whose train subjects the probe is fitted on.",
    "pretraining store": "the hash of what the encoder was trained on.",
    "data": "what was named by --data.",
    "segments tested": "each predicted once, by a model that has not seen its subject.",
    "subjects tested": "patients, as far as the sources tell who they are.",
    "subjects fitted on": "whom the linear model has learnt from, by turns where it is cross-validated.",
    "segments seen in pretraining": "left out of the test.",
    "subjects seen in pretraining": "left out of the test.",
    "segments of calibration": "left out: they chose the detector's checkpoint, temperature and threshold.",
    "subjects of calibration": "left out of what is fitted on and of the test.",
    "tested by class": "segments of each class among those tested.",
}
_SAID_OF_PICTURES = {
    False: "Each segment tested is a point. Above: what was predicted over what is true; on the line both agree. Bland "
    "and Altman's picture has the error over the mean of both, with bias and 1.96 deviations.",
    True: "Confusion: segments tested, by their true class and the one decided for; a cell's colour is its share of "
    "its true class, right answers lie on the diagonal from the top left. Curves show every threshold.",
}


@dataclass(frozen=True)
class Shown:
    """What the pages' pictures are of: the segments, the first entrant's features (or its tokens, (B, L, D)), rate (Hz)
    and channels.
    """

    segments: Segments
    feature_BD: np.ndarray
    rate_hz: float
    channels: Sequence[str]


@dataclass(frozen=True)
class Part:
    """One target's part of the page: its name (empty for the only one), comparison, verdict, and with fewer labels or
    another readout the first measure's intervals by what was done."""

    target: str
    compared: Comparison
    verdict: Verdict
    others: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)


def write_probe_report(
    path: Path,
    task: Task,
    parts: Sequence[Part],
    facts: Mapping[str, object],
    protocol: str,
    shown: Shown | None = None,
    classes: Sequence[str] | None = None,
    grouped: bool = True,
) -> Path:
    """Write the page to `path`; `protocol` says in words who was fitted on and who was tested.

    `classes` are those of the task, or the subjects where these are asked for; `grouped` is False where subjects are
    on both sides of the splits.
    """
    classes = task.classes if classes is None else classes
    verdicts = [
        page.section(f"What it means{_of(part)}", verdict=part.verdict.result, note=part.verdict.trust)
        for part in parts
    ]
    sections = [section for part in parts for section in _sections(task, part, classes, shown)]
    whom = "subjects that it was not fitted on" if grouped else "other segments of the subjects that it was fitted on"
    mean = _FACTS_MEAN if grouped else {**_FACTS_MEAN, "segments tested": "each predicted once."}
    html = page.page(
        *_heading(task, parts[0], whom),
        *verdicts,
        page.section("Data", note=protocol, below=[page.facts(facts, mean), *_published(task)]),
        *sections,
    )
    return page.write_page(path, html)


def _heading(task: Task, part: Part, whom: str) -> tuple[str, str]:
    """Return title and first sentence of the page."""
    if DETECTOR in part.compared.answers:
        told = "What a detector answers by its own temperature and threshold, on subjects that it was neither trained "
        told += "nor calibrated on, as far as is known; "
        return f"Detector: {task.title}", f"{told}beside it what a linear model reads from its encoder, on {whom}."
    told = f"What a linear model reads from the frozen features of an encoder, on {whom}."
    return f"Linear probe: {task.title}", told


def _lead(compared: Comparison) -> tuple[str, Answer]:
    """Return who the pictures are of, and the answers: the detector where there is one, else the first entrant."""
    name = DETECTOR if DETECTOR in compared.answers else next(iter(compared.answers))
    return name, compared.answers[name][0]


def _of(part: Part) -> str:
    """Return what headings say of a part where there are several."""
    return f": {part.target}" if part.target else ""


def _published(task: Task) -> list[str]:
    return [page.paragraph(f"Published results: {task.published}.")] if task.published else []


def _sections(task: Task, part: Part, classes: Sequence[str], shown: Shown | None) -> list[str]:
    compared, of = part.compared, _of(part)
    meanings = " ".join(f"{capitalise(spell(metric))}: {METRICS[metric]}." for metric in task.metrics)
    lacking = " Draws that lack a class are left out." if classes else ""
    several = "Of several seeds the mean; their range stands apart, since intervals are over subjects alone. "
    found = [
        page.section(
            f"Metrics{of}",
            note="Value and 95 % interval of a bootstrap (BCa) that draws whole subjects. "
            f"{several}{lacking} {meanings}",
            below=[page.table(_rows(task, compared.intervals, classes), _header(task))],
        ),
        page.section(
            f"Pretrained minus the other{of}",
            note="Both on the same draws of subjects: an interval without 0 is a difference. For an error (MAE, SD, "
            f"brier) less is better, so that a negative difference speaks for the pretrained encoder.{lacking}",
            below=[page.table(_rows(task, compared.gains, classes), _header(task))],
        ),
    ]
    if compared.seeds and any(compared.seeds.values()):
        found.append(_seeds(task, compared, of, classes))
    if part.others:
        found.append(_others(task, part, of, classes))
    if compared.answers:
        found.append(_pictures(task, compared, of, classes))
    if shown is not None and compared.truth is not None:
        found += [_maps(task, part, of, classes, shown), _worst(task, part, of, classes, shown)]
    return found


def _seeds(task: Task, compared: Comparison, of: str, classes: Sequence[str]) -> str:
    metric = next(iter(task.metrics))
    rows = [
        [_title(name, classes), len(values), f"{min(values):.3g}", f"{np.mean(values):.3g}", f"{max(values):.3g}"]
        for name, values in compared.seeds[metric].items()
    ]
    note = f"{capitalise(spell(metric))} of networks that differ by their seed alone."
    return page.section(f"Seeds{of}", note=note, below=[page.table(rows, ("", "seeds", "least", "mean", "most"))])


def _others(task: Task, part: Part, of: str, classes: Sequence[str]) -> str:
    metric = next(iter(task.metrics))
    names = list(dict.fromkeys(name for by_name in part.others.values() for name in by_name))
    rows = [
        [_title(name, classes), *(_text(by_name[name]) if name in by_name else "" for by_name in part.others.values())]
        for name in names
    ]
    note = f"{capitalise(spell(metric))} where fewer subjects are fitted on (so many of them, of each class one at "
    note += "least), or neighbours answer."
    return page.section(f"Fewer labels, other readouts{of}", note=note, below=[page.table(rows, ("", *part.others))])


def _pictures(task: Task, compared: Comparison, of: str, classes: Sequence[str]) -> str:
    assert compared.truth is not None
    truth = compared.truth
    first, answer = _lead(compared)
    firsts = {first: answer} | {name: own[0] for name, own in compared.answers.items() if name != CONSTANT}
    title = capitalise(_title(first, classes))
    if task.course_hz:
        return _courses(task, compared, task.course_hz, of)
    if not classes:
        blocks = []
        for name, own in firsts.items():
            said = f"{capitalise(_title(name, classes))}: {_scores(compared, name)}"
            blocks.append(page.figure(pictures.draw_numbers(truth, own, task.unit), said))
        caption = f"{title}, error over the mean of predicted and true, {task.unit}."
        blocks.append(page.figure(pictures.draw_bland_altman(truth, answer, task.unit), caption))
        return page.section(f"Predictions{of}", *blocks, note=_SAID_OF_PICTURES[False], below=_grades(task, compared))
    blocks = [
        page.figure(
            pictures.draw_confusion(truth, answer, classes),
            f"{title}, what was decided: {_scores(compared, first)}",
        ),
        page.figure(pictures.draw_calibration(truth, answer), f"{title}, {_CALIBRATION[len(classes) == 2]}"),
    ]
    if len(classes) == 2:
        named = {_CURVES.get(name, name.replace("_", " ")): own for name, own in firsts.items()}
        several = {name: " (the first of several)" if len(compared.answers[name]) > 1 else "" for name in firsts}
        whose = "; ".join(f"{_title(name, classes)}{said}" for name, said in several.items())
        roc = f"Receiver operating characteristic: {whose}."
        blocks += [
            page.figure(pictures.draw_curves(truth, named, recall=False), roc),
            page.figure(pictures.draw_curves(truth, named, recall=True), f"Precision over recall of {classes[1]}."),
        ]
    return page.section(f"Predictions{of}", *blocks, note=_SAID_OF_PICTURES[True])


def _courses(task: Task, compared: Comparison, rate_hz: float, of: str) -> str:
    """Return courses of who leads: of the subject that it did best with, of the middle one, of the worst."""
    truth, (name, answer) = compared.truth, _lead(compared)
    assert truth is not None
    order = pictures.find_order(truth, answer, 0)
    blocks = []
    for place in dict.fromkeys((order[-1], order[len(order) // 2], order[0])):
        true_T, said_T = truth.label_N[place], answer.score_NK[place]
        off = float(np.abs(said_T - true_T).mean())
        caption = f"Mean absolute error {off:.3g} {task.unit} over the segment; its last ten seconds."
        blocks.append(page.figure(pictures.draw_courses(true_T, said_T, rate_hz, task.unit), caption))
    note = f"{capitalise(_title(name, ()))}: {_scores(compared, name)}. Of each subject the segment that it did worst "
    note += "with: the subject with the least error, the middle one, the one with the most."
    return page.section(f"Predictions{of}", *blocks, note=note)


_CALIBRATION = {
    True: "calibration: share that came true over the probability that was stated, with segments a bin.",
    False: "calibration of the likeliest class: share that came true over the probability stated, with segments a bin.",
}


def _grades(task: Task, compared: Comparison) -> list[str]:
    """Return the table of grades, of pressures alone."""
    rows = []
    for name, graded in grade_answers(task, compared).items():
        if name != CONSTANT:
            shares = [f"{100 * share:.0f} %" for share in graded.within]
            rows.append([_title(name, ()), *shares, graded.bhs, graded.aami])
    header = ("", "within 5 mmHg", "within 10 mmHg", "within 15 mmHg", "BHS", "AAMI")
    return [page.table(rows, header)] if rows else []


def _maps(task: Task, part: Part, of: str, classes: Sequence[str], shown: Shown) -> str:
    truth, row_N = part.compared.truth, part.compared.row_N
    assert truth is not None
    feature_ND = shown.feature_BD[row_N]
    if task.course_hz:
        feature_ND = feature_ND.mean(axis=1)
        by_label = pictures.draw_numbers_map(feature_ND, truth.label_N.mean(axis=1))
    elif classes:
        by_label = pictures.draw_map(feature_ND, truth.label_N, classes, legend=len(classes) <= 6)
    else:
        by_label = pictures.draw_numbers_map(feature_ND, truth.label_N)
    unit = f" ({task.unit})" if task.unit else ""
    subjects = [str(code) for code in range(truth.subjects)]
    whose = "The encoder within the detector: its" if DETECTOR in part.compared.answers else "The pretrained encoder's"
    return page.section(
        f"Map of the features{of}",
        page.figure(by_label, f"{whose} features of the segments tested, coloured by label{unit}."),
        page.figure(
            pictures.draw_map(feature_ND, truth.subject_N, subjects, legend=False),
            "The same, coloured by subject; eight colours in turn. Islands of one colour are persons.",
        ),
        note="The two directions in which standardised features vary most. Where segments lie by subject and not by "
        "label, a split that mixes subjects would be answered by recognising persons.",
    )


def _worst(task: Task, part: Part, of: str, classes: Sequence[str], shown: Shown) -> str:
    truth, (name, own) = part.compared.truth, _lead(part.compared)
    assert truth is not None
    blocks = []
    for place in pictures.find_worst(truth, own, len(classes)):
        row = part.compared.row_N[place]
        segments = shown.segments
        where = f"{segments.recording_B[row]} at {segments.start_s_B[row]:g} s"
        if classes:
            said = f"true {classes[truth.label_N[place]]}, said {classes[own.decision_N[place]]}"
            said += f" ({own.score_NK[place].max():.0%} for the likeliest)"
        else:
            true, answered = truth.label_N[place].mean(), own.score_NK[place].mean()
            said = f"{'means: ' if task.course_hz else ''}true {true:.4g}, said {answered:.4g} {task.unit}"
        svg = pictures.draw_segment(segments.x_BCT[row], shown.rate_hz, shown.channels)
        blocks.append(page.figure(svg, f"{where}: {said}"))
    note = f"{capitalise(_title(name, classes))}: the answers that are farthest from the truth, one a subject, with "
    note += "the last ten seconds of what was seen."
    return page.section(f"Worst errors{of}", *blocks, note=note)


def _title(name: str, classes: Sequence[str]) -> str:
    constant = "shares of the training subjects' classes" if classes else "mean of the training subjects"
    return constant if name == CONSTANT else _TITLES.get(name, name.replace("_", " "))


def _scores(compared: Comparison, name: str) -> str:
    metric = next(iter(compared.intervals))
    return f"{spell(metric)} {_text(compared.intervals[metric][name])}"


def _header(task: Task) -> tuple[str, ...]:
    return (
        "",
        *(f"{spell(name)} ({task.unit})" if task.metrics[name].in_unit else spell(name) for name in task.metrics),
    )


def _rows(task: Task, found: Mapping[str, Mapping[str, Interval]], classes: Sequence[str]) -> list[list[str]]:
    names = next(iter(found.values()))
    return [[_title(name, classes), *(_text(by_name[name]) for by_name in found.values())] for name in names]


def _text(interval: Interval) -> str:
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return f"{interval.value:.3g} (no interval)" if math.isfinite(interval.value) else "not defined"
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"
