"""Columns of numbers in a text file: which there are, and their values.

Scanning reads a file once as lines and keeps its first ones, its last one and their number; reading parses chosen
columns with Arrow, block by block, so that a file of any length costs its columns in float32 and no more.
"""

import codecs
import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from jaxbio.data.recordings.recording import RecordingError

_HEAD_LINES = 512
_LONGEST_LINE = 2**16  # bytes; a longer line is no table's
_BLOCK = 2**20
_DELIMITERS = ",;\t "
_MISSING = ["", "nan", "NaN", "NAN", "na", "NA", "N/A", "null", "NULL", "None", "-"]


@dataclass(frozen=True)
class Table:
    """A text file's shape: column names, their delimiter, lines before the first row, and rows."""

    names: tuple[str, ...]
    delimiter: str
    skipped: int
    rows: int


@dataclass(frozen=True)
class Scan:
    """What scanning a file found: its `table`, the cells of its first rows, and those of its last."""

    table: Table
    first_cells: list[list[str]]
    last_cells: list[str]

    def has_numbers(self, column: int) -> bool:
        """Whether one of the first rows holds a number in `column`."""
        return any(_is_number(cells[column]) for cells in self.first_cells if column < len(cells))


def scan_table(path: str) -> Scan:
    """Return the shape of the text file `path`; raises RecordingError for a file that is no table or is damaged."""
    with _faults_named(path), _open(path) as file:
        blocks = _line_blocks(file, path)
        first = next(blocks, [])
        skipped = next((n for n, line in enumerate(first) if line.strip() and not line.startswith(b"#")), None)
        if skipped is None:
            raise RecordingError("empty_file", path, "no line of it holds anything")
        tops = [line.decode(errors="backslashreplace") for line in first[skipped : skipped + 16] if line.strip()]
        delimiter = _delimiter_of(*tops[:2])
        names = _split(tops[0], delimiter)
        if any(_is_number(name) for name in names) or not any(names):
            names = [str(number + 1) for number in range(len(names))]
        else:
            skipped += 1
        rows = _rows(first[skipped:], len(names))
        head, last, count = rows[:_HEAD_LINES], rows[-1:], len(rows)
        for block in blocks:
            rows = _rows(block, len(names))
            last, count = rows[-1:] or last, count + len(rows)
        cells = [_split(line.decode(errors="backslashreplace"), delimiter) for line in head]
        last_cells = _split(b"".join(last).decode(errors="backslashreplace"), delimiter)
    ragged = next((number for number, row in enumerate(cells) if len(row) != len(names)), len(cells))
    if ragged < 2:
        raise RecordingError("not_a_recording", path, "the lines are no table of two rows or more")
    if ragged < len(cells):
        detail = f"row {ragged + 1} has {len(cells[ragged])} of {len(names)} columns"
        raise RecordingError("unreadable_file", path, detail)
    return Scan(Table(tuple(names), delimiter, skipped, count), cells, last_cells)


def read_columns(
    path: str, table: Table, time: tuple[int, str] | None, columns: Sequence[int]
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return time stamps in s (float64; empty without a time column) and column -> float32 values, NaN where missing.

    `time` is (column, unit). Raises RecordingError for a damaged file, for cells that are no numbers, and for another
    number of rows than the table's.
    """
    types: dict[str, pa.DataType] = {str(column): pa.float32() for column in columns}
    names = [str(column) for column in range(len(table.names))]
    if time is not None:
        types["time"] = pa.timestamp("us") if time[1] == "datetime" else pa.float64()
        names[time[0]] = "time"
        types.pop(str(time[0]), None)
    # Filled in place: joining blocks at the end would hold everything twice.
    arrays: dict[str, np.ndarray] = {
        name: np.empty(table.rows, np.float32 if pa.types.is_float32(kind) else np.float64)
        for name, kind in types.items()
    }
    filled = 0
    # Opened here, not by Arrow, which wants paths to be UTF-8.
    with _faults_named(path), open(path, "rb") as file:
        reader = arrow_csv.open_csv(
            pa.input_stream(file, compression="gzip" if _is_gzip(path) else None),
            arrow_csv.ReadOptions(column_names=names, skip_rows=table.skipped, block_size=2**22, use_threads=False),
            arrow_csv.ParseOptions(delimiter=table.delimiter, ignore_empty_lines=len(names) > 1),
            arrow_csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=_MISSING),
        )
        for batch in reader:
            if filled + batch.num_rows > table.rows:
                raise RecordingError("unreadable_file", path, f"has more than the {table.rows} rows it was listed with")
            for name, column in zip(types, batch.columns):
                arrays[name][filled : filled + batch.num_rows] = _values(column)
            filled += batch.num_rows
    if filled < table.rows:
        raise RecordingError("truncated_file", path, f"has {filled} of the {table.rows} rows it was listed with")
    time_s = arrays.pop("time", np.empty(0))
    if time is not None and time[1] == "ms":
        time_s *= 1e-3
    return time_s, {int(name): values for name, values in arrays.items()}


def parse_time(cell: str, unit: str, path: str) -> float:
    """Return a time stamp in seconds, POSIX for a datetime (a clock without a zone is taken as UTC)."""
    try:
        if unit == "datetime":
            moment = datetime.fromisoformat(cell)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return float(cell) * (1e-3 if unit == "ms" else 1.0)
    except (ValueError, OverflowError) as error:
        raise RecordingError("bad_time", path, f"{cell[:40]!r} is no time in {unit}") from error


def _values(column: pa.Array) -> np.ndarray:
    if pa.types.is_timestamp(column.type):
        microseconds = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return np.asarray(microseconds, np.float64) * 1e-6
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _rows(lines: list[bytes], columns: int) -> list[bytes]:
    """Return the lines that are rows: a blank one is a missing sample of a single column, and nothing in several."""
    if columns == 1 or not (b"" in lines or b"\r" in lines):
        return lines
    return [line for line in lines if line not in (b"", b"\r")]


def _delimiter_of(*lines: str) -> str:
    """Return the first delimiter that every line has; the comma where the lines are single cells."""
    return next((mark for mark in _DELIMITERS if all(mark in line.strip() for line in lines)), _DELIMITERS[0])


def _split(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line without the quotes and blanks around them."""
    cells = next(csv.reader([line.strip("\r\n")], delimiter=delimiter, skipinitialspace=True))
    return [cell.strip().strip("'") for cell in cells or [""]]


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if _is_gzip(path) else open(path, "rb")


def _line_blocks(file: IO[bytes], path: str) -> Iterator[list[bytes]]:
    """Yield the file's lines in blocks; raises RecordingError at bytes that no text has."""
    rest = b""
    while block := file.read(_BLOCK):
        *lines, rest = (rest + block).removeprefix(codecs.BOM_UTF8).split(b"\n")
        if b"\0" in block or len(rest) > _LONGEST_LINE:
            raise RecordingError("not_a_recording", path, "is binary, or one endless line")
        yield lines
    if rest:
        yield [rest]


@contextlib.contextmanager
def _faults_named(path: str) -> Iterator[None]:
    """Turn what damaged files raise into a RecordingError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise RecordingError("missing_file", path, "no such file") from error
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowInvalid) as error:
        raise RecordingError("unreadable_file", path, str(error).splitlines()[0][:200]) from error
