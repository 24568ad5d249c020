"""NumPy files: `.npy` (one signal, or one a row or column) and `.npz` (one named array a signal).

Arrays are read without pickles. The rate is that of the source line, or of an `.npz` entry `rate_hz`. The longer axis
of a two-dimensional array is time; its signals are numbered from 1.

    numpy:export?rate_hz=125&columns=ppg:1,ecg:2          numpy:export/patient7.npz
"""

import functools
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from jaxbio.data.recordings.channels import Stated, make_channels
from jaxbio.data.recordings.folders import find_files, recording_name, refuse
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of

_SUFFIXES = (".npy", ".npz")
_RATE_ENTRY = "rate_hz"
_MOST_SIGNALS = 1000  # a square matrix is no recording
# What damaged archives and array headers (which are parsed as Python literals) raise.
_BROKEN = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError),
    *(zlib.error, zipfile.BadZipFile, SyntaxError, tokenize.TokenError),
)


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the NumPy files below the source's path."""
    for found in find_files(source, lambda name: name.lower().endswith(_SUFFIXES)):
        if isinstance(found, Refused):
            yield found
            continue
        try:
            yield _recording(source, found, channel_names)
        except RecordingError as error:
            yield refuse(source, found, error.reason, error.detail, recording_name(source, found, _SUFFIXES))


@dataclass(frozen=True)
class ArrayReader:
    """Reads one NumPy file: a span of an `.npy` through a memory map; of an `.npz` the arrays last read are kept."""

    path: str
    names: tuple[str, ...]

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        spans = {role: slice(*sample_span(channel, start_s, stop_s)) for role, channel in channels.items()}
        return {role: self._signal(channels[role].index, span) for role, span in spans.items()}

    def _signal(self, index: int, span: slice) -> np.ndarray:
        try:
            if self.path.lower().endswith(".npz"):
                signal = _load_entry(self.path, self.names[index], os.stat(self.path).st_mtime_ns)
            else:
                signal = _time_last(np.load(self.path, mmap_mode="r", allow_pickle=False))[index]
            values = np.array(signal[span], np.float32)
        except _BROKEN as error:
            raise RecordingError("unreadable_file", self.path, f"{type(error).__name__}: {error}") from error
        if len(values) != span.stop - span.start:
            raise RecordingError("truncated_file", self.path, f"has fewer than {span.stop} samples")
        return values


@functools.lru_cache(maxsize=4)
def _load_entry(path: str, name: str, version: int) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name], np.float32)


def _time_last(array: np.ndarray) -> np.ndarray:
    """Return a one- or two-dimensional array as (signal, sample)."""
    if array.ndim == 1:
        return array[None]
    return array.T if array.shape[0] > array.shape[1] else array


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    shapes, rate_hz = _read_shapes(path)
    rate_hz = source.options.rate_hz or rate_hz
    if rate_hz is None:
        raise RecordingError("bad_rate", path, "states no rate_hz, and the source line gives none")
    channels, faults = make_channels([Stated(name, "", rate_hz) for name in shapes], channel_names, path)
    names = tuple(shapes)
    lengths = {shapes[names[channel.index]] for channel in channels.values()} or set(shapes.values())
    if len(lengths) != 1:
        raise RecordingError("bad_duration", path, f"signals of different lengths: {sorted(lengths)}")
    duration_s = check_clock(rate_hz, lengths.pop(), path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    return Recording(source.name, subject, known, name, duration_s, None, channels, ArrayReader(path, names), faults)


def _read_shapes(path: str) -> tuple[dict[str, int], float | None]:
    """Return signal name -> samples, and the rate that the file states, from array headers alone."""
    try:
        if os.path.getsize(path) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        if path.lower().endswith(".npz"):
            return _npz_shapes(path)
        with open(path, "rb") as file:
            shape, _ = _array_header(file, path)
        np.load(path, mmap_mode="r", allow_pickle=False)  # checks the length of the file against the header
    except RecordingError:
        raise
    except _BROKEN as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {error}") from error
    signals = min(shape) if len(shape) == 2 else len(shape)
    if len(shape) not in (1, 2) or 0 in shape or signals > _MOST_SIGNALS:
        raise RecordingError("not_a_recording", path, f"an array of shape {shape}")
    return {str(number + 1): max(shape) for number in range(signals)}, None


def _npz_shapes(path: str) -> tuple[dict[str, int], float | None]:
    shapes, rate_hz = {}, None
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, dtype = _array_header(file, path)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise RecordingError("truncated_file", path, f"entry {name!r} is shorter than its shape {shape}")
            if name == _RATE_ENTRY and math.prod(shape) == 1:
                rate_hz = float(_load_entry(path, name, os.stat(path).st_mtime_ns).reshape(()))
            elif len(shape) == 1 and shape[0] > 0:
                shapes[name] = shape[0]
    if not shapes:
        raise RecordingError("not_a_recording", path, "no entry is a one-dimensional array")
    return shapes, rate_hz


def _array_header(file: IO[bytes], path: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of the array that `file` begins with; raises RecordingError for what holds no numbers."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise RecordingError("pickled_array", path, "holds Python objects; save plain numbers")
    if dtype.kind not in "iuf":
        raise RecordingError("not_a_recording", path, f"holds {dtype}, no real numbers")
    return shape, dtype
