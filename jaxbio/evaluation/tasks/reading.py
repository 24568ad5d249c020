"""From raw files of a folder to labelled segments of an encoder's rate and length, as a preparation cuts them.

sources = find_sources(task, ["bidmc"])
segments = read_segments(task, sources, rate_hz=300.0, length=9000, channels=("ppg", "ecg"))
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.listing import find_recordings
from jaxbio.data.quantise import fingerprint, quantise
from jaxbio.data.recordings import FORMATS, Recording, RecordingError, Refused, Source, assign_subjects, parse_source
from jaxbio.data.recordings.recording import Channel, Reader
from jaxbio.data.shard_plan import Block, Settings, plan_recording, settings_of
from jaxbio.data.shards import measure_windows, read_windows
from jaxbio.evaluation.tasks.task import ARRAYS, Layout, Segments, Subjects, Task
from jaxbio.signals.segments import Measured


def find_sources(task: Task, data: Sequence[str]) -> list[Source]:
    """Return the sources that lines of `--data` name: a folder in one of the task's layouts, or FORMAT:PATH?options.

    Raises UserError for a line that names nothing readable, and a folder of no layout of this task.
    """
    sources = []
    for text in data:
        path = Path(text)
        is_line = text.partition(":")[0] in FORMATS and not path.exists()
        if is_line:
            sources.append(parse_source(text))
        elif not path.is_dir():
            raise UserError(Fault("--data", text, "no such folder, and no FORMAT:PATH"))
        else:
            layout = find_layout(task, path, text)
            if not layout.source:
                raise UserError(Fault("--data", text, f"of no known data set: name it as FORMAT:{text}"))
            sources.append(parse_source(layout.source.format(text)))
    return sources


def find_layout(task: Task, folder: Path, named: str) -> Layout:
    """Return the task's layout of a folder; of a task with a single one that one, whose label says what is missing."""
    found = next((layout for layout in task.layouts if folder.is_dir() and layout.tells(folder)), None)
    if found is None and len(task.layouts) > 1:
        known = "; ".join(f"{layout.name}: {layout.holds}" for layout in task.layouts)
        raise UserError(Fault("--data", named, f"holds no labels of {task.title}. Known layouts: {known}"))
    return found or task.layouts[0]


def window_length(task: Task, sources: Sequence[Source], window_s: float | None, rate_hz: float, length: int) -> int:
    """Return the samples of a segment: as asked for, else the encoder's own or the data set's longest, if shorter."""
    if window_s is not None:
        return round(window_s * rate_hz)
    longest_s = longest_window_s(task, sources)
    return min(length, round(longest_s * rate_hz)) if np.isfinite(longest_s) else length


def longest_window_s(task: Task, sources: Sequence[Source]) -> float:
    """Return how long a window may be, s, where pieces of the data sets are short; infinite where none are."""
    return min(find_layout(task, Path(source.folder), source.name).longest_s for source in sources)


def read_segments(
    task: Task,
    sources: Sequence[Source],
    *,
    rate_hz: float,
    length: int,
    channels: tuple[str, ...],
    subjects: Mapping[tuple[str, str], str] | None = None,
) -> Segments:
    """Return every labelled segment of the sources, cut and measured as a preparation does.

    `rate_hz` in Hz, `length` in samples. Windows that preparation rejects, and those without a label, are left out; a
    channel that a recording lacks is zeros. Raises UserError for an encoder whose channels the labels are made of, and
    where nothing is left.
    """
    names = check_names(sources)
    if subjects and not any(name in names for name, _ in subjects):
        remedy = f"names none of the sources {', '.join(names)}"
        raise UserError(Fault("--subjects", ",".join(next(iter(subjects))), remedy))
    changed = {"data.rate_hz": rate_hz, "data.segment_s": length / rate_hz, "data.channels": channels}
    config = fields.change(fields.defaults(), {**changed, "prepare.missing_channel": "mask"})
    settings = settings_of(config)
    parts: list[Segments] = []
    refused: Counter[str] = Counter()
    for source in sources:
        layout = find_layout(task, Path(source.folder), source.name)
        if shown := set(layout.reads) & set(channels):
            remedy = f"the labels are made of {', '.join(shown)}, which this encoder sees: it needs no prediction"
            raise UserError(Fault("--task", task.title, remedy))
        known = subjects_of(layout, source) | dict(subjects or {})
        for entry in list_entries(layout, source, config, known):
            if isinstance(entry, Recording):
                parts += _read_recording(layout, entry, source, settings, refused)
            else:
                refused[entry.reason] += 1
    refused = +refused  # without zeros
    if refused:
        logging.info("left out: %s", ", ".join(f"{reason} {count}" for reason, count in refused.most_common()))
    if not sum(len(part.label_BK) for part in parts):
        raise UserError(Fault("--data", f"{len(sources)} sources", _why_nothing(refused, channels, settings)))
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Segments(**arrays, classes=task.classes, left_out=dict(refused))


def _why_nothing(refused: Mapping[str, int], channels: Sequence[str], settings: Settings) -> str:
    counted = ", ".join(f"{reason} {count}" for reason, count in refused.items()) or "no recording"
    remedies = {
        "missing_channel": f"this encoder takes {', '.join(channels)}, of which the recordings have none: name an "
        "encoder of their channels",
        "too_short": f"its segments are {settings.segment_s:g} s long: --window_s asks for shorter ones, where the "
        "encoder takes them",
        "no_label": "the files of labels name none of them",
    }
    said = next((remedies[reason] for reason in remedies if refused.get(reason)), "")
    return f"hold no labelled segment ({counted})" + (f"; {said}" if said else "")


def check_names(sources: Sequence[Source]) -> list[str]:
    """Return the names of the sources; raises UserError where two have one."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise UserError(Fault("--data", ", ".join(names), "two sources of one name: ?name=NAME gives one another"))
    return names


def subjects_of(layout: Layout, source: Source) -> Subjects:
    """Return whose the recordings are, as far as files beside the signals say."""
    return layout.subjects(Path(source.folder), source.name) if layout.subjects else {}


def list_entries(layout: Layout, source: Source, config: ConfigDict, known: Subjects) -> list[Recording | Refused]:
    """Return what a source holds, as a preparation under `config` or the layout's own reader lists it."""
    if layout.list_recordings:
        return assign_subjects(layout.list_recordings(source), known)
    own = {key: subject for key, subject in known.items() if key[0] == source.name}
    return find_recordings([source], config, subjects=own, also=layout.reads)


def find_asked(
    layout: Layout, recording: Recording, source: Source, segment_s: float, refused: Counter[str]
) -> tuple[Recording, float] | None:
    """Return what of a recording the layout asks about, and the second at which it begins; None, counted in `refused`,
    where that is nothing.
    """
    if layout.last_s is None:
        return recording, 0.0
    last_s = layout.last_s(recording, source)
    if np.isnan(last_s):
        refused["no_label"] += 1
        return None
    first_s = last_s - segment_s
    if first_s < 0 or last_s > recording.duration_s + 1e-6:
        refused["too_short"] += 1
        return None
    return replace(recording, duration_s=segment_s, reader=Excerpt(recording.reader, first_s)), first_s


def label_windows(
    layout: Layout, recording: Recording, source: Source, start_s_B: np.ndarray, segment_s: float, measured: Measured
) -> tuple[np.ndarray, np.ndarray]:
    """Return the layout's labels of windows, float64 (B, K), and which of them are known, bool (B, K)."""
    label_BK = np.asarray(layout.label(recording, source, start_s_B, segment_s, measured), np.float64)
    label_BK = label_BK.reshape(len(start_s_B), -1)
    return label_BK, np.isfinite(label_BK) & (label_BK >= 0)


def _read_recording(
    layout: Layout, recording: Recording, source: Source, settings: Settings, refused: Counter[str]
) -> list[Segments]:
    asked = find_asked(layout, recording, source, settings.segment_s, refused)
    if asked is None:
        return []
    recording, first_s = asked
    windows, _ = plan_recording(recording, settings)
    seconds: dict[tuple[int, str, str], float] = defaultdict(float)
    parts = []
    for read in read_windows([Block(recording, 0, windows)], settings, seconds):
        measured = measure_windows(read, settings)
        start_s_B = read.window_B * settings.segment_s
        label_BK, known_BK = label_windows(layout, recording, source, start_s_B, settings.segment_s, measured)
        known_B = known_BK.any(axis=1)
        refused["rejected"] += int(np.sum(measured.reason_B != 0))
        refused["no_label"] += int(np.sum((measured.reason_B == 0) & ~known_B))
        kept_B = (measured.reason_B == 0) & known_B
        x_BCT, kept = measured.x_BCT[kept_B], int(kept_B.sum())
        parts.append(
            Segments(
                x_BCT=x_BCT,
                label_BK=label_BK[kept_B],
                fingerprint_B=fingerprint(*quantise(x_BCT)),
                start_s_B=first_s + start_s_B[kept_B],
                present_BC=measured.present_BC[kept_B],
                subject_B=np.full(kept, f"{recording.source}/{recording.subject}"),
                source_B=np.full(kept, recording.source),
                recording_B=np.full(kept, recording.recording),
                subject_known_B=np.full(kept, recording.subject_known),
            )
        )
    refused.update(reason for _, reason, _ in seconds)
    return parts


@dataclass(frozen=True)
class Excerpt:
    """A recording's reader from `first_s` on."""

    reader: Reader
    first_s: float

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        return self.reader.read(channels, start_s + self.first_s, stop_s + self.first_s)


def read_role(recording: Recording, role: str, start_s_B: np.ndarray, segment_s: float) -> np.ndarray | None:
    """Return a role's windows (B, N) float32 at its own rate, NaN where they cannot be read; None where it has none."""
    if role not in recording.channels:
        return None
    samples = round(segment_s * recording.channels[role].rate_hz)
    windows = np.full((len(start_s_B), samples), np.nan, np.float32)
    for place, start_s in enumerate(start_s_B):
        try:
            x_N = recording.read(start_s, min(start_s + segment_s, recording.duration_s), [role])[role]
        except RecordingError:
            continue
        windows[place, : min(samples, len(x_N))] = x_N[:samples]
    return windows
