"""blood_pressure: systolic and diastolic, from the beats of an arterial line that the encoder does not see."""

import numpy as np

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.number_measures import NUMBERS
from jaxbio.evaluation.tasks.arterial import arterial_layouts, pulsedb_pressures
from jaxbio.evaluation.tasks.reading import read_role
from jaxbio.evaluation.tasks.task import Task, named
from jaxbio.signals import beats, filters
from jaxbio.signals.artefacts import find_gaps
from jaxbio.signals.segments import Measured

_LEAST_BEATS_HZ = 0.5  # beats a second that an arterial line shows at least, else it is disconnected or flushed
_SYSTOLIC, _DIASTOLIC = (50.0, 250.0), (20.0, 150.0)  # mmHg, beyond which a line is at fault
LEAST_PULSE_MMHG = 10.0
_MOST_VARYING_MMHG = 25.0  # between the quartiles of systolic pressures: an artefact, no circulation


def _label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    x_BN = read_role(recording, "abp", start_B, segment_s)
    return np.full((len(start_B), 2), np.nan) if x_BN is None else pressures(x_BN, segment_s)


def pressures(x_BN: np.ndarray, duration_s: float) -> np.ndarray:
    """Return (systolic, diastolic) pressure of windows of an arterial line, mmHg, float64 (B, 2); NaN where it is no
    pressure.

    The medians over beats of the largest and the smallest value from one upslope to the next.
    """
    gaps = find_gaps(x_BN, x_BN.shape[1] / duration_s)
    x_BT = filters.resample(gaps.filled_BN.astype(np.float64), round(duration_s * beats.DETECTION_HZ))
    found = beats.find_pulses(x_BT.astype(np.float32), beats.DETECTION_HZ)
    label_B2 = np.full((len(x_BN), 2), np.nan)
    for row in range(len(x_BN)):
        first_J = np.rint(found.time_J[found.row_J == row] * beats.DETECTION_HZ).astype(int)
        if gaps.nan_frac_B[row] > 0.2 or len(first_J) < max(3, _LEAST_BEATS_HZ * duration_s):
            continue
        # the last upslope has no next one
        high_J = np.maximum.reduceat(x_BT[row], first_J)[:-1]
        low_J = np.minimum.reduceat(x_BT[row], first_J)[:-1]
        systolic, diastolic = np.median(high_J), np.median(low_J)
        varying = np.subtract(*np.quantile(high_J, [0.75, 0.25]))
        right = _SYSTOLIC[0] <= systolic <= _SYSTOLIC[1] and _DIASTOLIC[0] <= diastolic <= _DIASTOLIC[1]
        if right and systolic - diastolic >= LEAST_PULSE_MMHG and varying <= _MOST_VARYING_MMHG:
            label_B2[row] = systolic, diastolic
    return label_B2


BLOOD_PRESSURE = Task(
    "blood pressure",
    "mmHg",
    named(*NUMBERS),
    arterial_layouts(_label, of_pulsedb=pulsedb_pressures),
    targets=("systolic", "diastolic"),
    labels_are="medians over the beats of an arterial line, whose own faults are left out by limits; of PulseDB its "
    "own, means over the beats of 10 s",
    published="QualityFM on the UCI set: largest and smallest value of 30 s, a split by file that may share patients, "
    "all weights fine-tuned; PulseDB: windows of 10 s, a test of subjects of whom nothing is learnt "
    "(calibration-free), all weights; here: a linear probe, whole patients left out, or recordings where the UCI set "
    "names no patient",
)
