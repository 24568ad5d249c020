"""Clinical tasks, one declaration a file: segments of recordings with labels and a subject each.

    task = get_task("vt_alarm")
    sources = find_sources(task, ["cinc2015"])
    segments = read_segments("vt_alarm", sources, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))

A new task is a file with a `Task` and a line in TASKS; a data set that asks the same is another `Layout` of it. Every
label of a prepared store is a task too, "label:NAME" (stored.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.ecg_archives import Row
from jaxbio.data.recordings import Source
from jaxbio.evaluation.tasks import label_rows, reading
from jaxbio.evaluation.tasks.abp_waveform import ABP_WAVEFORM, resample_course
from jaxbio.evaluation.tasks.activity import ACTIVITY
from jaxbio.evaluation.tasks.af import AF
from jaxbio.evaluation.tasks.affect import AFFECT
from jaxbio.evaluation.tasks.bidmc import read_monitor
from jaxbio.evaluation.tasks.blood_pressure import BLOOD_PRESSURE
from jaxbio.evaluation.tasks.identification import IDENTIFICATION
from jaxbio.evaluation.tasks.label_rows import check_tabled, known_subjects, label_columns
from jaxbio.evaluation.tasks.monitor import HEART_RATE, RESPIRATORY_RATE, SPO2
from jaxbio.evaluation.tasks.quality import QUALITY_CLASS, QUALITY_SCORE
from jaxbio.evaluation.tasks.reading import find_sources, longest_window_s, window_length
from jaxbio.evaluation.tasks.rhythm import RHYTHM
from jaxbio.evaluation.tasks.signal_quality import SIGNAL_QUALITY
from jaxbio.evaluation.tasks.stored import MOST, PREFIX, Stored, is_label, label_task, open_stored
from jaxbio.evaluation.tasks.superclass import SUPERCLASS
from jaxbio.evaluation.tasks.task import Layout, Segments, Task
from jaxbio.evaluation.tasks.vt_alarm import VT_ALARM

__all__ = ["MOST", "PREFIX", "TASKS", "Layout", "Segments", "Stored", "Task", "check_tabled", "find_sources",
           "get_task", "is_label", "known_subjects", "label_columns", "longest_window_s", "open_stored",
           "read_label_rows", "read_monitor_rate", "read_segments", "resample_course", "window_length"]  # fmt: skip

TASKS: dict[str, Task] = {
    "quality_class": QUALITY_CLASS,
    "quality_score": QUALITY_SCORE,
    "heart_rate": HEART_RATE,
    "respiratory_rate": RESPIRATORY_RATE,
    "spo2": SPO2,
    "blood_pressure": BLOOD_PRESSURE,
    "abp_waveform": ABP_WAVEFORM,
    "vt_alarm": VT_ALARM,
    "af": AF,
    "rhythm": RHYTHM,
    "signal_quality": SIGNAL_QUALITY,
    "superclass": SUPERCLASS,
    "affect": AFFECT,
    "activity": ACTIVITY,
    "identification": IDENTIFICATION,
}


def get_task(name: str, classes: Sequence[str] = ()) -> Task:
    """Return the task of that name, where it is "label:NAME" of a label of these classes.

    Raises UserError that names the known ones.
    """
    if is_label(name):
        return label_task(name, classes)
    if name not in TASKS:
        raise UserError(Fault("--task", name, f"one of {', '.join(TASKS)}, or {PREFIX}NAME with a store as --data"))
    return TASKS[name]


def read_segments(name: str, sources: Sequence[Source], **settings: Any) -> Segments:
    """Return every labelled segment of the sources, as `reading.read_segments`; raises UserError for no task's name.

    Where subjects are the classes, they are those whom the source names and who have two segments at least.
    """
    task = get_task(name)
    segments = reading.read_segments(task, sources, **settings)
    if not task.classes_are_subjects:
        return segments
    names, code_B, count_S = np.unique(segments.subject_B, return_inverse=True, return_counts=True)
    kept_B = segments.subject_known_B & (count_S[code_B] > 1)
    names, code_B = np.unique(segments.subject_B[kept_B], return_inverse=True)
    if len(names) < 2:
        raise UserError(Fault("--data", f"{len(names)} subjects", "name two subjects at least, whom the source names"))
    return segments.take(np.flatnonzero(kept_B), label_BK=code_B[:, None].astype(float), classes=tuple(names.tolist()))


def read_label_rows(name: str, sources: Sequence[Source], window_s: float) -> dict[str, list[Row]]:
    """Return the labelled windows of the sources, as `label_rows.read_label_rows`; raises UserError for no task."""
    return label_rows.read_label_rows(name, get_task(name), sources, window_s)


def read_monitor_rate(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return time (s) and heart rate (beats/min, NaN where the monitor shows none) of a BIDMC *_Numerics.csv.

    Raises UserError for a file that is not there or has no columns "Time [s]" and "HR".
    """
    return read_monitor(path, "HR")
