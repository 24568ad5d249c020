"""Headers of EDF, EDF+ and BDF files as values: texts of fixed width, what is said of each signal field by field.

with open_regular(path) as file: header = read_header(file, path)
"""

import re
from datetime import UTC, datetime
from itertools import accumulate
from typing import BinaryIO, NamedTuple

from jaxbio.data.recordings.recording import LONGEST_S, RecordingError
from jaxbio.data.recordings.regular_files import check_written, size_of

_FIXED = 256  # bytes of the header's first part, and of what it says of each signal
# Widths of what stands there for each signal, all signals' labels first, and so on.
_FIELDS = {
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "physical_min": 8,
    "physical_max": 8,
    "digital_min": 8,
    "digital_max": 8,
    "filtering": 80,
    "samples": 8,
    "reserved": 32,
}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_FORGIVEN_S = 1.0  # as of WFDB: a file that lacks a last record is read as far as it goes
_LARGEST_RECORD = 2**26  # bytes; the specification has 61,440


class Signal(NamedTuple):
    """One signal: value in `unit` = zero + gain * sample; `samples` a record, behind `first` samples of others.

    A gain of 0: the header states no range.
    """

    name: str
    unit: str
    samples: int
    first: int
    gain: float
    zero: float
    is_annotation: bool


class Header(NamedTuple):
    """What a header says: its own length in bytes, of records the number and the length, and the signals."""

    nbytes: int
    records: int
    record_s: float
    width: int  # bytes a sample: 2, or 3 in BDF
    start_time: float | None
    discontinuous: bool
    signals: tuple[Signal, ...]

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return self.width * sum(signal.samples for signal in self.signals)


def read_header(file: BinaryIO, path: str) -> Header:
    """Return the header that `file` begins with; raises RecordingError where the file does not hold what it claims."""
    size = size_of(file)
    if size == 0:
        raise RecordingError("empty_file", path, "no bytes")
    check_written(file, path)
    fixed = file.read(_FIXED)
    is_bdf = fixed[:8] == b"\xffBIOSEMI"
    if not is_bdf and fixed[:8].strip() != b"0":
        raise RecordingError("not_a_recording", path, "does not begin as EDF or BDF does")
    count = int(_number(fixed[252:256], path))
    nbytes = _FIXED * (1 + count)
    if count < 1 or size < nbytes:
        raise RecordingError("bad_header", path, f"announces {count} signals in {size:,} bytes")
    signals = _read_signals(file.read(_FIXED * count), count, path)
    header = Header(
        nbytes=nbytes,
        records=int(_number(fixed[236:244], path)),
        record_s=_number(fixed[244:252], path),
        width=3 if is_bdf else 2,
        start_time=_posix(fixed[168:184].decode("latin-1")),
        discontinuous=fixed[192:197] in (b"EDF+D", b"BDF+D"),
        signals=signals,
    )
    if not 0 < header.record_bytes <= _LARGEST_RECORD or not 0.0 < header.record_s <= LONGEST_S:
        raise RecordingError("bad_header", path, f"records of {header.record_bytes} bytes and {header.record_s:g} s")
    held = (size - nbytes) // header.record_bytes
    if header.records == -1:  # its recorder was not stopped in order
        header = header._replace(records=held)
    lacking = header.records - held
    if lacking > 0 and (held == 0 or lacking * header.record_s > _FORGIVEN_S):
        raise RecordingError("truncated_file", path, f"holds {held} of the {header.records} records that it states")
    if header.records < 1:
        raise RecordingError("bad_duration", path, f"{header.records} records")
    return header._replace(records=min(header.records, held))


def _read_signals(said: bytes, count: int, path: str) -> tuple[Signal, ...]:
    texts, at = {}, 0
    for name, width in _FIELDS.items():
        texts[name] = [said[at + width * k : at + width * (k + 1)] for k in range(count)]
        at += width * count
    samples = [int(_number(text, path)) for text in texts["samples"]]
    if min(samples) < 0:
        raise RecordingError("bad_header", path, f"{min(samples)} samples a record")
    signals = []
    for k, first in zip(range(count), accumulate(samples, initial=0)):
        label, unit = (texts[name][k].decode("latin-1").strip(" \0") for name in ("label", "unit"))
        is_annotation = label in _ANNOTATIONS
        gain = zero = 0.0
        if not is_annotation:
            low, high = (_number(texts[name][k], path) for name in ("digital_min", "digital_max"))
            bottom, top = (_number(texts[name][k], path) for name in ("physical_min", "physical_max"))
            if low < high:
                gain = (top - bottom) / (high - low)
                zero = bottom - gain * low
        signals.append(Signal(label, unit, samples[k], first, gain, zero, is_annotation))
    return tuple(signals)


def _number(text: bytes, path: str) -> float:
    try:
        number = float(text.decode("ascii").strip(" \0"))
    except ValueError as error:
        raise RecordingError("bad_header", path, f"{text[:20]!r} is no number") from error
    if not abs(number) < 1e15:
        raise RecordingError("bad_header", path, f"{text[:20]!r} is no number that a recorder has")
    return number


def _posix(stamp: str) -> float | None:
    """Return the start (dd.mm.yyhh.mm.ss, the recorder's clock taken as UTC) in POSIX seconds; None for no date."""
    parts = re.fullmatch(r"(\d\d).(\d\d).(\d\d)(\d\d).(\d\d).(\d\d)", stamp)
    if parts is None:
        return None
    day, month, year, hour, minute, second = (int(part) for part in parts.groups())
    try:
        # EDF: years 85 to 99 are of the last century.
        return datetime(year + (1900 if year >= 85 else 2000), month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
