"""WFDB headers (`.hea`) as values: what is read of them, no signal touched.

Follows header(5) of the WFDB Applications Guide: a record line, then one line a signal or a segment; lines that begin
with `#` are comments. Lenient where archives are (dates in other orders, missing optional fields, byte order marks),
exact elsewhere.
"""

import codecs
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import open_regular, size_of
from jaxbio.data.recordings.source import printable

DEFAULT_GAIN = 200.0  # header(5): a gain of 0 or none means 200 units a millivolt, uncalibrated
GAP = "~"  # a segment, or a signal file, that holds nothing
_LARGEST_HEADER = 64 * 2**20  # bytes: a hundred thousand segments; more is no header

_RECORD = re.compile(
    r"(?P<name>[^\s/]+)(?:/(?P<segments>\d+))?\s+(?P<signals>\d+)"
    r"(?:\s+(?P<rate>[-\d.eE+]+)(?:/[-\d.eE+]+(?:\([-\d.eE+]+\))?)?"
    r"(?:\s+(?P<frames>\d+)(?:\.0*)?(?:\s+(?P<clock>.*))?)?)?"
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?"
    r"(?:\s+(?P<gain>[-\d.eE+]+)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+(?P<bits>\d+)(?:\s+(?P<zero>-?\d+)(?:\s+(?P<initial>-?\d+)"
    r"(?:\s+(?P<checksum>-?\d+)(?:\s+(?P<block>-?\d+)(?:\s+(?P<name>.*?))?)?)?)?)?)?)?"
)
_SEGMENT = re.compile(r"(?P<name>\S+)\s+(?P<frames>\d+)")
_TIME = re.compile(r"\b(\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d+)?")
_DATE = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b|\b(\d{4})-(\d{1,2})-(\d{1,2})\b")


@dataclass(frozen=True)
class Signal:
    """One signal line: value in `unit` = (sample - baseline) / gain; `index` is its number in the record."""

    index: int
    file: str
    format: str
    per_frame: int
    # Samples of this signal (header(5)) that precede its sample 0 in the file. The C library rounds them to frames;
    # wfdb-python takes the number itself as frames, which is the same where a frame has one sample of the signal.
    skew: int
    offset: int  # bytes before the first sample of the file; of a compressed file samples
    gain: float
    baseline: int
    initial: int  # what format 8, differences, begins with
    unit: str
    name: str  # its number, from 1, where the header gives no description

    @property
    def is_null(self) -> bool:
        """Whether no file holds it (format 0): all its samples are missing, or it only describes a layout."""
        return self.format == "0" or self.file == GAP


@dataclass(frozen=True)
class Header:
    """One header file: either `signals` or `segments` ((name, frames); GAP for none) is filled."""

    path: str
    rate_hz: float  # frames a second
    frames: int | None
    start_time: float | None
    signals: tuple[Signal, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


def read_header(path: str) -> Header:
    """Return the header in file `path`; raises RecordingError for a file that is none."""
    lines = _read_lines(path)
    if not lines:
        raise RecordingError("empty_file", path, "the header has no lines")
    record = _match(_RECORD, lines[0], path)
    rate_hz = _number(record["rate"], path) if record["rate"] else 250.0  # header(5)'s default
    frames = _integer(record["frames"] or "0", path) or None  # header(5): 0 is "not stated"
    start_time = _posix(record["clock"] or "")
    count = _integer(record["segments"] or record["signals"], path)
    if len(lines) - 1 < count:
        raise RecordingError("bad_header", path, f"announces {count} lines, has {len(lines) - 1}")
    body = lines[1 : count + 1]
    if record["segments"] is None:
        signals = tuple(_signal(index, line, path) for index, line in enumerate(body))
        return Header(path, rate_hz, frames, start_time, signals=signals)
    matches = [_match(_SEGMENT, line, path) for line in body]
    segments = tuple((match["name"], _integer(match["frames"], path)) for match in matches)
    return Header(path, rate_hz, frames, start_time, segments=segments)


def _read_lines(path: str) -> list[str]:
    """Return the lines of a header that are neither blank nor comments."""
    with open_regular(path) as file:
        if size_of(file) > _LARGEST_HEADER:
            raise RecordingError("bad_header", path, "too large for a header")
        try:
            content = file.read()
        except OSError as error:
            raise RecordingError("unreadable_file", path, str(error)) from error
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", _decode(content))]
    return [line for line in lines if line and not line.startswith("#")]


def _decode(content: bytes) -> str:
    """Return text in UTF-8 or, where a byte order mark says so, UTF-16; bytes that are no text become surrogates."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "surrogateescape")


def _match(pattern: re.Pattern, line: str, path: str) -> re.Match:
    match = pattern.fullmatch(line)
    if match is None:
        raise RecordingError("bad_header", path, f"line {line[:80]!r} does not follow header(5)")
    return match


def _number(text: str, path: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecordingError("bad_header", path, f"{text[:40]!r} is no number") from error


def _integer(text: str, path: str) -> int:
    if len(text) > 15:
        raise RecordingError("bad_header", path, f"{text[:40]!r} is too large a number")
    return int(text)


def _signal(index: int, line: str, path: str) -> Signal:
    match = _match(_SIGNAL, line, path)
    zero = _integer(match["zero"] or "0", path)
    initial = _integer(match["initial"], path) if match["initial"] else zero
    return Signal(
        index=index,
        file=match["file"],
        format=match["format"],
        per_frame=_integer(match["per_frame"] or "1", path),
        skew=_integer(match["skew"] or "0", path),
        offset=_integer(match["offset"] or "0", path),
        gain=_number(match["gain"] or "0", path) or DEFAULT_GAIN,
        baseline=zero if match["baseline"] is None else _integer(match["baseline"], path),
        initial=initial,
        unit=sys.intern(printable(match["unit"] or "mV")),
        name=sys.intern(printable(match["name"] or "").strip() or str(index + 1)),
    )


def _posix(clock: str) -> float | None:
    """Return the start in POSIX seconds (the recorder's clock taken as UTC), or None where no date is stated."""
    time, date = _TIME.search(clock), _DATE.search(clock)
    if time is None or date is None:
        return None
    day, month, year = (date[1], date[2], date[3]) if date[1] else (date[6], date[5], date[4])
    try:
        midnight = datetime(int(year), int(month), int(day), tzinfo=UTC).timestamp()
    except ValueError:
        return None  # a date that no calendar has: the archive does not know when
    return midnight + 3600 * int(time[1]) + 60 * int(time[2]) + int(time[3]) + float(time[4] or 0)
