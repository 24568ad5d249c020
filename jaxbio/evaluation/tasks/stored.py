"""A label of a prepared store as a task: its segments as they are stored, fitted on and tested on by its own splits.

    stored = open_stored("label:transit_time", ["STORE"])
    segments = stored.read(rate_hz=300.0, length=9000, channels=("ppg", "ecg"))

Labels of classes are told as classes, and so are numbers that are 0 and 1 throughout; all others as numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.labels import open_label
from jaxbio.data.pairs import split_codes
from jaxbio.data.quantise import dequantise
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import Store, open_store, subject_codes
from jaxbio.evaluation.class_measures import SEVERAL_CLASSES, TWO_CLASSES
from jaxbio.evaluation.number_measures import NUMBERS
from jaxbio.evaluation.tasks.task import Segments, Task, named

PREFIX = "label:"
MOST = 3000  # segments on each side: six for each feature of QualityFM base, and 430 MB of its segments on both
_AT_ONCE = 512
log = logging.getLogger(__name__)


def is_label(name: str) -> bool:
    """Return whether a task's name asks for a label of a store."""
    return name.startswith(PREFIX)


def label_task(name: str, classes: Sequence[str]) -> Task:
    """Return the task "label:NAME" of a label of these classes; of numbers where there are none."""
    measures = NUMBERS if not classes else TWO_CLASSES if len(classes) == 2 else SEVERAL_CLASSES
    return Task(
        f"the label {name.removeprefix(PREFIX)}",
        "" if classes else "units of the label",
        named(*measures),
        (),
        classes=tuple(classes),
        labels_are="as the store has them: what its sources knew, its preparation measured, or somebody added",
    )


@dataclass(frozen=True)
class Stored:
    """A store and the values (rows,) of one of its labels, NaN where unknown or in no split; of `classes` the code."""

    store: Store
    value_R: np.ndarray
    classes: tuple[str, ...]

    def read(
        self, *, rate_hz: float, length: int, channels: Sequence[str], most: int = MOST, seed: int = 0
    ) -> Segments:
        """Return labelled segments: of the train split and of the others at most `most` each, spread over the subjects.

        Raises UserError, all faults together, for a store of another `rate_hz` (Hz) or `length` (samples) than the
        encoder's, or without its `channels`.
        """
        store = self.store
        check_input(store, "--data", rate_hz=rate_hz, length=length, channels=channels)
        train_R, known_R, (subject_R, _) = split_codes(store) == 0, np.isfinite(self.value_R), subject_codes(store)
        sides = [np.flatnonzero(known_R & (train_R == train)) for train in (True, False)]
        row_N = np.sort(np.concatenate([spread_over(subject_R[side_N], side_N, most, seed) for side_N in sides]))
        if len(row_N) < known_R.sum():
            log.info("read are %d of the store's %d labelled segments", len(row_N), known_R.sum())
        place_C = [store.channels.index(role) for role in channels]
        x_NCT = np.empty((len(row_N), len(place_C), length), np.float32)
        for first in range(0, len(row_N), _AT_ONCE):
            rows = row_N[first : first + _AT_ONCE]
            x_NCT[first : first + _AT_ONCE] = dequantise(
                store.read(rows)[:, place_C], store.scale_NC2[rows][:, place_C]
            )
        source_N, recording_N = (store.column(name)[row_N].astype(str) for name in ("source", "recording"))
        subject_N = np.array([f"{a}/{b}" for a, b in zip(source_N, store.column("subject")[row_N], strict=True)])
        return Segments(
            x_BCT=x_NCT,
            label_BK=self.value_R[row_N, None].astype(np.float64),
            fingerprint_B=store.column("fingerprint")[row_N],
            start_s_B=store.column("start_s")[row_N],
            present_BC=store.present_NC[row_N][:, place_C],
            subject_B=subject_N,
            source_B=source_N,
            recording_B=recording_N,
            subject_known_B=store.column("subject_known")[row_N],
            classes=self.classes,
            train_subjects=tuple(np.unique(subject_N[train_R[row_N]]).tolist()),
        )


def open_stored(name: str, data: Sequence[str]) -> Stored:
    """Return the label of task `name`, "label:NAME", and the one store that `data` names.

    Classes that no segment has are left out. Raises UserError for more than one store, a folder that is none, a label
    that it lacks (naming those it has), and one that tells nothing apart.
    """
    if len(data) > 1:
        raise UserError(Fault("--data", ", ".join(data), f"{PREFIX}NAME asks about one store at a time"))
    store = open_store(data[0])
    label = open_label(store, name.removeprefix(PREFIX))
    value_R = np.where(split_codes(store) >= 0, label.value_R, np.nan)
    values = np.unique(value_R[np.isfinite(value_R)])
    names = label.classes or (("0", "1") if np.isin(values, (0, 1)).all() else ())
    if len(values) < 2:
        found = ", ".join(names[int(value)] if names else f"{value:g}" for value in values)
        what = f"every segment of {' and '.join(SPLITS)} has {found}" if found else "no segment has a value of it"
        raise UserError(Fault("--task", name, f"{what}: there is nothing to tell apart"))
    if names:
        value_R = np.where(np.isfinite(value_R), np.searchsorted(values, value_R), np.nan)
    return Stored(store, value_R, tuple(names[int(value)] for value in values) if names else ())


def check_input(store: Store, flag: str, *, rate_hz: float, length: int, channels: Sequence[str]) -> None:
    """Raise UserError, all faults together, where the segments of the store that `flag` names are not what an encoder
    takes: of `rate_hz` (Hz), `length` (samples) and with `channels`.
    """
    faults = []
    if (store.rate_hz, store.length) != (rate_hz, length):
        wanted = f"the encoder takes {length} samples at {rate_hz:g} Hz: name a store that was prepared so"
        faults.append(Fault(flag, f"{store.length} samples at {store.rate_hz:g} Hz", wanted))
    if missing := [role for role in channels if role not in store.channels]:
        wanted = f"lacks {', '.join(missing)}: the encoder takes {', '.join(channels)}"
        faults.append(Fault(flag, ", ".join(store.channels), wanted))
    if faults:
        raise UserError(*faults)


def spread_over(subject_N: np.ndarray, row_N: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return at most `most` of the rows, rising: of every subject as many, as far as each has them."""
    drawn_N = np.random.default_rng(seed).permutation(len(row_N))
    order = np.lexsort((drawn_N, subject_N))
    _, count_S = np.unique(subject_N, return_counts=True)
    turn_N = np.empty(len(row_N), np.int64)  # 0 for the first row that is drawn of a subject, 1 for its second
    turn_N[order] = np.arange(len(row_N)) - np.repeat(np.cumsum(count_S) - count_S, count_S)
    return np.sort(row_N[np.lexsort((drawn_N, turn_N))[:most]])
