"""Samples of one WFDB segment: a span of frames of chosen signals, in physical units.

One bounded read a file, never a memory map: a file that shrinks meanwhile is an error here and a crash of the process
there. What the formats mean stands in `wfdb_formats`; compressed files are decoded by libsndfile.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import soundfile

from jaxbio.data.recordings.folders import require_inside
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of
from jaxbio.data.recordings.wfdb_formats import FLAC_BITS, STORAGES
from jaxbio.data.recordings.wfdb_header import Header, Signal

_LARGEST_SKEW_S = 60.0
# Writers round lengths, and converters drop a last sample: a file that lacks so much at its end is read, NaN there.
_FORGIVEN_S = 1.0
_CHUNK = 2**22  # bytes that are summed at once


def check_signals(root: str, header: Header) -> int:
    """Check a single segment's header against its files, unread, and return its number of frames.

    Raises RecordingError for a signal file that is missing, too short, of an unknown format or outside `root`.
    """
    if not header.signals:
        raise RecordingError("not_a_recording", header.path, "the header has no signals")
    held_by_file = {file: _check_file(root, header, file, members) for file, members in _by_file(header).items()}
    frames = min(held_by_file.values(), default=None) if header.frames is None else header.frames
    if not frames:
        raise RecordingError("bad_header", header.path, "the number of samples is not stated")
    for file, held in held_by_file.items():
        if held < frames - _forgiven(header):
            path = os.path.join(header.folder, file)
            raise RecordingError("truncated_file", path, f"holds {held} of the {frames} frames that the header states")
    return frames


def _check_file(root: str, header: Header, file: str, members: Sequence[Signal]) -> int:
    """Return how many frames a signal file holds; raises RecordingError where its signals cannot be read from it."""
    formats = {signal.format for signal in members}
    if len(formats) > 1 or not formats <= STORAGES.keys() | FLAC_BITS.keys():
        raise RecordingError("bad_header", header.path, f"format {', '.join(sorted(formats))} of {file!r}")
    frame_samples = sum(signal.per_frame for signal in members)
    if min(signal.per_frame for signal in members) < 1 or frame_samples > 10**6:
        raise RecordingError("bad_header", header.path, f"{frame_samples} samples a frame in {file!r}")
    if any(signal.skew > _LARGEST_SKEW_S * max(header.rate_hz, 1.0) * signal.per_frame for signal in members):
        raise RecordingError("bad_header", header.path, f"a skew of more than {_LARGEST_SKEW_S:g} s in {file!r}")
    path = os.path.join(header.folder, file)
    require_inside(root, path)
    with open_regular(path) as opened:
        size = size_of(opened)
        if size == 0:
            raise RecordingError("empty_file", path, "no bytes")
        check_written(opened, path)
    first = members[0]
    if first.format in FLAC_BITS:
        with _open_flac(path, members) as flac:
            return max(0, flac.frames - first.offset) // first.per_frame
    return STORAGES[first.format].held(max(0, size - first.offset)) // frame_samples


def read_frames(root: str, header: Header, signals: Sequence[Signal], first: int, last: int) -> list[np.ndarray]:
    """Return float32 samples of frames [first, last) of `signals` in their stated units, NaN where missing.

    Each array has per_frame * (last - first) samples. Raises RecordingError for files worse than the header.
    """
    frames = check_signals(root, header)
    if frames < last - _forgiven(header):
        raise RecordingError("truncated_file", header.path, f"frame {last} of a segment of {frames}")
    samples = {
        signal.index: np.full(signal.per_frame * (last - first), np.nan, np.float32)
        for signal in signals
        if signal.is_null
    }
    for file, members in _by_file(header).items():
        wanted = [signal for signal in members if signal in signals]
        if wanted:
            samples |= _read_file(os.path.join(header.folder, file), header, members, wanted, first, last, frames)
    return [samples[signal.index] for signal in signals]


def _read_file(
    path: str, header: Header, members: Sequence[Signal], wanted: Sequence[Signal], first: int, last: int, frames: int
) -> dict[int, np.ndarray]:
    """Return by number the `wanted` of the signals that file `path` holds, in their units."""
    # A skewed signal's samples lie further on.
    stop = max(first, min(last + max(-(-signal.skew // signal.per_frame) for signal in wanted), frames))
    read = _read_flac if members[0].format in FLAC_BITS else _read_packed
    digital = read(path, members, first, stop)
    lacking = stop - first - len(digital[wanted[0].index]) // wanted[0].per_frame
    if lacking > _forgiven(header):
        raise RecordingError("truncated_file", path, f"ends {lacking} frames before frame {stop}")
    samples = {}
    for signal in wanted:
        count = signal.per_frame * (last - first)
        values = _physical(digital[signal.index][signal.skew :][:count], signal)
        if values.size < count:  # NaN where a skew, or a file that is a little short, leaves the end open
            values = np.pad(values, (0, count - values.size), constant_values=np.nan)
        samples[signal.index] = values
    return samples


def _forgiven(header: Header) -> float:
    return max(1.0, _FORGIVEN_S * header.rate_hz)


def _by_file(header: Header) -> dict[str, list[Signal]]:
    """Return the signals of each file, in their order there; null signals lie in none."""
    files: dict[str, list[Signal]] = {}
    for signal in header.signals:
        if not signal.is_null:
            files.setdefault(signal.file, []).append(signal)
    return files


def _read_packed(path: str, members: Sequence[Signal], first: int, stop: int) -> dict[int, np.ndarray]:
    """Return by signal the integers of frames [first, stop), as far as the file reaches."""
    storage = STORAGES[members[0].format]
    starts = np.cumsum([0] + [signal.per_frame for signal in members])
    frame_samples = int(starts[-1])
    group, within = divmod(first * frame_samples, storage.samples)
    groups = -(-(stop * frame_samples) // storage.samples) - group
    with open_regular(path) as file:
        try:
            file.seek(members[0].offset + group * storage.nbytes)
            byte_N = np.fromfile(file, np.uint8, groups * storage.nbytes)
        except OSError as error:
            raise RecordingError("unreadable_file", path, str(error)) from error
        count = min(storage.held(byte_N.size) - within, (stop - first) * frame_samples) // frame_samples * frame_samples
        if byte_N.size % storage.nbytes:
            byte_N = np.pad(byte_N, (0, -byte_N.size % storage.nbytes))
        frame_samples_FS = storage.unpack(byte_N)[within : within + max(0, count)].reshape(-1, frame_samples)
        before_S = _sum_frames(file, members[0].offset, first, frame_samples) if members[0].format == "8" else None
    digital = {}
    for signal, start in zip(members, starts):
        columns = slice(start, start + signal.per_frame)
        values = frame_samples_FS[:, columns].reshape(-1)
        if before_S is not None:  # format 8: the differences of the whole signal up to here count
            values = signal.initial + int(before_S[columns].sum()) + np.cumsum(values, dtype=np.int64)
        digital[signal.index] = values
    return digital


def _sum_frames(file: BinaryIO, offset: int, frames: int, frame_samples: int) -> np.ndarray:
    """Return the sums (frame_samples,) over the first frames of a file of differences, in bounded memory."""
    total_S = np.zeros(frame_samples, np.int64)
    at_once = max(1, _CHUNK // frame_samples)
    file.seek(offset)
    for first in range(0, frames, at_once):
        count = min(at_once, frames - first) * frame_samples
        byte_N = np.fromfile(file, np.int8, count)
        total_S += byte_N[: byte_N.size // frame_samples * frame_samples].reshape(-1, frame_samples).sum(axis=0)
    return total_S


@contextlib.contextmanager
def _open_flac(path: str, members: Sequence[Signal]) -> Iterator[soundfile.SoundFile]:
    with open_regular(path) as file:
        try:
            with soundfile.SoundFile(file) as flac:
                if flac.format != "FLAC" or flac.channels != len(members) or len({s.per_frame for s in members}) > 1:
                    detail = f"{flac.format} of {flac.channels} channels, for {len(members)} signals"
                    raise RecordingError("bad_header", path, detail)
                yield flac
        except (RuntimeError, OSError, ValueError, TypeError) as error:  # soundfile's own are RuntimeErrors
            raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {error}") from error


def _read_flac(path: str, members: Sequence[Signal], first: int, stop: int) -> dict[int, np.ndarray]:
    """Return by signal the integers of frames [first, stop), as far as the file reaches."""
    per_frame, offset = members[0].per_frame, members[0].offset
    with _open_flac(path, members) as flac:
        bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(flac.subtype, 32)
        begin, end = (min(frame * per_frame + offset, flac.frames) for frame in (first, stop))
        flac.seek(begin)
        # libsndfile fails on blocks of more than 2**24 values.
        at_once = max(1, 2**22 // len(members))
        blocks = [flac.read(min(at_once, end - at), dtype="int32", always_2d=True) for at in range(begin, end, at_once)]
    digital_TC = np.concatenate([np.zeros((0, len(members)), np.int32), *blocks]) >> 32 - bits
    return {signal.index: digital_TC[:, channel] for channel, signal in enumerate(members)}


def _physical(samples: np.ndarray, signal: Signal) -> np.ndarray:
    """Return integers as float32 in the signal's unit; exact differences up to 24 bits, beyond by way of float64."""
    bits = FLAC_BITS.get(signal.format)
    missing = STORAGES[signal.format].missing if bits is None else -(2 ** (bits - 1))
    exact = samples.dtype.itemsize <= 2 and abs(signal.baseline) < 2**23
    values: np.ndarray = samples.astype(np.float32 if exact else np.float64)
    np.subtract(values, signal.baseline, out=values)
    np.multiply(values, 1.0 / signal.gain, out=values)
    if missing is not None and (missing_N := samples == missing).any():
        values[missing_N] = np.nan
    return values.astype(np.float32, copy=False)
