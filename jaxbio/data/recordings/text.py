"""Signals in text: CSV and its like, gzip too, a sample a line.

The clock is a given rate (line n is sample n), that of the file's own preamble (Empatica), or a column of time stamps,
on which signals are interpolated linearly to a regular grid: at `rate_hz` where given, else at the rate that each
signal's stamps show. Empty fields are missing; so is the grid between stamps further apart than a gap. A cell that is
neither number nor missing costs the windows that it lies in, and is named by its line. A file without a line of names
numbers its columns from 1.

    csv:bidmc?rate_hz=125&glob=*_Signals.csv.gz          csv:welltory?time=time:ms&columns=ppg:G&glob=*/PPG.csv
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings.channels import Stated, make_channels, same_name, split_unit
from jaxbio.data.recordings.folders import find_files, recording_name, refuse
from jaxbio.data.recordings.recording import (
    Channel,
    Recording,
    RecordingError,
    Refused,
    check_clock,
    failures_named,
)
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.text_clock import Clock, find_clock, find_wrong_stamps, measure_clock
from jaxbio.data.recordings.text_reader import Stamps, TextReader, parse_columns
from jaxbio.data.recordings.text_table import Scan, Table, scan_table

_SUFFIXES = tuple(suffix + packed for suffix in (".csv", ".txt", ".tsv") for packed in ("", ".gz"))
_NO_CLOCK = "text states no sampling rate: add ?rate_hz=125, or ?time=NAME:s (or ms, datetime)"
_WRONG_FRAC = 0.1  # of the first cells of a column: more that are no numbers make it no signal; and of all stamps
_OWN_FRAC = 0.1  # of the first rows: a column that lacks more may have a rate of its own
_COUNTED_ROWS = 16  # so many rows show a rule: that they count up by one, or that a column fills every fourth


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the text files below the source's path; raises UserError where neither they nor it state a clock."""
    clocks, without = source.options.rate_hz is not None or source.options.time is not None, 0
    for found in find_files(source, lambda name: name.lower().endswith(_SUFFIXES)):
        if isinstance(found, Refused):
            yield found
            continue
        try:
            with failures_named(found):
                recording = _recording(source, found, channel_names)
            yield recording
            clocks = True
        except RecordingError as error:
            without += error.detail == _NO_CLOCK
            yield refuse(source, found, error.reason, error.detail, recording_name(source, found, _SUFFIXES))
    if without and not clocks:
        raise UserError(Fault("--source", f"{source.format}:{source.path}", _NO_CLOCK))


def _recording(source: Source, path: str, channel_names: Mapping[str, Sequence[str]]) -> Recording:
    options = source.options
    scan = scan_table(path, options.decimal, options.missing)
    table = scan.table
    values = [scan.head.numbers(column)[0] for column in range(len(table.names))]
    if not any(np.isfinite(value_R).any() for value_R in values):
        raise RecordingError("not_a_recording", path, "no column holds numbers")
    stamps, rate_hz = _time_column(source, table, path), options.rate_hz or table.rate_hz
    if stamps is not None:
        clock, own, span_s, start_time = _clock_of_stamps(scan, stamps, values, path)
    elif rate_hz is not None:
        clock, own, span_s, start_time = Clock(rate_hz), _clocks_among_rows(values, rate_hz), 0.0, table.start_time
    else:
        raise RecordingError("bad_rate", path, _NO_CLOCK)
    labels = [split_unit(label) for label in table.names]
    # On stamps a given rate is that of every signal's grid.
    given_hz = rate_hz if stamps is not None else None
    stated = [
        Stated(name, unit or below, given_hz or own.get(column, clock).rate_hz)
        for column, ((name, unit), below) in enumerate(zip(labels, table.units, strict=True))
    ]
    channels, faults = make_channels(stated, channel_names, path, options.assume_unit)
    for role in list(channels):
        if fault := _column_fault(scan, channels[role], role, path):
            faults[role] = fault
            del channels[role]
    duration_s = check_clock(clock.rate_hz, table.rows, path)
    if stamps is not None:
        fastest_hz = max([channel.rate_hz for channel in channels.values()], default=clock.rate_hz)
        duration_s = check_clock(fastest_hz, int(span_s * fastest_hz + 1e-6) + 1, path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = TextReader(path, table, clock, tuple(own.items()), stamps)
    signals = tuple(label for (label, _), value_R in zip(labels, values) if label and np.isfinite(value_R).any())
    return Recording(
        source.name, subject, known, name, duration_s, start_time, channels, reader, faults, signals=signals
    )


def _time_column(source: Source, table: Table, path: str) -> Stamps | None:
    if source.options.time is None:
        return None
    name, unit = source.options.time
    column = next((column for column, found in enumerate(table.names) if same_name(found) == same_name(name)), None)
    if column is None:
        raise RecordingError("bad_time", path, f"has no column {name!r}; it has {', '.join(map(repr, table.names))}")
    return Stamps(column, unit)


def _column_fault(scan: Scan, channel: Channel, role: str, path: str) -> tuple[str, str] | None:
    """Return why a column is no signal, or None where it is one."""
    value_R, wrong_R = scan.head.numbers(channel.index)
    called = f"column {channel.name!r} ({role})"
    if not np.isfinite(value_R).any():
        return "not_a_recording", f"{path!r}: {called} holds no numbers"
    if wrong_R.mean() > _WRONG_FRAC:
        row = int(np.argmax(wrong_R))
        line, cell = scan.table.skipped + scan.head.line_R[row] + 1, scan.head.cell(row, channel.index)
        return "unreadable_file", f"{path!r}: line {line}, {called}: {cell[:40]!r} is no number, and others neither"
    if not scan.table.named and len(value_R) >= _COUNTED_ROWS and (np.diff(value_R) == 1.0).all():
        return "not_a_recording", f"{path!r}: {called} numbers the rows"
    return None


def _clock_of_stamps(
    scan: Scan, stamps: Stamps, values: Sequence[np.ndarray], path: str
) -> tuple[Clock, dict[int, Clock], float, float | None]:
    """Return the rows' clock, those of columns in rows of their own, seconds from first row to last, POSIX start."""
    column, unit = stamps
    head_s = scan.head.times(column, unit)[0]
    right_R = ~find_wrong_stamps(head_s)
    time_s = _right_stamps(scan.table, stamps, path)
    clock, span_s = measure_clock(head_s[right_R], time_s, path)
    own = {}
    for number in _columns_of_own(values, column):
        found = find_clock(head_s[right_R & np.isfinite(values[number])])
        if found is not None:
            own[number] = found
    return clock, own, span_s, float(time_s[0]) if unit == "datetime" else None


def _right_stamps(table: Table, stamps: Stamps, path: str) -> np.ndarray:
    """Return the right stamps (s, rising) of the whole file: a clock may be set anywhere in it.

    Raises RecordingError `bad_time` where more than a tenth of the rows has none, and so no place.
    """
    columns = parse_columns(path, table, stamps, ())
    right_R = columns.find_right(stamps.column)
    wrong = columns.wrong[stamps.column]
    if len(wrong) > _WRONG_FRAC * table.rows:
        row = int(wrong[0])
        said = f"line {columns.line_of(row)}: {columns.fault_of_stamp(row, stamps.column)}"
        raise RecordingError("bad_time", path, f"{said}; so are {len(wrong)} of {table.rows} stamps")
    return columns.time_s[right_R]


def _columns_of_own(values: Sequence[np.ndarray], time_column: int) -> list[int]:
    """Return the columns whose signals lie in rows of their own, as where two rates share a table.

    Those lack most rows; or many, and stand where the others of the kind do not.
    """
    there = {number: np.isfinite(value_R) for number, value_R in enumerate(values) if number != time_column}
    lacking = {number: there_R for number, there_R in there.items() if _OWN_FRAC < 1.0 - there_R.mean() < 1.0}
    held_R = np.sum(list(lacking.values()), axis=0)
    alone = {number: (held_R[there_R] == 1).mean() for number, there_R in lacking.items()}
    together = len(lacking) > 1
    return [n for n, there_R in lacking.items() if there_R.mean() < 0.5 or (together and alone[n] > 0.5)]


def _clocks_among_rows(values: Sequence[np.ndarray], rate_hz: float) -> dict[int, Clock]:
    """Return column -> clock of the signals that stand in every second, third ... row of a table without stamps."""
    clocks = {}
    for number, value_R in enumerate(values):
        steps = np.diff(np.flatnonzero(np.isfinite(value_R)))
        every = int(np.median(steps)) if len(steps) >= _COUNTED_ROWS else 1
        if every > 1 and (steps == every).mean() > 1.0 - _WRONG_FRAC:
            clocks[number] = Clock(rate_hz / every)
    return clocks
