"""Which subjects a probe is fitted on and tested on, given those that pretraining has seen.

Whom it has seen, an export tells by its seen.npz (`Seen.find`), or the store that it was pretrained on (`find_seen`).
transfer: fitted on subjects of the run's train split, tested on the others. cross_validate: fitted and tested by turns
on the others alone. Either way nobody is tested whom the encoder or the probe has learnt from.
"""

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.store import StoreView
from jaxbio.evaluation.probes import Split, subject_folds

PROTOCOLS = ("transfer", "cross_validate")


def find_seen(store: StoreView, source_B: np.ndarray, recording_B: np.ndarray, subject_B: np.ndarray) -> np.ndarray:
    """Return whether each segment's subject is in the store's train split, bool (B,).

    A subject counts as seen where any of its recordings is there, whatever name the store gave its subject.
    """
    columns = (store.column(name) for name in ("split", "source", "recording"))
    trained = {(source, recording) for split, source, recording in zip(*columns, strict=True) if split == "train"}
    hit_B = np.array([key in trained for key in zip(source_B.tolist(), recording_B.tolist(), strict=True)])
    return np.isin(subject_B, subject_B[hit_B])


def make_splits(protocol: str, subject_B: np.ndarray, seen_B: np.ndarray, *, folds: int, seed: int = 0) -> list[Split]:
    """Return the splits of a protocol over the rows of `subject_B`, given which of them pretraining has seen.

    Raises UserError for a protocol that leaves nobody to fit on or to test on.
    """
    unseen = np.flatnonzero(~seen_B)
    if not unseen.size:
        remedy = "pretraining has seen every subject: nothing is left to test on; name recordings it was not trained on"
        raise UserError(Fault("--data", "all seen", remedy))
    if protocol == "cross_validate":
        splits = subject_folds(subject_B[unseen], folds, seed=seed)
        return [(unseen[fit], unseen[test]) for fit, test in splits]
    if not seen_B.any():
        remedy = (
            "transfer fits on subjects that pretraining has seen and --data has none: try --protocol cross_validate"
        )
        raise UserError(Fault("--protocol", protocol, remedy))
    return [(np.flatnonzero(seen_B), unseen)]
