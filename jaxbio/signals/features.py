"""Hand-made feature channels of an ECG lead, sample by sample beside it, for networks that take them as further input.

Source: the hybrid input of docs/references.md. Beats are those of `beats.find_r_peaks`, and times are those of
the true rate; the published code took 250 Hz for 500. A feature that a segment does not define, as the heart rate of
one beat, is zeros throughout: a channel that is not there.

    feature_BFT = make_features(x_BT, rate_hz=250.0, names=("r_peaks", "heart_rate"))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxbio.config.features import LEAD
from jaxbio.signals import filters
from jaxbio.signals.beats import DETECTION_HZ, Beats, beats_of, find_r_peaks, row_means, row_medians

# Intervals that count, s: 30 to 240 a minute. Published are 0.4 to 1.5 s, which know no tachycardia above 150.
_INTERVALS_S = (0.25, 2.0)
_SMOOTH_S = 2.5  # deviation of the window of the rolling rate: ten seconds hold four of them
_BASELINE_S = (-0.20, -0.05)  # from the R peak
_ST_S = (0.08, 0.20)
# Daubechies' wavelet of four vanishing moments ("db4"), low-pass of the decomposition (Ten Lectures, table 6.1).
_LOW_PASS = np.array(
    [
        -0.010597401785069032,
        0.0328830116668852,
        0.030841381835560764,
        -0.18703481171909309,
        -0.027983769416859854,
        0.6308807679298589,
        0.7148465705529157,
        0.2303778133088965,
    ],
    np.float32,
)
_HIGH_PASS = _LOW_PASS[::-1] * np.array([-1, 1] * 4, np.float32)
_PAD = 64  # samples of reflection, more than three levels reach


def make_features(x_BT: np.ndarray, rate_hz: float, names: Sequence[str]) -> np.ndarray:
    """Return the features of `names` (config/features.py) of segments (B, T) float32 in mV: (B, F, T) float32.

    A row's result does not depend on the rows beside it. What is constant over a segment fills its channel. Raises
    KeyError for a name that is none.
    """
    lead = _Lead(x_BT, rate_hz)
    feature_BFT = np.empty((len(x_BT), len(names), x_BT.shape[1]), np.float32)
    for place, name in enumerate(names):
        value = _MAKERS[name](lead)
        feature_BFT[:, place] = value if value.ndim == 2 else value[:, None]
    return feature_BFT


def append_features(x_BCT: np.ndarray, channels: Sequence[str], rate_hz: float, names: Sequence[str]) -> np.ndarray:
    """Return segments of `channels` with the features of `names`, made of lead II, behind them: (B, C + F, T).

    A lead that is masked, zeros, defines no feature. Raises ValueError where lead II is none of the channels.
    """
    if not names:
        return x_BCT
    return np.concatenate([x_BCT, make_features(x_BCT[:, channels.index(LEAD)], rate_hz, names)], axis=1)


@dataclass(frozen=True)
class _Lead:
    """Segments of the lead and what several features share: its beats, their intervals, its wavelet transform."""

    x_BT: np.ndarray
    rate_hz: float

    @cached_property
    def beats(self) -> Beats:
        duration_s = self.x_BT.shape[1] / self.rate_hz
        return find_r_peaks(filters.resample(self.x_BT, round(duration_s * DETECTION_HZ)))

    @cached_property
    def peak_J(self) -> np.ndarray:
        """Sample of each beat."""
        return np.minimum(np.rint(self.beats.time_J * self.rate_hz).astype(np.intp), self.x_BT.shape[1] - 1)

    @cached_property
    def intervals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, time of the second beat and length, in s, of each interval that counts."""
        second_I, interval_I = self.beats.intervals_s()
        kept_I = (interval_I >= _INTERVALS_S[0]) & (interval_I <= _INTERVALS_S[1])
        second_I = second_I[kept_I]
        return self.beats.row_J[second_I], self.beats.time_J[second_I], interval_I[kept_I]

    @cached_property
    def wavelet(self) -> dict[str, np.ndarray]:
        """Approximations (a) and details (d) of levels 1 to 3, (B, T); details of the levels are aligned in time."""
        bands: dict[str, np.ndarray] = {}
        low_BT = filters.odd_reflection(self.x_BT, _PAD)
        for level in (1, 2, 3):
            high_BT, low_BT = (_convolve(low_BT, taps, 2 ** (level - 1)) for taps in (_HIGH_PASS, _LOW_PASS))
            bands |= {f"a{level}": low_BT[:, _PAD:-_PAD], f"d{level}": high_BT[:, _PAD:-_PAD]}
        return bands


def _convolve(x_BT: np.ndarray, taps: np.ndarray, step: int) -> np.ndarray:
    """Return the convolution with `taps` that lie `step` samples apart, half their reach taken back."""
    half = len(taps) // 2
    return sum(tap * np.roll(x_BT, (place - half) * step, axis=1) for place, tap in enumerate(taps))


def _r_peaks(lead: _Lead) -> np.ndarray:
    peaks_BT = np.zeros_like(lead.x_BT)
    peaks_BT[lead.beats.row_J, lead.peak_J] = 1
    return peaks_BT


def _heart_rate(lead: _Lead) -> np.ndarray:
    row_I, _, interval_I = lead.intervals
    mean_B = row_means(interval_I, row_I, len(lead.x_BT))
    return np.where(mean_B > 0, 60.0 / np.where(mean_B > 0, mean_B, 1.0), 0.0)


def _rolling_heart_rate(lead: _Lead) -> np.ndarray:
    """Return 60 over the intervals' mean under a Gaussian window about every beat, straight lines between beats."""
    row_I, time_I, interval_I = lead.intervals
    (rows, length), ends = lead.x_BT.shape, beats_of(row_I, time_I, len(lead.x_BT))
    time_BI, interval_BI = ends.table(time_I, np.inf), ends.table(interval_I, 0.0)
    with np.errstate(invalid="ignore"):  # inf - inf, of intervals that are not there
        weight_BII = np.exp(-0.5 * ((time_BI[:, :, None] - time_BI[:, None]) / _SMOOTH_S) ** 2)
    weight_BII = np.nan_to_num(weight_BII)
    rate_BI = 60.0 * weight_BII.sum(-1) / np.maximum((weight_BII * interval_BI[:, None]).sum(-1), _INTERVALS_S[0])
    if not len(row_I):
        return np.zeros_like(lead.x_BT)
    # all rows on one axis of time, one behind the other; before the first and behind the last beat, their rates
    last_B = np.take_along_axis(time_BI, np.maximum(ends.count_B - 1, 0)[:, None], 1)
    first_B, behind_s = time_BI[:, :1], 2.0 * length / lead.rate_hz
    time_BT = np.clip((np.arange(length) / lead.rate_hz)[None], first_B, last_B) + behind_s * np.arange(rows)[:, None]
    known_B1 = (ends.count_B > 0)[:, None]
    rate_I = rate_BI[row_I, ends.slot_J]
    rate_BT = np.interp(np.where(known_B1, time_BT, 0.0).ravel(), time_I + behind_s * row_I, rate_I)
    return np.where(known_B1, rate_BT.reshape(rows, length), 0.0)


def _st_deviation(lead: _Lead) -> np.ndarray:
    """Return the ST segments of the beats whose baseline and ST segment lie within the segment."""
    st_BT = np.zeros_like(lead.x_BT)
    before, after = (_samples(span_s, lead.rate_hz) for span_s in (_BASELINE_S, _ST_S))
    whole_J = (lead.peak_J + before[0] >= 0) & (lead.peak_J + after[-1] < lead.x_BT.shape[1])
    row_J1, peak_J1 = lead.beats.row_J[whole_J, None], lead.peak_J[whole_J, None]
    baseline_J1 = lead.x_BT[row_J1, peak_J1 + before].mean(axis=1, keepdims=True)
    st_BT[row_J1, peak_J1 + after] = lead.x_BT[row_J1, peak_J1 + after] - baseline_J1
    return st_BT


def _qrs_amplitude(lead: _Lead) -> np.ndarray:
    return row_medians(lead.x_BT[lead.beats.row_J, lead.peak_J], lead.beats.row_J, len(lead.x_BT))


def _sdnn(lead: _Lead) -> np.ndarray:
    row_I, _, interval_I = lead.intervals
    rows = len(lead.x_BT)
    centred_I = interval_I - row_means(interval_I, row_I, rows)[row_I]
    return 1000.0 * np.sqrt(row_means(centred_I**2, row_I, rows))


def _rmssd(lead: _Lead) -> np.ndarray:
    """Return the root mean square of what changes from an interval to the next that counts, in ms."""
    row_I, _, interval_I = lead.intervals
    same_I = row_I[1:] == row_I[:-1]
    change_I = np.diff(interval_I)[same_I]
    return 1000.0 * np.sqrt(row_means(change_I**2, row_I[1:][same_I], len(lead.x_BT)))


def _samples(span_s: tuple[float, float], rate_hz: float) -> np.ndarray:
    return np.arange(round(span_s[0] * rate_hz), round(span_s[1] * rate_hz) + 1)


_MAKERS: Mapping[str, Callable[[_Lead], np.ndarray]] = {
    "r_peaks": _r_peaks,
    "heart_rate": _heart_rate,
    "rolling_heart_rate": _rolling_heart_rate,
    "st_deviation": _st_deviation,
    "qrs_amplitude": _qrs_amplitude,
    "sdnn": _sdnn,
    "rmssd": _rmssd,
    "wavelet_a1": lambda lead: lead.wavelet["a1"],
    "wavelet_d2": lambda lead: lead.wavelet["d2"],
    "wavelet_d1": lambda lead: lead.wavelet["d1"],
    "wavelet_d3": lambda lead: lead.wavelet["d3"],
}
