"""Signals in text: CSV and its like, gzip too, a sample a line.

The clock is a given rate (line n is sample n), or a column of time stamps, on which signals are interpolated linearly
to a regular grid: at `rate_hz` where given, else at the rate the stamps show. Empty fields are missing; so is the grid
between stamps further apart than a gap. A file without a line of names numbers its columns from 1.

    csv:bidmc?rate_hz=125&glob=*_Signals.csv.gz          csv:welltory?time=time:ms&columns=ppg:G&glob=*/PPG.csv
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings.channels import Stated, make_channels, same_name, split_unit, unit_of
from jaxbio.data.recordings.folders import find_files, recording_name, refuse
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock, sample_span
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.text_table import Scan, Table, parse_time, read_columns, scan_table

_SUFFIXES = tuple(suffix + packed for suffix in (".csv", ".txt", ".tsv") for packed in ("", ".gz"))
# Stamps further apart than both leave a gap: three samples (a camera drops single frames), and 0.1 s.
_GAP_SAMPLES, _GAP_S = 3.0, 0.1
_SAME_S = 1e-6  # the finest clock that text states
_PIECE = 2**18  # samples interpolated at once


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the text files below the source's path; raises UserError where the source has no clock."""
    if source.options.rate_hz is None and source.options.time is None:
        remedy = "text states no sampling rate: add ?rate_hz=125, or ?time=NAME:s (or ms, datetime)"
        raise UserError(Fault("--source", f"{source.format}:{source.path}", remedy))
    for found in find_files(source, lambda name: name.lower().endswith(_SUFFIXES)):
        if isinstance(found, Refused):
            yield found
            continue
        try:
            yield _recording(source, found, channel_names)
        except RecordingError as error:
            yield refuse(source, found, error.reason, error.detail, recording_name(source, found, _SUFFIXES))


@dataclass(frozen=True)
class TextReader:
    """Reads one text file; text cannot be sought, so the file last read is kept."""

    path: str
    table: Table
    time: tuple[int, str] | None  # (column, unit)
    rate_hz: float
    samples: int
    factors: tuple[tuple[int, float], ...]  # (column, factor to the unit that is read)

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        columns = tuple(sorted({channel.index for channel in channels.values()}))
        signals = _load_signals(self, columns, _version(self.path))
        spans = {role: sample_span(channel, start_s, stop_s) for role, channel in channels.items()}
        return {role: signals[channels[role].index][slice(*span)].copy() for role, span in spans.items()}


def _version(path: str) -> tuple[int, int]:
    """Return what changes when a file does, so that what was kept of it is not used again."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError("unreadable_file", path, str(error)) from error
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _load_signals(reader: TextReader, columns: tuple[int, ...], version: tuple[int, int]) -> dict[int, np.ndarray]:
    """Return column -> its signal at the reader's rate, whole."""
    time_s, signals = read_columns(reader.path, reader.table, reader.time, columns)
    if reader.time is not None:
        _check_stamps(time_s, reader.path)
        time_s -= time_s[0]
        for column in columns:  # in place: days of samples are not held twice
            signals[column] = resample_stamps(time_s, signals[column], reader.rate_hz, reader.samples)
    for column, factor in reader.factors:
        if factor != 1.0 and column in signals:
            signals[column] *= np.float32(factor)
    return signals


def resample_stamps(time_s: np.ndarray, signal: np.ndarray, rate_hz: float, samples: int) -> np.ndarray:
    """Return `samples` values at rate_hz, interpolated linearly between the rising time stamps `time_s`, float32.

    Of equal stamps the mean counts. NaN where a neighbour is missing or the neighbours lie a gap apart.
    """
    stamps_s, value = time_s, signal
    rising = time_s[1:] > time_s[:-1]
    if not rising.all():
        firsts = np.flatnonzero(np.append(True, rising))
        stamps_s = time_s[firsts]
        value = np.add.reduceat(signal, firsts, dtype=np.float64) / np.diff(np.append(firsts, len(time_s)))
    longest_s = max(_GAP_SAMPLES / rate_hz, _GAP_S)
    resampled = np.empty(samples, np.float32)
    for first in range(0, samples, _PIECE):
        grid_s = np.arange(first, min(first + _PIECE, samples)) / rate_hz
        before = np.maximum(np.searchsorted(stamps_s, grid_s + _SAME_S, side="right") - 1, 0)
        after = np.minimum(before + 1, len(stamps_s) - 1)
        step_s = stamps_s[after] - stamps_s[before]
        passed_s = grid_s - stamps_s[before]
        weight = passed_s / np.where(step_s > 0.0, step_s, 1.0)
        between = value[before] + weight * (value[after] - value[before])
        between[step_s > longest_s] = np.nan
        # On a stamp its own value counts, whatever comes after it.
        resampled[first : first + len(grid_s)] = np.where(passed_s <= _SAME_S, value[before], between)
    return resampled


def _check_stamps(time_s: np.ndarray, path: str) -> None:
    """Raise RecordingError `bad_time` where a stamp is missing or earlier than the one before it."""
    wrong = ~np.isfinite(time_s)
    wrong[1:] |= time_s[1:] < time_s[:-1]
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise RecordingError("bad_time", path, f"the time stamp of row {row} is missing or earlier than the one before")


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    scan = scan_table(path)
    labels = scan.table.names
    numeric = [scan.has_numbers(column) for column in range(len(labels))]
    if not any(numeric):
        raise RecordingError("not_a_recording", path, "no column holds numbers")
    time = _time_column(source, scan.table, path)
    if time is None:
        assert source.options.rate_hz is not None  # list_files has seen to it
        rate_hz, samples, start_time = source.options.rate_hz, scan.table.rows, None
    else:
        rate_hz, samples, start_time = _clock(source, scan, time, path)
    duration_s = check_clock(rate_hz, samples, path)
    stated = [Stated(*split_unit(label), rate_hz) for label in labels]
    channels, faults = make_channels(stated, channel_names, path)
    for role in [role for role, channel in channels.items() if not numeric[channel.index]]:
        faults[role] = "not_a_recording", f"{path!r}: column {channels.pop(role).name!r} ({role}) holds no numbers"
    factors = tuple(
        (channel.index, unit_of(role, stated[channel.index].unit, path)[1]) for role, channel in channels.items()
    )
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = TextReader(path, scan.table, time, rate_hz, samples, factors)
    return Recording(source.name, subject, known, name, duration_s, start_time, channels, reader, faults)


def _time_column(source: Source, table: Table, path: str) -> tuple[int, str] | None:
    if source.options.time is None:
        return None
    name, unit = source.options.time
    column = next((column for column, found in enumerate(table.names) if same_name(found) == same_name(name)), None)
    if column is None:
        raise RecordingError("bad_time", path, f"has no column {name!r}; it has {', '.join(map(repr, table.names))}")
    return column, unit


def _clock(source: Source, scan: Scan, time: tuple[int, str], path: str) -> tuple[float, int, float | None]:
    """Return rate, samples on the grid, and POSIX start of a file with time stamps."""
    column, unit = time
    if len(scan.last_cells) != len(scan.table.names):
        raise RecordingError("truncated_file", path, "the last line is cut off")
    stamps_s = np.asarray([parse_time(cells[column], unit, path) for cells in scan.first_cells])
    duration_s = parse_time(scan.last_cells[column], unit, path) - float(stamps_s[0])
    rate_hz = source.options.rate_hz or _rate_of(stamps_s)
    if not rate_hz > 0.0 or not 0.0 < duration_s < np.inf:
        raise RecordingError("bad_time", path, "the time stamps do not advance")
    check_clock(rate_hz, duration_s * rate_hz, path)
    return rate_hz, int(duration_s * rate_hz + 1e-6) + 1, float(stamps_s[0]) if unit == "datetime" else None


def _rate_of(stamps_s: np.ndarray) -> float:
    """Return the rate that time stamps show, to six digits: the median over blocks of 64, so neither gaps nor a coarse
    clock (several samples a stamp) move it; 0.0 where they show none.
    """
    block = min(64, len(stamps_s) - 1)
    spans_s = stamps_s[block:] - stamps_s[:-block]
    step_s = float(np.median(spans_s)) / block
    return float(f"{1.0 / step_s:.6g}") if step_s > 0.0 else 0.0
