"""WESAD and PPG-DaLiA in a folder: a pickle a subject, of which nothing is run, and what the subject did meanwhile.

`S2/S2.pkl` holds `signal/wrist/BVP` at 64 Hz, `signal/chest/ECG` at 700 Hz in mV, and codes beside them: WESAD's
`label` at 700 Hz (Schmidt et al., ICMI 2018), PPG-DaLiA's `activity` at 4 Hz (Reiss et al., Sensors 19:3079, 2019).

    layout = wearable("WESAD", state_label("label", 700.0, (1, 2, 3, 4)), "label")
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import Recording, RecordingError, Source
from jaxbio.data.recordings.array_paths import lines_of
from jaxbio.data.recordings.pickle_arrays import leaves_of
from jaxbio.data.recordings.pickles import read_line
from jaxbio.evaluation.tasks.alarm_files import name_of
from jaxbio.evaluation.tasks.task import UNKNOWN, Label, Layout, Subjects, has
from jaxbio.signals.segments import Measured

_FILES, _SUFFIX = "S[0-9]*.pkl", ".pkl"
_LEAST_SHARE = 0.9  # of a window that is spent in one state: others are of two, or of none


def wearable(name: str, label: Label, beside: str) -> Layout:
    """Return the layout of either data set with a task's label; `beside` names the array that the label is of."""
    return Layout(
        name,
        f"S2/S2.pkl and its like, with signal/wrist/BVP, signal/chest/ECG and {beside}",
        label,
        has(_FILES),
        source=f"pickle:{{}}?glob={_FILES}&columns=ppg:signal/wrist/BVP,ecg:signal/chest/ECG&rates=ppg:64,ecg:700"
        "&assume_unit=ecg:mV",
        subjects=_subjects,
    )


def state_label(array: str, rate_hz: float, codes: Sequence[int]) -> Label:
    """Return a label: the place in `codes` of the state that a window is spent in, NaN for any other and for several.

    `array` is the path of the states in a pickle, at `rate_hz`.
    """

    def label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
        state_N = read_states(f"{source.folder}/{recording.recording}{_SUFFIX}", array)
        class_N = np.full(len(state_N), UNKNOWN)
        for place, code in enumerate(codes):
            class_N[state_N == code] = place
        first_B = np.rint(start_B * rate_hz).astype(int)
        spans = [class_N[first : first + round(segment_s * rate_hz)] for first in first_B]
        return np.array([_held(span_N, round(segment_s * rate_hz)) for span_N in spans])

    return label


@lru_cache(maxsize=2)
def read_states(path: str, array: str) -> np.ndarray:
    """Return the states at `array` of a pickle; raises UserError for a file that has none there."""
    try:
        leaf = leaves_of(path).get(array)
        lines = list(lines_of(array, leaf)) if leaf is not None else []
        if len(lines) != 1:
            raise UserError(Fault("--data", path, f"has no {array!r}, one code after the other: copy the file again"))
        (_, line) = lines[0]
        return read_line(path, line, 0, line.samples)
    except RecordingError as error:
        raise UserError(Fault("--data", path, f"{error.detail}; it holds the labels under {array!r}")) from None


def _held(class_N: np.ndarray, samples: int) -> float:
    """Return the class that a window of so many samples is spent in, NaN where it is in none for nearly all of it."""
    known_N = class_N[np.isfinite(class_N)].astype(int)
    count_K = np.bincount(known_N, minlength=1)
    return float(count_K.argmax()) if count_K.max() >= _LEAST_SHARE * samples else UNKNOWN


def _subjects(folder: Path, source: str) -> Subjects:
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob(_FILES)]
    return {(source, name): name_of(name) for name in names}
