"""Labels that a source itself knows of its recordings, as synthetic ones do: written when the store is prepared.

write_known_labels(store, recordings)
"""

from collections.abc import Sequence

import numpy as np

from jaxbio.data.labels import Label, write_labels
from jaxbio.data.recordings import Recording
from jaxbio.data.recordings.recording import Knowing
from jaxbio.data.store import Store


def write_known_labels(store: Store, recordings: Sequence[Recording]) -> None:
    """Write a label for all that the readers of `recordings` know; see `find_known_labels`."""
    if labels := find_known_labels(store, recordings):
        write_labels(store, labels)


def find_known_labels(store: Store, recordings: Sequence[Recording]) -> list[Label]:
    """Return a label for all that the readers of `recordings` know; segments of other recordings have no value.

    Readers that know anything know the same.
    """
    knowing = {
        (entry.source, entry.recording): entry.reader for entry in recordings if isinstance(entry.reader, Knowing)
    }
    if not knowing:
        return []
    known: dict[str, list[np.ndarray]] = {}
    rows: list[np.ndarray] = []
    source_R, recording_R, start_s_R = (store.column(name) for name in ("source", "recording", "start_s"))
    for first, stop in _stretches(source_R, recording_R):
        reader = knowing.get((str(source_R[first]), str(recording_R[first])))
        if reader is not None:
            rows.append(np.arange(first, stop))
            for name, value_B in reader.labels(start_s_R[first:stop].astype(np.float64), store.segment_s).items():
                known.setdefault(name, []).append(value_B)
    if not rows:
        return []
    row_N = np.concatenate(rows)
    return [_label(name, row_N, np.concatenate(parts), store.rows) for name, parts in known.items()]


def _stretches(source_R: np.ndarray, recording_R: np.ndarray) -> list[tuple[int, int]]:
    """Return first row and last + 1 of each run of rows of one recording."""
    new_R = np.ones(len(source_R), bool)
    new_R[1:] = (source_R[1:] != source_R[:-1]) | (recording_R[1:] != recording_R[:-1])
    first_S = np.flatnonzero(new_R)
    return list(zip(first_S.tolist(), [*first_S[1:].tolist(), len(source_R)], strict=True))


def _label(name: str, row_N: np.ndarray, value_N: np.ndarray, rows: int) -> Label:
    """Return the label with these values in these rows: numbers, or texts, then classes in alphabetical order."""
    classes: tuple[str, ...] = ()
    if value_N.dtype.kind == "U":
        names, value_N = np.unique(value_N, return_inverse=True)
        classes = tuple(names.tolist())
    value_R = np.full(rows, np.nan, np.float32)
    value_R[row_N] = value_N
    return Label(name, value_R, classes)
