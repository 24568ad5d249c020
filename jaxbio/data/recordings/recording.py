"""What a recording is, whatever file holds it: its channels, its clock, and how a span of it is read.

Listing never raises for one bad file: it yields a `Refused` with a reason. What only shows while samples are read is a
`RecordingError` with the same reasons, so that preparation counts both alike.

    for entry in list_recordings(source, channel_names):
        ppg = entry.read(0.0, 30.0, ["ppg"])["ppg"]
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from jaxbio.config.faults import UserError

# Why a recording is refused: the reason that is counted, and what it means to the reader of the account.
REASONS: dict[str, str] = {
    "not_a_recording": "the file holds no signal",
    "empty_file": "the file has no bytes",
    "missing_file": "a file that the header names is not there",
    "unreadable_file": "the file cannot be opened or decoded",
    "truncated_file": "the file ends before the header says",
    "bad_header": "the header does not follow its format",
    "bad_rate": "the sampling rate is 0, missing or absurd",
    "bad_duration": "the length is 0, negative or absurd",
    "bad_time": "the time column is unreadable or runs backwards",
    "missing_channel": "a channel that the model needs is not among the signals",
    "unknown_unit": "the unit is none that the channel's role may have",
    "outside_source": "a link or a path leaves the source folder",
    "duplicate_name": "another recording of the source has this name",
    "pickled_array": "the array holds Python objects, which reading would run",
    "too_short": "the recording is shorter than a segment",
    "excluded": "its subject is on the list of those to leave out",
}


class RecordingError(Exception):
    """A recording cannot be read: `reason` (a key of REASONS), `file`, and `detail` in words.

    `rest` has by role what of the span could be read, NaN elsewhere, where only some of its files failed.
    """

    rest: dict[str, np.ndarray] | None = None

    def __init__(self, reason: str, file: str, detail: str):
        assert reason in REASONS, reason
        super().__init__(f"{file!r}: {detail}")
        self.reason, self.file, self.detail = reason, file, detail

    def __reduce__(self):
        # Workers hand it to the parent: pickling needs the three arguments, not the joined message.
        return type(self), (self.reason, self.file, self.detail)


@contextlib.contextmanager
def failures_named(file: str) -> Iterator[None]:
    """Turn whatever a reader fails with into a RecordingError `unreadable_file` that names `file`.

    Nobody knows all that libraries raise for damaged files, and one file must not end a preparation of thousands.
    """
    try:
        yield
    except (RecordingError, UserError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {str(error)[:_LONGEST_DETAIL]}"
        raise RecordingError("unreadable_file", file, detail) from error


_LONGEST_DETAIL = 200  # characters of somebody else's message


@dataclass(frozen=True)
class Channel:
    """One signal: `name` in the source, `unit` of what read() returns, `rate_hz`, its `index` in the file, and the
    `factor` from the file's numbers to the unit.
    """

    name: str
    unit: str
    rate_hz: float
    index: int = 0
    factor: float = 1.0


class Reader(Protocol):
    """How one file format reads a span; picklable, so that workers can be handed recordings."""

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role) from `start_s` to `stop_s`, as Recording.read does."""
        ...


@runtime_checkable
class Knowing(Reader, Protocol):
    """A reader that knows what its signals show."""

    def labels(self, start_s_B: np.ndarray, length_s: float) -> dict[str, np.ndarray]:
        """Return what is true of the spans that begin at `start_s_B`, (B,) by name: numbers, or classes as text."""
        ...


@dataclass(frozen=True)
class Recording:
    """One recording of a source; `recording` is unique within it, `start_time` POSIX seconds or None.

    `faults` has roles whose signal is there and cannot be used: role -> (reason, detail). `signals` are the names of
    all signals that the file has; `reading` is what the source line says about reading samples, as text. Where its
    names are `hidden`, nothing that names its files is written. `elsewhere` says where a mirrored recording lies.
    """

    source: str
    subject: str
    subject_known: bool
    recording: str
    duration_s: float
    start_time: float | None
    channels: Mapping[str, Channel]
    reader: Reader
    faults: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    reading: str = ""
    hidden: bool = False
    elsewhere: tuple[str, str, str] | None = None

    def read(self, start_s: float, stop_s: float, roles: Collection[str]) -> dict[str, np.ndarray]:
        """Return the samples [round(start_s * rate_hz), round(stop_s * rate_hz)) of each role's signal.

        Arrays are 1-D float32 in the channel's unit at the channel's own rate, NaN where missing. Only the span is
        read (formats that cannot seek keep the recording last read). Raises RecordingError for a file that is worse
        than its header, ValueError for a span outside the recording, KeyError for a role it has not.
        """
        if not 0.0 <= start_s <= stop_s <= self.duration_s + 1e-6:
            raise ValueError(f"{self.recording!r}: span {start_s}..{stop_s} s lies outside 0..{self.duration_s} s")
        channels = {role: self.channels[role] for role in roles}
        if not channels:
            return {}
        with failures_named(self.recording):
            return self.reader.read(channels, start_s, stop_s)


@dataclass(frozen=True)
class Refused:
    """A recording that is not used: `reason` (a key of REASONS), `detail` that names the file, seconds if known."""

    source: str
    recording: str
    reason: str
    detail: str
    duration_s: float = 0.0


def sample_span(channel: Channel, start_s: float, stop_s: float) -> tuple[int, int]:
    """Return the samples (first, last + 1) of `channel` that the seconds [start_s, stop_s) cover."""
    return round(start_s * channel.rate_hz), round(stop_s * channel.rate_hz)


# Below: no pulse has ten samples. Above: no physiological recorder; a header with a slipped digit.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 10.0, 50_000.0
LONGEST_S = 366 * 86_400.0


def check_rate(rate_hz: float, file: str) -> None:
    """Raise RecordingError where the rate is none that a recorder of pulses has."""
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        allowed = f"{LOWEST_RATE_HZ:g}..{HIGHEST_RATE_HZ:g} Hz"
        raise RecordingError("bad_rate", file, f"sampling rate {rate_hz:g} Hz is outside {allowed}")


def check_clock(rate_hz: float, samples: float, file: str) -> float:
    """Return the length in s; raises RecordingError where it, or the rate, is none that a recorder gives."""
    check_rate(rate_hz, file)
    duration_s = samples / rate_hz
    if not 0.0 < duration_s <= LONGEST_S:
        raise RecordingError("bad_duration", file, f"length {duration_s:g} s is outside 0..{LONGEST_S:g} s")
    return duration_s
