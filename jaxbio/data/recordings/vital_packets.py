"""The packets of a `.vital` file: which tracks it has, and their records of waveforms.

Gzip of a header and packets (type, length, body), as https://github.com/vitaldb/vitalutils writes and reads them:
devices, tracks, and records that have a time, a track's number and samples. It is read once from its beginning.

    scan = scan_file(path, keep=frozenset(["SNUADC/PLETH"]))
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of
from jaxbio.data.recordings.unpacking import Stream, unpack_gzip

_DEVICE, _TRACK, _RECORD = 9, 0, 1  # types of packets
_WAVE = 1  # the type of a track that has samples at a rate
# By the format of a track: its type, and the value that stands for a missing sample where gaps were filled.
_TYPES = {
    1: ("<f4", None),
    2: ("<f8", None),
    3: ("i1", -(2**7)),
    4: ("u1", 2**8 - 1),
    5: ("<i2", -(2**15)),
    6: ("<u2", 2**16 - 1),
    7: ("<i4", -(2**31)),
    8: ("<u4", 2**32 - 1),
}
_LARGEST_PACKET = {False: 10**6, True: 2**28}  # bytes; a packed file has a track's samples in one
_MOST_KEPT = 2**29  # bytes of samples that are held: a day of a track of 16 bits at 2 kHz, or of ten at 500 Hz
_EARLIEST_S, _LATEST_S = 0.0, 1e11  # POSIX
_OPTIONAL = 64  # bytes of a track's packet that older files leave out


class Track(NamedTuple):
    """A track of waveforms: value in `unit` = offset + gain * sample, of integers; `missing` is the sample for none."""

    name: str
    unit: str
    rate_hz: float
    dtype: np.dtype
    gain: float
    offset: float
    missing: int | None


@dataclass
class Scan:
    """What a file holds: tracks by name, when (POSIX s) the first sample was and the last ends, records by track."""

    tracks: dict[str, Track] = field(default_factory=dict)
    start_s: float = np.inf
    stop_s: float = -np.inf
    records: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)


def scan_file(path: str, keep: Collection[str] = ()) -> Scan:
    """Return what the file holds; of the tracks named in `keep` also the records, (POSIX s, samples), as they come.

    Raises RecordingError where the file is no `.vital`, damaged or cut.
    """
    scan = Scan()
    devices: dict[int, str] = {}
    named: dict[int, Track] = {}  # by number
    kept = 0
    try:
        for kind, packed, body in _read_packets(path):
            if kind == _DEVICE:
                (number,) = struct.unpack_from("<I", body)
                device_type, at = _text(body, 4)
                name, _ = _text(body, at)
                devices[number] = name or device_type
            elif kind == _TRACK and (made := _track(body, devices, packed)):
                named[made[0]] = made[1]
            elif kind == _RECORD and (track := named.get(struct.unpack_from("<H", body, 10)[0])):
                began_s, sample_N = _record(body, track, path)
                if not _EARLIEST_S < began_s < _LATEST_S:
                    continue  # a recorder without a clock: where these samples belong nobody knows
                scan.start_s = min(scan.start_s, began_s)
                scan.stop_s = max(scan.stop_s, began_s + len(sample_N) / track.rate_hz)
                scan.tracks[track.name] = track
                if track.name in keep:
                    kept += sample_N.nbytes
                    if kept > _MOST_KEPT:
                        raise RecordingError("unreadable_file", path, f"more than {_MOST_KEPT:,} bytes of samples")
                    scan.records.setdefault(track.name, []).append((began_s, sample_N))
    except struct.error as error:
        raise RecordingError("unreadable_file", path, f"a packet is shorter than it should be ({error})") from error
    return scan


def _read_packets(path: str) -> Iterator[tuple[int, bool, bytes]]:
    """Yield type, whether the file is packed, and body of each packet."""
    with open_regular(path) as file:
        if size_of(file) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        check_written(file, path)
        stream = Stream(unpack_gzip(file, path), path)
        if stream.read(4) != b"VITA":
            raise RecordingError("not_a_recording", path, "does not begin as a .vital file does")
        (length,) = struct.unpack("<4xH", stream.read(6))
        header = stream.read(length)
        packed = len(header) > 26 and header[26] == 1
        left = size_of(file)  # no packet packs into less than a byte
        while begin := stream.read(5, may_end=True):
            kind, length = struct.unpack("<BI", begin)
            if length > _LARGEST_PACKET[packed]:
                raise RecordingError("unreadable_file", path, f"a packet of {length:,} bytes")
            if (left := left - 1) < 0:
                raise RecordingError("unreadable_file", path, "has more packets than bytes")
            yield kind, packed, stream.read(length)


def _track(body: bytes, devices: dict[int, str], packed: bool) -> tuple[int, Track] | None:
    """Return number and track of a packet, or None for a track without samples at a rate."""
    number, kind, fmt = struct.unpack_from("<HBB", body)
    if kind != _WAVE or fmt not in _TYPES:
        return None
    name, at = _text(body, 4)
    body += bytes(_OPTIONAL)
    unit, at = _text(body, at)
    rate_hz, gain, offset, _, device = struct.unpack_from("<12xfddBI", body, at)
    if not rate_hz > 0.0:
        return None
    dtype, missing = _TYPES[fmt]
    if np.dtype(dtype).kind == "f":
        gain, offset = 1.0, 0.0
    name = f"{devices[device]}/{name}" if device in devices else name
    return (number, Track(name, unit, rate_hz, np.dtype(dtype), gain, offset, missing if packed else None))


def _record(body: bytes, track: Track, path: str) -> tuple[float, np.ndarray]:
    """Return when a record began (POSIX s), and its samples."""
    length, began_s = struct.unpack_from("<Hd", body)
    (count,) = struct.unpack_from("<I", body, 2 + length)
    if 6 + length + count * track.dtype.itemsize > len(body):
        raise RecordingError("truncated_file", path, f"a record of {track.name} has fewer than {count} samples")
    return began_s, np.frombuffer(body, track.dtype, count, 6 + length)


def _text(body: bytes, at: int) -> tuple[str, int]:
    """Return the text at `at`, and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    if at + 4 + length > len(body):
        raise struct.error("a text ends behind its packet")
    return body[at + 4 : at + 4 + length].decode("utf-8", "replace"), at + 4 + length
