"""vt_alarm: was the alarm of ventricular tachycardia true? From the last segment before it sounded."""

from pathlib import Path

import numpy as np

from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import CHALLENGE_SCORE, TWO_CLASSES
from jaxbio.evaluation.tasks.alarm_files import ALARM_S, CINC_2015, VTAC, name_of, read_alarms, read_events
from jaxbio.evaluation.tasks.task import UNKNOWN, Layout, Subjects, Task, has, named
from jaxbio.signals.segments import Measured


def _of_cinc(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    return np.full(len(start_B), read_alarms(Path(source.folder)).get(name_of(recording.recording), UNKNOWN))


def _of_vtac(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    return np.full(len(start_B), read_events(Path(source.folder)).get(name_of(recording.recording), ("", UNKNOWN))[1])


def _cinc_alarm_s(recording: Recording, source: Source) -> float:
    """Return when the alarm sounds, s; NaN of a recording of another alarm."""
    return ALARM_S if name_of(recording.recording) in read_alarms(Path(source.folder)) else UNKNOWN


def _vtac_alarm_s(recording: Recording, source: Source) -> float:
    """Return when the alarm sounds, s; NaN of one that was not decided."""
    return ALARM_S if name_of(recording.recording) in read_events(Path(source.folder)) else UNKNOWN


def _patients(folder: Path, source: str) -> Subjects:
    """Return VTaC's patients: waveforms/<record>/<event>."""
    events = read_events(folder)
    names = {
        path.relative_to(folder).with_suffix("").as_posix(): events[path.stem][0]
        for path in folder.rglob("*.hea")
        if path.stem in events
    }
    return {(source, name): patient for name, patient in names.items()}


VT_ALARM = Task(
    "whether an alarm of ventricular tachycardia is true",
    "",
    named(*TWO_CLASSES[:6], TWO_CLASSES[6], CHALLENGE_SCORE, *TWO_CLASSES[7:]),
    (
        Layout(
            "CinC 2015", "ALARMS and WFDB records", _of_cinc, has(CINC_2015), source="wfdb:{}", last_s=_cinc_alarm_s
        ),
        Layout(
            "VTaC",
            "event_labels.csv and waveforms/<record>/<event>.hea",
            _of_vtac,
            has(VTAC),
            source="wfdb:{}",
            subjects=_patients,
            last_s=_vtac_alarm_s,
        ),
    ),
    classes=("false alarm", "true alarm"),
    labels_are="experts' judgements; in CinC 2015 nobody knows which alarms share a patient (at most three do)",
    published="QualityFM on VTaC: all weights fine-tuned, the last 10 s, the official split by record, threshold at "
    "0.5; here: a linear probe on frozen features, the encoder's own length, whole patients left out by turns",
)
