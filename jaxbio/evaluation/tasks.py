"""Tasks: segments of recordings with a label and a subject each. It knows no network and no probe.

A new task is one function from a recording's windows to labels, and one line in TASKS.

    segments = read_segments("heart_rate", sources, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))
"""

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.listing import find_recordings
from jaxbio.data.pairs import CLASSES as QUALITY_CLASSES
from jaxbio.data.quantise import fingerprint, quantise
from jaxbio.data.recordings import Recording, Source
from jaxbio.data.regular_files import open_text
from jaxbio.data.shard_plan import Block, Settings, plan_recording, settings_of
from jaxbio.data.shards import measure_windows, read_windows
from jaxbio.evaluation import metrics, probes
from jaxbio.signals.segments import Measured

_SIGNALS, _NUMERICS = "_Signals", "_Numerics.csv"  # BIDMC's files of a recording
_MIN_KNOWN = 0.5  # share of a segment's seconds for which the monitor must show a rate


@dataclass(frozen=True)
class Task:
    """What is predicted: in words, in which unit, by which probe, how it is measured, and where labels come from.

    `labels_are` says in words what the labels are, for whoever asks how far to trust them.
    `label` gets a recording, its source, the start of each window in seconds, and what was measured of them; it
    returns (B,) labels, NaN or a negative class where there is none.
    """

    title: str
    unit: str
    probe: probes.Probe
    metrics: Mapping[str, metrics.Metric]
    label: Callable[[Recording, Source, np.ndarray, float, Measured], np.ndarray]
    classes: tuple[str, ...] = ()
    labels_are: str = ""


@dataclass(frozen=True)
class Segments:
    """Labelled segments: x_BCT float32 in physical units at the model's rate, label_B, and whose they are (texts).

    `fingerprint_B` uint64 is what a store that holds the very segment has in its table; `subject_known_B` is False
    where the source names no subject, so that its recording counts as one.
    """

    x_BCT: np.ndarray
    label_B: np.ndarray
    fingerprint_B: np.ndarray
    subject_B: np.ndarray
    source_B: np.ndarray
    recording_B: np.ndarray
    subject_known_B: np.ndarray


def get_task(name: str) -> Task:
    """Return the task of that name; raises UserError that names the known ones."""
    if name not in TASKS:
        raise UserError(Fault("--task", name, f"one of {', '.join(TASKS)}"))
    return TASKS[name]


def read_segments(
    name: str,
    sources: Sequence[Source],
    *,
    rate_hz: float,
    length: int,
    channels: tuple[str, ...],
    subjects: Mapping[tuple[str, str], str] | None = None,
) -> Segments:
    """Return every labelled segment of the sources, cut and measured as a preparation does.

    `rate_hz` in Hz, `length` in samples. Windows that preparation rejects, and those without a label, are left out.
    Raises UserError for an unknown task, a source without what the labels are made of, and where nothing is left.
    """
    task = get_task(name)
    by_name = {source.name: source for source in sources}
    if len(by_name) < len(sources):
        names = ", ".join(source.name for source in sources)
        raise UserError(Fault("--data", names, "two sources of one name: ?name=NAME gives one another"))
    config = fields.change(
        fields.defaults(), {"data.rate_hz": rate_hz, "data.segment_s": length / rate_hz, "data.channels": channels}
    )
    settings = settings_of(config)
    parts: list[Segments] = []
    refused: Counter[str] = Counter()
    for entry in find_recordings(sources, config, subjects=subjects):
        if isinstance(entry, Recording):
            parts += _read_recording(task, entry, by_name[entry.source], settings, refused)
        else:
            refused[entry.reason] += 1
    refused = +refused  # without zeros
    if refused:
        logging.info("left out: %s", ", ".join(f"{reason} {count}" for reason, count in refused.most_common()))
    if not sum(len(part.label_B) for part in parts):
        reasons = ", ".join(refused) or "no recording"
        raise UserError(Fault("--data", f"{len(sources)} sources", f"hold no labelled segment ({reasons})"))
    columns = ("x_BCT", "label_B", "fingerprint_B", "subject_B", "source_B", "recording_B", "subject_known_B")
    return Segments(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))


def _read_recording(
    task: Task, recording: Recording, source: Source, settings: Settings, refused: Counter[str]
) -> list[Segments]:
    windows, _ = plan_recording(recording, settings)
    seconds: dict[tuple[int, str, str], float] = defaultdict(float)
    parts = []
    for read in read_windows([Block(recording, 0, windows)], settings, seconds):
        measured = measure_windows(read, settings)
        label_B = task.label(recording, source, read.window_B * settings.segment_s, settings.segment_s, measured)
        known_B = np.isfinite(label_B) & (label_B >= 0)
        refused["rejected"] += int(np.sum(measured.reason_B != 0))
        refused["no_label"] += int(np.sum((measured.reason_B == 0) & ~known_B))
        kept_B = (measured.reason_B == 0) & known_B
        whose = [np.full(kept_B.sum(), f"{recording.source}/{recording.subject}")]
        told = (recording.source, recording.recording, recording.subject_known)
        whose += [np.full(kept_B.sum(), value) for value in told]
        x_BCT = measured.x_BCT[kept_B]
        parts.append(Segments(x_BCT, label_B[kept_B], fingerprint(*quantise(x_BCT)), *whose))
    refused.update(reason for _, reason, _ in seconds)
    return parts


def _quality_class(
    recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured
) -> np.ndarray:
    """Return the class of each segment's own score (variant "waveform"), by the default edges: 0 Bad .. 4 Excellent."""
    return np.digitize(measured.columns["quality_waveform"], fields.defaults().pairs.class_edges)


def _quality_score(
    recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured
) -> np.ndarray:
    """Return each segment's own score (variant "waveform"), 0 to 1: where nearly all segments are of one class."""
    return measured.columns["quality_waveform"]


def _heart_rate(
    recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured
) -> np.ndarray:
    """Return the median of the monitor's heart rate over each segment, beats/min; NaN where it shows too little."""
    path = Path(source.folder) / (recording.recording.removesuffix(_SIGNALS) + _NUMERICS)
    time_s, rate = read_monitor_rate(path)
    return np.array([_median(rate[(time_s >= start) & (time_s < start + segment_s)], segment_s) for start in start_B])


def _median(rate: np.ndarray, segment_s: float) -> float:
    known = rate[rate > 0]
    return float(np.median(known)) if len(known) >= _MIN_KNOWN * segment_s else float("nan")


def read_monitor_rate(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return time (s) and heart rate (beats/min, NaN where the monitor shows none) of a BIDMC *_Numerics.csv.

    Raises UserError for a file that is not there or has no columns "Time [s]" and "HR".
    """
    remedy = "heart_rate is the monitor's HR in the *_Numerics.csv beside a BIDMC *_Signals file"
    try:
        with open_text(path) as file:
            header, *lines = csv.reader(file, skipinitialspace=True)
        columns = [header.index("Time [s]"), header.index("HR")]
        table = np.array([[_number(line[column]) for column in columns] for line in lines]).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(Fault("--data", str(path), f"{error}; {remedy}")) from None
    return table[:, 0], table[:, 1]


def _number(cell: str) -> float:
    return float(cell) if cell.strip() else float("nan")


_OWN = "jaxbio's own score of the segment, not a person's reading"
_OF_CLASSES = {"balanced_accuracy": metrics.balanced_accuracy, "macro_f1": metrics.macro_f1}
_OF_NUMBERS = {"mae": metrics.mae, "r2": metrics.r2}
TASKS: dict[str, Task] = {
    "quality_class": Task(
        "signal quality class", "", probes.CLASSES, _OF_CLASSES, _quality_class, QUALITY_CLASSES, _OWN
    ),
    "quality_score": Task("signal quality score", "of 1", probes.NUMBERS, _OF_NUMBERS, _quality_score, labels_are=_OWN),
    "heart_rate": Task(
        "the monitor's heart rate",
        "beats/min",
        probes.NUMBERS,
        _OF_NUMBERS,
        _heart_rate,
        labels_are="medians of what the monitor showed, its own errors included",
    ),
}
