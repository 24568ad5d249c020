"""Encoders side by side on the labelled segments of a store: neighbours, a linear probe, clusters.

judged = judge({"a": [a_ND], "fresh": five_of_them}, {"a": "fresh"}, class_N, classes, subject_N, splits)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import LIMB_LEADS
from jaxbio.data.few_labels import labelled_share
from jaxbio.data.labels import open_label
from jaxbio.data.quantise import dequantise
from jaxbio.data.store import Store, subject_codes
from jaxbio.evaluation import neighbours, probes
from jaxbio.evaluation.class_measures import BALANCED_ACCURACY
from jaxbio.evaluation.comparison import RANDOM
from jaxbio.evaluation.encoders import architecture, draw_fresh
from jaxbio.evaluation.intervals import Draws, draw, single_values
from jaxbio.evaluation.measure import Measure, Truth
from jaxbio.evaluation.metrics import DRAWS, Interval
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.readouts import LINEAR, Readout, answer_held_out
from jaxbio.evaluation.tasks.stored import check_input
from jaxbio.export.pretrained import Pretrained

# None: every channel of the encoder, whatever it is of.
LEAD_SETS: Mapping[str, tuple[str, ...] | None] = {"all": None, "limb": LIMB_LEADS, "i": ("i",), "ii": ("ii",)}
NEIGHBOURS = (5, 20)
SHARES = (0.01, 0.05, 1.0)
_AT_ONCE = 256

Intervals = dict[str, dict[str, Interval]]  # by measure, then by encoder
Seeds = dict[str, dict[str, list[float]]]


class Estimate(Protocol):
    """A measure's value with what its interval is made of, by a bootstrap or by a jackknife."""

    @property
    def value(self) -> float: ...

    def minus(self, other: Self) -> Self: ...

    def interval(self) -> Interval: ...


@dataclass(frozen=True)
class Labelled:
    """The labelled segments of a store: rows, class codes with their names, subject codes, and what was left out."""

    row_N: np.ndarray
    class_N: np.ndarray
    classes: tuple[str, ...]
    subject_N: np.ndarray
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """What was found of the encoders, by measure and encoder: of several seeds the mean over them.

    `intervals` are over subjects; `seeds` has the values of single seeds, apart from them. `gains` are what an encoder
    in question has more than its own network at random initialisation, on the same draws of subjects.
    """

    intervals: Intervals
    gains: Intervals
    seeds: Seeds


def read_labelled(store: Store, name: str) -> Labelled:
    """Return the segments of every split that have label `name`.

    A class of a single subject cannot be fitted on and tested on: it is left out and named. Raises UserError for a
    label that is none of the store's or holds no classes, and where fewer than two classes are left.
    """
    label = open_label(store, name)
    known_R = np.isfinite(label.value_R) & np.isin(store.column("split"), ("train", "validation", "test"))
    values = np.unique(label.value_R[known_R])
    if (values != np.rint(values)).any() or len(values) > max(50, len(label.classes)):
        raise UserError(Fault("--label", name, "a label of classes; numbers are judged by eval.tasks"))
    names = label.classes or tuple(f"{value:g}" for value in values)
    subject_R, _ = subject_codes(store)
    kept: list[tuple[float, str]] = []
    left_out: list[tuple[float, str]] = []
    for code, value in enumerate(values):
        subjects = np.unique(subject_R[known_R & (label.value_R == value)])
        text = names[int(value)] if label.classes else names[code]
        (kept if len(subjects) > 1 else left_out).append((value, text))
    if len(kept) < 2:
        found = ", ".join(text for _, text in (*kept, *left_out)) or "no value"
        raise UserError(Fault("--label", name, f"two classes with two subjects each are needed; it has {found}"))
    row_N = np.flatnonzero(known_R & np.isin(label.value_R, [value for value, _ in kept]))
    class_N = np.searchsorted([value for value, _ in kept], label.value_R[row_N])
    texts = tuple(text for _, text in kept)
    return Labelled(row_N, class_N, texts, subject_R[row_N], tuple(text for _, text in left_out))


def embed_rows(model: Pretrained, store: Store, row_N: np.ndarray, leads: Sequence[str] | None = None) -> np.ndarray:
    """Return one vector a row, float32 (N, width), of what the store holds of the encoder's channels.

    `leads` leaves only these of them. Raises UserError where the store lacks a channel, or its segments are of another
    rate or length, or where no channel is left.
    """
    card, roles = model.card, store.channels
    check_input(store, "--store", rate_hz=card.rate_hz, length=card.length, channels=card.channels)
    given = [role for role in card.channels if leads is None or role in leads]
    if not given:
        wanted = f"none of {', '.join(leads or ())}: the encoder takes {', '.join(card.channels)}"
        raise UserError(Fault("--store", str(store.path), wanted))
    parts = []
    for first in range(0, len(row_N), _AT_ONCE):
        rows = row_N[first : first + _AT_ONCE]
        x_BCT = dequantise(store.read(rows), store.scale_NC2[rows])
        signals: dict[str, Any] = {role: x_BCT[:, roles.index(role)] for role in given}
        parts.append(model.embed(rate_hz=store.rate_hz, **signals))
    return np.concatenate(parts)


def draw_beside(
    models: Mapping[str, Sequence[Pretrained]], seed: int
) -> tuple[dict[str, list[Pretrained]], dict[str, str]]:
    """Return five fresh initialisations of every network among `models`, by a name that says whose, and by encoder that
    name: encoders of the same network and input share theirs.
    """
    fresh: dict[str, list[Pretrained]] = {}
    fresh_of: dict[str, str] = {}
    name_of: dict[tuple[Any, ...], str] = {}
    for who, own in models.items():
        name = name_of.setdefault(architecture(own[0].card), f"{RANDOM} of {who}")
        fresh_of[who] = name
        if name not in fresh:
            fresh[name] = draw_fresh(own[0], seed)
    return fresh, fresh_of


def judge(
    features: Mapping[str, Sequence[np.ndarray]],
    fresh_of: Mapping[str, str],
    class_N: np.ndarray,
    classes: int,
    subject_N: np.ndarray,
    splits: Sequence[Split],
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    draws: int = DRAWS,
) -> Judged:
    """Return every measure of each of `features`, (N, D) of one seed or of several, and of encoders what they gained.

    Neighbours (`knn5_...`, `knn20_...`) and a linear probe (`linear_balanced_accuracy`) are fitted on each split's
    first rows, or on a share of their labels (`..._at_5`), and tested on the others; clusters are of the tested rows.
    `fresh_of` names for every encoder in question which of `features` are those of its network untrained.
    """
    tested = probes.tested_rows(splits)
    truth = Truth(class_N[tested], subject_N[tested], np.full(len(tested), np.nan))
    drawn = Draws(truth.subject_N, draws=draws, seed=seed)
    estimates: dict[str, Mapping[str, Estimate]] = {}
    seeds: Seeds = {}
    for share in shares:
        fewer = [(fit[labelled_share(class_N[fit], subject_N[fit], share, seed=seed)], test) for fit, test in splits]
        for prefix, (readout, measures) in READ.items():
            answers = {
                who: [answer_held_out(x, class_N, subject_N, fewer, readout, classes=classes, name=who) for x in own]
                for who, own in features.items()
            }
            for score, measure in measures.items():
                name = name_measure(prefix, score, share)
                estimates[name] = {who: draw(measure.compute, truth, own, drawn) for who, own in answers.items()}
                seeds[name] = {who: single_values(measure.compute, truth, own) for who, own in answers.items()}
    for name, by in _find_clusters(features, truth, tested, seed).items():
        estimates[name] = {who: found for who, (found, _) in by.items()}
        seeds[name] = {who: single for who, (_, single) in by.items()}
    return Judged(
        {name: {who: found.interval() for who, found in by.items()} for name, by in estimates.items()},
        {
            name: {who: by[who].minus(by[fresh]).interval() for who, fresh in fresh_of.items()}
            for name, by in estimates.items()
        },
        {name: {who: values for who, values in by.items() if len(values) > 1} for name, by in seeds.items()},
    )


def name_measure(prefix: str, score: str, share: float) -> str:
    """Return what a measure is called that is fitted on a share of the labels."""
    return f"{prefix}_{score}" + ("" if share == 1.0 else f"_at_{100 * share:g}")


def _vote_of(count: int) -> Readout:
    return lambda fit_ND, class_N, group_N, test_MD, classes: neighbours.vote(
        fit_ND, class_N, test_MD, classes=classes, neighbours=count
    )


# How features are read, and the measures of what comes of it, by the beginning of their names.
READ: Mapping[str, tuple[Readout, Mapping[str, Measure]]] = {
    **{f"knn{count}": (_vote_of(count), neighbours.SCORES) for count in NEIGHBOURS},
    "linear": (LINEAR, {"balanced_accuracy": BALANCED_ACCURACY}),
}


def _find_clusters(
    features: Mapping[str, Sequence[np.ndarray]], truth: Truth, row_N: np.ndarray, seed: int
) -> dict[str, dict[str, tuple[neighbours.LeftOut, list[float]]]]:
    """Return how the tested rows' classes lie and are found by k-means, by measure and encoder, and of each seed."""

    def find(x_ND: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        own_ND, own_N = x_ND[row_N[rows]], truth.label_N[rows]
        return {**neighbours.separate(own_ND, own_N), **neighbours.cluster(own_ND, own_N, seed)}

    found: dict[str, dict[str, tuple[neighbours.LeftOut, list[float]]]] = {}
    for who, own in features.items():
        seeds = [neighbours.jackknife(partial(find, x_ND), truth.subject_N, seed=seed) for x_ND in own]
        for name in seeds[0]:
            single = [one[name] for one in seeds]
            found.setdefault(name, {})[who] = neighbours.mean_of(single), [one.value for one in single]
    return found
