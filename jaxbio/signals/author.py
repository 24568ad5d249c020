"""The published quality score of QualityFM, to the letter (arXiv 2509.06516; reference code `rrSQI`, `ppg_SQI`).

It counts regular heart beats between 40 and 120 a minute, so that fibrillation and tachycardia score as bad quality;
`quality.py` is the default for that reason. Runs in the precision of its input.

    r_B = ecg_score(beats)
    terms = ppg_score(x_BT, rate_hz=300.0)      # terms["author"] is s
"""

import numpy as np
from scipy import fft, signal

from jaxbio.signals.beats import Beats
from jaxbio.signals.quality import sigmoid

MIN_BEATS = 20
MIN_SAMPLES = 200
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

    x_BT is the resampled PPG, float32 or float64. The perfusion term divides by the mean of a detrended signal, which
    is rounding error: 0 or 1 by its sign, as published.
    """
    detrended_BT = _detrended(x_BT)
    mean_B = detrended_BT.mean(axis=-1)
    centred_BT = detrended_BT - mean_B[:, None]
    spread_B = np.sqrt(np.einsum("bt,bt->b", centred_BT, centred_BT) / x_BT.shape[-1])
    z_BT = centred_BT / np.where(spread_B > 0, spread_B, 1)[:, None]
    low_B, high_B = z_BT.min(axis=-1), z_BT.max(axis=-1)
    power_BS, frequency_hz = _welch(z_BT, rate_hz)

    def total(low_hz: float, high_hz: float) -> np.ndarray:
        return power_BS[:, (frequency_hz >= low_hz) & (frequency_hz <= high_hz)].copy().sum(axis=-1)

    with np.errstate(divide="ignore", invalid="ignore"):
        snr_B = 10 * np.log10(total(0.5, 5.0) / (total(5.0, 25.0) + 1e-10))
        perfusion_B = 10 * (high_B - low_B) * spread_B / mean_B
        relative_B = 2 * total(0.5, 5.0) / total(0.1, 50.0)
    terms = {
        "author_snr": sigmoid(0.5 * (snr_B - 5)),
        "author_perf": np.clip(np.nan_to_num(perfusion_B, posinf=1, neginf=0), 0, 1),
        "author_skew": sigmoid(5 * (np.abs(np.einsum("bt,bt,bt->b", z_BT, z_BT, z_BT) / x_BT.shape[-1]) - 1)),
        "author_rel": np.clip(np.nan_to_num(relative_B), 0, 1),
        "author_ent": 1 - _entropy(z_BT, low_B, high_B) / np.log(BINS),
    }
    raw_B = np.clip(0.2 * sum(terms.values()), 0, 1)
    gate_B = _has_two_peaks(z_BT, rate_hz) & (spread_B > 0)
    return {"author": np.where(gate_B, np.clip((raw_B - 0.5) / 0.3, 0, 1), 0.0), **terms}


def _detrended(x_BT: np.ndarray) -> np.ndarray:
    """Return rows less their straight line of least squares."""
    length = x_BT.shape[-1]
    ramp_T = np.linspace(-1, 1, length, dtype=x_BT.dtype)
    level_BT = x_BT - x_BT.mean(axis=-1, keepdims=True)
    slope_B = np.einsum("bt,t->b", level_BT, ramp_T) / np.einsum("t,t->", ramp_T, ramp_T)
    return level_BT - slope_B[:, None] * ramp_T


def _welch(z_BT: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Welch's power (any unit) and its frequencies: Hann, 256 samples, half overlapping, means removed."""
    width = min(WELCH_SAMPLES, z_BT.shape[-1])
    frame_BFW = np.lib.stride_tricks.sliding_window_view(z_BT, width, axis=-1)[:, :: width - width // 2]
    frame_BFW = frame_BFW - frame_BFW.mean(axis=-1, keepdims=True)
    frame_BFW *= signal.get_window("hann", width).astype(z_BT.dtype)
    spectrum_BFS = fft.rfft(frame_BFW, axis=-1)
    power_BFS = spectrum_BFS.real**2 + spectrum_BFS.imag**2
    power_BS = power_BFS.mean(axis=1)
    power_BS[:, 1 : -1 if width % 2 == 0 else None] *= 2
    window_W = signal.get_window("hann", width)
    return power_BS / (rate_hz * float((window_W**2).sum())), fft.rfftfreq(width, 1 / rate_hz)


def _entropy(z_BT: np.ndarray, low_B: np.ndarray, high_B: np.ndarray) -> np.ndarray:
    """Return the entropy (nats) of each row's histogram of 20 equal bins from its least to its largest value."""
    rows, length = z_BT.shape
    width_B = np.where(high_B > low_B, high_B - low_B, 1)
    bin_BT = ((z_BT - low_B[:, None]) * (BINS / width_B)[:, None]).astype(np.intp).clip(0, BINS - 1)
    bin_BT += (BINS * np.arange(rows))[:, None]
    share_BK = np.bincount(bin_BT.ravel(), minlength=rows * BINS).reshape(rows, BINS) / length
    return -np.sum(share_BK * np.log(np.where(share_BK > 0, share_BK, 1)), axis=1)


def _has_two_peaks(z_BT: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return whether each row has two peaks half a second apart with a prominence of 0.5."""
    return np.array([len(signal.find_peaks(z_T, distance=rate_hz / 2, prominence=0.5)[0]) >= 2 for z_T in z_BT])
