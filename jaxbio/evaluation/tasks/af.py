"""af: is it atrial fibrillation? From windows of single-lead, two-lead or bedside recordings."""

from pathlib import Path

import numpy as np

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import TWO_CLASSES
from jaxbio.evaluation.tasks.alarm_files import name_of
from jaxbio.evaluation.tasks.rhythm_files import REFERENCES, read_references, read_rhythm, share_in
from jaxbio.evaluation.tasks.task import UNKNOWN, Layout, Task, has, named
from jaxbio.signals.segments import Measured

_CINC_2017 = {"A": 1.0, "N": 0.0, "O": 0.0}  # ~, too noisy, has no rhythm
_MIXED = (0.1, 0.9)  # shares of a window in fibrillation: between them it has no label
_SHORT_S = 10.0  # recordings of CinC 2017 begin at 9 s, most have 30 s


def _of_cinc(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    label = read_references(Path(source.folder)).get(name_of(recording.recording), "")
    return np.full(len(start_B), _CINC_2017.get(label, UNKNOWN))


def _of_cpsc(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    rate_hz = max(channel.rate_hz for channel in recording.channels.values())
    share_B = share_in(*read_rhythm(f"{source.folder}/{recording.recording}.atr", rate_hz), start_B, segment_s)
    return np.select([share_B <= _MIXED[0], share_B >= _MIXED[1]], [0.0, 1.0], UNKNOWN)


def _of_perform(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    return np.full(len(start_B), 0.0 if "non_af" in name_of(recording.recording) else 1.0)


def _is_cinc(folder: Path) -> bool:
    return any(has(name)(folder) for name in REFERENCES)


AF = Task(
    "atrial fibrillation",
    "",
    named(*TWO_CLASSES),
    (
        Layout("CinC 2017", "REFERENCE.csv and WFDB records", _of_cinc, _is_cinc, source="wfdb:{}", longest_s=_SHORT_S),
        Layout(
            "MIMIC PERform AF",
            "mimic_perform_af_csv/*_data.csv and mimic_perform_non_af_csv/*_data.csv",
            _of_perform,
            has("mimic_perform_*af_*_data.csv"),
            source="csv:{}?rate_hz=125&glob=*mimic_perform_*af_*_data.csv",
        ),
        Layout("CPSC 2021", "data_*.hea with data_*.atr", _of_cpsc, has("data_*_*.atr"), source="wfdb:{}"),
    ),
    classes=("no AF", "AF"),
    labels_are="of the whole recording (CinC 2017, MIMIC PERform) or of the annotated spans (CPSC 2021)",
    published="QualityFM on MIMIC PERform: folds over windows, so that a patient is in several (`--protocol leaky`); "
    "CinC 2017: F1 of four classes, hidden test set; here: whole subjects left out",
)
