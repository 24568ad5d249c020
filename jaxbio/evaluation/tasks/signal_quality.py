"""signal_quality: is a hand-held ECG too noisy to be read (class ~ of CinC 2017)?"""

from pathlib import Path

import numpy as np

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import TWO_CLASSES
from jaxbio.evaluation.tasks.alarm_files import name_of
from jaxbio.evaluation.tasks.rhythm_files import REFERENCES, read_references
from jaxbio.evaluation.tasks.task import UNKNOWN, Layout, Task, has, named
from jaxbio.signals.segments import Measured


def _label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    label = read_references(Path(source.folder)).get(name_of(recording.recording))
    return np.full(len(start_B), UNKNOWN if label is None else float(label == "~"))


SIGNAL_QUALITY = Task(
    "whether an ECG is too noisy to be read",
    "",
    named(*TWO_CLASSES),
    (
        Layout(
            "CinC 2017",
            "REFERENCE.csv and WFDB records",
            _label,
            lambda folder: any(has(name)(folder) for name in REFERENCES),
            source="wfdb:{}",
            longest_s=10.0,
        ),
    ),
    classes=("readable", "too noisy"),
    labels_are="of the whole recording, so that a noisy one may have clean windows; in the version of the folder",
    published="CinC 2017: one of four classes by F1, hidden test set; here: alone, windows of 10 s, whole recordings "
    "left out",
)
