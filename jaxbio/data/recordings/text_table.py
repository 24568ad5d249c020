"""The table in a text file: how it is written, what its columns are called, and where its rows begin and end.

Scanning reads a file once, block by block, and keeps the first block. What a cell means is decided in
`text_cells`, for scanning and reading alike.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.recording import HIGHEST_RATE_HZ, RecordingError
from jaxbio.data.recordings.text_cells import Dialect, Rows
from jaxbio.data.recordings.text_lines import read_blocks

_SEEN = 64  # lines that decide how a table is written
_HEAD = 2**18  # bytes whose cells decide what a column is, and the rate that stamps show: several whole seconds
_EMPTY = re.compile(rb"\n[ \t\r,;\"']*\n")  # lines that may be no rows
_MOST_ROWS = 2**27  # 12 days at 125 Hz: text cannot be sought, so its columns are held whole
_WRONG_FRAC = 0.1  # of the first rows: more wrong cells make it another kind of file
# Tried in this order, the first of the best counts: a comma is a delimiter before it is a decimal mark, and both only
# where quotes tell them apart.
_DIALECTS = (
    *(Dialect(mark, ".") for mark in (",", ";", "\t", " ", "")),
    *(Dialect(mark, ",") for mark in (";", "\t", " ", "", ",")),
)
_PAIRS = re.compile(rb"[-+]?\d+,\d+(?:,[-+]?\d+,\d+)*")
_POSIX_S = (9e8, 4.2e9)  # 1998 to 2103: what begins a file of the Empatica kind


@dataclass(frozen=True)
class Table:
    """A text file's shape: `names` and `units` of its columns, how it is written, lines before the first row, rows.

    `named` is False where the columns are numbered from 1. `rate_hz` and `start_time` are set by a preamble that
    states them.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    named: bool
    dialect: Dialect
    skipped: int
    rows: int
    rate_hz: float | None = None
    start_time: float | None = None


@dataclass(frozen=True)
class Scan:
    """What scanning a file found: its `table` and its first rows."""

    table: Table
    head: Rows


def scan_table(path: str, decimal: str | None = None, missing: Sequence[str] = ()) -> Scan:
    """Return the shape of the text file `path`; raises RecordingError for a file that is no table or is damaged.

    `decimal` is the decimal mark where the user says it, `missing` further words for a missing sample.
    """
    blocks = read_blocks(path)
    first = next(blocks, b"")
    top = _skip_preface(first)
    if top is None:
        raise RecordingError("empty_file", path, "no line of it holds anything")
    preface, mark = top
    body = _without_lines(first, preface)
    dialect = _choose_dialect(body, mark, decimal, path)._replace(missing=tuple(missing))
    header = _read_header(body, dialect)
    preamble = None if header.named else _read_preamble(_first_lines(body, _SEEN), dialect, len(header.names))
    start_time, rate_hz, header_lines = preamble or (None, None, header.lines)
    columns = len(header.names)
    rest = _without_lines(body, header_lines)
    head = Rows(rest[: rest.rfind(b"\n", 0, _HEAD) + 1] or rest, dialect, columns)
    rows = _count_rows(itertools.chain([rest], blocks), dialect, columns)
    if rows < 2:
        raise RecordingError("not_a_recording", path, "the lines are no table of two rows or more")
    if rows > _MOST_ROWS:
        raise RecordingError("unreadable_file", path, f"more than {_MOST_ROWS:,} rows: split it")
    table = Table(header.names, header.units, header.named, dialect, preface + header_lines, rows, rate_hz, start_time)
    _check_shape(table, head, path)
    return Scan(table, head)


def read_rows(path: str, table: Table) -> Iterator[tuple[int, int, Rows]]:
    """Yield (number of the first row, line in the file before the block's first, rows) over the file's blocks.

    Raises RecordingError for a damaged file, and for fewer rows than the table's.
    """
    skip, line, row = table.skipped, 0, 0
    for block in read_blocks(path):
        count = block.count(b"\n")
        behind = _without_lines(block, skip)
        if behind and row < table.rows:
            rows = Rows(behind, table.dialect, len(table.names))
            yield row, line + min(skip, count), rows
            row += len(rows)
        skip, line = max(0, skip - count), line + count
    if row < table.rows:
        raise RecordingError("truncated_file", path, f"has {row} of the {table.rows} rows it was listed with")


def _first_lines(block: bytes, count: int) -> bytes:
    """Return the first lines of a block of whole lines, at most so many."""
    return b"\n".join(block.split(b"\n", count)[:count]).rstrip(b"\n") + b"\n"


def _without_lines(block: bytes, count: int) -> bytes:
    """Return what follows the first `count` lines of a block of whole lines."""
    parts = block.split(b"\n", count)
    return parts[count] if len(parts) > count else b""


def _skip_preface(block: bytes) -> tuple[int, str] | None:
    """Return how many lines stand before the table, and the delimiter that one of them states (Excel's `sep=;`)."""
    mark = ""
    for number, line in enumerate(block.split(b"\n")):
        text = line.decode("utf-8", "replace").strip(" \r\"'")
        if text.casefold().startswith("sep=") and len(text) == 5:
            mark = text[4]
        elif text.strip() and not text.startswith("#"):
            return number, mark
    return None


def _choose_dialect(body: bytes, mark: str, decimal: str | None, path: str) -> Dialect:
    """Return how a table is written: the dialect in which most cells are numbers, times or missing."""
    lines = [line for line in _first_lines(body, _SEEN).split(b"\n") if line.strip()]
    sample = b"\n".join(lines) + b"\n"
    found = [dialect for dialect in _DIALECTS if decimal in (None, dialect.decimal) and mark in ("", dialect.delimiter)]
    # A delimiter stands in most lines behind the header.
    held = [
        one
        for one in found
        if np.mean([one.delimiter.encode() in _bare(line, one) for line in lines[1:] or lines]) > 0.5
    ]
    if not held:
        return found[0] if found else Dialect(mark or ",", decimal or ".")
    dialect = _best(sample, held)
    return _question_commas(sample, path) if dialect == Dialect(",") and decimal is None else dialect


def _best(sample: bytes, dialects: Sequence[Dialect]) -> Dialect:
    """Return the dialect in which most is understood, of equals the first."""
    shares: list[float] = []
    for dialect in dialects:
        shares.append(_share_understood(sample, dialect))
        if shares[-1] == 1.0:
            break
    return dialects[int(np.argmax(shares))]


def _bare(line: bytes, dialect: Dialect) -> bytes:
    """Return a line without the blanks around it that delimit nothing."""
    return line.strip(b" \t\r") if dialect.delimiter == " " else line.strip(b" \r")


def _share_understood(sample: bytes, dialect: Dialect) -> float:
    """Return the share of cells that are numbers, times or missing, behind the first line and in lines as long."""
    first, _, rest = sample.partition(b"\n")
    top = Rows(first + b"\n", dialect)
    if not dialect.delimiter and set(b",;\t") & set(first) and _numbers_and_words(top, 0)[1][0]:
        return 0.0  # the header names several columns
    columns = int(top.cells_R[0])
    rows = Rows(rest or sample, dialect, columns)
    return float(np.mean([~_numbers_and_words(rows, column)[1] for column in range(min(columns, _SEEN))]))


def _numbers_and_words(rows: Rows, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (bool, R) which cells of a column are numbers, and which are neither number, nor time, nor missing."""
    value_R, word_R = rows.numbers(column)
    for unit in ("s", "datetime"):
        if word_R.any():
            word_R = word_R & rows.times(column, unit)[1]
    return np.isfinite(value_R), word_R


def _question_commas(sample: bytes, path: str) -> Dialect:
    """Return how lines are written whose commas may be decimal marks: 1,044 is one number, 512,300 may be two.

    Whole numbers have no zero in front, and there is no -0. Raises RecordingError where commas are both.
    """
    lines = [line.strip() for line in sample.split(b"\n")[:-1]]
    cells = [line.decode().split(",") for line in lines if _PAIRS.fullmatch(line)]
    if len(cells) < len(lines) or len({len(line) for line in cells}) > 1:
        return Dialect(",")
    decimals = list(zip(*(line[1::2] for line in cells), strict=True))
    if any(len({len(digits) for digits in column}) > 1 for column in decimals):
        return Dialect(",")
    padded = all(any(digits[0] == "0" for digits in column if len(digits) > 1) for column in decimals)
    if padded or any("-0" in line for line in cells):
        if len(decimals) == 1:
            return Dialect("", ",")
        raise RecordingError("unreadable_file", path, "decimal commas between commas")
    if len(decimals) == 1 and len(set(decimals[0])) == 10:  # of one digit each: too many for a label
        detail = "decimal commas, or a delimiter? Say so with decimal=comma or decimal=point"
        raise RecordingError("unreadable_file", path, detail)
    return Dialect(",")


class _Header(NamedTuple):
    """What the first lines of a table say: `lines` of them are no rows."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    named: bool
    lines: int


def _read_header(body: bytes, dialect: Dialect) -> _Header:
    sample = _first_lines(body, _SEEN)
    rows = Rows(sample, dialect)
    names = rows.texts(0)
    if dialect.delimiter == " " and len(names) != rows.columns:
        # Names of several words in a table whose columns are set apart by more than one blank.
        wide = re.split(r"\t|\s{2,}", sample.split(b"\n")[rows.line_R[0]].decode("utf-8", "backslashreplace").strip())
        names = wide if len(wide) == rows.columns else names
    if rows.columns == len(names) + 1 and _counts(rows.numbers(0)[0][1:]):
        names = ["", *names]  # R gives row numbers no name
    width = len(names)
    found = [_numbers_and_words(Rows(sample, dialect, width), column) for column in range(width)]
    numbers_RC, words_RC = (np.stack(parts, axis=1) for parts in zip(*found))
    over_numbers_C = numbers_RC[1:].mean(axis=0) > 0.5 if len(rows) > 1 else np.zeros(width, bool)
    named = words_RC[0].any() and (not numbers_RC[0].any() or (words_RC[0] & over_numbers_C).any())
    if not named and not _numbers_columns(names, numbers_RC, rows):
        return _Header(tuple(str(number + 1) for number in range(rows.columns)), ("",) * rows.columns, False, 0)
    units = [""] * len(names)
    lines = 1
    if named and len(rows) > 2 and words_RC[1].any() and not numbers_RC[1].any():
        said = rows.texts(1)[: len(names)]
        units[: len(said)] = [text.strip("()[]{} ") for text in said]
        lines = 2
    return _Header(tuple(names), tuple(units), True, int(rows.line_R[lines - 1]) + 1)


def _numbers_columns(names: Sequence[str], numbers_RC: np.ndarray, rows: Rows) -> bool:
    """Whether a first line of numbers names columns 0, 1, ..., as pandas does, perhaps behind an empty cell."""
    counted = names[1:] if names[0] == "" else names
    if list(counted) != [str(number) for number in range(len(counted))] or not counted:
        return False
    if names[0] == "":
        return True
    # Rows that go on counting are numbered rows.
    return len(counted) > 1 and not _counts(rows.numbers(0)[0])


def _counts(value_R: np.ndarray) -> bool:
    """Whether values rise by one from row to row."""
    return len(value_R) > 1 and bool((np.diff(value_R) == 1.0).all())


def _read_preamble(top: bytes, dialect: Dialect, columns: int) -> tuple[float, float, int] | None:
    """Return POSIX start, rate and lines of a preamble of the Empatica kind: both in each column, above its samples."""
    rows = Rows(top, dialect, columns)
    if len(rows) < 4:
        return None
    top_C2 = np.array([rows.numbers(column)[0][:2] for column in range(rows.columns)])
    start_s, rate_hz = top_C2[0]
    if not (_POSIX_S[0] <= start_s <= _POSIX_S[1] and 0.0 < rate_hz <= HIGHEST_RATE_HZ and (top_C2 == top_C2[0]).all()):
        return None
    return float(start_s), float(rate_hz), int(rows.line_R[1]) + 1


def _count_rows(blocks: Iterable[bytes], dialect: Dialect, columns: int) -> int:
    """Return the number of rows up to the last that holds something."""
    total, count = 0, 0
    for block in blocks:
        if _EMPTY.search(b"\n" + block):
            rows = Rows(block, dialect, columns)
            filled = np.flatnonzero(rows.filled_R)
            found, until = len(rows), int(filled[-1]) + 1 if filled.size else 0
        else:
            found = until = block.count(b"\n")
        if until:
            count = total + until
        total += found
    return count


def _check_shape(table: Table, head: Rows, path: str) -> None:
    """Raise RecordingError where too many of the first rows have other columns than the table."""
    last = max((number for number, name in enumerate(table.names) if name), default=0)
    ragged_R = head.filled_R & ~head.has_cell(last)
    if ragged_R.mean() > _WRONG_FRAC:
        row = int(np.argmax(ragged_R))
        cells = f"{head.cells_R[row]} of {len(table.names)} columns"
        raise RecordingError("unreadable_file", path, f"line {table.skipped + head.line_R[row] + 1} has {cells}")
