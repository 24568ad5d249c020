"""Time stamps of rows: the rate that they show, samples that share a stamp, and signals on a regular grid.

Stamps are seconds. A clock coarser than the samples (whole seconds, or one stamp for a packet) gives several rows one
stamp; those rows lie evenly, at the rate that the stamps show together.
"""

import itertools
from dataclasses import dataclass

import numpy as np

# Stamps further apart than both leave a gap: three samples (a camera drops single frames), and 0.1 s.
_GAP_SAMPLES, _GAP_S = 3.0, 0.1
_SAME_S = 1e-6  # the finest clock that text states
_PIECE = 2**18  # samples interpolated at once
_RATE_ROWS = 64  # rows that a rate is taken over: more than a coarse clock's ticks, fewer than lie between gaps
_COARSE_FRAC = 0.1  # of the rows: so many repeat the stamp before them only where the clock is coarse
_SMOOTHED_TICKS = 16


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


def span_of(head_s: np.ndarray, tail_s: np.ndarray, clock: Clock) -> float:
    """Return the seconds from the first row to the last, by the stamps of the first rows and of the last."""
    first_s, last_s = float(head_s[0]), float(tail_s[-1])
    if clock.tick_s:
        # The rows of the first tick are its last ones, and those of the last its first.
        head, tail = int(np.sum(head_s == first_s)), int(np.sum(tail_s == last_s))
        later_s = head_s[head_s > first_s]
        if len(later_s):
            first_s = max(first_s, float(later_s[0]) - head / clock.rate_hz)
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


def resample_stamps(time_s: np.ndarray, signal: np.ndarray, rate_hz: float, samples: int, gap_s: float) -> np.ndarray:
    """Return `samples` values at rate_hz, interpolated linearly between the rising time stamps `time_s`, float32.

    Of equal stamps the mean counts. NaN where a neighbour is missing or the neighbours lie more than gap_s apart.
    """
    stamps_s, value = time_s, signal
    rising = time_s[1:] > time_s[:-1]
    if not rising.all():
        firsts = np.flatnonzero(np.append(True, rising))
        stamps_s = time_s[firsts]
        value = np.add.reduceat(signal, firsts, dtype=np.float64) / np.diff(np.append(firsts, len(time_s)))
    resampled = np.empty(samples, np.float32)
    for first in range(0, samples, _PIECE):
        grid_s = np.arange(first, min(first + _PIECE, samples)) / rate_hz
        before = np.maximum(np.searchsorted(stamps_s, grid_s + _SAME_S, side="right") - 1, 0)
        after = np.minimum(before + 1, len(stamps_s) - 1)
        step_s = stamps_s[after] - stamps_s[before]
        passed_s = grid_s - stamps_s[before]
        weight = passed_s / np.where(step_s > 0.0, step_s, 1.0)
        between = value[before] + weight * (value[after] - value[before])
        # Beyond the ends there is nothing to lie between.
        between[(step_s > gap_s) | (passed_s < 0.0) | (passed_s > gap_s)] = np.nan
        # On a stamp its own value counts, whatever comes after it.
        resampled[first : first + len(grid_s)] = np.where(np.abs(passed_s) <= _SAME_S, value[before], between)
    return resampled
