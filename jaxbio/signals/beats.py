"""Where the heart beats: R peaks of an ECG, pulses of a PPG or arterial pressure, and rates from them.

Constants are those of the project's measurements on MITDB, CPSC 2021 and BIDMC (see docs/data.md). Detection runs at
100 Hz; positions are refined by a parabola. Beats of many segments lie one behind the other (axis J), so that a
segment's result does not depend on its neighbours in the batch.

    beats = find_r_peaks(x_BT, rate_hz=100.0)
    heart_rate_bpm = rate_bpm(beats, duration_s=30.0)
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from jaxbio.signals import filters

DETECTION_HZ = 100.0
T_WAVE_S = 0.36  # a T wave follows its R peak within this (Pan and Tompkins, IEEE TBME 32(3), 1985)
_PAD_S = 1.0  # circular filtering would cost up to a tenth of the positive predictivity at the ends


@dataclass(frozen=True)
class Beats:
    """Beats of B segments, in order: `row_J` the segment, `time_J` seconds from its start (float64), `count_B`."""

    row_J: np.ndarray
    time_J: np.ndarray
    count_B: np.ndarray

    @property
    def slot_J(self) -> np.ndarray:
        """Number of each beat within its segment."""
        first_B = np.cumsum(self.count_B) - self.count_B
        return np.arange(len(self.row_J)) - first_B[self.row_J]

    def table(self, value_J: np.ndarray, fill: float) -> np.ndarray:
        """Return values of beats as (B, most beats), the rest `fill`."""
        table_BJ = np.full((len(self.count_B), max(1, int(self.count_B.max(initial=0)))), fill, value_J.dtype)
        table_BJ[self.row_J, self.slot_J] = value_J
        return table_BJ

    def intervals_s(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the beats that end an interval with one before it in the segment, and those intervals in seconds."""
        second_I = 1 + np.flatnonzero(self.row_J[1:] == self.row_J[:-1])
        return second_I, self.time_J[second_I] - self.time_J[second_I - 1]


@dataclass(frozen=True)
class Read:
    """Beats of B segments, what each is worth (J,) in [0, 1], which segments' rate is in doubt (B,) since waves may be
    no beats, and which are upside down (B,)."""

    beats: Beats
    worth_J: np.ndarray
    doubt_B: np.ndarray
    inverted_B: np.ndarray


def beats_of(row_J: np.ndarray, time_J: np.ndarray, rows: int) -> Beats:
    """Return Beats of `rows` segments from segment numbers in rising order and times in seconds."""
    return Beats(row_J, np.asarray(time_J, np.float64), np.bincount(row_J, minlength=rows))


def find_r_peaks(x_BT: np.ndarray, rate_hz: float = DETECTION_HZ) -> Beats:
    """Return the R peaks of ECG segments (B, T) float32 at about 100 Hz, of either polarity.

    Band-pass 8-20 Hz, absolute value, 0.1-s mean; a maximum within +-0.25 s above 0.3 of the local level (1.5-s maxima,
    median of 7), refined to the band-passed extremum within 80 ms. All beats of a segment have one polarity, that in
    which they reach farther: choosing beat by beat jumps between R and S. A segment whose maxima within +-0.12 s are
    nearly all alike and less than 0.27 s apart is faster than 220 a minute, and they are its beats.
    """
    band_BT, pad = _band_pass(x_BT, rate_hz, 8.0, 20.0)
    energy_BT = filters.running_mean(np.abs(band_BT), _odd(0.1 * rate_hz))[:, pad:-pad]
    row_J, index_J, largest_J = _maxima(
        energy_BT, rate_hz, apart_s=0.12, level_s=1.5, level_blocks=7, threshold=0.3, around_s=0.25
    )
    share_J = energy_BT[row_J, index_J] / largest_J
    alike_J = share_J >= 0.7
    fast_B = _are_fast(row_J[alike_J], index_J[alike_J] / rate_hz, len(x_BT))
    keep_J = (share_J == 1) | (alike_J & fast_B[row_J])
    row_J, index_J = row_J[keep_J], index_J[keep_J]
    row_J, index_J = _without_t_waves(row_J, index_J, energy_BT[row_J, index_J], rate_hz)
    reach = round(0.08 * rate_hz)
    around_JW = band_BT[row_J[:, None], index_J[:, None] + np.arange(pad - reach, pad + reach + 1)]
    upright_B = _upright(around_JW.max(axis=1), -around_JW.min(axis=1), row_J, len(x_BT))
    around_JW *= np.where(upright_B, np.float32(1), np.float32(-1))[row_J, None]
    return _refined(around_JW, row_J, index_J, x_BT.shape, rate_hz)


def find_pulses(x_BT: np.ndarray, rate_hz: float = DETECTION_HZ) -> Beats:
    """Return the steepest upslopes of upright PPG or arterial-pressure segments (B, T) float32 at about 100 Hz."""
    return find_waves(*pulse_band(x_BT, rate_hz), rate_hz)[0]


def pulse_band(x_BT: np.ndarray, rate_hz: float) -> tuple[np.ndarray, int]:
    """Return the 0.3-8 Hz band of segments (B, T), continued at both ends, and by how many samples.

    From 0.3 Hz: of pulses at 25 a minute a higher edge leaves little but their dicrotic waves.
    """
    return _band_pass(x_BT, rate_hz, 0.3, 8.0)


def find_waves(band_BT: np.ndarray, pad: int, rate_hz: float) -> tuple[Beats, np.ndarray]:
    """Return the steepest upslopes of what `pulse_band` returned, and how steep each is (J,), a sample.

    Positive part of the slope, 0.15-s mean; a maximum within +-0.1 s above 0.35 of the local level (2-s maxima, median
    of 5), refined to the largest slope within 100 ms. Of two within 0.3 s the smaller is a dicrotic wave unless it has
    0.6 of the larger: pulses of 300 a minute are alike.
    """
    slope_BT = np.zeros_like(band_BT)
    slope_BT[:, 1:-1] = 0.5 * (band_BT[:, 2:] - band_BT[:, :-2])
    rise_BT = filters.running_mean(np.maximum(slope_BT, 0), _odd(0.15 * rate_hz))[:, pad:-pad]
    row_J, index_J, largest_J = _maxima(
        rise_BT, rate_hz, apart_s=0.1, level_s=2.0, level_blocks=5, threshold=0.35, around_s=0.3
    )
    keep_J = rise_BT[row_J, index_J] >= 0.6 * largest_J
    row_J, index_J = row_J[keep_J], index_J[keep_J]
    reach = round(0.1 * rate_hz)
    around_JW = slope_BT[row_J[:, None], index_J[:, None] + np.arange(pad - reach, pad + reach + 1)]
    shape = (len(band_BT), band_BT.shape[-1] - 2 * pad)
    return _refined(around_JW, row_J, index_J, shape, rate_hz), around_JW.max(axis=1)


def rate_bpm(beats: Beats, duration_s: float, valid_J: np.ndarray | None = None) -> np.ndarray:
    """Return the rate (B,) in beats a minute as a bedside monitor forms it; NaN where no second has four intervals.

    At every whole second: 60 over the mean of the last 12 intervals, of at least 4; the rate is the median over the
    seconds. `valid_J` says which beats end an interval that counts (none across a gap); default all.
    """
    second_I, interval_I = beats.intervals_s()
    if valid_J is not None:
        second_I, interval_I = second_I[valid_J[second_I]], interval_I[valid_J[second_I]]
    rows, seconds = len(beats.count_B), int(duration_s)
    ends = beats_of(beats.row_J[second_I], beats.time_J[second_I], rows)
    total_BJ = filters.extended(np.cumsum(ends.table(interval_I, 0.0), axis=1), 1, 0, 0.0)
    # intervals that have ended by each whole second
    second_J = np.minimum(np.ceil(ends.time_J).astype(np.intp), seconds + 1)
    ended_BS = np.bincount(ends.row_J * (seconds + 2) + second_J, minlength=rows * (seconds + 2))
    seen_BS = np.cumsum(ended_BS.reshape(rows, seconds + 2), axis=1)[:, 1 : seconds + 1]
    used_BS = np.minimum(seen_BS, 12)
    row_B1 = np.arange(rows)[:, None]
    sum_BS = total_BJ[row_B1, seen_BS] - total_BJ[row_B1, seen_BS - used_BS]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_BS = np.where(used_BS >= 4, 60.0 * used_BS / sum_BS, np.inf)
    return finite_median(rate_BS)


def finite_median(x_BS: np.ndarray) -> np.ndarray:
    """Return the median of each row's finite values, NaN where there are none."""
    sorted_BS = np.sort(x_BS, axis=1)
    count_B = np.isfinite(x_BS).sum(axis=1)
    row_B = np.arange(len(x_BS))
    low_B = sorted_BS[row_B, np.maximum(count_B - 1, 0) // 2]
    high_B = sorted_BS[row_B, np.minimum(count_B // 2, x_BS.shape[1] - 1)]
    return np.where(count_B > 0, 0.5 * (low_B + high_B), np.nan)


def row_medians(value_J: np.ndarray, row_J: np.ndarray, rows: int) -> np.ndarray:
    """Return the median (B,) of the values of each row, given row by row; 0 where a row has none."""
    beats = beats_of(row_J, value_J, rows)
    return np.nan_to_num(finite_median(beats.table(beats.time_J, np.inf)))


def row_means(value_J: np.ndarray, row_J: np.ndarray, rows: int) -> np.ndarray:
    """Return the mean (B,) float64 of the values of each row, 0 where a row has none."""
    count_B = np.bincount(row_J, minlength=rows)
    return np.bincount(row_J, value_J, minlength=rows) / np.maximum(count_B, 1)


def neighbour_means(value_J: np.ndarray, row_J: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean (J,) over each beat and `reach` beats on either side in its row; NaN do not count."""
    known_J = ~np.isnan(value_J)
    count_J, total_J = known_J.astype(np.intp), np.where(known_J, value_J, 0.0)
    part_J, known_part_J = total_J.copy(), known_J
    for apart in range(1, reach + 1):
        same_J = row_J[apart:] == row_J[:-apart]
        for here, there in ((slice(apart, None), slice(None, -apart)), (slice(None, -apart), slice(apart, None))):
            total_J[here] += np.where(same_J, part_J[there], 0.0)
            count_J[here] += same_J & known_part_J[there]
    return np.where(count_J > 0, total_J / np.maximum(count_J, 1), np.nan)


def _odd(samples: float) -> int:
    return 2 * int(samples / 2) + 1


def _band_pass(x_BT: np.ndarray, rate_hz: float, low_hz: float, high_hz: float) -> tuple[np.ndarray, int]:
    """Return the band of the segments continued at both ends, and by how many samples."""
    pad = min(round(_PAD_S * rate_hz), x_BT.shape[-1] - 2)
    padded_BT = filters.odd_reflection(x_BT, pad)
    response_S = _response(padded_BT.shape[-1], rate_hz, low_hz, high_hz)
    return fft.irfft(fft.rfft(padded_BT, axis=-1) * response_S, n=padded_BT.shape[-1], axis=-1), pad


@lru_cache(maxsize=16)
def _response(length: int, rate_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the band-pass of signals of one length."""
    return filters.band_response(fft.rfftfreq(length, 1.0 / rate_hz), low_hz, high_hz)


def _are_fast(row_J: np.ndarray, time_J: np.ndarray, rows: int) -> np.ndarray:
    """Return the rows (bool, B) whose maxima follow each other in less than 0.27 s, and regularly."""
    second_I, interval_I = beats_of(row_J, time_J, rows).intervals_s()
    usual_B = row_medians(interval_I, row_J[second_I], rows)
    off_I = np.abs(interval_I - usual_B[row_J[second_I]])
    return (usual_B > 0) & (usual_B < 0.27) & (row_medians(off_I, row_J[second_I], rows) < 0.05)


def _maxima(
    x_BT: np.ndarray,
    rate_hz: float,
    *,
    apart_s: float,
    level_s: float,
    level_blocks: int,
    threshold: float,
    around_s: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows and indices of the maxima within +-apart_s that exceed threshold x local level, and the largest value
    within +-around_s of each; around_s is at most three times apart_s.
    """
    reach, beyond = round(apart_s * rate_hz), round(around_s * rate_hz) - round(apart_s * rate_hz)
    near_BT = filters.running_max(x_BT, 2 * reach + 1)
    is_peak_BT = (x_BT == near_BT) & (x_BT > 0)
    row_J, index_J = np.divmod(np.flatnonzero(is_peak_BT), x_BT.shape[-1])
    block = round(level_s * rate_hz)
    starts = filters.block_starts(x_BT.shape[-1], block)
    level_BK = filters.running_median(np.maximum.reduceat(x_BT, starts, axis=-1), level_blocks)
    level_J = level_BK[row_J, np.minimum(index_J // block, len(starts) - 1)]
    # a plateau has several equal maxima: the first stands for it
    again_J = np.zeros(len(row_J), bool)
    again_J[1:] = (row_J[1:] == row_J[:-1]) & (np.diff(index_J) <= reach)
    keep_J = (x_BT[row_J, index_J] > threshold * level_J) & ~again_J
    row_J, index_J = row_J[keep_J], index_J[keep_J]
    # three windows of +-apart_s, side by side or overlapping; at an end one reaches less far beyond it
    around_JN = np.clip(index_J[:, None] + (-beyond, 0, beyond), 0, x_BT.shape[-1] - 1)
    return row_J, index_J, near_BT[row_J[:, None], around_JN].max(axis=1)


def _without_t_waves(
    row_J: np.ndarray, index_J: np.ndarray, energy_J: np.ndarray, rate_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maxima less those within 0.36 s of the one before at less than half its energy (Pan and Tompkins)."""
    t_wave_J = np.zeros(len(row_J), bool)
    t_wave_J[1:] = (row_J[1:] == row_J[:-1]) & (np.diff(index_J) < T_WAVE_S * rate_hz)
    t_wave_J[1:] &= energy_J[1:] < 0.5 * energy_J[:-1]
    return row_J[~t_wave_J], index_J[~t_wave_J]


def _upright(above_J: np.ndarray, below_J: np.ndarray, row_J: np.ndarray, rows: int) -> np.ndarray:
    """Return whether the beats of each row (bool, B) reach farther up than down, in the mean of all of them.

    No beat counts more than twice the median, lest one artefact decide; the median alone would waver in bigeminy.
    """
    largest_J = 2 * row_medians(np.maximum(above_J, below_J), row_J, rows)[row_J]
    up_B = np.bincount(row_J, np.minimum(above_J, largest_J), minlength=rows)
    return up_B >= np.bincount(row_J, np.minimum(below_J, largest_J), minlength=rows)


def _refined(
    around_JW: np.ndarray, row_J: np.ndarray, index_J: np.ndarray, shape: tuple[int, ...], rate_hz: float
) -> Beats:
    """Return beats at the largest value around each index, to a fraction of a sample by a parabola."""
    rows, length = shape
    width = around_JW.shape[1]
    peak_J = around_JW.argmax(axis=1)
    inner_J, beat_J = np.clip(peak_J, 1, width - 2), np.arange(len(peak_J))
    left_J, mid_J, right_J = (around_JW[beat_J, inner_J + d].astype(np.float64) for d in (-1, 0, 1))
    bend_J = left_J - 2 * mid_J + right_J
    inside_J = (peak_J == inner_J) & (bend_J < 0)
    shift_J = np.where(inside_J, 0.5 * (left_J - right_J) / np.where(inside_J, bend_J, 1.0), 0.0)
    position_J = np.clip(index_J + peak_J - width // 2 + shift_J, 0, length - 1)
    return beats_of(row_J, position_J / rate_hz, rows)
