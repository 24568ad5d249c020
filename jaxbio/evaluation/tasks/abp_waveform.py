"""abp_waveform: the course of arterial pressure over a segment, from what the encoder sees beside it."""

from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.course_measures import COURSES
from jaxbio.evaluation.tasks.arterial import arterial_layouts
from jaxbio.evaluation.tasks.blood_pressure import LEAST_PULSE_MMHG, pressures
from jaxbio.evaluation.tasks.reading import read_role
from jaxbio.evaluation.tasks.task import Task, named
from jaxbio.signals.artefacts import find_gaps
from jaxbio.signals.segments import Measured

# Of the labels. What an arterial line holds above half of it is 0.04 % of its power in BIDMC, 0.07 % in CinC 2015
# (medians over windows).
COURSE_HZ = 25.0
_STILL_S = 3.0  # the longest time between two beats at 20 a minute


def _label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    x_BN = read_role(recording, "abp", start_B, segment_s)
    if x_BN is None:
        return np.full((len(start_B), round(segment_s * COURSE_HZ)), np.nan)
    return courses(x_BN, segment_s)


def courses(x_BN: np.ndarray, duration_s: float) -> np.ndarray:
    """Return windows of an arterial line at 25 Hz, mmHg, float64 (B, T).

    A window is NaN where any of it is missing or held, where it is no pressure (`pressures`), and where no pulse of 10
    mmHg is to be seen for three seconds: there the line is flushed, or disconnected.
    """
    samples = round(duration_s * COURSE_HZ)
    gaps = find_gaps(x_BN, x_BN.shape[1] / duration_s)
    filled_BN = gaps.filled_BN.astype(np.float64)
    label_BT = resample_course(filled_BN, samples)
    right_B = np.isfinite(pressures(x_BN, duration_s)).all(axis=1) & ~gaps.lost_BN.any(axis=1)
    while_BTW = sliding_window_view(label_BT, min(round(_STILL_S * COURSE_HZ), samples), axis=1)
    right_B &= np.ptp(while_BTW, axis=-1).min(axis=1) >= LEAST_PULSE_MMHG
    return np.where(right_B[:, None], label_BT, np.nan)


def resample_course(x_BN: np.ndarray, samples: int) -> np.ndarray:
    """Return courses at another rate, (B, samples) over the same time."""
    ratio = Fraction(samples, x_BN.shape[1])
    # a line from the first sample to the last is taken away before filtering: a wave does not end where it began
    x_BT = signal.resample_poly(x_BN, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return x_BT[:, :samples]


ABP_WAVEFORM = Task(
    "the course of arterial pressure",
    "mmHg",
    named(*COURSES),
    arterial_layouts(_label),
    course_hz=COURSE_HZ,
    labels=("abp",),
    labels_are="an arterial line at 25 Hz; windows in which it is disconnected, flushed or held, or no pulse is seen "
    "for 3 s, are left out",
    published="QualityFM: a dense layer from all tokens to 9,000 samples, all weights trained, random windows on both "
    "sides; here: ridge regression from each token to its own part of the course, frozen features, whole patients left "
    "out (all weights trained: configs/finetune.py:abp_waveform)",
)
