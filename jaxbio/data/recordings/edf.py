"""EDF, EDF+ and BDF files, continuous or not, each signal at its own rate.

As the specifications have it (https://www.edfplus.info/specs/edf.html and edfplus.html; BDF:
https://www.biosemi.com/faq/file_format.htm): a header of 256 bytes and as many for each signal, then records of equal
length. Where a file is discontinuous (EDF+D), what lies between its records is missing; an annotation signal is none.

    edf:sleep-edfx                edf:psg.edf?columns=ppg:Pleth,ecg:ECG II
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.data.recordings.channels import Stated, make_channels
from jaxbio.data.recordings.edf_clock import Run, find_runs
from jaxbio.data.recordings.edf_header import Header, Signal, read_header
from jaxbio.data.recordings.folders import list_each, recording_name
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.regular_files import open_regular, size_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.wfdb_formats import STORAGES

_SUFFIXES = (".edf", ".bdf")
_STORAGE = {2: STORAGES["16"], 3: STORAGES["24"]}  # by bytes a sample


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the EDF and BDF files below the source's path."""
    return list_each(source, _SUFFIXES, lambda path: [_recording(source, path, channel_names)])


@dataclass(frozen=True)
class EdfReader:
    """Reads spans of one file; `header` says where its signals lie, `runs` when its records were made."""

    path: str
    header: Header
    runs: tuple[Run, ...]

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        spans = {role: sample_span(channel, start_s, stop_s) for role, channel in channels.items()}
        samples = {role: np.full(last - first, np.nan, np.float32) for role, (first, last) in spans.items()}
        for run in self.runs:
            if run.start_s < stop_s and start_s < run.start_s + run.records * self.header.record_s:
                self._read_run(run, channels, spans, samples)
        return samples

    def _read_run(
        self,
        run: Run,
        channels: Mapping[str, Channel],
        spans: Mapping[str, tuple[int, int]],
        samples: Mapping[str, np.ndarray],
    ) -> None:
        """Copy what a run of records holds of `spans` into `samples`."""
        parts = {}  # by role: where the run begins among the role's samples, and which of the run's samples are read
        for role, channel in channels.items():
            begin, length = round(run.start_s * channel.rate_hz), self.header.signals[channel.index].samples
            low, high = (min(max(0, at - begin), run.records * length) for at in spans[role])
            if low < high:
                parts[role] = begin, low, high, length
        if not parts:
            return
        first = min(low // length for _, low, _, length in parts.values())
        last = max(-(-high // length) for _, _, high, length in parts.values())
        byte_RN = self._read_records(run.first + first, run.first + last)
        for role, (begin, low, high, length) in parts.items():
            signal = self.header.signals[channels[role].index]
            skipped = low - first * length
            physical_N = _physical(byte_RN, self.header.width, signal)[skipped : skipped + high - low]
            at = begin + low - spans[role][0]
            samples[role][at : at + high - low] = physical_N * channels[role].factor

    def _read_records(self, first: int, last: int) -> np.ndarray:
        """Return records [first, last) as bytes, a record a row."""
        nbytes = self.header.record_bytes
        with open_regular(self.path) as file:
            # Asked of the file as it is now: NumPy makes room for what it is told to read.
            if size_of(file) < self.header.nbytes + last * nbytes:
                raise RecordingError("truncated_file", self.path, f"ends before record {last}")
            file.seek(self.header.nbytes + first * nbytes)
            return np.fromfile(file, np.uint8, (last - first) * nbytes).reshape(-1, nbytes)


def _physical(byte_RN: np.ndarray, width: int, signal: Signal) -> np.ndarray:
    """Return a signal's samples out of whole records, in its unit, float64."""
    mine_RN = byte_RN[:, signal.first * width : (signal.first + signal.samples) * width]
    return _STORAGE[width].unpack(np.ascontiguousarray(mine_RN).reshape(-1)) * signal.gain + signal.zero


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    with open_regular(path) as file:
        header = read_header(file, path)
        runs = find_runs(file, header, path)
    stated = [
        Stated("" if signal.is_annotation else signal.name, signal.unit, signal.samples / header.record_s)
        for signal in header.signals
    ]
    channels, faults = make_channels(stated, channel_names, path, source.options.assume_unit)
    for role, channel in list(channels.items()):
        if not header.signals[channel.index].gain:
            faults[role] = (
                "bad_header",
                f"{path!r}: {channel.name!r} states an empty range of values",
            )
            del channels[role]
    fastest = max((signal.samples for signal in header.signals if not signal.is_annotation), default=0)
    if not fastest:
        raise RecordingError("not_a_recording", path, "holds annotations alone")
    duration_s = runs[-1].start_s - runs[0].start_s + runs[-1].records * header.record_s
    rate_hz = fastest / header.record_s
    duration_s = check_clock(rate_hz, duration_s * rate_hz, path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    start_time = None if header.start_time is None else header.start_time + runs[0].start_s
    runs = tuple(run._replace(start_s=run.start_s - runs[0].start_s) for run in runs)
    signals = tuple(signal.name for signal in stated if signal.name)
    reader = EdfReader(path, header, runs)
    return Recording(
        source.name, subject, known, name, duration_s, start_time, channels, reader, faults, signals=signals
    )
