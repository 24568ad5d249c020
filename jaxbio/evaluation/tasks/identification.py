"""identification: whose segment is it? Learnt from the first half of each subject's time, asked of the second half.

What an encoder tells of persons it may use instead of what it is asked: this says how much there is.
"""

import numpy as np

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import ACCURACY, BALANCED_ACCURACY, MACRO_AUROC
from jaxbio.evaluation.tasks.bidmc import bidmc
from jaxbio.evaluation.tasks.rhythm import RHYTHM
from jaxbio.evaluation.tasks.task import Layout, Task, has, named
from jaxbio.signals.segments import Measured


def _any(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    return np.zeros(len(start_B))  # the subject becomes the label when all are known


_PIECES = RHYTHM.layouts[0]
IDENTIFICATION = Task(
    "whose signal it is",
    "",
    named(ACCURACY, BALANCED_ACCURACY, MACRO_AUROC),
    (
        bidmc(_any),
        Layout(
            _PIECES.name,
            _PIECES.holds,
            _any,
            _PIECES.tells,
            source=_PIECES.source,
            longest_s=_PIECES.longest_s,
            list_recordings=_PIECES.list_recordings,
        ),
        Layout("CPSC 2021", "data_*.hea with data_*.atr", _any, has("data_*_*.atr"), source="wfdb:{}"),
    ),
    labels_are="the patients that the source names",
    published="biometrics mostly tests segments of the same minute; here: the later half of each subject's time",
    classes_are_subjects=True,
)
