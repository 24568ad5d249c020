"""Recordings of files that hold arrays under names or paths: HDF5, MATLAB, pickles.

`each=PATTERN` (`each=data/*`) makes a recording of each path that begins so, with signals named by what follows.
A signal's rate is what `rates` says of its role (a number, or the path of one), else `rate_hz`, else the nearest number
called fs, rate_hz or the like: beneath the signal's path, beside it, or above.

    yield from find_recordings_in(source, path, leaves, Hdf5Reader, channel_names, (".h5",))
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.data.recordings.array_paths import (
    MOST_LINES,
    Leaf,
    Line,
    count_lines,
    lines_of,
    nearest_rate,
    said_rate,
    split_path,
)
from jaxbio.data.recordings.channels import Stated, find_roles, make_channels
from jaxbio.data.recordings.folders import recording_name, refuse
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of

OPTIONS = ("rate_hz", "rates", "each", "columns", "assume_unit", "glob", "name")
_UNEQUAL_S = 1.0  # signals of one recording may end so far apart
_NO_RATE = "states no sampling rate of it: add ?rate_hz=125, or ?rates=ROLE:125,ROLE:path/of/fs"


@dataclass(frozen=True)
class NamedArrayReader:
    """Reads signals of one file, `lines` by the index of their channel; a format's own class says how."""

    path: str
    lines: Mapping[int, Line]

    @staticmethod
    def read_line(path: str, line: Line, first: int, last: int) -> np.ndarray:
        """Return samples [first, last) of a signal, fewer where the file ends before."""
        raise NotImplementedError

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        signals = {}
        for role, channel in channels.items():
            first, last = sample_span(channel, start_s, stop_s)
            value_N = self.read_line(self.path, self.lines[channel.index], first, last)
            if len(value_N) != last - first:
                raise RecordingError("truncated_file", self.path, f"{channel.name!r} has fewer than {last} samples")
            with np.errstate(over="ignore"):
                signals[role] = (value_N * channel.factor).astype(np.float32)
        return signals


def find_recordings_in(
    source: Source,
    path: str,
    leaves: Mapping[str, Leaf],
    reader: type[NamedArrayReader],
    channel_names: Mapping[str, Sequence[str]],
    suffixes: tuple[str, ...],
) -> Iterator[Recording | Refused]:
    """Yield the recordings of a file; raises RecordingError where it holds no signal."""
    numbers = {name.casefold(): leaf.number for name, leaf in leaves.items() if leaf.number is not None}
    if (count := sum(map(count_lines, leaves.values()))) > MOST_LINES:
        raise RecordingError(
            "not_a_recording", path, f"has {count:,} signals; at most {MOST_LINES:,} are read: split it"
        )
    lines = {name: line for name, leaf in leaves.items() for name, line in lines_of(name, leaf)}
    groups: dict[str, dict[str, Line]] = {}
    for name, line in lines.items():
        if (found := split_path(name, source.options.each)) is not None:
            groups.setdefault(found[0], {})[found[1]] = line
    if not groups:
        among = f" under {source.options.each!r}; it has {', '.join(list(lines)[:12])}" if lines else ""
        raise RecordingError("not_a_recording", path, f"holds no array that is a signal{among}")
    stem = recording_name(source, path, suffixes)
    for group, members in groups.items():
        name = f"{stem}/{group}" if group else stem
        try:
            yield _recording(source, path, name, group, members, numbers, reader, channel_names)
        except RecordingError as error:
            yield refuse(source, path, error.reason, error.detail, name)


def _recording(
    source: Source,
    path: str,
    name: str,
    group: str,
    lines: Mapping[str, Line],
    numbers: Mapping[str, float],
    reader: type[NamedArrayReader],
    channel_names: Mapping[str, Sequence[str]],
) -> Recording:
    options, signals = source.options, list(lines)
    below = {signal: f"{group}/{signal}".strip("/").casefold() for signal in signals}
    rate_hz = {signal: options.rate_hz or nearest_rate(below[signal], numbers) for signal in signals}
    for role, index in find_roles(signals, channel_names).items():
        if role in options.rates:
            rate_hz[signals[index]] = said_rate(options.rates[role], group, numbers, path)
    stated = [Stated(signal, line.leaf.unit, rate_hz[signal] or 0.0) for signal, line in lines.items()]
    channels, faults = make_channels(stated, channel_names, path, options.assume_unit)
    for role, index in find_roles(signals, channel_names).items():
        if rate_hz[signals[index]] is None:
            faults[role] = "bad_rate", f"{path!r}: {signals[index]!r}: {_NO_RATE}"
    used = {channel.index: channel.rate_hz for channel in channels.values()}
    of_lines = list(lines.values())
    known = used or {index: signal.rate_hz for index, signal in enumerate(stated) if signal.rate_hz}
    lasts_s = [of_lines[index].samples / hz for index, hz in known.items()]
    if not lasts_s:
        raise RecordingError("bad_rate", path, f"{', '.join(signals[:12])}: {_NO_RATE}")
    if used and max(lasts_s) - min(lasts_s) > _UNEQUAL_S:
        raise RecordingError("bad_duration", path, f"signals of {min(lasts_s):g} to {max(lasts_s):g} s at their rates")
    fastest_hz = max(known.values())
    duration_s = check_clock(fastest_hz, min(lasts_s) * fastest_hz, path)
    subject, is_known = subject_of(source.folder, name)
    reads = reader(path, {index: of_lines[index] for index in used})
    return Recording(
        source.name, subject, is_known, name, duration_s, None, channels, reads, faults, signals=tuple(signals)
    )
