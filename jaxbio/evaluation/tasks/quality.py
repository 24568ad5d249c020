"""quality_class, quality_score: the default score of a segment of any recording; a first look, no clinical task."""

import numpy as np

from jaxbio.config import fields
from jaxbio.data.pairs import CLASSES as QUALITY_CLASSES
from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import BALANCED_ACCURACY, MACRO_F1
from jaxbio.evaluation.number_measures import MAE, R2
from jaxbio.evaluation.tasks.task import Layout, Task, named
from jaxbio.signals.segments import Measured

_OWN = "jaxbio's own score of the segment, not a person's reading"


def _class(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    """Return the class of each segment's own score (variant "waveform"), by the default edges: 0 Bad .. 4 Excellent."""
    return np.digitize(measured.columns["quality_waveform"], fields.defaults().pairs.class_edges)


def _score(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    """Return each segment's own score (variant "waveform"), 0 to 1: where nearly all segments are of one class."""
    return measured.columns["quality_waveform"]


def _any(label) -> tuple[Layout, ...]:
    return (Layout("any recordings", "recordings of one of the formats", label, tells=lambda folder: True),)


QUALITY_CLASS = Task(
    "signal quality class",
    "",
    named(BALANCED_ACCURACY, MACRO_F1),
    _any(_class),
    classes=QUALITY_CLASSES,
    labels_are=_OWN,
    published="never asked elsewhere",
)
QUALITY_SCORE = Task(
    "signal quality score",
    "of 1",
    named(MAE, R2),
    _any(_score),
    labels=("quality_waveform",),
    labels_are=_OWN,
    published="never asked elsewhere",
)
