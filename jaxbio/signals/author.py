"""The published quality score of QualityFM, to the letter (arXiv 2509.06516; reference code `rrSQI`, `ppg_SQI`).

It counts regular heart beats between 40 and 120 a minute, so that fibrillation and tachycardia score as bad quality;
`quality.py` is the default for that reason. Runs in the precision of its input.

    r_B = ecg_score(beats)
    terms = ppg_score(x_BT, rate_hz=300.0)      # terms["author"] is s
"""

import numpy as np
from scipy import fft, signal

from jaxbio.signals import filters
from jaxbio.signals.beats import Beats
from jaxbio.signals.quality import sigmoid

MIN_BEATS = 20
WELCH_SAMPLES = 256
BINS = 20


def ecg_score(beats: Beats, rate_bpm: tuple[float, float] = (40.0, 120.0)) -> np.ndarray:
    """Return r (B,) float64 in [0, 1): regular beats over all beats, 0 below 20 beats.

    An interval is bad if its rate lies outside `rate_bpm`, it differs by more than 0.5 s from the one before, or its
    rate by more than 30 % of that one's; a single good one between two bad ones is bad.
    """
    second_I, interval_I = beats.intervals_s()
    row_I = beats.row_J[second_I]
    rate_I = 60.0 / interval_I
    bad_I = (rate_I < rate_bpm[0]) | (rate_I > rate_bpm[1])
    follows_I = row_I[1:] == row_I[:-1]
    jump_I = np.abs(np.diff(interval_I)) > 0.5
    change_I = np.abs(np.diff(rate_I)) / rate_I[:-1] > 0.30
    bad_I[1:] |= follows_I & (jump_I | change_I)
    between_I = follows_I[:-1] & follows_I[1:] & bad_I[:-2] & bad_I[2:]
    bad_I[1:-1] |= between_I
    good_B = np.bincount(row_I[~bad_I], minlength=len(beats.count_B))
    return np.where(beats.count_B >= MIN_BEATS, good_B / np.maximum(beats.count_B, 1), 0.0)


def ppg_score(x_BT: np.ndarray, rate_hz: float = 300.0) -> dict[str, np.ndarray]:
    """Return s as `author` and its five terms `author_snr | perf | skew | rel | ent`, each (B,) in [0, 1].

    x_BT is the resampled PPG, float32 or float64. The published perfusion term divides the range by the mean of a
    detrended signal, which is nothing but rounding error: 0 or 1 by its sign, and another on the same signal read back
    from a store or sampled at another rate. Here it is what the formula tends to as the mean vanishes from above: 1
    where anything moves.
    """
    z_BT = _detrended(x_BT)
    z_BT -= z_BT.mean(axis=-1, keepdims=True)
    spread_B = np.sqrt((z_BT * z_BT).mean(axis=-1))
    z_BT /= np.where(spread_B > 0, spread_B, 1)[:, None]
    cube_BT = z_BT * z_BT
    cube_BT *= z_BT
    power_BS, frequency_hz = _welch(z_BT, rate_hz)

    def total(low_hz: float, high_hz: float) -> np.ndarray:
        return power_BS[:, (frequency_hz >= low_hz) & (frequency_hz <= high_hz)].copy().sum(axis=-1)

    with np.errstate(divide="ignore", invalid="ignore"):
        snr_B = 10 * np.log10(total(0.5, 5.0) / (total(5.0, 25.0) + 1e-10))
        relative_B = 2 * total(0.5, 5.0) / total(0.1, 50.0)
    terms = {
        "author_snr": sigmoid(0.5 * (snr_B - 5)),
        "author_perf": (spread_B > 0).astype(np.float64),
        "author_skew": sigmoid(5 * (np.abs(cube_BT.mean(axis=-1)) - 1)),
        "author_rel": np.clip(np.nan_to_num(relative_B), 0, 1),
        "author_ent": 1 - _entropy(z_BT) / np.log(BINS),
    }
    raw_B = np.clip(0.2 * sum(terms.values()), 0, 1)
    gate_B = _has_two_peaks(z_BT, rate_hz) & (spread_B > 0)
    return {"author": np.where(gate_B, np.clip((raw_B - 0.5) / 0.3, 0, 1), 0.0), **terms}


def _detrended(x_BT: np.ndarray) -> np.ndarray:
    """Return rows less their straight line of least squares."""
    length = x_BT.shape[-1]
    ramp_T = np.linspace(-1, 1, length, dtype=x_BT.dtype)
    level_BT = x_BT - x_BT.mean(axis=-1, keepdims=True)
    slope_B = (level_BT * ramp_T).sum(axis=-1) / (ramp_T * ramp_T).sum()
    level_BT -= slope_B[:, None] * ramp_T
    return level_BT


def _welch(z_BT: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Welch's density below 51 Hz and its frequencies: Hann, 256 samples, half overlapping, means removed.

    In frequency, a frame without its mean has bin 0 at zero, and Hann's window is each bin less the mean of its
    neighbours: `filters.hann_power` of the frames, the same as `scipy.signal.welch` without its passes over the frames.
    """
    width = min(WELCH_SAMPLES, z_BT.shape[-1])
    frame_BFW = np.lib.stride_tricks.sliding_window_view(z_BT, width, axis=-1)[:, :: width - width // 2]
    stop = min(width // 2, int(51.0 * width / rate_hz) + 1)
    power_BFS = filters.hann_power(fft.rfft(frame_BFW, axis=-1), stop=stop)
    # one-sided: twice the power of a bin, over the rate and the window's sum of squares
    power_BS = power_BFS.mean(axis=1) * (2 / (rate_hz * 0.375 * width))
    return power_BS, np.arange(1, stop) * rate_hz / width


def _entropy(z_BT: np.ndarray) -> np.ndarray:
    """Return the entropy (nats) of each row's histogram of 20 equal bins from its least to its largest value.

    Bins are those of `np.histogram`. Of sorted values nothing but the places of 19 edges has to be found.
    """
    sorted_BT = np.sort(z_BT, axis=-1)
    edge_BK = np.linspace(sorted_BT[:, 0], sorted_BT[:, -1], BINS + 1, axis=-1)
    below_BK = np.zeros((len(z_BT), BINS + 1))
    below_BK[:, -1] = z_BT.shape[-1]
    for row, edge_K in enumerate(edge_BK[:, 1:-1]):
        below_BK[row, 1:-1] = np.searchsorted(sorted_BT[row], edge_K)
    share_BK = np.diff(below_BK, axis=-1) / z_BT.shape[-1]
    return -np.sum(share_BK * np.log(np.where(share_BK > 0, share_BK, 1)), axis=1)


def _has_two_peaks(z_BT: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return whether each row has two peaks at least half a second apart with a prominence of 0.5."""
    enough_B = _surely_has_two_peaks(z_BT, rate_hz)
    for row in np.flatnonzero(~enough_B):
        peaks, _ = signal.find_peaks(z_BT[row], distance=rate_hz / 2, prominence=0.5)
        enough_B[row] = len(peaks) >= 2
    return enough_B


def _surely_has_two_peaks(z_BT: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return rows that have them for certain, at a tenth of the search's time.

    Cut into blocks of a third of the distance: a block that rises above the three on either side holds a peak which no
    higher one within the distance removes; where both sides fall 0.5 below it, that is its prominence at least.
    """
    block = int(np.ceil(rate_hz / 2 / 3))
    blocks = z_BT.shape[-1] // block
    if blocks < 9:
        return np.zeros(len(z_BT), bool)
    starts_K = np.arange(0, blocks * block, block)
    high_BK, low_BK = (of.reduceat(z_BT[:, : blocks * block], starts_K, axis=-1) for of in (np.maximum, np.minimum))
    own_BK = high_BK[:, 3:-3]
    sides = (slice(0, blocks - 6), slice(4, blocks - 2))
    is_peak_BK = np.ones(own_BK.shape, bool)
    for side in sides:
        parts = [slice(side.start + k, side.stop + k) for k in range(3)]
        is_peak_BK &= own_BK > np.maximum.reduce([high_BK[:, part] for part in parts])
        is_peak_BK &= own_BK - 0.5 >= np.minimum.reduce([low_BK[:, part] for part in parts])
    return is_peak_BK.sum(axis=-1) >= 2
