"""Finished evaluations of one task side by side, paired by segment and subject.

compared = compare_evaluations({"a": read_evaluation("a"), "b": read_evaluation("b")}, ["pretrained"])
write_comparison(Path("compared.html"), compared)
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.evaluation.comparison import plain
from jaxbio.evaluation.intervals import Draws, draw
from jaxbio.evaluation.measure import Answer, Measure, Truth
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.results import Evaluation
from jaxbio.evaluation.tasks import Task, get_task
from jaxbio.report import page
from jaxbio.report.terms import METRICS, spell
from jaxbio.report.text import capitalise

log = logging.getLogger(__name__)

# What two evaluations may differ in and still be of the same segments: said beside their numbers, since a difference in
# these is none of the encoders. `read_evaluation` has None where an evaluation does not state it.
_STATED = ("protocol", "train_subjects", "folds", "seed")


@dataclass(frozen=True)
class SideBySide:
    """Intervals and differences from the first, by measure (with its target) and by who answered; how many segments and
    subjects all of them answered, and how many each had beyond these; and, by name, in what else they differ: each
    evaluation's own.
    """

    task: Task
    intervals: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    segments: int
    subjects: int
    left_out: dict[str, int]
    differ_in: dict[str, dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        first = next(iter(next(iter(self.intervals.values()))))
        return {
            "task": self.task.title,
            "segments": self.segments,
            "subjects": self.subjects,
            "left_out": self.left_out,
            "differ_in": self.differ_in,
            "first": first,
            "metrics": plain(self.intervals),
            "minus_first": plain(self.differences),
        }


def compare_evaluations(evaluations: Mapping[str, Evaluation], entrants: Sequence[str], *, seed: int = 0) -> SideBySide:
    """Return the evaluations side by side on the segments that all have answered.

    Raises UserError where they are of different tasks or of segments of different lengths, none of their segments are
    the same, their labels differ, or one has no such entrant.
    """
    names = {folder: own.result.get("task") for folder, own in evaluations.items()}
    if len(set(names.values())) > 1:
        said = ", ".join(f"{folder}: {name}" for folder, name in names.items())
        raise UserError(Fault("DIR", said, "evaluations of one task can be compared"))
    lengths = {folder: own.result.get("segment_s") for folder, own in evaluations.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(
            f"{folder}: {f'{length:g} s' if length else 'not stated'}" for folder, length in lengths.items()
        )
        remedy = "segments of one length are the same segments: evaluate all of them again with the same --window_s"
        raise UserError(Fault("DIR", said, remedy))
    result = next(iter(evaluations.values())).result
    task = get_task(str(result.get("task")), result.get("classes", ()))
    for folder, own in evaluations.items():
        known = next(iter(own.answers.values()))
        for entrant in entrants:
            if entrant not in known:
                raise UserError(Fault("--entrant", entrant, f"{folder} has {', '.join(known)}"))
    intervals: dict[str, dict[str, Interval]] = {}
    differences: dict[str, dict[str, Interval]] = {}
    left_out: dict[str, int] = {}
    for target in task.targets:
        shared = reduce(np.intersect1d, (own.key_N[target] for own in evaluations.values()))
        if not len(shared):
            remedy = "no segment was answered by all: evaluate them on the same data, with the same --window_s"
            raise UserError(Fault("DIR", ", ".join(evaluations), remedy))
        truth, answers, missing = _align(evaluations, target, shared, entrants)
        left_out |= missing
        draws = Draws(truth.subject_N, seed=seed)
        for measure in task.metrics.values():
            drawn = {name: draw(measure.compute, truth, own, draws) for name, own in answers.items()}
            first = next(iter(drawn.values()))
            key = f"{target}_{measure.name}" if target else measure.name
            intervals[key] = {name: found.interval() for name, found in drawn.items()}
            differences[key] = {name: found.minus(first).interval() for name, found in list(drawn.items())[1:]}
    differ_in = _differences_of(evaluations)
    for name, by_folder in differ_in.items():
        log.warning("they differ in %s: %s", name, _listed(by_folder))
    return SideBySide(task, intervals, differences, len(shared), truth.subjects, left_out, differ_in)


def _differences_of(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """Return what the evaluations state differently, by its name and by evaluation."""
    stated = {name: {folder: own.result.get(name) for folder, own in evaluations.items()} for name in _STATED}
    return {name: by_folder for name, by_folder in stated.items() if len(set(by_folder.values())) > 1}


def _listed(by_folder: Mapping[str, Any]) -> str:
    return ", ".join(f"{folder} {'not stated' if value is None else value}" for folder, value in by_folder.items())


def _align(
    evaluations: Mapping[str, Evaluation], target: str, shared: np.ndarray, entrants: Sequence[str]
) -> tuple[Truth, dict[str, list[Answer]], dict[str, int]]:
    """Return truth and answers of the shared segments, and how many each evaluation had beyond them."""
    answers: dict[str, list[Answer]] = {}
    missing: dict[str, int] = {}
    truth: Truth | None = None
    for folder, own in evaluations.items():
        order = np.argsort(own.key_N[target])
        rows = order[np.searchsorted(own.key_N[target][order], shared)]
        label_N = own.truths[target].label_N[rows]
        if truth is None:
            codes = np.unique(own.subject_N[target][rows], return_inverse=True)[1]
            truth = Truth(label_N, codes, own.truths[target].scale_N[rows])
        elif not np.array_equal(label_N, truth.label_N):
            remedy = "its labels differ from the first's on the same segments: evaluate both on the same data"
            raise UserError(Fault("DIR", folder, remedy))
        missing[folder] = len(own.key_N[target]) - len(shared)
        for entrant in entrants:
            seeds = own.answers[target][entrant]
            name = folder if len(entrants) == 1 else f"{folder}: {entrant}"
            answers[name] = [Answer(a.score_NK[rows], a.decision_N[rows]) for a in seeds]
    assert truth is not None
    return truth, answers, missing


def write_comparison(path: Path, compared: SideBySide) -> Path:
    """Write the page of a comparison to `path`."""
    intervals, differences = compared.intervals, compared.differences
    names, task = list(next(iter(intervals.values()))), compared.task
    shown = _shown(names)
    facts = {"segments": compared.segments, "subjects": compared.subjects}
    beyond = ", ".join(f"{folder} {count}" for folder, count in compared.left_out.items() if count)
    said = "Only segments that all of them have answered count." + (
        f" Answered beyond these: {beyond}." if beyond else ""
    )
    said += "".join(
        f" They differ in {name.replace('_', ' ')}: {_listed(by_folder)}; what follows may come of that."
        for name, by_folder in compared.differ_in.items()
    )
    meanings = " ".join(f"{capitalise(spell(name))}: {METRICS[name]}." for name in task.metrics)
    rows = [
        [_heading(metric, task), *(_text(by_name[name]) for name in names)] for metric, by_name in intervals.items()
    ]
    gaps = [
        [_heading(metric, task), *(_text(found) for found in by_name.values())]
        for metric, by_name in differences.items()
    ]
    html = page.page(
        f"Side by side: {task.title}",
        "The same segments of the same subjects, answered by each.",
        page.section("Data", note=said, below=[page.facts(facts)]),
        page.section(
            "Metrics",
            note=f"Value and 95 % interval over subjects. {meanings}",
            below=[page.table(rows, ("", *shown))],
        ),
        page.section(
            f"Minus {shown[0]}",
            note="On the same draws of subjects: an interval without 0 is a difference.",
            below=[page.table(gaps, ("", *shown[1:]))],
        ),
    )
    return page.write_page(path, html)


def _heading(metric: str, task: Task) -> str:
    """Return a measure, with its target if there are several, and with its unit if it has that of the labels."""
    own = next(measure for measure in task.metrics.values() if metric in (measure.name, *_with_targets(measure, task)))
    return f"{spell(metric)} ({task.unit})" if own.in_unit else spell(metric)


def _with_targets(measure: Measure, task: Task) -> list[str]:
    return [f"{target}_{measure.name}" for target in task.targets]


def _shown(names: Sequence[str]) -> list[str]:
    """Return names without the folders that all of them lie in."""
    parts = [name.split("/") for name in names]
    shared = len(list(takewhile(lambda level: len(set(level)) == 1, zip(*(own[:-1] for own in parts)))))
    return ["/".join(own[shared:]) for own in parts]


def _text(interval: Interval) -> str:
    if not np.isfinite([interval.low, interval.high]).all():
        return f"{interval.value:.3g} (no interval)"
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"
