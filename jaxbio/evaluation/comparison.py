"""What is read from a pretrained encoder and without it: untrained networks, hand-made features, nothing.

entrants = {PRETRAINED: Entrant([vector_BD]), RANDOM: Entrant(five_of_them), HAND_MADE: Entrant([feature_BF])}
compared = compare(task, entrants, label_B, subject_B, splits)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.few_labels import labelled_share
from jaxbio.evaluation import probes, readouts
from jaxbio.evaluation.class_measures import AUROC
from jaxbio.evaluation.delong import Areas, compare_areas
from jaxbio.evaluation.intervals import Drawn, Draws, draw, single_values
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.evaluation.metrics import Interval
from jaxbio.evaluation.number_measures import Grades, grade_pressure
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.readouts import LINEAR, Readout
from jaxbio.evaluation.tasks import Task
from jaxbio.export import folder as folders
from jaxbio.export.pretrained import Pretrained

PRETRAINED, OWN_START, RANDOM, CONSTANT = "pretrained", "own_start", "random_initialisation", "constant"
HAND_MADE, HAND_MADE_BOOSTED = "hand_made", "hand_made_boosted"
DETECTOR = "detector"  # what a detector says itself, with its temperature and its threshold; nothing is fitted
FRESH = 5  # fresh initialisations at least: they differ as much as one differs from a trained network
_SEGMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Entrant:
    """Features (B, D) of every segment, or tokens (B, L, D) where courses are asked for; several where seeds differ
    (all are averaged); and what reads them.

    `readout` None is the readout of the comparison.
    """

    features: Sequence[np.ndarray]
    readout: Readout | None = None


@dataclass(frozen=True)
class Comparison:
    """What was answered for the tested rows `row_N`, by entrant, and how good that is.

    `intervals` and `gains` are by measure and entrant; gains are the first entrant's measure minus the other's, on the
    same draws of subjects. `seeds` has the values of the single seeds, apart from the intervals, which are over
    subjects. `delong` compares AUROCs where every subject has one segment. `subjects_fitted` are how many subjects were
    fitted on, by split.
    """

    row_N: np.ndarray
    answers: dict[str, list[Answer]]
    intervals: dict[str, dict[str, Interval]]
    gains: dict[str, dict[str, Interval]]
    truth: Truth | None = None
    seeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    delong: dict[str, Areas] = field(default_factory=dict)
    subjects_fitted: tuple[int, ...] = ()

    def summary(self) -> dict[str, dict]:
        """Return everything but the answers as plain JSON; a number that is not defined is None."""
        first = next(iter(self.answers), PRETRAINED)
        return {
            "metrics": plain(self.intervals),
            f"{first}_minus": plain(self.gains),
            "seeds": {
                name: {who: [_plain(v) for v in vs] for who, vs in by.items()} for name, by in self.seeds.items()
            },
            "delong": {
                who: {"difference": [_plain(v) for v in areas.difference], "p": _plain(areas.p)}
                for who, areas in self.delong.items()
            },
        }


def compare(
    task: Task,
    entrants: Mapping[str, Entrant],
    label_B: np.ndarray,
    subject_B: np.ndarray,
    splits: Sequence[Split],
    *,
    classes: int | None = None,
    grouped: bool = True,
    readout: Readout = LINEAR,
    share: float = 1.0,
    only_first: bool = False,
    seed: int = 0,
) -> Comparison:
    """Return what each of `entrants` answers, beside the constant of the training part, and how good that is.

    `label_B` holds class codes below `classes` (those of the task if None; 0: numbers, or courses (B, T)). Fitted are a
    `share` of the subjects (of each class) of each split, at least one; `only_first` leaves out all measures but the
    task's first.
    """
    classes = len(task.classes) if classes is None else classes
    fewer = [(_share_of(fit, label_B, subject_B, share, classes, seed, grouped), test) for fit, test in splits]
    row_N = probes.tested_rows(splits)
    answers = {
        name: [
            readouts.answer_held_out(
                feature_BD,
                label_B,
                subject_B,
                fewer,
                entrant.readout or readout,
                classes=classes,
                grouped=grouped,
                name=name,
            )
            for feature_BD in entrant.features
        ]
        for name, entrant in entrants.items()
    }
    answers[CONSTANT] = [readouts.answer_constant(label_B, fewer, classes=classes)]
    truth = _truth(label_B, subject_B, fewer, row_N, classes)
    draws = Draws(truth.subject_N, seed=seed)
    intervals: dict[str, dict[str, Interval]] = {}
    gains: dict[str, dict[str, Interval]] = {}
    seeds: dict[str, dict[str, list[float]]] = {}
    first = next(iter(entrants))
    for measure in list(task.metrics.values())[: 1 if only_first else None]:
        drawn = {name: draw(measure.compute, truth, own, draws) for name, own in answers.items()}
        intervals[measure.name] = {name: found.interval() for name, found in drawn.items()}
        gains[measure.name] = _gains(drawn, first)
        seeds[measure.name] = {
            name: single_values(measure.compute, truth, own) for name, own in answers.items() if len(own) > 1
        }
    delong = _delong(answers, truth, first) if AUROC.name in intervals else {}
    fitted = tuple(len(np.unique(subject_B[fit])) for fit, _ in fewer)
    return Comparison(row_N, answers, intervals, gains, truth, seeds, delong, fitted)


def grade_answers(task: Task, compared: Comparison) -> dict[str, Grades]:
    """Return the grades of pressures by who answered, of several seeds the first; {} for what is no pressure."""
    if task.unit != "mmHg" or task.course_hz or compared.truth is None:
        return {}
    truth = compared.truth
    return {
        name: grade_pressure(seeds[0].score_NK[:, 0] - truth.label_N, subjects=truth.subjects)
        for name, seeds in compared.answers.items()
    }


def check_labels(task: Task, label_B: np.ndarray, subject_B: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return classes that a single subject has, who cannot be fitted on and tested on.

    Raises UserError for a single subject, and for labels that are all alike.
    """
    if len(np.unique(subject_B)) < 2:
        remedy = "a probe is tested on other subjects than it is fitted on: name recordings of two, or tell patients "
        raise UserError(Fault("subjects", str(subject_B[0]), f"{remedy}apart by --subjects FILE.csv"))
    if len(np.unique(label_B)) < 2:
        found = classes[int(label_B[0])] if classes else f"{label_B[0]:g}"
        remedy = "there is nothing to tell apart: name recordings with other labels too"
        raise UserError(Fault("--data", f"every label is {found!r}", remedy))
    if task.classes_are_subjects:
        return []
    subjects = {code: len(np.unique(subject_B[label_B == code])) for code in range(len(classes))}
    lone = [classes[code] for code, count in subjects.items() if count == 1]
    if len([count for count in subjects.values() if count > 1]) < 2 and classes:
        counted = ", ".join(f"{classes[code]} {count}" for code, count in subjects.items())
        remedy = "two classes with two subjects each are needed, one to fit on and one to test on: name more recordings"
        raise UserError(Fault("--data", f"subjects by class: {counted}", remedy))
    return lone


def check_features(name: str, feature_BD: np.ndarray) -> None:
    """Raise UserError for features of an encoder that are no numbers."""
    wrong = ~np.isfinite(feature_BD.reshape(len(feature_BD), -1)).all(axis=1)
    if wrong.any():
        remedy = "the encoder's own fault: its weights, or its training, have numbers that are not finite"
        raise UserError(Fault(name, f"{wrong.sum()} of {len(wrong)} embeddings are NaN or infinite", remedy))


def initialise_again(model: Pretrained, seed: int) -> Pretrained:
    """Return the same network with weights as they are before any training."""
    module = folders.make_encoder(model.card)
    x_BCT = jnp.zeros((1, *model.card.inputs.shape), jnp.float32)
    return model.with_weights(_init(module, jax.random.key(seed), x_BCT))


@partial(jax.jit, static_argnums=0)
def _init(module: nn.Module, key: jax.Array, x_BCT: jax.Array) -> Mapping[str, Any]:
    """Return a network's variables, compiled once for all seeds."""
    return module.init(key, x_BCT)


def embed_segments(model: Pretrained, x_BCT: np.ndarray) -> np.ndarray:
    """Return one vector a segment, float32 (B, width), of segments in physical units at the model's rate, of any
    length that the model takes.
    """
    return np.concatenate([model.embed(**part) for part in cut_parts(model, x_BCT)])


def cut_parts(model: Pretrained, x_BCT: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield segments in parts, as arguments of `model.embed` and its like."""
    roles, rate_hz = model.card.channels, model.card.rate_hz
    for first in range(0, len(x_BCT), _SEGMENTS_AT_ONCE):
        part_BCT = x_BCT[first : first + _SEGMENTS_AT_ONCE]
        signals = {role: part_BCT[:, place] for place, role in enumerate(roles)}
        yield {"rate_hz": rate_hz, "window_s": x_BCT.shape[-1] / rate_hz, **signals}


def embed_tokens(model: Pretrained, x_BCT: np.ndarray) -> np.ndarray:
    """Return the tokens of segments, float32 (B, L, width), of the same segments as `embed_segments`.

    Raises UserError for an encoder that sees several crops of a segment, whose tokens do not follow each other in time.
    """
    if model.card.crops > 1:
        remedy = f"sees {model.card.crops} crops of a segment, which lie over each other: its tokens tell no course"
        raise UserError(Fault(model.card.encoder, f"{model.card.crops} crops", f"this encoder {remedy}"))
    parts = [x_BCT[first : first + _SEGMENTS_AT_ONCE] for first in range(0, len(x_BCT), _SEGMENTS_AT_ONCE)]
    return np.concatenate([np.asarray(model.encode(model.prepare(part_BCT))) for part_BCT in parts])


def plain(by_metric: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, list[float | None]]]:
    """Return intervals as JSON: [value, low, high], None where a number is not defined."""
    return {
        metric: {name: [_plain(number) for number in interval] for name, interval in found.items()}
        for metric, found in by_metric.items()
    }


def _share_of(
    fit: np.ndarray, label_B: np.ndarray, subject_B: np.ndarray, share: float, classes: int, seed: int, grouped: bool
) -> np.ndarray:
    """Return a share of the rows that are fitted on: whole subjects, of each class."""
    if share == 1.0:
        return fit
    class_N = label_B[fit] if classes else np.zeros(len(fit))
    group_N = subject_B[fit] if grouped else np.arange(len(fit))
    return fit[labelled_share(class_N, group_N, share, seed=seed)]


def _truth(
    label_B: np.ndarray, subject_B: np.ndarray, splits: Sequence[Split], row_N: np.ndarray, classes: int
) -> Truth:
    scales = [np.full(len(test), np.mean(np.abs(label_B[fit] - label_B[fit].mean()))) for fit, test in splits]
    order = np.argsort(np.concatenate([test for _, test in splits]))
    scale_N = np.concatenate(scales)[order]
    label_N = label_B[row_N].astype(int) if classes else label_B[row_N]
    codes = np.unique(subject_B[row_N], return_inverse=True)[1]
    return Truth(label_N, codes, np.full(len(row_N), np.nan) if classes else scale_N)


def _gains(drawn: Mapping[str, Drawn], first: str) -> dict[str, Interval]:
    return {name: drawn[first].minus(found).interval() for name, found in drawn.items() if name != first}


def _delong(answers: Mapping[str, Sequence[Answer]], truth: Truth, first: str) -> dict[str, Areas]:
    """Return the comparisons of the first with the others that have one seed, where subjects have one segment each."""
    if truth.subjects < len(truth.subject_N) or len(answers[first]) > 1 or len(np.unique(truth.label_N)) < 2:
        return {}
    own_N = answers[first][0].score_NK[:, 1]
    return {
        name: compare_areas(truth.label_N == 1, own_N, other[0].score_NK[:, 1])
        for name, other in answers.items()
        if name not in (first, CONSTANT) and len(other) == 1
    }


def _plain(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None  # labels may be of any size
