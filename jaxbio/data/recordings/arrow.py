"""Parquet and Arrow files (Feather too): a column a signal, a row a sample.

The clock is `rate_hz`, or `rates` by role (a number, or the column that has it in every row), or `time=NAME:UNIT`, a
column of stamps as in text (`datetime`: of a type of dates, or texts in ISO 8601); else a column or an entry of the
file's metadata that is called rate_hz, fs or the like. Nulls and NaN are missing. Columns are held whole.

    parquet:archive?time=time:datetime&columns=ppg:pleth          arrow:archive?rate_hz=125
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.data.recordings.arrow_clock import Stamps, find_stamps, place_rows, said_rate, stated_rate
from jaxbio.data.recordings.arrow_columns import is_signal, look_into, read_columns
from jaxbio.data.recordings.channels import Stated, find_roles, make_channels, split_unit
from jaxbio.data.recordings.folders import list_each, recording_name
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.regular_files import version_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.text_clock import Placed, Wrong, place_signal

_SUFFIXES = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
_ROUNDED = 1e-3  # of a sample: POSIX seconds in float64 are exact to 2.4e-7 s
_NO_RATE = "states no sampling rate: add ?rate_hz=125, ?rates=ROLE:COLUMN, or ?time=NAME:s (or ms, datetime)"


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the Parquet and Arrow files below the source's path."""
    return list_each(source, _SUFFIXES, lambda path: [_recording(source, path, channel_names)])


@dataclass(frozen=True)
class ArrowReader:
    """Reads one file, and keeps the columns last read; `columns` by the index of a channel."""

    path: str
    columns: tuple[str, ...]
    rows: int
    stamps: Stamps | None

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does.

        Raises RecordingError where the span holds a sample whose stamp is wrong.
        """
        wanted = tuple(sorted({(self.columns[channel.index], channel.rate_hz) for channel in channels.values()}))
        loaded = _load(self, wanted, version_of(self.path))
        if isinstance(loaded, RecordingError):
            raise loaded
        signals, wrong = loaded
        wrong.check(self.path, start_s, stop_s)
        read = {}
        for role, channel in channels.items():
            signal, (first, last) = signals[self.columns[channel.index]], sample_span(channel, start_s, stop_s)
            samples = signal.span(first, last) if isinstance(signal, Placed) else signal[first:last]
            read[role] = samples * np.float32(channel.factor)
        return read


@functools.lru_cache(maxsize=1)
def _load(
    reader: ArrowReader, wanted: tuple[tuple[str, float], ...], version: tuple[int, int]
) -> tuple[Mapping[str, np.ndarray | Placed], Wrong] | RecordingError:
    """Return column -> its signal, whole, and which stamps are wrong; or why the file cannot be read, which no window
    tries again.
    """
    try:
        values = read_columns(reader.path, [name for name, _ in wanted], reader.rows)
        if reader.stamps is None:
            return values, Wrong(np.zeros(0), ())
        held_R = np.any([np.isfinite(value_R) for value_R in values.values()], axis=0)
        right_R, place_R, wrong = place_rows(reader.path, reader.stamps, held_R)
    except RecordingError as error:
        return error
    place_s, gap_s = place_R[right_R], reader.stamps.clock.gap_s
    return {name: place_signal(place_s, values[name][right_R], rate_hz, gap_s) for name, rate_hz in wanted}, wrong


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    options, look = source.options, look_into(path)
    if look.rows < 2:
        raise RecordingError("not_a_recording", path, f"has {look.rows} rows")
    stamps = find_stamps(path, look, options.time) if options.time is not None else None
    rate_hz = options.rate_hz or (stamps.clock.rate_hz if stamps else stated_rate(path, look))
    labels = [split_unit(name) if is_signal(kind) else ("", "") for name, kind in look.types.items()]
    rates = dict.fromkeys(range(len(labels)), rate_hz or 0.0)
    for role, index in find_roles([name for name, _ in labels], channel_names).items():
        if role in options.rates:
            rates[index] = said_rate(path, look, options.rates[role])
    stated = [Stated(name, unit, rates[index]) for index, (name, unit) in enumerate(labels)]
    channels, faults = make_channels(stated, channel_names, path, options.assume_unit)
    used = {channel.rate_hz for channel in channels.values()} or {rate for rate in rates.values() if rate}
    if len(used) != 1:
        rated = " and ".join(f"{rate:g} Hz" for rate in sorted(used))
        raise RecordingError("bad_rate", path, f"has a row for each sample, at {rated}" if used else _NO_RATE)
    (rate_hz,) = used
    samples = int(stamps.span_s * rate_hz + _ROUNDED) + 1 if stamps else look.rows
    duration_s = check_clock(rate_hz, samples, path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = ArrowReader(path, tuple(look.types), look.rows, stamps)
    signals = tuple(name for name, _ in labels if name)
    start_time = stamps.start_time if stamps else None
    return Recording(
        source.name, subject, known, name, duration_s, start_time, channels, reader, faults, signals=signals
    )
