"""Time stamps of rows: the rate that they show, samples that share a stamp, wrong ones, and signals on a regular grid.

Stamps are seconds. A clock coarser than the samples (whole seconds, or one stamp for a packet) gives several rows one
stamp; those rows lie evenly, at the rate that the stamps show together.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from jaxbio.data.recordings.recording import RecordingError

# Stamps further apart than both leave a gap: three samples (a camera drops single frames), and 0.1 s.
_GAP_SAMPLES, _GAP_S = 3.0, 0.1
_SAME_S = 1e-6  # the finest clock that text states
WRONG_STAMP = "the stamp is earlier than the one before, or far off"
_PIECE = 2**18  # samples interpolated at once
_RATE_ROWS = 64  # rows that a rate is taken over: more than a coarse clock's ticks, fewer than lie between gaps
_COARSE_FRAC = 0.1  # of the rows: so many repeat the stamp before them only where the clock is coarse
_SMOOTHED_TICKS = 16
_MOST_EMPTY = 1000.0  # times what its rows fill may a recording span: half a minute every eight hours does


@dataclass(frozen=True)
class Clock:
    """How rows follow each other: at `rate_hz` on average, by a clock that ticks every `tick_s` (0.0: row by row)."""

    rate_hz: float
    tick_s: float = 0.0

    @property
    def gap_s(self) -> float:
        """The longest time between neighbours that is no gap."""
        return max(_GAP_SAMPLES / self.rate_hz, _GAP_S)


def find_wrong_stamps(time_s: np.ndarray) -> np.ndarray:
    """Return (bool) which stamps are missing, stand out between neighbours that rise, or fall behind others."""
    wrong_R = ~np.isfinite(time_s)
    at = np.flatnonzero(~wrong_R)
    falls = np.flatnonzero(np.diff(time_s[at]) < 0.0)
    if not falls.size:
        return wrong_R
    # Of two that fall, the first is wrong where without it time rises, else the second, and what is not past the first.
    before = np.where(falls > 0, time_s[at[falls - 1]], -np.inf)
    wrong_R[at[np.where(before <= time_s[at[falls + 1]], falls, falls + 1)]] = True
    at = np.flatnonzero(~wrong_R)
    wrong_R[at] = time_s[at] < np.maximum.accumulate(time_s[at])
    return wrong_R


def find_clock(time_s: np.ndarray) -> Clock | None:
    """Return the clock that rising stamps show, its rate to six digits; None where they do not advance.

    The rate is the median over spans of 64 rows, from one change of the stamp to another: neither gaps nor a coarse
    clock move it.
    """
    change = np.flatnonzero(np.diff(time_s) > 0.0) + 1
    if not len(change):
        return None
    repeated = 1.0 - (len(change) + 1) / len(time_s)
    coarse = repeated > _COARSE_FRAC
    # What precedes the first change of a coarse clock, and follows its last, may be part of a tick.
    first = change if coarse and len(change) > 1 else np.append(0, change)
    later = np.searchsorted(first, first + _RATE_ROWS)
    whole = later < len(first)
    if whole.any():
        rows, spans_s = first[later[whole]] - first[whole], time_s[first[later[whole]]] - time_s[first[whole]]
        rate_hz = float(np.median(rows / spans_s))
    else:
        rate_hz = float((first[-1] - first[0]) / (time_s[first[-1]] - time_s[first[0]]))
    tick_s = float(np.median(np.diff(time_s[np.append(0, change)]))) if coarse else 0.0
    return Clock(float(f"{rate_hz:.6g}"), tick_s)


def measure_clock(first_s: np.ndarray, time_s: np.ndarray, path: str) -> tuple[Clock, float]:
    """Return the clock that right stamps `first_s` show, and the seconds from the first to the last row of `time_s`.

    `time_s` are all right stamps, rising. Raises RecordingError `bad_time` where they do not advance, and where they
    span a thousand times what their rows fill: a clock that was set forward would make windows without end.
    """
    clock = find_clock(first_s)
    span_s = _span_of(time_s, clock) if clock is not None else 0.0
    if clock is None or not 0.0 < span_s < np.inf:
        raise RecordingError("bad_time", path, "the time stamps do not advance")
    filled_s = len(time_s) / clock.rate_hz
    if span_s > _MOST_EMPTY * filled_s:
        detail = f"its {len(time_s)} rows fill {filled_s:.6g} s, and their time stamps span {span_s:.6g} s"
        raise RecordingError("bad_time", path, f"{detail}: a clock that was set forward? Split the file there")
    return clock, span_s


def place_stamps(time_s: np.ndarray, right_R: np.ndarray, clock: Clock) -> np.ndarray:
    """Return where rows lie, in s from the first right one: those without a right stamp where the one before does."""
    right_s = spread_rows(time_s[right_R], clock) if clock.tick_s else time_s[right_R]
    place_R = np.zeros(len(right_R))
    place_R[right_R] = right_s - right_s[0]
    return np.maximum.accumulate(place_R)


def _span_of(time_s: np.ndarray, clock: Clock) -> float:
    first_s, last_s = float(time_s[0]), float(time_s[-1])
    if clock.tick_s:
        # The rows of the first tick are its last ones, and those of the last its first.
        head, tail = int(np.sum(time_s == first_s)), int(np.sum(time_s == last_s))
        if head < len(time_s):
            first_s = max(first_s, float(time_s[head]) - head / clock.rate_hz)
        last_s += (tail - 1) / clock.rate_hz
    return last_s - first_s


def spread_rows(time_s: np.ndarray, clock: Clock) -> np.ndarray:
    """Return rising times of rows whose stamps are those of a coarse clock, evenly spread between gaps.

    A row lies at its number over the rate plus an offset; the offset is the mean over 16 ticks, so it follows drift.
    """
    rows = np.arange(len(time_s))
    change = np.flatnonzero(np.diff(time_s) > 0.0) + 1
    starts = np.append(0, change)
    passed_s = np.diff(starts) / clock.rate_hz
    gap = np.diff(time_s[starts]) > passed_s + clock.tick_s + clock.gap_s
    edges = np.concatenate([[0], change[gap], [len(time_s)]])
    offset_s = time_s - rows / clock.rate_hz
    width = max(1, round(_SMOOTHED_TICKS * clock.tick_s * clock.rate_hz))
    for first, stop in itertools.pairwise(edges):
        run_s = offset_s[first:stop]
        if len(run_s) <= width:
            run_s[:] = run_s.mean()
        else:
            total = np.append(0.0, np.cumsum(run_s - run_s[0]))
            mean_s = (total[width:] - total[:-width]) / width + run_s[0]
            run_s[:] = np.pad(mean_s, (width // 2, width - 1 - width // 2), mode="edge")
    return np.maximum.accumulate(offset_s + rows / clock.rate_hz)


@dataclass(frozen=True)
class Placed:
    """A signal whose samples lie where their stamps say: `value` (R,) at `time_s` (R,), strictly rising.

    It is interpolated when it is read, so that it takes the memory of its rows, however long the gaps between them.
    """

    time_s: np.ndarray
    value: np.ndarray
    rate_hz: float
    gap_s: float

    def span(self, first: int, last: int) -> np.ndarray:
        """Return samples [first, last) of the grid at `rate_hz` from 0 s, interpolated linearly, float32.

        NaN where a neighbour is missing or the neighbours lie more than gap_s apart.
        """
        resampled = np.empty(last - first, np.float32)
        for begin in range(first, last, _PIECE):
            end = min(begin + _PIECE, last)
            resampled[begin - first : end - first] = self._at(np.arange(begin, end) / self.rate_hz)
        return resampled

    def _at(self, grid_s: np.ndarray) -> np.ndarray:
        before = np.maximum(np.searchsorted(self.time_s, grid_s + _SAME_S, side="right") - 1, 0)
        after = np.minimum(before + 1, len(self.time_s) - 1)
        step_s = self.time_s[after] - self.time_s[before]
        passed_s = grid_s - self.time_s[before]
        weight = passed_s / np.where(step_s > 0.0, step_s, 1.0)
        between = self.value[before] + weight * (self.value[after] - self.value[before])
        # Beyond the ends there is nothing to lie between.
        between[(step_s > self.gap_s) | (passed_s < 0.0) | (passed_s > self.gap_s)] = np.nan
        # On a stamp its own value counts, whatever comes after it.
        return np.where(np.abs(passed_s) <= _SAME_S, self.value[before], between)


def place_signal(time_s: np.ndarray, signal: np.ndarray, rate_hz: float, gap_s: float) -> Placed:
    """Return a signal (R,) at its rising time stamps, for reading at rate_hz; of equal stamps the mean counts."""
    rising = time_s[1:] > time_s[:-1]
    if rising.all():
        return Placed(time_s, signal, rate_hz, gap_s)
    firsts = np.flatnonzero(np.append(True, rising))
    mean = np.add.reduceat(signal, firsts, dtype=np.float64) / np.diff(np.append(firsts, len(time_s)))
    return Placed(time_s[firsts], mean, rate_hz, gap_s)


@dataclass(frozen=True)
class Wrong:
    """What is wrong in a column and its stamps: when (s, rising), and in which words; `faults` are (reason, detail)."""

    at_s: np.ndarray
    faults: tuple[tuple[str, str], ...]

    def check(self, path: str, start_s: float, stop_s: float) -> None:
        """Raise RecordingError for the first that lies in the span."""
        inside = np.flatnonzero((self.at_s >= start_s) & (self.at_s < stop_s))
        if inside.size:
            reason, detail = self.faults[min(int(inside[0]), len(self.faults) - 1)]
            more = f" (and {inside.size - 1} more in this span)" if inside.size > 1 else ""
            raise RecordingError(reason, path, detail + more)
