"""VitalDB's `.vital` files: each waveform track at its own rate, on one clock.

A track is called DEVICE/TRACK, as SNUADC/PLETH. A recording lasts from the first sample of any waveform to the last;
where a track has no record, it is missing. The file is gzip and cannot be sought: what was last read of it is kept.

    vital:vitaldb                vital:cases/0001.vital?columns=ecg:SNUADC/ECG_V5
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.channels import Stated, make_channels
from jaxbio.data.recordings.folders import list_each, recording_name
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.regular_files import version_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.vital_packets import Track, scan_file

_SUFFIXES = (".vital",)
_LARGEST = 4e9  # VitalDB's own reader takes what is above it for missing


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the .vital files below the source's path."""
    return list_each(source, _SUFFIXES, lambda path: [_recording(source, path, channel_names)])


@dataclass(frozen=True)
class VitalReader:
    """Reads spans of one file, which begins at `start_s` (POSIX)."""

    path: str
    start_s: float

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        loaded = _load(self.path, frozenset(channel.name for channel in channels.values()), version_of(self.path))
        if isinstance(loaded, RecordingError):
            raise loaded
        return {
            role: self._place(loaded[channel.name], channel, *sample_span(channel, start_s, stop_s))
            for role, channel in channels.items()
        }

    def _place(self, held: "_Held", channel: Channel, first: int, last: int) -> np.ndarray:
        """Return samples [first, last) of a track: each record at its time, the later one where two overlap."""
        signal = np.full(last - first, np.nan, np.float32)
        begin_R = np.rint((held.began_s_R - self.start_s) * channel.rate_hz).astype(np.int64)
        for number in np.flatnonzero((begin_R < last) & (begin_R + held.length_R > first)).tolist():
            begin, sample_N = int(begin_R[number]), held.samples[number]
            low, high = max(first, begin), min(last, begin + len(sample_N))
            signal[low - first : high - first] = _physical(sample_N[low - begin : high - begin], held.track, channel)
        return signal


class _Held(NamedTuple):
    """A track's records as they came: when they began (POSIX s), how many samples they have, and these."""

    track: Track
    began_s_R: np.ndarray
    length_R: np.ndarray
    samples: list[np.ndarray]


@functools.lru_cache(maxsize=1)
def _load(path: str, names: frozenset[str], version: tuple[int, int]) -> dict[str, _Held] | RecordingError:
    """Return the tracks of these `names`, or why they cannot be read: no window unpacks the file to fail again."""
    try:
        scan = scan_file(path, names)
        if lost := names - scan.records.keys():
            raise RecordingError("truncated_file", path, f"has no record of {', '.join(sorted(lost))} any more")
    except RecordingError as error:
        return error
    held = {}
    for name, records in scan.records.items():
        samples = [sample_N for _, sample_N in records]
        began_s_R = np.array([began_s for began_s, _ in records])
        held[name] = _Held(scan.tracks[name], began_s_R, np.array([len(sample_N) for sample_N in samples]), samples)
    return held


def _physical(sample_N: np.ndarray, track: Track, channel: Channel) -> np.ndarray:
    """Return samples in the channel's unit, NaN where missing."""
    value_N = sample_N * track.gain + track.offset
    value_N[~(np.abs(value_N) <= _LARGEST)] = np.nan
    if track.missing is not None:
        value_N[sample_N == track.missing] = np.nan
    return value_N * channel.factor


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    scan = scan_file(path)
    if not scan.tracks:
        raise RecordingError("not_a_recording", path, "has no waveforms")
    stated = [Stated(track.name, track.unit, track.rate_hz) for track in scan.tracks.values()]
    channels, faults = make_channels(stated, channel_names, path, source.options.assume_unit)
    rates = [channel.rate_hz for channel in channels.values()] or [signal.rate_hz for signal in stated]
    duration_s = check_clock(max(rates), (scan.stop_s - scan.start_s) * max(rates), path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = VitalReader(path, scan.start_s)
    signals = tuple(scan.tracks)
    return Recording(
        source.name, subject, known, name, duration_s, scan.start_s, channels, reader, faults, signals=signals
    )
