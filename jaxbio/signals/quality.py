"""What a segment is worth: the default score, blind to rhythm, of ECG, PPG and arterial pressure.

waveform (default) = (1 - lost share) x template fit x share of power in the signal's band. Products, not means: a
mean leaves white noise at -5 dB at 0.26. The published score is in `author.py`. Formulas and figures: docs/data.md.

    terms = ecg_waveform(lost_frac_B, mean_fit_B, power_BS, duration_s=30.0)
"""

import numpy as np

from jaxbio.signals.filters import band_sum

FIT_FLOOR, FIT_SPAN = 0.4, 0.52  # correlation that scores 0, and how much more scores 1


def template_score(mean_fit_B: np.ndarray) -> np.ndarray:
    """Return clip((rho - 0.4) / 0.52, 0, 1) of the mean correlation with the nearest template."""
    return np.clip((mean_fit_B - FIT_FLOOR) / FIT_SPAN, 0.0, 1.0)


def ecg_waveform(
    lost_frac_B: np.ndarray, mean_fit_B: np.ndarray, power_BS: np.ndarray, duration_s: float
) -> dict[str, np.ndarray]:
    """Return the terms `template`, `band` and the score `waveform` of ECG segments, each (B,) in [0, 1].

    `lost_frac_B` is the share of samples missing or clipped; `power_BS` is `filters.hann_power` of the raw segment
    from bin 1 to 150 Hz.
    """
    template_B = template_score(mean_fit_B)
    band_B = _band_share(power_BS, 0.5, 40.0, duration_s)
    return {"template": template_B, "band": band_B, "waveform": (1 - lost_frac_B) * template_B * band_B}


def pulse_waveform(
    lost_frac_B: np.ndarray, mean_fit_B: np.ndarray, power_BS: np.ndarray, duration_s: float
) -> dict[str, np.ndarray]:
    """Return the terms `template`, `band`, `snr` and the score `waveform` of PPG or pressure segments, each (B,)."""
    template_B = template_score(mean_fit_B)
    band_B = _band_share(power_BS, 0.5, 5.0, duration_s)
    low_B, high_B = band_sum(power_BS, 0.5, 5.0, duration_s), band_sum(power_BS, 5.0, 25.0, duration_s)
    tiny = np.finfo(power_BS.dtype).tiny
    snr_B = sigmoid(0.5 * (10 * np.log10((low_B + tiny) / (high_B + tiny)) - 5))
    score_B = (1 - lost_frac_B) * template_B * snr_B * band_B
    return {"template": template_B, "band": band_B, "snr": snr_B, "waveform": score_B}


def _band_share(power_BS: np.ndarray, low_hz: float, high_hz: float, duration_s: float) -> np.ndarray:
    """Return clip(2 P(band) / P(0.03-150 Hz), 0, 1); 0 without any power."""
    all_B = power_BS.sum(axis=-1)
    band_B = band_sum(power_BS, low_hz, high_hz, duration_s)
    return np.clip(2 * band_B / np.where(all_B > 0, all_B, 1), 0, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
