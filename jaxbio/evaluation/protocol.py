"""Which subjects a probe is fitted on and tested on, given those that pretraining has seen.

Whom it has seen, an export tells by its seen.npz (`Seen.find`), or the store that it was pretrained on (`find_seen`).
transfer: fitted on subjects of the run's train split, or of that of the store that is asked about, tested on the
others. cross_validate: fitted and tested by turns on the others alone. Either way nobody is tested whom the encoder or
the probe has learnt from. leaky: segments are dealt to folds whatever their subject, as some publications do; it is
there to be compared with, and says so. time: learnt from the first half of each subject's segments, asked of the
second, where the subject is the question.
"""

from collections.abc import Sequence

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.store import StoreView
from jaxbio.evaluation.probes import Split, subject_folds

PROTOCOLS = ("transfer", "cross_validate")
LEAKY, TIME = "leaky", "time"
UNGROUPED = (LEAKY, TIME)  # subjects are on both sides


def find_seen(store: StoreView, source_B: np.ndarray, recording_B: np.ndarray, subject_B: np.ndarray) -> np.ndarray:
    """Return whether each segment's subject is in the store's train split, bool (B,).

    A subject counts as seen where any of its recordings is there, whatever name the store gave its subject.
    """
    columns = (store.column(name) for name in ("split", "source", "recording"))
    trained = {(source, recording) for split, source, recording in zip(*columns, strict=True) if split == "train"}
    hit_B = np.array([key in trained for key in zip(source_B.tolist(), recording_B.tolist(), strict=True)])
    return np.isin(subject_B, subject_B[hit_B])


def make_splits(
    protocol: str,
    subject_B: np.ndarray,
    seen_B: np.ndarray,
    *,
    folds: int,
    seed: int = 0,
    label_B: np.ndarray | None = None,
    named_by: str = "--data",
) -> list[Split]:
    """Return the splits of a protocol over the rows of `subject_B`, given which of them pretraining has seen (of
    transfer: or are to be fitted on all the same).

    Classes `label_B`, where given, are spread evenly over the folds of cross_validate. `named_by` is the flag that
    names the recordings. Raises UserError for a protocol that leaves nobody to fit on or to test on.
    """
    unseen = np.flatnonzero(~seen_B)
    if not unseen.size:
        remedy = "pretraining has seen every subject, a detector was calibrated on it, or the store's train split "
        remedy += "holds it: nothing is left to test on; name recordings of others"
        raise UserError(Fault(named_by, "all seen", remedy))
    if protocol == LEAKY:
        order = np.random.default_rng(seed).permutation(len(unseen))
        parts = [unseen[order[fold::folds]] for fold in range(min(folds, len(unseen)))]
        return [(np.setdiff1d(unseen, part), np.sort(part)) for part in parts]
    if protocol == TIME:
        return [_halves(subject_B, unseen)]
    if protocol == "cross_validate":
        splits = subject_folds(
            subject_B[unseen], folds, seed=seed, label_N=None if label_B is None else label_B[unseen]
        )
        return [(unseen[fit], unseen[test]) for fit, test in splits]
    if not seen_B.any():
        remedy = f"transfer fits on subjects that pretraining has seen and {named_by} has none: "
        remedy += "try --protocol cross_validate"
        raise UserError(Fault("--protocol", protocol, remedy))
    return [(np.flatnonzero(seen_B), unseen)]


def _halves(subject_B: np.ndarray, row_N: np.ndarray) -> Split:
    """Return the first half of each subject's rows and the second, as they come: recording by recording, in time."""
    whose_N = subject_B[row_N]
    first_N = np.zeros(len(row_N), bool)
    for subject in np.unique(whose_N):
        own = np.flatnonzero(whose_N == subject)
        first_N[own[: len(own) // 2]] = True
    return row_N[first_N], row_N[~first_N]


def check_splits(splits: list[Split], label_B: np.ndarray, classes: Sequence[str], *, named_by: str = "--data") -> None:
    """Raise UserError for a split that nobody is fitted on or tested in, and where what is fitted on, or all that is
    tested, is of one class; `named_by` is the flag that names the recordings.
    """
    for number, (fit, test) in enumerate(splits, 1):
        if not len(fit) or not len(test):
            remedy = "nobody is left for it: fewer --folds, or more subjects"
            raise UserError(Fault("--folds", f"fold {number} is empty", remedy))
        if classes and len(np.unique(label_B[fit])) < 2:
            found, remedy = classes[int(label_B[fit][0])], "name recordings of more subjects with other labels"
            if len(splits) == 1:
                raise UserError(Fault(named_by, f"all that is fitted on is {found!r}", remedy))
            remedy = f"more --folds fit on more subjects; or {remedy}"
            raise UserError(Fault("--folds", f"fold {number} is fitted on {found!r} alone", remedy))
    tested_N = label_B[np.concatenate([test for _, test in splits])]
    if classes and len(np.unique(tested_N)) < 2:
        remedy = "there is nothing to tell apart: name recordings of more subjects with other labels"
        raise UserError(Fault(named_by, f"all that is tested is {classes[int(tested_N[0])]!r}", remedy))
