"""A share of the labels: which subjects a run, or a probe, learns from where it is to learn from few.

Shares are of subjects, and of each class alike: what a hospital that labels few patients would have. It knows rows,
subjects and values; what they are labels of is the caller's.

    row_N = choose_few(stores, labels, np.unique(index.rows_NM), share=0.1, seed=0)
"""

import logging
from collections.abc import Sequence

import numpy as np

from jaxbio.data.labels import Label
from jaxbio.data.several import Stores
from jaxbio.data.store import subject_codes

FIELD = "data.label_share"
log = logging.getLogger(__name__)


def labelled_share(class_N: np.ndarray, subject_N: np.ndarray, share: float, *, seed: int = 0) -> np.ndarray:
    """Return rows, rising, of about `share` of each class's subjects, at least one of each."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(class_N), bool)
    for label in np.unique(class_N):
        whose = np.unique(subject_N[class_N == label])
        kept = rng.permutation(whose)[: max(1, round(share * len(whose)))]
        chosen |= (class_N == label) & np.isin(subject_N, kept)
    return np.flatnonzero(chosen)


def choose_few(stores: Stores, labels: Sequence[Label], row_N: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Return those of the rows `row_N`, which have the labels, that are learnt from: of a share of each class's
    subjects; and say how many subjects and segments of each class that is.

    Classes are those of the first label, of 0 and 1 where it has no other numbers. Of numbers, and where no label is
    learnt, subjects are of one kind. A share of 1 is every row.
    """
    class_N, names = _classes(labels, row_N)
    subject_N = subject_codes(stores)[0][row_N]
    kept_N = np.zeros(len(row_N), bool)
    kept_N[labelled_share(class_N, subject_N, share, seed=seed)] = True
    said = [_say(name, subject_N[class_N == code], kept_N[class_N == code]) for code, name in enumerate(names)]
    log.info("learnt from (%s = %g): %s", FIELD, share, "; ".join(said))
    return row_N[kept_N]


def _classes(labels: Sequence[Label], row_N: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each row and the names of all; of numbers one class without a name."""
    value_N = labels[0].value_R[row_N] if labels else np.zeros(len(row_N), np.float32)
    names = labels[0].classes if labels else ()
    if not names and labels and np.isin(value_N, (0, 1)).all():
        names = ("0", "1")
    return (value_N.astype(np.int64), names) if names else (np.zeros(len(row_N), np.int64), ("",))


def _say(name: str, subject_N: np.ndarray, kept_N: np.ndarray) -> str:
    subjects, kept = np.unique(subject_N).size, np.unique(subject_N[kept_N]).size
    of = f"{kept:,} of {subjects:,} subjects, {kept_N.sum():,} of {kept_N.size:,} segments"
    return f"{name} {of}" if name else of
