"""NumPy files: `.npy` (one signal, or one a row or column) and `.npz` (one named array a signal).

Arrays are read without pickles. The rate is that of the source line, or of an `.npz` entry `rate_hz`. The longer axis
of a two-dimensional array is time; its signals are numbered from 1. Entries of an `.npz` that are no signals (texts,
dates, masks, tables) are passed over, unless one is named for a role.

    numpy:export?rate_hz=125&columns=ppg:1,ecg:2          numpy:export/patient7.npz
"""

import functools
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from jaxbio.data.array_entries import BROKEN, ArrayHeader, EntryError, check_entry, read_header
from jaxbio.data.recordings.channels import Stated, find_roles, make_channels
from jaxbio.data.recordings.folders import list_each, recording_name
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of, version_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of

_SUFFIXES = (".npy", ".npz")
_RATE_ENTRY = "rate_hz"
_MOST_SIGNALS = 1000  # a square matrix is no recording
_MOST_SAMPLES = 2**27  # of a packed entry, which is held whole


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the NumPy files below the source's path."""
    return list_each(source, _SUFFIXES, lambda path: [_recording(source, path, channel_names)])


@dataclass(frozen=True)
class ArrayReader:
    """Reads one NumPy file: a span of an `.npy` from the disk; of an `.npz` the arrays last read are kept."""

    path: str
    names: tuple[str, ...]

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        return {
            role: self._signal(channel, *sample_span(channel, start_s, stop_s)) for role, channel in channels.items()
        }

    def _signal(self, channel: Channel, first: int, last: int) -> np.ndarray:
        if _is_archive(self.path):
            entry = _load_entry(self.path, self.names[channel.index], version_of(self.path))
            if isinstance(entry, RecordingError):
                raise entry
            values = entry[first:last]
        else:
            values = _read_span(self.path, channel.index, first, last)
        if len(values) != last - first:
            raise RecordingError("truncated_file", self.path, f"has fewer than {last} samples")
        with np.errstate(over="ignore"):
            return values.astype(np.float32) * np.float32(channel.factor)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(".npz")


def _read_span(path: str, signal: int, first: int, last: int) -> np.ndarray:
    """Return samples [first, last) of a signal of an `.npy`, fewer where it ends before."""
    try:
        with open_regular(path) as file:
            array = _header_of(file, path)
            _check_size(file, array, path)
            signals, samples = min(array.shape) if len(array.shape) == 2 else 1, max(array.shape)
            last = min(last, samples)
            # The axis of time is the longer one, and that of equals the second.
            time_is_inner = len(array.shape) == 1 or (array.shape[0] <= array.shape[1]) != array.in_columns
            begin, count = file.tell(), max(0, last - first)
            if time_is_inner:
                file.seek(begin + (signal * samples + first) * array.dtype.itemsize)
                return np.fromfile(file, array.dtype, count)
            file.seek(begin + first * signals * array.dtype.itemsize)
            return np.fromfile(file, array.dtype, count * signals).reshape(-1, signals)[:, signal]
    except BROKEN as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=4)
def _load_entry(path: str, name: str, version: tuple[int, int]) -> np.ndarray | RecordingError:
    """Return an entry of an archive, whole, or why it cannot be read: no window unpacks it again to fail again."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as entry:
            array = np.lib.format.read_array(entry, allow_pickle=False).reshape(-1)
            while entry.read(2**20):  # to the end, where damage shows
                pass
    except RecordingError as error:
        return error
    except BROKEN as error:
        return RecordingError("unreadable_file", path, f"entry {name!r}: {type(error).__name__}: {error}")
    with np.errstate(over="ignore"):
        return array if array.dtype.itemsize < 8 or array.size == 1 else array.astype(np.float32)


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    lengths, others, rate_hz = _look_into(path)
    rate_hz = source.options.rate_hz or rate_hz
    if rate_hz is None:
        detail = "states no rate_hz, and the source line gives none"
        raise RecordingError("bad_rate", path, f"its {others[_RATE_ENTRY][1]}" if _RATE_ENTRY in others else detail)
    stated = [Stated(name, "", rate_hz) for name in lengths]
    channels, faults = make_channels(stated, channel_names, path, source.options.assume_unit)
    named = find_roles(list(others), {role: names for role, names in channel_names.items() if role not in channels})
    for role, index in named.items():
        reason, why = list(others.values())[index]
        faults.setdefault(role, (reason, f"{path!r}: {why}"))
    names = tuple(lengths)
    used = {lengths[names[channel.index]] for channel in channels.values()}
    if len(used) > 1:
        raise RecordingError("bad_duration", path, f"signals of different lengths: {sorted(used)}")
    duration_s = check_clock(rate_hz, max(used or lengths.values()), path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = ArrayReader(path, names)
    return Recording(source.name, subject, known, name, duration_s, None, channels, reader, faults, signals=names)


def _look_into(path: str) -> tuple[dict[str, int], dict[str, tuple[str, str]], float | None]:
    """Return signal name -> samples, the entries that are no signals with (reason, why), and the rate that is stated.

    From array headers alone. Raises RecordingError for a file without a signal.
    """
    try:
        with open_regular(path) as file:
            if size_of(file) == 0:
                raise RecordingError("empty_file", path, "no bytes")
            check_written(file, path)
            if _is_archive(path):
                return _look_into_archive(file, path)
            array = _header_of(file, path)
            _check_size(file, array, path)
    except BROKEN as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {error}") from error
    shape = array.shape
    signals = min(shape) if len(shape) == 2 else len(shape)
    if len(shape) not in (1, 2) or min(shape) < 1 or signals > _MOST_SIGNALS:
        raise RecordingError("not_a_recording", path, f"an array of shape {shape}")
    return {str(number + 1): max(shape) for number in range(signals)}, {}, None


def _look_into_archive(file: BinaryIO, path: str) -> tuple[dict[str, int], dict[str, tuple[str, str]], float | None]:
    lengths: dict[str, int] = {}
    others: dict[str, tuple[str, str]] = {}
    rate_hz = None
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_SIGNALS:
            raise RecordingError("not_a_recording", path, f"{len(members)} entries")
        for member in members:
            name = member.filename.removesuffix(".npy")
            try:
                array = _check_signal(archive, member, size_of(file))
            except EntryError as error:
                others[name] = error.reason, f"entry {name!r} {error.detail}"
                continue
            if name == _RATE_ENTRY and math.prod(array.shape) == 1:
                entry = _load_entry(path, name, version_of(path))
                rate_hz = float(entry[0]) if isinstance(entry, np.ndarray) else None
            elif math.prod(array.shape) > 1:  # a single number says something of the recording
                lengths[name] = math.prod(array.shape)
    if not lengths:
        reason, why = next(iter(others.values()), ("not_a_recording", "no entries"))
        raise RecordingError(reason, path, f"no entry is a signal: {why}")
    return lengths, others, rate_hz


def _check_signal(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> ArrayHeader:
    """Return the header of an entry that can be a signal; raises EntryError for any other."""
    header = _numbers(check_entry(archive, member, size))
    samples = math.prod(header.shape)
    if samples < 1 or samples != max(header.shape, default=1):
        raise EntryError("not_a_recording", f"has the shape {header.shape}")
    if samples > _MOST_SAMPLES:
        detail = f"has more than {_MOST_SAMPLES:,} samples: save it as .npy, which is read by spans"
        raise EntryError("unreadable_file", detail)
    return header


def _header_of(file: BinaryIO, path: str) -> ArrayHeader:
    """Return what the array of an `.npy` is; raises RecordingError for one of anything but real numbers."""
    try:
        return _numbers(read_header(file))
    except EntryError as error:
        raise RecordingError(error.reason, path, error.detail) from error


def _numbers(header: ArrayHeader) -> ArrayHeader:
    """Return `header`; raises EntryError where it is of anything but real numbers."""
    if header.dtype.kind not in "iuf":
        raise EntryError("not_a_recording", f"holds {header.dtype}, no real numbers")
    return header


def _check_size(file: BinaryIO, array: ArrayHeader, path: str) -> None:
    if size_of(file) - file.tell() < math.prod(array.shape) * array.dtype.itemsize:
        raise RecordingError("unreadable_file", path, f"ends before its array of shape {array.shape} does")
