"""Which 0.1-s cells of a segment are artefact: lost, pinned at a limit, disturbed, or of beats that are worth little.

What sways, swells or trembles far beyond the quiet part of its own segment is artefact even where beats look like
beats. Rhythm is none: windows hold a beat or two and are compared by size, never by when the beats come; and a swell
is none where every beat in it is one, as when a pulse comes back after ventricular tachycardia.

Most constants were chosen on artefacts planted on synthetic segments of even seed and on the even-numbered records of
BIDMC and CinC 2015; those of sway and of the quiet part also on the odd seeds that tests/signals/test_disturbances.py
uses. On 24 seeds that had no part in it 137 of its 138 synthetic checks hold; the other misses 0.1 by 0.002.

    worth_BK = spread(beats, worth_J, cells=300, duration_s=30.0)
    artefact_BK = find_artefacts(x_BT, lost_BK, pinned_BK, worth_BK, sway_quiet=4.0)
"""

from functools import lru_cache

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.beats import Beats

CELL_S = 0.1  # grid on which artefacts of several channels are joined
BEAT_REACH_S = 1.5  # farther from a beat than this, a signal without beats is artefact
LEAST_WORTH = 0.5  # of a beat in [0, 1]: with less it is artefact
SURE_WORTH = 0.9  # with so much it is a beat, however large

# The measure of a segment is its quiet part: this quantile of its cells, of those whose beats count.
QUIET = 0.15
MIN_QUIET_S = 5.0  # of less than this all that was not lost is taken

# Limits, as multiples of the quiet RMS of the signal and of the quiet part's own value of the same quantity.
# Range of the baseline within 2.1 s. Of clean synthetic segments and clean leads it stays below 1.6 and 1.9 RMS in
# breathing, fibrillation and ectopy; planted wander or motion of -5 dB has a median of 2.8, of -10 dB of 4.8.
SWAY_RMS = 2.2
SWAY_QUIETEST = 0.05  # the quantile that a sway is measured by: beats are counted on a swaying baseline too
SWAY_ON = 0.5  # a disturbance reaches as far as half of that
# RMS within 2.1 s: ventricular beats among narrow ones stay below 2.4.
SIZE_RMS = 3.0
# RMS of the steps between samples, between beats: clean ones stay below 0.2; noise of -5 dB has 0.8 and more.
ROUGH_RMS, ROUGH_QUIET = 0.4, 3.0

# Windows and gaps, in cells
_WINDOW = 21  # holds a beat at 30 a minute
_BASELINE = (9, 7)  # two means in a row: little remains of beats from 60 a minute up
_BETWEEN = 5  # up to 150 beats a minute, holds a cell without QRS complex or upslope
_SWAY_REACH, _SIZE_REACH = 6, 3  # by how much those windows see a disturbance from outside
_SWAY_GAP = 10  # a slow wave rests this long at its turns
_PIN_GAP, _PIN_REACH = 21, 4  # clipped in every beat is clipped throughout; a clipped beat is so as a whole
_GAP = 8  # less than a beat between two artefacts is nothing to rely on


def spread(beats: Beats, worth_J: np.ndarray, cells: int, duration_s: float) -> np.ndarray:
    """Return the worth (B, K) of the beat nearest to each cell; 0 more than 1.5 s from any."""
    same_J = beats.row_J[1:] == beats.row_J[:-1]
    middle_J = 0.5 * (beats.time_J[1:] + beats.time_J[:-1])
    start_J, stop_J = beats.time_J - BEAT_REACH_S, beats.time_J + BEAT_REACH_S
    start_J[1:] = np.where(same_J, np.maximum(start_J[1:], middle_J), start_J[1:])
    stop_J[:-1] = np.where(same_J, np.minimum(stop_J[:-1], middle_J), stop_J[:-1])
    base_J, size = beats.row_J * (cells + 1), len(beats.count_B) * (cells + 1)
    number_J = np.arange(1, len(worth_J) + 1)  # 0 is no beat
    first_J, last_J = (
        base_J + np.rint(edge_J / duration_s * cells).astype(np.intp).clip(0, cells) for edge_J in (start_J, stop_J)
    )
    edge_K = np.bincount(first_J, number_J, minlength=size) - np.bincount(last_J, number_J, minlength=size)
    owner_BK = np.cumsum(edge_K.reshape(-1, cells + 1)[:, :cells], axis=-1).astype(np.intp)
    return np.append(0.0, worth_J)[owner_BK]


def find_artefacts(
    x_BT: np.ndarray, lost_BK: np.ndarray, pinned_BK: np.ndarray, worth_BK: np.ndarray, *, sway_quiet: float
) -> np.ndarray:
    """Return which cells (B, K) are artefact.

    x_BT: the signal at 300 Hz, in any unit. lost_BK: cells with a lost sample; pinned_BK: with one that rests at a
    limit. worth_BK: what the nearest beat is worth. sway_quiet: a baseline may sway so many times what it
    does in its quietest part.
    """
    pinned_BK = filters.grown(_bridged(pinned_BK, _PIN_GAP), _PIN_REACH)
    disturbed_BK = _disturbed(x_BT, lost_BK, worth_BK, pinned_BK, sway_quiet)
    return _bridged(lost_BK | pinned_BK | disturbed_BK | (worth_BK < LEAST_WORTH), _GAP)


def count_cells(duration_s: float) -> int:
    """Return K, the number of cells of a segment."""
    return max(1, round(duration_s / CELL_S))


def cells_of(flag_BN: np.ndarray, cells: int) -> np.ndarray:
    """Return which of K equal cells hold a flagged sample: (B, N) to (B, K) bool."""
    rows, samples = flag_BN.shape
    cell_BK = np.zeros((rows, cells), bool)
    if len(some_R := np.flatnonzero(flag_BN.any(axis=-1))):
        cell_BK[some_R] = np.logical_or.reduceat(flag_BN[some_R], (np.arange(cells) * samples) // cells, axis=-1)
    return cell_BK


def _disturbed(
    x_BT: np.ndarray, lost_BK: np.ndarray, worth_BK: np.ndarray, pinned_BK: np.ndarray, sway_quiet: float
) -> np.ndarray:
    """Return which cells sway, swell or tremble beyond the limits, against the quiet part of the cells that count."""
    mean_BK, power_BK, step_BK = _moments(x_BT, lost_BK)
    quiet_BK = (worth_BK >= LEAST_WORTH) & ~pinned_BK & ~lost_BK
    few_B = quiet_BK.sum(axis=-1) < MIN_QUIET_S / CELL_S
    quiet_BK |= few_B[:, None] & ~lost_BK

    middle_BK = _mean(mean_BK, _WINDOW)
    size_BK = np.sqrt(np.maximum(_mean(power_BK, _WINDOW) - middle_BK * middle_BK, 0))
    rms_B1 = _quiet(size_BK, quiet_BK, QUIET)
    swollen_BK = (size_BK > SIZE_RMS * rms_B1) & (worth_BK < SURE_WORTH)
    disturbed_BK = _narrowed(swollen_BK, _SIZE_REACH)

    baseline_BK = _mean(_mean(mean_BK, _BASELINE[0]), _BASELINE[1])
    sway_BK = filters.running_max(baseline_BK, _WINDOW) + filters.running_max(-baseline_BK, _WINDOW)
    limit_BK = np.maximum(SWAY_RMS * rms_B1, sway_quiet * _quiet(sway_BK, quiet_BK, SWAY_QUIETEST))
    # where beats are sure and large, the baseline sways with their size
    beat_BK = np.sqrt(_mean(np.maximum(power_BK - mean_BK * mean_BK, 0), _WINDOW))
    usual_B1 = _quiet(beat_BK, quiet_BK, QUIET)
    larger_BK = beat_BK / np.where(usual_B1 > 0, usual_B1, np.inf)
    limit_BK = limit_BK * np.where(worth_BK >= SURE_WORTH, np.maximum(1, larger_BK), 1)
    swaying_BK = _stretches_with(sway_BK > SWAY_ON * limit_BK, sway_BK > limit_BK)
    disturbed_BK |= _narrowed(_bridged(swaying_BK, _SWAY_GAP), _SWAY_REACH)

    # the least of every half second, and the most of those that hold a cell: QRS complexes and upslopes drop out
    rough_BK = filters.running_max(-filters.running_max(-np.sqrt(step_BK), _BETWEEN), _BETWEEN)
    disturbed_BK |= rough_BK > np.maximum(ROUGH_RMS * rms_B1, ROUGH_QUIET * _quiet(rough_BK, quiet_BK, QUIET))
    return disturbed_BK


def _moments(x_BT: np.ndarray, lost_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the mean square, and the mean square of the steps in each cell (B, K).

    A cell with something lost repeats the one before it, so that a gap is neither quiet nor a jump.
    """
    rows, cells = lost_BK.shape
    width = round(x_BT.shape[-1] / cells)
    if (short := cells * width - x_BT.shape[-1]) > 0:
        x_BT = np.concatenate([x_BT, x_BT[:, -1:].repeat(short, axis=1)], axis=1)
    x_BT = x_BT[:, : cells * width]
    step_BT = np.empty_like(x_BT)
    np.subtract(x_BT[:, 1:], x_BT[:, :-1], out=step_BT[:, :-1])
    cell_BKW, step_BKW = (of_BT.reshape(rows, cells, width) for of_BT in (x_BT, step_BT))
    step_BKW = step_BKW[..., :-1]  # without those from cell to cell
    mean_BK = np.einsum("bkw->bk", cell_BKW) / width
    power_BK = np.einsum("bkw,bkw->bk", cell_BKW, cell_BKW) / width
    step_BK = np.einsum("bkw,bkw->bk", step_BKW, step_BKW) / (width - 1)
    if len(some_R := np.flatnonzero(lost_BK.any(axis=-1))):
        source_RK = np.maximum.accumulate(np.where(lost_BK[some_R], 0, np.arange(cells)), axis=-1)
        for value_BK in (mean_BK, power_BK, step_BK):
            value_BK[some_R] = np.take_along_axis(value_BK[some_R], source_RK, axis=-1)
    return mean_BK, power_BK, step_BK


def _mean(value_BK: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over a centred window of `width` cells, of those that exist at the ends."""
    return filters.running_mean(value_BK, width) / _there(value_BK.shape[-1], width, value_BK.dtype)


@lru_cache(maxsize=64)
def _there(cells: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Return the share (1, K) of each window that lies within the segment."""
    return filters.running_mean(np.ones((1, cells), dtype), width)


def _quiet(value_BK: np.ndarray, counts_BK: np.ndarray, quantile: float) -> np.ndarray:
    """Return a quantile (B, 1) of each row's values that count; infinite where none does."""
    sorted_BK = np.sort(np.where(counts_BK, value_BK, np.float32(np.inf)), axis=-1)
    at_B1 = (quantile * counts_BK.sum(axis=-1, keepdims=True)).astype(np.intp)
    return np.take_along_axis(sorted_BK, at_B1, axis=-1)


def _stretches_with(flag_BK: np.ndarray, strong_BK: np.ndarray) -> np.ndarray:
    """Return those stretches of flagged cells that hold a strong one."""
    starts_BK = flag_BK.copy()
    starts_BK[:, 1:] &= ~flag_BK[:, :-1]
    stretch_BK = np.cumsum(starts_BK).reshape(flag_BK.shape)
    holds = np.zeros(int(stretch_BK[-1, -1]) + 1, bool)
    holds[stretch_BK[strong_BK]] = True
    return flag_BK & holds[stretch_BK]


def _narrowed(flag_BK: np.ndarray, reach: int) -> np.ndarray:
    """Return flagged stretches without the first and last `reach` cells; none is lost at the segment's ends."""
    return ~filters.grown(~flag_BK, reach) if flag_BK.any() else flag_BK


def _bridged(flag_BK: np.ndarray, gap: int) -> np.ndarray:
    """Return flags with every gap of fewer than `gap` cells between two of them closed; the ends stay open."""
    if not flag_BK.any():
        return flag_BK
    return ~filters.in_runs(filters.extended(~flag_BK, gap, gap, True), gap)[:, gap:-gap]
