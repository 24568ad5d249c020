"""Do pulses follow the R peaks of the same segment? A pulse that follows no heartbeat is artefact, however well formed.

The delay is the segment's own, also that of a monitor's filter, and may vary by 0.15 s: atrial fibrillation moves
single pulses by more than 0.1 s. R peaks without a pulse are no fault of the PPG: in ventricular tachycardia few
arrive. A pulse whose R peak would lie where the ECG is lost or noise is not judged, and none is where R peaks follow
each other so fast that every pulse lies near one.

    follows_B = follow_frac(pulses, r_peaks, ecg.unread_BK)
"""

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.beats import Beats, row_means
from jaxbio.signals.disturbances import CELL_S

_EARLIEST_S, _LATEST_S = -0.1, 1.6  # of a pulse behind its R peak; monitors delay a PPG by up to a second
_R_PEAKS = 8  # as many as 1.7 s hold at 280 a minute
_TOLERANCE_S = 0.15
_BIN_S = 0.02
_LEAST_BEATS = 5
_MOST_CHANCE = 0.8  # above it, from 160 a minute up, one stray pulse in ten would cost half of the share


def follow_frac(pulses: Beats, r_peaks: Beats, unread_BK: np.ndarray) -> np.ndarray:
    """Return the share (B,) of each segment's pulses that follow an R peak, beyond what chance would match.

    1: all do at the segment's delay; 0: no more than would if they fell anywhere. `unread_BK`: the 0.1-s cells of the
    ECG whose beats cannot be relied on; no pulse counts whose R peak would lie there. NaN below five pulses that count
    or five R peaks, and where chance alone would match more than 0.8.
    """
    rows = len(pulses.count_B)
    lag_JR = _lags(pulses, r_peaks)
    known_JR = np.isfinite(lag_JR)
    delay_B = _delays(lag_JR, pulses.row_J, rows)
    follows_J = (known_JR & (np.abs(lag_JR - delay_B[pulses.row_J, None]) <= _TOLERANCE_S)).any(axis=1)
    seen_J = _are_seen(unread_BK, pulses.row_J, pulses.time_J - delay_B[pulses.row_J])
    chance_B = _chances(r_peaks, unread_BK)
    share_B = row_means(follows_J[seen_J].astype(np.float64), pulses.row_J[seen_J], rows)
    beyond_B = (share_B - chance_B) / (1 - np.minimum(chance_B, _MOST_CHANCE))
    enough_B = np.minimum(np.bincount(pulses.row_J[seen_J], minlength=rows), r_peaks.count_B) >= _LEAST_BEATS
    return np.where(enough_B & (chance_B <= _MOST_CHANCE), np.clip(beyond_B, 0, 1), np.nan)


def _are_seen(unread_BK: np.ndarray, row_J: np.ndarray, time_J: np.ndarray) -> np.ndarray:
    """Return which times (s) of segments `row_J` lie in no unread cell; beyond an end its last cell counts."""
    return ~unread_BK[row_J, np.floor(time_J / CELL_S).astype(np.intp).clip(0, unread_BK.shape[1] - 1)]


def _delays(lag_JR: np.ndarray, row_J: np.ndarray, rows: int) -> np.ndarray:
    """Return the delay (B,) in s that most lags of a segment lie near: the fullest stretch of lags, and its middle."""
    known_JR = np.isfinite(lag_JR)
    bins = round((_LATEST_S - _EARLIEST_S) / _BIN_S) + 1
    row_JR = np.broadcast_to(row_J[:, None], lag_JR.shape)
    bin_J = ((lag_JR[known_JR] - _EARLIEST_S) / _BIN_S).astype(np.intp)
    count_BS = np.bincount(row_JR[known_JR] * bins + bin_J, minlength=rows * bins).reshape(rows, bins)
    near_BS = filters.running_mean(count_BS.astype(np.float64), 2 * round(_TOLERANCE_S / _BIN_S) + 1)
    delay_B = _EARLIEST_S + (near_BS.argmax(axis=1) + 0.5) * _BIN_S
    near_JR = known_JR & (np.abs(lag_JR - delay_B[row_JR]) <= _TOLERANCE_S + _BIN_S)
    return row_means(lag_JR[near_JR], row_JR[near_JR], rows)


def _chances(r_peaks: Beats, unread_BK: np.ndarray) -> np.ndarray:
    """Return the share (B,) of the time between R peaks, but for unread cells, that lies within 0.15 s of one."""
    rows = len(r_peaks.count_B)
    second_I, interval_I = r_peaks.intervals_s()
    row_I, middle_I = r_peaks.row_J[second_I], r_peaks.time_J[second_I] - 0.5 * interval_I
    seen_I = _are_seen(unread_BK, row_I, middle_I)
    taken_B = row_means(np.minimum(2 * _TOLERANCE_S, interval_I[seen_I]), row_I[seen_I], rows)
    between_B = row_means(interval_I[seen_I], row_I[seen_I], rows)
    return taken_B / np.where(between_B > 0, between_B, 1)


def _lags(pulses: Beats, r_peaks: Beats) -> np.ndarray:
    """Return seconds (J, R) from the R peaks of the same segment that may be a pulse's own to the pulse, else NaN."""
    far_s = 1e4  # from one segment's beats to the next one's
    key_J = r_peaks.row_J * far_s + r_peaks.time_J
    first_J = np.searchsorted(key_J, pulses.row_J * far_s + pulses.time_J - _LATEST_S)
    at_JR = first_J[:, None] + np.arange(_R_PEAKS)
    if not len(key_J):
        return np.full(at_JR.shape, np.nan)
    there_JR = np.minimum(at_JR, len(key_J) - 1)
    lag_JR = pulses.time_J[:, None] - r_peaks.time_J[there_JR]
    own_JR = (at_JR < len(key_J)) & (r_peaks.row_J[there_JR] == pulses.row_J[:, None])
    return np.where(own_JR & (lag_JR >= _EARLIEST_S) & (lag_JR <= _LATEST_S), lag_JR, np.nan)
