"""Do pulses follow the R peaks of the same segment? A pulse that follows no heartbeat is artefact, however well formed.

The delay is the segment's own, also that of a monitor's filter, and may vary by 0.15 s: atrial fibrillation moves
single pulses by more than 0.1 s. R peaks without a pulse are no fault of the PPG: in ventricular tachycardia few
arrive.

    follows_B = follow_frac(pulses, r_peaks)
"""

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.beats import Beats, row_means

_EARLIEST_S, _LATEST_S = -0.1, 1.6  # of a pulse behind its R peak; monitors delay a PPG by up to a second
_R_PEAKS = 8  # as many as 1.7 s hold at 280 a minute
_TOLERANCE_S = 0.15
_BIN_S = 0.02
_LEAST_BEATS = 5


def follow_frac(pulses: Beats, r_peaks: Beats) -> np.ndarray:
    """Return the share (B,) of each segment's pulses that follow an R peak, beyond what chance would match.

    1: all do at the segment's delay; 0: no more than would if they fell anywhere. NaN below five pulses or R peaks.
    """
    rows = len(pulses.count_B)
    lag_JR = _lags(pulses, r_peaks)
    known_JR = np.isfinite(lag_JR)
    bins = round((_LATEST_S - _EARLIEST_S) / _BIN_S) + 1
    row_JR = np.broadcast_to(pulses.row_J[:, None], lag_JR.shape)
    bin_J = ((lag_JR[known_JR] - _EARLIEST_S) / _BIN_S).astype(np.intp)
    count_BS = np.bincount(row_JR[known_JR] * bins + bin_J, minlength=rows * bins).reshape(rows, bins)
    near_BS = filters.running_mean(count_BS.astype(np.float64), 2 * round(_TOLERANCE_S / _BIN_S) + 1)
    delay_B = _EARLIEST_S + (near_BS.argmax(axis=1) + 0.5) * _BIN_S
    # the fullest stretch of lags, and then its middle
    near_JR = known_JR & (np.abs(lag_JR - delay_B[row_JR]) <= _TOLERANCE_S + _BIN_S)
    delay_B = row_means(lag_JR[near_JR], row_JR[near_JR], rows)
    follows_J = (known_JR & (np.abs(lag_JR - delay_B[row_JR]) <= _TOLERANCE_S)).any(axis=1)
    # chance: the share of the time that lies within the tolerance of an R peak
    second_I, interval_I = r_peaks.intervals_s()
    row_I = r_peaks.row_J[second_I]
    taken_B = row_means(np.minimum(2 * _TOLERANCE_S, interval_I), row_I, rows)
    between_B = row_means(interval_I, row_I, rows)
    chance_B = np.minimum(0.95, taken_B / np.where(between_B > 0, between_B, 1))
    share_B = (row_means(follows_J.astype(np.float64), pulses.row_J, rows) - chance_B) / (1 - chance_B)
    enough_B = np.minimum(pulses.count_B, r_peaks.count_B) >= _LEAST_BEATS
    return np.where(enough_B, np.clip(share_B, 0, 1), np.nan)


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
