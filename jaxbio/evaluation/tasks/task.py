"""What a task is: a question about segments, the data sets that answer it, and how answers are measured.

It knows no network and no probe. A task is one file of this folder and one line in its registry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxbio.data.recordings import Recording, Refused, Source
from jaxbio.evaluation.measure import Measure
from jaxbio.signals.segments import Measured

Label = Callable[[Recording, Source, np.ndarray, float, Measured], np.ndarray]
Subjects = dict[tuple[str, str], str]
UNKNOWN = float("nan")


@dataclass(frozen=True)
class Layout:
    """A data set as it lies in a folder.

    `name` and `holds` say in words which and by what files it is known; `tells` is whether a folder is one. `source` is
    the source line of a folder without FORMAT:, with {} for the folder. `label` gets a recording, its source, the
    start of each window in seconds, their length in seconds, and what was measured of them; it returns (B,) labels,
    (B, targets), or courses (B, samples): NaN, or a negative class, where there is none.

    `subjects` reads {(source, recording): subject} from files beside the signals. `reads` are roles that labels are
    made of, and must not be the encoder's. `longest_s` is how long a window may be where the data set's own pieces are
    short.
    `last_s` gives the second at which the one window of a recording ends (None: all windows, or none of this recording
    where NaN). `list_recordings` replaces the readers of `--data` where the files are none of their formats.
    """

    name: str
    holds: str
    label: Label
    tells: Callable[[Path], bool]
    source: str = ""
    subjects: Callable[[Path, str], Subjects] | None = None
    reads: tuple[str, ...] = ()
    longest_s: float = float("inf")
    last_s: Callable[[Recording, Source], float] | None = None
    list_recordings: Callable[[Source], list[Recording | Refused]] | None = None


@dataclass(frozen=True)
class Task:
    """What is predicted: in words, in which unit, from which data sets, and how it is measured.

    `classes` are empty for numbers; `targets` names the numbers where there are several. The first of `metrics` is the
    one that verdicts speak of. `labels` are names, beside the task's own, of labels and channels of a store that ask
    the same: a detector that has learnt one of them answers this task. `labels_are` says what the labels are, for
    whoever asks how far to trust them; `published` how published results were obtained, and what is other here. Of two
    classes the second is the positive one. Where `classes_are_subjects`, the label is the subject, and splits are by
    time. With `course_hz` the label is a signal at that rate, of which each of the encoder's tokens tells its part.
    """

    title: str
    unit: str
    metrics: Mapping[str, Measure]
    layouts: tuple[Layout, ...]
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("",)
    labels: tuple[str, ...] = ()
    labels_are: str = ""
    published: str = ""
    classes_are_subjects: bool = False
    course_hz: float | None = None


@dataclass(frozen=True)
class Segments:
    """Labelled segments: x_BCT float32 in physical units at the model's rate (zeros where a channel is missing).

    `label_BK` float64 has a column for each target, or for each sample of a course, NaN where unknown. `fingerprint_B`
    uint64 is what a store that holds the very segment has in its table; `start_s_B` is where it begins in its
    recording; `subject_known_B` is False where the source names no subject, so that its recording counts as one.
    Subjects are texts "source/subject"; `train_subjects` are those of a store's train split, on whom a probe is fitted
    although the encoder may not have seen them.
    """

    x_BCT: np.ndarray
    label_BK: np.ndarray
    fingerprint_B: np.ndarray
    start_s_B: np.ndarray
    present_BC: np.ndarray
    subject_B: np.ndarray
    source_B: np.ndarray
    recording_B: np.ndarray
    subject_known_B: np.ndarray
    classes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    train_subjects: tuple[str, ...] = ()

    @property
    def label_B(self) -> np.ndarray:
        """The labels of a task with one target."""
        return self.label_BK[:, 0]

    def take(self, row_N: np.ndarray, **changed: Any) -> "Segments":
        """Return these rows."""
        parts = {name: getattr(self, name)[row_N] for name in ARRAYS}
        kept = {name: getattr(self, name) for name in ("classes", "left_out", "train_subjects")}
        return Segments(**{**parts, **kept, **changed})


ARRAYS = ("x_BCT", "label_BK", "fingerprint_B", "start_s_B", "present_BC", "subject_B", "source_B", "recording_B",
          "subject_known_B")  # fmt: skip


def named(*measures: Measure) -> dict[str, Measure]:
    """Return measures by name."""
    return {measure.name: measure for measure in measures}


def has(pattern: str) -> Callable[[Path], bool]:
    """Return whether a folder, or one below it, holds a file of that pattern."""
    return lambda folder: next(folder.rglob(pattern), None) is not None
