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
    """Write a label for all that the readers of `recordings` know; segments of other recordings have no value."""
    knowing = {
        (entry.source, entry.recording): entry.reader for entry in recordings if isinstance(entry.reader, Knowing)
    }
    if not knowing:
        return
    known: dict[str, np.ndarray] = {}
    source_R, recording_R, start_s_R = (store.column(name) for name in ("source", "recording", "start_s"))
    for first, stop in _stretches(source_R, recording_R):
        reader = knowing.get((str(source_R[first]), str(recording_R[first])))
        if reader is None:
            continue
        for name, value_B in reader.labels(start_s_R[first:stop].astype(np.float64), store.segment_s).items():
            if name not in known:
                known[name] = np.full(store.rows, None, object)
            known[name][first:stop] = value_B
    write_labels(store, [_label(name, value_R) for name, value_R in known.items()])


def _stretches(source_R: np.ndarray, recording_R: np.ndarray) -> list[tuple[int, int]]:
    """Return first row and last + 1 of each run of rows of one recording."""
    new_R = np.ones(len(source_R), bool)
    new_R[1:] = (source_R[1:] != source_R[:-1]) | (recording_R[1:] != recording_R[:-1])
    first_S = np.flatnonzero(new_R)
    return list(zip(first_S.tolist(), [*first_S[1:].tolist(), len(source_R)], strict=True))


def _label(name: str, value_R: np.ndarray) -> Label:
    """Return the label of values that are numbers, or texts: then classes in alphabetical order."""
    known_R = np.array([value is not None for value in value_R])
    code_R = np.full(len(value_R), np.nan, np.float32)
    if not isinstance(value_R[known_R][0], str):
        code_R[known_R] = value_R[known_R].astype(np.float32)
        return Label(name, code_R)
    classes, code_N = np.unique(value_R[known_R].astype(str), return_inverse=True)
    code_R[known_R] = code_N
    return Label(name, code_R, tuple(classes.tolist()))
