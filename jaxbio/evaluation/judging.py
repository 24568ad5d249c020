"""Encoders side by side on the labelled segments of a store: neighbours, a linear probe, clusters.

judged = judge(features, class_N, classes, subject_N, splits, shares=(0.01, 1.0))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import LIMB_LEADS
from jaxbio.data.few_labels import labelled_share
from jaxbio.data.labels import open_label
from jaxbio.data.quantise import dequantise
from jaxbio.data.store import Store, subject_codes
from jaxbio.evaluation import neighbours, probes
from jaxbio.evaluation.metrics import Interval, bootstrap
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.tasks.stored import check_input
from jaxbio.export.pretrained import Pretrained

# None: every channel of the encoder, whatever it is of.
LEAD_SETS: Mapping[str, tuple[str, ...] | None] = {"all": None, "limb": LIMB_LEADS, "i": ("i",), "ii": ("ii",)}
NEIGHBOURS = (5, 20)
SHARES = (0.01, 0.05, 1.0)
DRAWS = 200  # of subjects, for the interval of each score
_AT_ONCE = 256

Intervals = dict[str, dict[str, Interval]]  # by measure, then by encoder


@dataclass(frozen=True)
class Labelled:
    """The labelled segments of a store: rows, class codes with their names, subject codes, and what was left out."""

    row_N: np.ndarray
    class_N: np.ndarray
    classes: tuple[str, ...]
    subject_N: np.ndarray
    left_out: tuple[str, ...]


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


def judge(
    features: Mapping[str, np.ndarray],
    class_N: np.ndarray,
    classes: int,
    subject_N: np.ndarray,
    splits: Sequence[Split],
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    draws: int = DRAWS,
) -> Intervals:
    """Return every measure of each of `features` (N, D) with its interval over subjects, by measure and encoder.

    Neighbours (`knn5_...`, `knn20_...`) and a linear probe (`linear_balanced_accuracy`) are fitted on each split's
    first rows, or on a share of their labels (`..._at_5`), and tested on the others; clusters are of the tested rows.
    """
    tested = probes.tested_rows(splits)
    found: Intervals = {}
    for share in shares:
        suffix = "" if share == 1.0 else f"_at_{100 * share:g}"
        fewer = [(fit[labelled_share(class_N[fit], subject_N[fit], share, seed=seed)], test) for fit, test in splits]
        for count in NEIGHBOURS:
            votes = {
                name: _gather(
                    [
                        (test, neighbours.vote(x_ND[fit], class_N[fit], x_ND[test], classes=classes, neighbours=count))
                        for fit, test in fewer
                    ]
                )
                for name, x_ND in features.items()
            }
            for score, measure in neighbours.SCORES.items():
                found[f"knn{count}_{score}{suffix}"] = bootstrap(
                    measure, class_N[tested], votes, subject_N[tested], classes=True, draws=draws, seed=seed
                )
        linear = {
            name: probes.predict_held_out(x_ND, class_N, subject_N, fewer, probes.CLASSES)
            for name, x_ND in features.items()
        }
        found[f"linear_balanced_accuracy{suffix}"] = bootstrap(
            probes.CLASSES.score, class_N[tested], linear, subject_N[tested], classes=True, draws=draws, seed=seed
        )
    return found | _clusters(features, class_N, subject_N, tested, seed)


def _clusters(
    features: Mapping[str, np.ndarray], class_N: np.ndarray, subject_N: np.ndarray, row_N: np.ndarray, seed: int
) -> Intervals:
    def measured(x_ND: np.ndarray) -> dict[str, Interval]:
        own_ND, own_N = x_ND[row_N], class_N[row_N]

        def measure(rows: np.ndarray) -> dict[str, float]:
            return {
                **neighbours.separate(own_ND[rows], own_N[rows]),
                **neighbours.cluster(own_ND[rows], own_N[rows], seed),
            }

        return neighbours.jackknife(measure, subject_N[row_N], seed=seed)

    by_name = {name: measured(x_ND) for name, x_ND in features.items()}
    measures = next(iter(by_name.values()))
    return {measure: {name: found[measure] for name, found in by_name.items()} for measure in measures}


def _gather(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    row_N = np.concatenate([row for row, _ in parts])
    return np.concatenate([votes for _, votes in parts])[np.argsort(row_N)]
