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
        grid_s = np.arange(reader.samples) / reader.rate_hz
        signals = resample_stamps(time_s - time_s[0], signals, grid_s, reader.rate_hz, reader.path)
    for column, factor in reader.factors:
        if factor != 1.0 and column in signals:
            signals[column] *= np.float32(factor)
    short = [column for column, signal in signals.items() if len(signal) < reader.samples]
    if short:
        raise RecordingError("truncated_file", reader.path, f"has fewer than {reader.samples} samples")
    return signals


def resample_stamps(
    time_s: np.ndarray, signals: Mapping[int, np.ndarray], grid_s: np.ndarray, rate_hz: float, path: str
) -> dict[int, np.ndarray]:
    """Return `signals` (by column, at times `time_s`) on the regular `grid_s`, NaN within gaps; means of equal stamps.

    Raises RecordingError `bad_time` where stamps are missing or run backwards.
    """
    steps_s = np.diff(time_s)
    if not np.all(np.isfinite(time_s)) or np.any(steps_s < 0.0):
        row = int(np.argmax(~np.isfinite(time_s)) if not np.all(np.isfinite(time_s)) else np.argmax(steps_s < 0.0) + 1)
        raise RecordingError("bad_time", path, f"the time stamp of row {row + 1} is missing or earlier than the last")
    firsts = np.flatnonzero(np.concatenate(([True], steps_s > 0.0)))
    stamps_s = time_s[firsts]
    counts = np.diff(np.append(firsts, len(time_s)))
    before = np.searchsorted(stamps_s, grid_s, side="right") - 1
    after = np.minimum(before + 1, len(stamps_s) - 1)
    in_gap = (stamps_s[after] - stamps_s[before] > max(_GAP_SAMPLES / rate_hz, _GAP_S)) & (grid_s > stamps_s[before])
    resampled = {}
    for column, signal in signals.items():
        values = np.add.reduceat(signal.astype(np.float64), firsts) / counts
        grid = np.interp(grid_s, stamps_s, values).astype(np.float32)
        grid[in_gap] = np.nan
        resampled[column] = grid
    return resampled


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
        raise RecordingError("bad_time", path, f"has no column {name!r}; it has {', '.join(table.names)}")
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
