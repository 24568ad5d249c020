"""WFDB records: single segments, fixed and variable layouts, several rates in one record, `.dat` and `.mat`.

A record is a `.hea` file; the segments of a multi-segment record, and its layout, are not recordings of their own.
Each signal is read at its own rate (samples a frame times frames a second); where a segment lacks it, it is NaN, and a
segment that is not there costs its own span. A signal without a description is called by its number, from 1.
"""

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import numpy as np

from jaxbio.data.recordings.channels import Stated, make_channels, same_name, unit_of
from jaxbio.data.recordings.folders import find_files, inside, recording_name, refuse
from jaxbio.data.recordings.recording import (
    LONGEST_S,
    Channel,
    Recording,
    RecordingError,
    Refused,
    check_clock,
    failures_named,
    sample_span,
)
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.wfdb_header import GAP, Header, Signal, read_header
from jaxbio.data.recordings.wfdb_samples import check_signals, read_frames

_SUFFIXES = (".hea", ".dat", ".mat")


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the records below the source's path."""
    paths = []
    for found in find_files(source, lambda name: name.endswith(".hea")):
        if isinstance(found, Refused):
            yield found
        else:
            paths.append(_header_path(found))
    # Segments lie beside their record, so that headers are held for one folder at a time.
    for _, beside in groupby(dict.fromkeys(paths), os.path.dirname):
        yield from _list_folder(source, list(beside), channel_names)


def _list_folder(
    source: Source, paths: Sequence[str], channel_names: Mapping[str, Sequence[str]]
) -> Iterator[Recording | Refused]:
    """Yield the records of one folder, without the segments of others."""
    headers: list[Header] = []
    for path in paths:
        try:
            with failures_named(path):
                headers.append(read_header(path))
        except RecordingError as error:
            yield _refused(source, path, error)
    parts = {os.path.join(header.folder, f"{name}.hea") for header in headers for name, _ in header.segments}
    for header in headers:
        if header.segments or header.path not in parts:  # a segment has no segments: a ring of them is refused
            try:
                with failures_named(header.path):
                    recording = _recording(source, header, channel_names)
                yield recording
            except RecordingError as error:
                yield _refused(source, header.path, error, header)


@dataclass(frozen=True)
class WfdbReader:
    """Reads spans of one record; `names` and `starts` (frames, one more than names) of its segments in time order.

    `assumed` has (role, unit) for signals that state none.
    """

    root: str
    folder: str
    frames_hz: float
    names: tuple[str, ...]
    starts: tuple[int, ...]
    assumed: tuple[tuple[str, str], ...] = ()

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        spans = {role: sample_span(channel, start_s, stop_s) for role, channel in channels.items()}
        per_frame = {role: round(channel.rate_hz / self.frames_hz) for role, channel in channels.items()}
        samples = {role: np.full(last - first, np.nan, np.float32) for role, (first, last) in spans.items()}
        first_frame = min(first // per_frame[role] for role, (first, _) in spans.items())
        last_frame = min(max(-(-last // per_frame[role]) for role, (_, last) in spans.items()), self.starts[-1])
        segment = bisect_right(self.starts, first_frame) - 1
        failed: RecordingError | None = None
        while segment < len(self.names) and self.starts[segment] < last_frame:
            start, stop = self.starts[segment], self.starts[segment + 1]
            if self.names[segment] != GAP and start < stop:
                low, high = max(first_frame, start), min(last_frame, stop)
                try:
                    read = self._read_segment(segment, channels, per_frame, low - start, high - start)
                except RecordingError as error:
                    failed, read = failed or error, {}
                for role, values in read.items():
                    _place(values, low * per_frame[role], samples[role], spans[role][0])
            segment += 1
        if failed is not None:
            failed.rest = samples if len(self.names) > 1 else None
            raise failed
        return samples

    def _read_segment(
        self, segment: int, channels: Mapping[str, Channel], per_frame: Mapping[str, int], first: int, last: int
    ) -> dict[str, np.ndarray]:
        """Return frames [first, last) of the channels that this segment has, in the channels' units."""
        header = read_header(_segment_path(self.root, self.folder, self.names[segment]))
        single = len(self.names) == 1
        signals = {role: _find_signal(header, channel, single) for role, channel in channels.items()}
        held = {role: signal for role, signal in signals.items() if signal is not None}
        for role, signal in held.items():
            if signal.per_frame != per_frame[role] or not math.isclose(header.rate_hz, self.frames_hz, rel_tol=1e-3):
                detail = f"{signal.name!r} has another sampling rate than in the record"
                raise RecordingError("bad_rate", header.path, detail)
        values = read_frames(self.root, header, list(held.values()), first, last) if held else []
        scaled = {}
        for (role, signal), value in zip(held.items(), values):
            unit, factor = unit_of(role, signal.unit, header.path, dict(self.assumed))
            if unit != channels[role].unit:
                raise RecordingError(
                    "unknown_unit", header.path, f"{role} in {unit}, in the record {channels[role].unit}"
                )
            scaled[role] = value if factor == 1.0 else value * np.float32(factor)
        return scaled


def _place(values: np.ndarray, at: int, target: np.ndarray, target_at: int) -> None:
    """Copy `values`, whose first sample has number `at`, into `target`, whose first has number `target_at`."""
    first = max(at, target_at)
    last = min(at + len(values), target_at + len(target))
    target[first - target_at : last - target_at] = values[first - at : last - at]


def _header_path(path: str) -> str:
    """Return the header of a record named by its header, its data file, or without a suffix."""
    stem, suffix = os.path.splitext(path)
    return stem + ".hea" if suffix.lower() in (".dat", ".mat") else path if suffix == ".hea" else path + ".hea"


def _segment_path(root: str, folder: str, name: str) -> str:
    path = os.path.join(folder, name + ".hea")
    if "/" in name or "\0" in name or not inside(root, path):
        raise RecordingError("outside_source", path, "is a segment outside the record's folder")
    return path


def _find_signal(header: Header, channel: Channel, single: bool) -> Signal | None:
    """Return the channel's signal in a segment: by number in the record itself, by name in one of several segments."""
    if single:
        return header.signals[channel.index] if channel.index < len(header.signals) else None
    return next((signal for signal in header.signals if same_name(signal.name) == same_name(channel.name)), None)


def _refused(source: Source, path: str, error: RecordingError, header: Header | None = None) -> Refused:
    """Return the refusal of a record; of one whose header could be read with the length that it states."""
    name = recording_name(source, path, _SUFFIXES)
    stated_s = (header.frames or 0) / header.rate_hz if header is not None and header.rate_hz > 0.0 else 0.0
    duration_s = stated_s if stated_s <= LONGEST_S else 0.0
    return refuse(source, error.file, error.reason, error.detail, name, duration_s)


def _recording(source: Source, header: Header, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    """Return the record of `header`; raises RecordingError where headers show that it cannot be used."""
    root = source.folder
    names, lengths, described = _plan(root, header)
    starts = (0, *accumulate(lengths))
    if not described.signals:
        raise RecordingError("not_a_recording", described.path, "the header has no signals")
    single = described is header
    signals = [
        # A null signal of one segment is missing throughout: another name of the role's list may do.
        Stated("" if single and signal.is_null else signal.name, signal.unit, header.rate_hz * signal.per_frame)
        for signal in described.signals
    ]
    fastest = max(described.signals, key=lambda signal: signal.per_frame).per_frame
    duration_s = check_clock(header.rate_hz * fastest, starts[-1] * fastest, header.path)
    assumed = source.options.assume_unit
    channels, faults = make_channels(signals, channel_names, header.path, assumed)
    name = recording_name(source, header.path, _SUFFIXES)
    subject, known = subject_of(root, name)
    reader = WfdbReader(root, header.folder, header.rate_hz, names, starts, tuple(assumed.items()))
    found = tuple(signal.name for signal in signals if signal.name)
    return Recording(source.name, subject, known, name, duration_s, header.start_time, channels, reader, faults, found)


def _plan(root: str, header: Header) -> tuple[tuple[str, ...], tuple[int, ...], Header]:
    """Return names and frames of the segments, and the header that describes the record's signals.

    A single-segment record is one segment.
    """
    if not header.segments:
        return (os.path.splitext(os.path.basename(header.path))[0],), (check_signals(root, header),), header
    segments = list(header.segments)
    total = sum(frames for _, frames in segments)
    if header.frames is not None and total != header.frames:
        detail = f"states {header.frames} frames; its segments hold {total}"
        raise RecordingError("bad_header", header.path, detail)
    described = _describe(root, header)
    if segments[0][1] == 0:
        segments = segments[1:]  # the layout
    return tuple(name for name, _ in segments), tuple(frames for _, frames in segments), described


def _describe(root: str, header: Header) -> Header:
    """Return a header with the signals of a multi-segment record: the layout's, or of a fixed layout any segment's.

    Where the layout is not there, the signals of all segments together. Raises RecordingError where none can be read.
    """
    names = dict.fromkeys(name for name, _ in header.segments if name != GAP)
    failed: RecordingError | None = None
    found: dict[str, Signal] = {}
    described = None
    for name in names:
        try:
            described = read_header(_segment_path(root, header.folder, name))
        except RecordingError as error:
            if error.reason == "outside_source":
                raise
            failed = failed or error
            continue
        if described.segments:
            raise RecordingError("bad_header", header.path, f"segment {name!r} has segments itself")
        if failed is None or header.segments[0][1] > 0:
            return described
        found = {signal.name: signal for signal in described.signals} | found
    if described is None:
        raise failed or RecordingError("not_a_recording", header.path, "every segment is a gap")
    return replace(described, signals=tuple(found.values()))
