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
from jaxbio.data.recordings.recording import Channel, Recording, RecordingError, Refused, check_clock
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.subjects import subject_of
from jaxbio.data.recordings.text_clock import Clock, find_clock, find_wrong_stamps, span_of
from jaxbio.data.recordings.text_reader import Stamps, TextReader
from jaxbio.data.recordings.text_table import Scan, Table, scan_table

_SUFFIXES = tuple(suffix + packed for suffix in (".csv", ".txt", ".tsv") for packed in ("", ".gz"))
_NO_CLOCK = "text states no sampling rate: add ?rate_hz=125, or ?time=NAME:s (or ms, datetime)"
_WRONG_FRAC = 0.1  # of the first cells of a column: more that are no numbers make it no signal
_OWN_FRAC = 0.1  # of the first rows: a column that lacks so many while another has them has a rate of its own
_COUNTED_ROWS = 16  # so many rows that count up by one are row numbers


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the text files below the source's path; raises UserError where neither they nor it state a clock."""
    clocks, without = source.options.rate_hz is not None or source.options.time is not None, 0
    for found in find_files(source, lambda name: name.lower().endswith(_SUFFIXES)):
        if isinstance(found, Refused):
            yield found
            continue
        try:
            yield _recording(source, found, channel_names)
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
    time = _time_column(source, table, path)
    rate_hz = options.rate_hz or table.rate_hz
    if time is None and rate_hz is None:
        raise RecordingError("bad_rate", path, _NO_CLOCK)
    values = [scan.head.numbers(column)[0] for column in range(len(table.names))]
    if not any(np.isfinite(value_R).any() for value_R in values):
        raise RecordingError("not_a_recording", path, "no column holds numbers")
    labels = [split_unit(label) for label in table.names]
    units = [unit or below for (_, unit), below in zip(labels, table.units)]
    rates_hz, stamps, start_time = [rate_hz or 0.0] * len(labels), None, table.start_time
    if time is None:
        duration_s = check_clock(rates_hz[0], table.rows, path)
    else:
        rates_hz, stamps, span_s, start_time = _stamps(scan, time, values, rate_hz, path)
        duration_s = 0.0
    stated = [Stated(name, unit, rate) for (name, _), unit, rate in zip(labels, units, rates_hz)]
    channels, faults = make_channels(stated, channel_names, path, options.assume_unit)
    for role in list(channels):
        if fault := _column_fault(scan, channels[role], role, path):
            faults[role] = fault
            del channels[role]
    if stamps is not None:
        fastest_hz = max([channel.rate_hz for channel in channels.values()], default=stamps.clock.rate_hz)
        duration_s = check_clock(fastest_hz, int(span_s * fastest_hz + 1e-6) + 1, path)
    name = recording_name(source, path, _SUFFIXES)
    subject, known = subject_of(source.folder, name)
    reader = TextReader(path, table, stamps, duration_s)
    signals = tuple(label for (label, _), value_R in zip(labels, values) if label and np.isfinite(value_R).any())
    return Recording(
        source.name, subject, known, name, duration_s, start_time, channels, reader, faults, signals=signals
    )


def _time_column(source: Source, table: Table, path: str) -> tuple[int, str] | None:
    if source.options.time is None:
        return None
    name, unit = source.options.time
    column = next((column for column, found in enumerate(table.names) if same_name(found) == same_name(name)), None)
    if column is None:
        raise RecordingError("bad_time", path, f"has no column {name!r}; it has {', '.join(map(repr, table.names))}")
    return column, unit


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


def _stamps(
    scan: Scan, time: tuple[int, str], values: Sequence[np.ndarray], rate_hz: float | None, path: str
) -> tuple[list[float], Stamps, float, float | None]:
    """Return rates by column, how stamps are read, the seconds from first row to last, and the POSIX start."""
    column, unit = time
    head_s, tail_s = scan.head.times(column, unit)[0], scan.tail.times(column, unit)[0]
    right_R = ~find_wrong_stamps(head_s)
    wrong_R = ~right_R & scan.head.filled_R
    if wrong_R.mean() > _WRONG_FRAC:
        row = int(np.argmax(wrong_R))
        detail = f"{scan.head.cell(row, column)[:40]!r} is no time in {unit}, or earlier than the one before"
        raise RecordingError("bad_time", path, f"line {scan.table.skipped + scan.head.line_R[row] + 1}: {detail}")
    clock = find_clock(head_s[right_R]) if right_R.any() else None
    tail_s = tail_s[~find_wrong_stamps(tail_s)]
    if clock is None or not len(tail_s):
        raise RecordingError("bad_time", path, "the time stamps do not advance")
    span_s = span_of(head_s[right_R], tail_s, clock)
    if not 0.0 < span_s < np.inf:
        raise RecordingError("bad_time", path, "the time stamps do not advance")
    own = _clocks_of_own(values, column, head_s, right_R)
    rates_hz = [rate_hz or own.get(number, clock).rate_hz for number in range(len(values))]
    start_time = float(head_s[right_R][0]) if unit == "datetime" else None
    return rates_hz, Stamps(column, unit, clock, tuple(own.items())), span_s, start_time


def _clocks_of_own(
    values: Sequence[np.ndarray], time_column: int, head_s: np.ndarray, right_R: np.ndarray
) -> dict[int, Clock]:
    """Return column -> clock of the signals that lie in rows of their own, as where two rates share a table."""
    there = {number: np.isfinite(value_R) for number, value_R in enumerate(values) if number != time_column}
    there = {number: there_R for number, there_R in there.items() if there_R.any()}
    held_R = np.sum(list(there.values()), axis=0) if there else np.zeros(len(head_s))
    clocks = {}
    for number, there_R in there.items():
        # Lacking where another signal has a value, in many rows.
        if ((held_R > 0) & ~there_R).mean() > _OWN_FRAC and (clock := find_clock(head_s[right_R & there_R])):
            clocks[number] = clock
    return clocks
