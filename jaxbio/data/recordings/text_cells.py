"""Cells of lines of text, and the one rule by which a cell is a number, a time, missing, or wrong.

Scanning a file and reading it go through the same functions here, so that what one accepts the other reads. Columns
are taken out of a block of lines at once, by positions of newlines and delimiters; no line is touched alone.

    rows = Rows(b"1.5, -\\n2,x\\n", Dialect(","), columns=2)
    rows.numbers(0), rows.numbers(1)        # ([1.5, 2.0], none wrong), ([nan, nan], the second wrong)
"""

import contextlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_AROUND = " \t\r\"'"  # what may stand around a cell and is not part of it
_MISSING = (
    *("", "na", "n/a", "n.a.", "<na>", "nan", "null", "nil", "none", "nat", "void", "missing", "undefined", "undef"),
    *("invalid", "error", "off", "inop", "no data", "nodata", "#n/a", "n/d", "nd"),
)
# not-a-number as C libraries print it, a row of dashes and the like, a fault of a spreadsheet (#N/A, #VALUE!, #DIV/0!)
_MISSING_MARKS = r"^(?:[-+]?nan(?:\(\w*\))?|[-+]?1\.#\w+|[-?.*_~=\x{2013}\x{2014}]+|#[a-z/]+[0-9]*[!?/]?[0-9]*!?)$"
_CLOCK = r"^(?:\d+:)?\d+:\d+(?:\.\d*)?$"
_DATETIME = (
    r"^(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})"
    r"(?:[Tt ]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d*)?))?)?"
    r"\s*(?:[Zz]|UTC|GMT|(?P<zone_hour>[-+]\d{2})(?::?(?P<zone_minute>\d{2}))?)?$"
)


class Dialect(NamedTuple):
    """How a table is written: `delimiter` of cells (" ": any number of blanks, "": one cell a line), `decimal` mark,
    and further words for "missing", without case.
    """

    delimiter: str
    decimal: str = "."
    missing: tuple[str, ...] = ()


class Rows:
    """The rows among the lines of `block`, whose lines all end in a newline, of a table of so many `columns`.

    A line without a cell is a row (a missing sample) only in a table of one column. `line_R` is each row's number among
    the lines of the block, `cells_R` how many cells it has, `filled_R` whether any of them holds something.
    """

    def __init__(self, block: bytes, dialect: Dialect, columns: int | None = None):
        self._dialect = dialect
        self._byte_N = byte_N = np.frombuffer(block, np.uint8)
        stop_L = np.flatnonzero(byte_N == ord("\n"))
        start_L = np.append(0, stop_L[:-1] + 1)
        self._content_N = np.append(0, np.cumsum(_content_of(dialect)[byte_N], dtype=np.int32))
        filled_L = self._content_N[stop_L] > self._content_N[start_L]
        self._start_M, self._stop_M = self._mark_cells(start_L, stop_L)
        first_L = np.searchsorted(self._start_M, start_L)
        cells_L = np.searchsorted(self._start_M, stop_L, side="right") - first_L
        self.columns = columns or (int(np.bincount(cells_L[filled_L]).argmax()) if filled_L.any() else 1)
        is_row_L = np.ones(len(stop_L), bool) if self.columns == 1 else filled_L | (cells_L > 1)
        self.line_R = np.flatnonzero(is_row_L)
        self.filled_R = filled_L[is_row_L]
        self.cells_R = cells_L[is_row_L]
        self._first_R, self._stop_R = first_L[is_row_L], stop_L[is_row_L]

    def __len__(self) -> int:
        return len(self.line_R)

    def _mark_cells(self, start_L: np.ndarray, stop_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where each cell of the block starts and stops."""
        if self._dialect.delimiter == " ":
            inside_N = np.append(~np.isin(self._byte_N, np.frombuffer(b" \t\r\n", np.uint8)), False)
            edges_N = np.flatnonzero(np.diff(inside_N, prepend=False))
            return edges_N[0::2], edges_N[1::2]
        if not self._dialect.delimiter:
            return start_L, stop_L
        mark_N = self._byte_N == ord(self._dialect.delimiter)
        quote_N = self._byte_N == ord('"')
        if quote_N.any():  # between quotes a delimiter is text
            quotes_N = np.cumsum(quote_N, dtype=np.int32)
            before_L = np.append(0, quotes_N)[start_L]
            line_N = np.repeat(np.arange(len(start_L)), stop_L + 1 - start_L)
            mark_N &= (quotes_N - before_L[line_N]) % 2 == 0
        mark_M = np.flatnonzero(mark_N)
        start_M = np.sort(np.concatenate([start_L, mark_M + 1]), kind="stable")
        return start_M, np.sort(np.concatenate([mark_M, stop_L]), kind="stable")

    def has_cell(self, column: int) -> np.ndarray:
        """Return (bool, R) which rows have `column`, and hold nothing behind the last column of the table."""
        behind_R = self.cells_R > self.columns
        if behind_R.any():
            after_M = np.append(self._start_M, len(self._byte_N))[
                np.minimum(self._first_R + self.columns, len(self._start_M))
            ]
            rest_R = self._content_N[self._stop_R] > self._content_N[np.minimum(after_M, self._stop_R)]
            behind_R &= rest_R
        return (self.cells_R > column) & ~behind_R

    def texts(self, row: int) -> list[str]:
        """Return the cells of one row as text; bytes that are no text become backslash escapes."""
        cells = range(self._first_R[row], self._first_R[row] + self.cells_R[row])
        raw = [bytes(self._byte_N[self._start_M[cell] : self._stop_M[cell]]) for cell in cells]
        return [text.decode("utf-8", "backslashreplace").strip(_AROUND) for text in raw]

    def cell(self, row: int, column: int) -> str:
        """Return one cell as text, empty where the row lacks it."""
        return dict(enumerate(self.texts(row))).get(column, "")

    def fault(self, row: int, column: int, kind: str) -> str:
        """Say why a cell is no `kind`."""
        if not self.has_cell(column)[row]:
            return f"{self.cells_R[row]} cells in the place of {self.columns}"
        return f"{self.cell(row, column)[:40]!r} is no {kind}"

    def cells(self, column: int) -> pa.StringArray:
        """Return the cells of a column without what stands around them; those that a row lacks are empty."""
        there_R = self.cells_R > column
        cell_R = np.where(there_R, self._first_R + column, 0)
        start_R = np.where(there_R, self._start_M[cell_R], 0)
        length_R = np.where(there_R, self._stop_M[cell_R] - start_R, 0)
        offset_R = np.append(0, np.cumsum(length_R)).astype(np.int32)
        place_K = np.repeat(start_R - offset_R[:-1], length_R) + np.arange(offset_R[-1])
        buffers = [None, pa.py_buffer(offset_R), pa.py_buffer(self._byte_N[place_K])]
        return pc.ascii_trim(pa.StringArray.from_buffers(len(self), *buffers[1:]), _AROUND)

    def numbers(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a column's values (float64, NaN where missing or wrong) and where they are wrong (bool)."""
        return self._checked(column, *read_numbers(self.cells(column), self._dialect))

    def times(self, column: int, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column's time stamps in s (float64; POSIX of a datetime; NaN where wrong), and where that is."""
        return self._checked(column, *read_times(self.cells(column), unit, self._dialect))

    def _checked(self, column: int, value_R: np.ndarray, wrong_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wrong_R = wrong_R | ~self.has_cell(column)
        return np.where(wrong_R, np.nan, value_R), wrong_R


def _content_of(dialect: Dialect) -> np.ndarray:
    """Return for each of 256 bytes whether it is content: neither blank, delimiter nor end of a line.

    Quotes are none either, except in a single column, where "" is a missing sample that somebody wrote.
    """
    content = np.ones(256, np.uint8)
    around = _AROUND if dialect.delimiter else " \t\r"
    content[list(f"{around}\n{dialect.delimiter}".encode())] = 0
    return content


def read_numbers(cells: pa.StringArray, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of cells (float64, NaN where missing or wrong) and which cells are wrong (bool)."""
    if dialect.decimal == ",":
        cells = pc.replace_substring(cells, ",", ".")
    lower = pc.ascii_lower(cells)
    words = pa.array([*_MISSING, *dialect.missing])
    cells = pc.if_else(pc.is_in(lower, words), None, cells)
    wrong_R = np.zeros(len(cells), bool)
    try:
        numbers = pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(lower, r"^[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?)$")
        marks = pc.match_substring_regex(lower, _MISSING_MARKS)
        known = pc.or_(pc.or_(good, marks), pc.is_null(cells))
        wrong_R = ~known.to_numpy(zero_copy_only=False)
        numbers = pc.cast(pc.if_else(good, cells, None), pa.float64())
    return numbers.to_numpy(zero_copy_only=False), wrong_R


def read_times(cells: pa.StringArray, unit: str, dialect: Dialect) -> tuple[np.ndarray, np.ndarray]:
    """Return the time stamps of cells in s and which cells are none; `unit` is one of `source.TIME_UNITS`.

    Datetimes are POSIX seconds, a clock without a zone taken as UTC. Seconds may be written as a clock, [hh:]mm:ss.sss.
    """
    if unit == "datetime":
        stamp_R = _read_datetimes(cells)
    else:
        stamp_R, _ = read_numbers(cells, dialect)
        if unit == "s" and not np.isfinite(stamp_R).all():
            stamp_R = np.where(np.isfinite(stamp_R), stamp_R, _read_clocks(cells))
        stamp_R = stamp_R * (1e-3 if unit == "ms" else 1.0)
    return stamp_R, ~np.isfinite(stamp_R)


def _read_clocks(cells: pa.StringArray) -> np.ndarray:
    """Return seconds of cells written as [hours:]minutes:seconds, NaN of others."""
    text = pc.replace_substring(cells, ",", ".")
    is_clock = pc.match_substring_regex(text, _CLOCK)
    if not pc.any(is_clock).as_py():
        return np.full(len(cells), np.nan)
    parts = pc.split_pattern(pc.if_else(is_clock, text, "nan"), ":")
    seconds_R = np.zeros(len(cells))
    for place in range(3):  # hours, minutes, seconds, from the right
        length = pc.list_value_length(parts).to_numpy(zero_copy_only=False)
        has = length > place
        flat = pc.cast(pc.list_flatten(parts), pa.float64()).to_numpy(zero_copy_only=False)
        last = np.cumsum(length) - 1 - place
        seconds_R[has] += flat[last[has]] * 60.0**place
    return seconds_R


def _read_datetimes(cells: pa.StringArray) -> np.ndarray:
    """Return POSIX seconds of ISO 8601 cells, with or without a zone, NaN of others."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        # Arrow alone where it can: all cells of one kind, down to microseconds.
        with contextlib.suppress(pa.ArrowInvalid):
            stamps = pc.cast(pc.cast(cells, kind), pa.int64())
            return np.asarray(stamps.to_numpy(zero_copy_only=False), np.float64) * 1e-6
    if not pc.any(pc.match_substring_regex(cells, r"^\d{4}[-/]\d")).as_py():
        return np.full(len(cells), np.nan)
    found = pc.extract_regex(pc.replace_substring(cells, ",", "."), _DATETIME)
    part = {field.name: _part(found, field.name) for field in found.type}
    month = (part["year"] - 1970).astype("M8[Y]").astype("M8[M]") + (part["month"] - 1).astype("m8[M]")
    day = month.astype("M8[D]") + (part["day"] - 1).astype("m8[D]")
    west = pc.starts_with(pc.fill_null(pc.struct_field(found, "zone_hour"), ""), "-")
    zone_minute = np.where(west.to_numpy(zero_copy_only=False), -1, 1) * part["zone_minute"]
    seconds_R = 86_400.0 * day.astype(np.int64) + 3600.0 * (part["hour"] - part["zone_hour"])
    seconds_R += 60.0 * (part["minute"] - zone_minute) + part["second"]
    right_R = (part["hour"] < 24) & (part["minute"] < 60) & (part["second"] < 61) & (day.astype("M8[M]") == month)
    right_R &= found.is_valid().to_numpy(zero_copy_only=False) & (part["month"] >= 1) & (part["month"] <= 12)
    return np.where(right_R, seconds_R, np.nan)


def _part(found: pa.StructArray, name: str) -> np.ndarray:
    """Return a group of a pattern as numbers, 0 where it is empty: seconds with decimals, the others whole."""
    text = pc.fill_null(pc.struct_field(found, name), "")
    number = pc.cast(pc.if_else(pc.equal(text, ""), "0", text), pa.float64()).to_numpy(zero_copy_only=False)
    return number if name == "second" else number.astype(np.int64)
