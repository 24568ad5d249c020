"""The clock of a Parquet or Arrow file: a column of time stamps, a column that holds the rate, or its metadata.

stamps = find_stamps(path, look_into(path), ("time", "datetime"))
"""

from typing import NamedTuple

import numpy as np

from jaxbio.data.recordings.array_paths import RATE_NAMES
from jaxbio.data.recordings.arrow_columns import Look, read_columns
from jaxbio.data.recordings.channels import same_name
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.text_clock import WRONG_STAMP, Clock, Wrong, find_wrong_stamps, measure_clock, place_stamps

_WRONG_FRAC = 0.1  # of the stamps, as in text
_MOST_QUOTED = 1000  # wrong stamps that are named one by one


class Stamps(NamedTuple):
    """A column of time stamps, and `factor` from it to s; their clock, s from first to last, and POSIX start if any."""

    column: str
    factor: float
    clock: Clock
    span_s: float
    start_time: float | None


def find_stamps(path: str, look: Look, time: tuple[str, str]) -> Stamps:
    """Return the stamps in `time` (column, unit); raises RecordingError `bad_time` where they are none."""
    called, unit = time
    column = next((name for name in look.types if same_name(name) == same_name(called)), None)
    if column is None:
        raise RecordingError("bad_time", path, f"has no column {called!r}; it has {', '.join(look.types)}")
    factor = 1e-3 if unit == "ms" else 1.0
    time_s = read_columns(path, [column], look.rows, np.float64)[column] * factor
    wrong_R = find_wrong_stamps(time_s)
    if wrong_R.mean() > _WRONG_FRAC:
        detail = f"{_fault_of(time_s, int(np.argmax(wrong_R)), column)}; so are {wrong_R.sum()} of {look.rows} stamps"
        raise RecordingError("bad_time", path, detail)
    clock, span_s = measure_clock(time_s[~wrong_R], time_s[~wrong_R], path)
    start_time = float(time_s[~wrong_R][0]) if unit == "datetime" else None
    return Stamps(column, factor, clock, span_s, start_time)


def place_rows(path: str, stamps: Stamps, held_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, Wrong]:
    """Return which rows have a right time (bool), where all lie in s from the first of them, and what is wrong.

    A row without a right stamp lies where the one before it does, and is wrong where it holds a sample (`held_R`).
    """
    time_s = read_columns(path, [stamps.column], len(held_R), np.float64)[stamps.column] * stamps.factor
    right_R = ~find_wrong_stamps(time_s)
    if not right_R.any():
        raise RecordingError("bad_time", path, "no row has a time stamp")
    place_R = place_stamps(time_s, right_R, stamps.clock)
    wrong = np.flatnonzero(~right_R & held_R)
    faults = tuple(("bad_time", _fault_of(time_s, row, stamps.column)) for row in wrong[:_MOST_QUOTED].tolist())
    return right_R, place_R, Wrong(place_R[wrong], faults)


def _fault_of(time_s: np.ndarray, row: int, column: str) -> str:
    """Say why the stamp of a row is wrong."""
    return f"row {row + 1}, column {column!r}: {WRONG_STAMP if np.isfinite(time_s[row]) else 'no time'}"


def stated_rate(path: str, look: Look) -> float | None:
    """Return the rate of a column, or of an entry of the file's metadata, that is called as rates are; or None."""
    for name in RATE_NAMES:
        if name in look.metadata or name in look.types:
            return said_rate(path, look, look.metadata.get(name, name))
    return None


def said_rate(path: str, look: Look, said: str) -> float:
    """Return the rate that is said: a number, or the column that has it in every row."""
    if said not in look.types:
        try:
            return float(said)
        except ValueError:
            raise RecordingError("bad_rate", path, f"has no column {said!r}; it has {', '.join(look.types)}") from None
    value_R = read_columns(path, [said], look.rows)[said]
    known_R = value_R[np.isfinite(value_R)]
    if not known_R.size or known_R.min() != known_R.max():
        raise RecordingError("bad_rate", path, f"the column {said!r} does not hold one rate")
    return float(known_R[0])
