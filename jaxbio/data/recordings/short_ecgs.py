"""Recordings of files that hold seconds of ECG, read whole at once: DICOM, HL7 aECG, MUSE.

Such a format is a ShortReader whose `load` returns the `Ecg`s of a file; several are recordings NAME/1, NAME/2, ...
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.channels import Stated, make_channels
from jaxbio.data.recordings.folders import recording_name
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, check_clock, sample_span
from jaxbio.data.recordings.regular_files import version_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of


class Ecg(NamedTuple):
    """Signals of one length and rate, `x_CT` in their `units`, NaN where missing; the start in POSIX seconds."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    x_CT: np.ndarray
    rate_hz: float
    start_time: float | None


@dataclass(frozen=True)
class ShortReader:
    """Reads one ECG of a file, which is kept; a format's own class says how."""

    path: str
    number: int

    @staticmethod
    def load(path: str) -> Sequence[Ecg]:
        """Return the ECGs of a file."""
        raise NotImplementedError

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        x_CT = _load(replace(self, number=0), version_of(self.path))[self.number].x_CT
        signals = {}
        for role, channel in channels.items():
            first, last = sample_span(channel, start_s, stop_s)
            if last > x_CT.shape[1]:
                raise RecordingError("truncated_file", self.path, f"has fewer than {last} samples")
            signals[role] = (x_CT[channel.index, first:last] * channel.factor).astype(np.float32)
        return signals


@functools.lru_cache(maxsize=1)
def _load(reader: ShortReader, version: tuple[int, int]) -> Sequence[Ecg]:
    return reader.load(reader.path)


def recordings_of(
    source: Source,
    path: str,
    reader: type[ShortReader],
    channel_names: Mapping[str, Sequence[str]],
    suffixes: tuple[str, ...],
) -> Iterator[Recording]:
    """Yield the recordings of a file; raises RecordingError where it holds none."""
    found = reader.load(path)
    if not found:
        raise RecordingError("not_a_recording", path, "holds no waveform as it was recorded")
    for number, ecg in enumerate(found):
        duration_s = check_clock(ecg.rate_hz, ecg.x_CT.shape[1], path)
        stated = [Stated(name, unit, ecg.rate_hz) for name, unit in zip(ecg.names, ecg.units, strict=True)]
        channels, faults = make_channels(stated, channel_names, path, source.options.assume_unit)
        name = recording_name(source, path, suffixes) + (f"/{number + 1}" if len(found) > 1 else "")
        subject, known = subject_of(source.folder, name)
        yield Recording(
            source.name,
            subject,
            known,
            name,
            duration_s,
            ecg.start_time,
            channels,
            reader(path, number),
            faults,
            signals=ecg.names,
        )
