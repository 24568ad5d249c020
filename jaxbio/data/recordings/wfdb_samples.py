"""Samples of one WFDB segment: a span of frames of chosen signals, in physical units.

Formats of whole bytes are read here with one bounded `np.fromfile`, 20 times faster than a general reader; packed and
compressed ones (212, 310, 311, 8, 24, FLAC) by the wfdb library. Reading through a file rather than a memory map: a
file that shrinks meanwhile is an error here and a crash of the process there.
"""

import os
from collections.abc import Sequence

import numpy as np
import wfdb

from jaxbio.data.recordings.folders import require_inside
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.wfdb_header import Header, Signal

# format -> (type in the file, what is subtracted, the sample that means "missing"): signal(5)
_WHOLE_BYTES: dict[str, tuple[str, int, int | None]] = {
    "16": ("<i2", 0, -(2**15)),
    "61": (">i2", 0, -(2**15)),
    "160": ("<u2", 2**15, -(2**15)),
    "80": ("u1", 128, -128),
    "32": ("<i4", 0, -(2**31)),
}
# Formats left to the wfdb library, and their "missing".
_LIBRARY: dict[str, int | None] = {
    "8": None,
    "24": -(2**23),
    "212": -(2**11),
    "310": -(2**9),
    "311": -(2**9),
    "508": -(2**7),
    "516": -(2**15),
    "524": -(2**23),
}
# How many samples how many bytes hold; nothing is known of compressed ones.
_DENSITY = {
    "8": (1, 1),
    "80": (1, 1),
    "16": (1, 2),
    "61": (1, 2),
    "160": (1, 2),
    "24": (1, 3),
    "32": (1, 4),
    "212": (2, 3),
    "310": (3, 4),
    "311": (3, 4),
}
_COMPRESSED = frozenset({"508", "516", "524"})
_LARGEST_SKEW_S = 60.0


def check_signals(root: str, header: Header) -> int:
    """Check a single segment's header against its files, unread, and return its number of frames.

    Raises RecordingError for a signal file that is missing, too short, of an unknown format or outside `root`.
    """
    if not header.signals:
        raise RecordingError("not_a_recording", header.path, "the header has no signals")
    frames = header.frames
    for file, signals in _by_file(header).items():
        formats = {signal.format for signal in signals}
        if len(formats) > 1 or not formats <= _DENSITY.keys() | _COMPRESSED:
            raise RecordingError("bad_header", header.path, f"format {', '.join(sorted(formats))} of {file!r}")
        frame_samples = sum(signal.per_frame for signal in signals)
        if min(signal.per_frame for signal in signals) < 1 or frame_samples > 10**6:
            raise RecordingError("bad_header", header.path, f"{frame_samples} samples a frame in {file!r}")
        if max(signal.skew for signal in signals) > _LARGEST_SKEW_S * max(header.rate_hz, 1.0):
            raise RecordingError("bad_header", header.path, f"a skew of more than {_LARGEST_SKEW_S:g} s in {file!r}")
        size = _file_size(root, header, file)
        if size == 0:
            raise RecordingError("empty_file", os.path.join(header.folder, file), "no bytes")
        chosen = signals[0].format
        if chosen in _COMPRESSED:
            continue
        samples, in_bytes = _DENSITY[chosen]
        held = (size - signals[0].offset) * samples // in_bytes // frame_samples
        frames = held if frames is None else frames
        if held < frames:
            path = os.path.join(header.folder, file)
            raise RecordingError("truncated_file", path, f"holds {held} of the {frames} frames that the header states")
    if frames is None:
        raise RecordingError("bad_header", header.path, "the number of samples is not stated")
    return frames


def read_frames(root: str, header: Header, signals: Sequence[Signal], first: int, last: int) -> list[np.ndarray]:
    """Return float32 samples of frames [first, last) of `signals` in their stated units, NaN where missing.

    Each array has per_frame * (last - first) samples. Raises RecordingError for files worse than the header.
    """
    frames = check_signals(root, header)
    if frames < last:
        raise RecordingError("truncated_file", header.path, f"frame {last} of a segment of {frames}")
    samples: dict[int, np.ndarray] = {}
    for file, members in _by_file(header).items():
        wanted = [signal for signal in members if signal in signals]
        if wanted and members[0].format in _WHOLE_BYTES:
            samples |= _read_whole_bytes(os.path.join(header.folder, file), members, wanted, first, last, frames)
        elif wanted:
            samples |= _read_by_library(header, wanted, first, last)
    return [samples[signal.index] for signal in signals]


def _by_file(header: Header) -> dict[str, list[Signal]]:
    files: dict[str, list[Signal]] = {}
    for signal in header.signals:
        files.setdefault(signal.file, []).append(signal)
    return files


def _file_size(root: str, header: Header, file: str) -> int:
    path = os.path.join(header.folder, file)
    require_inside(root, path)
    try:
        if not os.path.isfile(path):
            raise RecordingError("missing_file", path, f"named by {os.path.basename(header.path)!r}, not there")
        return os.path.getsize(path)
    except OSError as error:
        raise RecordingError("unreadable_file", path, str(error)) from error


def _read_whole_bytes(
    path: str, members: Sequence[Signal], wanted: Sequence[Signal], first: int, last: int, frames: int
) -> dict[int, np.ndarray]:
    dtype, excess, missing = _WHOLE_BYTES[members[0].format]
    starts = np.cumsum([0] + [signal.per_frame for signal in members])
    behind = max(signal.skew for signal in wanted)
    stop = min(last + behind, frames)
    try:
        offset = members[0].offset + first * int(starts[-1]) * np.dtype(dtype).itemsize
        raw = np.fromfile(path, dtype, (stop - first) * int(starts[-1]), offset=offset)
    except OSError as error:
        raise RecordingError("unreadable_file", path, str(error)) from error
    if raw.size != (stop - first) * starts[-1]:
        raise RecordingError("truncated_file", path, f"ends before frame {stop}")
    frame_samples = raw.reshape(stop - first, int(starts[-1]))
    samples = {}
    for signal, start in zip(members, starts):
        if signal in wanted:
            columns = frame_samples[signal.skew : signal.skew + last - first, start : start + signal.per_frame]
            values = _physical(columns, signal, excess, missing).reshape(-1)
            lacking = signal.per_frame * (last - first) - values.size  # a skewed signal ends before its record
            samples[signal.index] = np.pad(values, (0, lacking), constant_values=np.nan) if lacking else values
    return samples


def _read_by_library(header: Header, wanted: Sequence[Signal], first: int, last: int) -> dict[int, np.ndarray]:
    # Format 8 holds differences, which only mean something from the first one on.
    read_from = 0 if wanted[0].format == "8" else first
    try:
        record = wfdb.rdrecord(
            os.path.splitext(header.path)[0],
            sampfrom=read_from,
            sampto=last,
            channels=[signal.index for signal in wanted],
            physical=False,
            smooth_frames=False,
            return_res=32,
        )
        columns = [
            np.asarray(column)[(first - read_from) * signal.per_frame :]
            for signal, column in zip(wanted, record.e_d_signal)
        ]
        if any(len(column) != signal.per_frame * (last - first) for signal, column in zip(wanted, columns)):
            raise RecordingError("truncated_file", header.path, f"ends before frame {last}")
    except RecordingError:
        raise
    except Exception as error:  # the library raises whatever a malformed file happens to break
        raise RecordingError("unreadable_file", header.path, f"wfdb: {type(error).__name__}: {error}") from error
    return {
        signal.index: _physical(column, signal, 0, _LIBRARY[signal.format]) for signal, column in zip(wanted, columns)
    }


def _physical(samples: np.ndarray, signal: Signal, excess: int, missing: int | None) -> np.ndarray:
    """Return integers as float32 in the signal's unit; exact differences up to 24 bits, beyond by way of float64."""
    values: np.ndarray = samples.astype(np.float64 if samples.dtype.itemsize > 2 else np.float32)
    np.subtract(values, excess + signal.baseline, out=values)
    np.multiply(values, 1.0 / signal.gain, out=values)
    if missing is not None:
        values[samples == missing + excess] = np.nan
    return values.astype(np.float32, copy=False)
