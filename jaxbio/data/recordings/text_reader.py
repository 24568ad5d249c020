"""Reading spans of a text recording: its columns are parsed once, and kept until another file is read.

What is wrong in a file (a cell, a stamp, its bytes) is kept with it: no window parses the file again to fail again.
"""

import functools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.recording import Channel, RecordingError, sample_span
from jaxbio.data.recordings.regular_files import version_of
from jaxbio.data.recordings.text_clock import (
    WRONG_STAMP,
    Clock,
    Placed,
    Wrong,
    find_wrong_stamps,
    place_signal,
    place_stamps,
)
from jaxbio.data.recordings.text_table import Table, read_rows

_MOST_QUOTED = 1000  # wrong cells whose text is kept, a column


class Stamps(NamedTuple):
    """The column of time stamps, and its unit (one of `source.TIME_UNITS`)."""

    column: int
    unit: str


@dataclass(frozen=True)
class TextReader:
    """Reads one text file; text cannot be sought, so the file last read is kept.

    Rows follow each other by `clock` or by `stamps`; `own` has (column, its clock) of signals in rows of their own.
    """

    path: str
    table: Table
    clock: Clock
    own: tuple[tuple[int, Clock], ...]
    stamps: Stamps | None

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does.

        Raises RecordingError where the span holds a cell that is no number, or a stamp that is none.
        """
        wanted = tuple(sorted({(channel.index, channel.rate_hz) for channel in channels.values()}))
        loaded = _load(self, wanted, version_of(self.path))
        if isinstance(loaded, RecordingError):
            raise loaded
        signals = {}
        for role, channel in channels.items():
            signal, wrong = loaded[channel.index]
            wrong.check(self.path, start_s, stop_s)
            first, last = sample_span(channel, start_s, stop_s)
            samples = signal.span(first, last) if isinstance(signal, Placed) else signal[first:last]
            samples = samples * np.float32(channel.factor)
            signals[role] = np.pad(samples, (0, last - first - len(samples)), constant_values=np.nan)
        return signals


Loaded = dict[int, tuple[np.ndarray | Placed, Wrong]]


@functools.lru_cache(maxsize=1)
def _load(
    reader: TextReader, wanted: tuple[tuple[int, float], ...], version: tuple[int, int]
) -> Loaded | RecordingError:
    """Return column -> its signal, whole, and what is wrong in it; or why the file cannot be read."""
    try:
        columns = parse_columns(reader.path, reader.table, reader.stamps, sorted({column for column, _ in wanted}))
        right_R, place_R = _place_rows(reader, columns)
        signals = {column: _place(reader, columns, column, rate_hz, right_R, place_R) for column, rate_hz in wanted}
        return {column: (signal, _wrong(reader, columns, column, place_R)) for column, signal in signals.items()}
    except RecordingError as error:
        return error


@dataclass
class Columns:
    """A file's columns as they were parsed.

    `values` (rows,) float32 by column and `time_s` (rows,) float64, NaN where missing or wrong; `wrong` the rows of
    wrong cells by column, the time stamps' too; `said` why, by (row, column), of the first ones;
    `lines` where rows stand in the file, for each block as (first row, lines before the block, lines within it).
    """

    values: dict[int, np.ndarray]
    time_s: np.ndarray
    wrong: dict[int, np.ndarray]
    said: dict[tuple[int, int], str] = field(default_factory=dict)
    lines: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def line_of(self, row: int) -> int:
        """Return the line of a row, from 1."""
        first, line, line_R = self.lines[bisect_right(self.lines, row, key=lambda block: block[0]) - 1]
        return line + int(line_R[row - first]) + 1

    def find_right(self, time_column: int) -> np.ndarray:
        """Return (bool) which rows have a right time; those whose time is an outlier become `wrong`, too."""
        right_R = ~find_wrong_stamps(self.time_s)
        outliers = np.flatnonzero(~right_R & np.isfinite(self.time_s))
        self.wrong[time_column] = np.union1d(self.wrong[time_column], outliers)
        return right_R

    def fault_of_stamp(self, row: int, time_column: int) -> str:
        """Say why the stamp of a row is wrong."""
        return self.said.get((row, time_column), WRONG_STAMP)


def parse_columns(path: str, table: Table, stamps: Stamps | None, wanted: Sequence[int]) -> Columns:
    """Return the columns of a file and its stamps, parsed block by block, and what is wrong in them.

    Raises RecordingError for a damaged file, and for fewer rows than the table's.
    """
    # Filled in place: joining blocks at the end would hold everything twice.
    columns = Columns(
        {column: np.empty(table.rows, np.float32) for column in wanted}, np.empty(table.rows if stamps else 0), {}
    )
    found: dict[int, list[np.ndarray]] = {column: [] for column in (*wanted, *([stamps.column] if stamps else ()))}
    for first, line, rows in read_rows(path, table):
        here = slice(first, min(first + len(rows), table.rows))
        count = here.stop - first
        columns.lines.append((first, line, rows.line_R.astype(np.int32)))
        for column in wanted:
            value_R, wrong_R = rows.numbers(column)
            with np.errstate(over="ignore"):
                columns.values[column][here] = value_R[:count]
            found[column].append(np.flatnonzero(wrong_R[:count]) + first)
        if stamps is not None:
            time_R, wrong_R = rows.times(stamps.column, stamps.unit)
            columns.time_s[here] = time_R[:count]
            found[stamps.column].append(np.flatnonzero((wrong_R & rows.filled_R)[:count]) + first)
        for column, parts in found.items():
            for row in parts[-1][: max(0, _MOST_QUOTED - len(columns.said))].tolist():
                kind = "time" if stamps is not None and column == stamps.column else "number"
                columns.said[row, column] = rows.fault(row - first, column, kind)
    columns.wrong = {column: np.concatenate(parts) for column, parts in found.items()}
    return columns


def _wrong(reader: TextReader, columns: Columns, column: int, place_R: np.ndarray) -> Wrong:
    """Return what is wrong in a column, whose rows lie at `place_R` (s), and in its stamps, in words."""
    stamps = columns.wrong[reader.stamps.column] if reader.stamps is not None else np.zeros(0, np.int64)
    row_K = np.concatenate([columns.wrong[column], stamps])
    order_K = np.argsort(row_K, kind="stable")
    faults = []
    for number in order_K[:_MOST_QUOTED].tolist():
        row, is_cell = int(row_K[number]), number < len(columns.wrong[column])
        at = column if is_cell or reader.stamps is None else reader.stamps.column
        said = columns.said.get((row, at), "wrong") if is_cell else columns.fault_of_stamp(row, at)
        detail = f"line {columns.line_of(row)}, column {reader.table.names[at]!r}: {said}"
        faults.append(("unreadable_file" if is_cell else "bad_time", detail))
    return Wrong(place_R[row_K[order_K]], tuple(faults))


def _place_rows(reader: TextReader, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have a right time (bool), and where all lie, in s from the first.

    A row without a right stamp lies where the one before it does, and is noted as wrong.
    """
    if reader.stamps is None:
        return np.ones(reader.table.rows, bool), np.arange(reader.table.rows) / reader.clock.rate_hz
    right_R = columns.find_right(reader.stamps.column)
    if not right_R.any():
        raise RecordingError("bad_time", reader.path, "no row has a time stamp")
    return right_R, place_stamps(columns.time_s, right_R, reader.clock)


def _place(
    reader: TextReader, columns: Columns, column: int, rate_hz: float, right_R: np.ndarray, place_R: np.ndarray
) -> np.ndarray | Placed:
    """Return a column's signal: its rows where they are the grid, else where those lie in time."""
    own, values = dict(reader.own), columns.values[column]
    if column not in own and reader.stamps is None:
        return values
    there_R = right_R & np.isfinite(values) if column in own else right_R
    return place_signal(place_R[there_R], values[there_R], rate_hz, own.get(column, reader.clock).gap_s)
