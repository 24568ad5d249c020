"""What a segment is worth: the default score, blind to rhythm, of ECG, PPG and arterial pressure.

waveform (default) = share of the time that holds usable beats x share of power in the signal's band. Products, not
means: a mean leaves white noise at -5 dB at 0.26. The published score is in `author.py`. Formulas and figures:
docs/data.md.

    terms = ecg_waveform(usable_B, power_BS, duration_s=30.0)
"""

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.filters import band_sum

_ECG_BEST = (0.78, 0.986)  # correlation of a beat of an ECG with the neighbour most like it: worth nothing, worth all
# Bands, Hz. Of pulses: 0.3 Hz is 20 a minute, 8 Hz the second harmonic of 240
_ECG_HZ, _PULSE_HZ, _HIGHEST_HZ = (0.5, 40.0), (0.3, 8.0), 150.0


def ecg_worth(best_J: np.ndarray, row_J: np.ndarray) -> np.ndarray:
    """Return what each beat of an ECG is worth (J,) in [0, 1], of its likeness to a neighbour; NaN where unknown.

    One odd beat between two good ones is an extra beat, and worth what the lesser of them is; two in a row are not.
    """
    worth_J = filters.ramp(best_J, *_ECG_BEST)
    if len(worth_J) < 3:
        return worth_J
    beside_J = np.minimum(worth_J[:-2], worth_J[2:])
    same_J = row_J[:-2] == row_J[2:]
    worth_J[1:-1] = np.where(same_J, np.fmax(worth_J[1:-1], beside_J), worth_J[1:-1])
    return worth_J


def ecg_waveform(usable_B: np.ndarray, power_BS: np.ndarray, duration_s: float) -> dict[str, np.ndarray]:
    """Return the terms `usable`, `band`, `snr` and the score `waveform` of ECG segments, each (B,) in [0, 1].

    `usable_B` is the mean worth of the beats over the time that is no artefact; `power_BS` is `filters.hann_power` of
    the raw segment from bin 1 to 150 Hz. The band counts by height, not by power: QRS complexes are read on a baseline
    that sways by several times their size.
    """
    band_B, snr_B = np.sqrt(_band_share(power_BS, *_ECG_HZ, duration_s)), _snr(power_BS, *_ECG_HZ, duration_s)
    return {"usable": usable_B, "band": band_B, "snr": snr_B, "waveform": usable_B * band_B * snr_B}


def pulse_waveform(usable_B: np.ndarray, power_BS: np.ndarray, duration_s: float) -> dict[str, np.ndarray]:
    """Return the terms `usable`, `band`, `snr` and the score `waveform` of PPG or pressure segments, each (B,)."""
    band_B, snr_B = _band_share(power_BS, *_PULSE_HZ, duration_s), _snr(power_BS, *_PULSE_HZ, duration_s)
    return {"usable": usable_B, "band": band_B, "snr": snr_B, "waveform": usable_B * band_B * snr_B}


def _snr(power_BS: np.ndarray, low_hz: float, high_hz: float, duration_s: float) -> np.ndarray:
    """Return sigmoid(dB / 2) of the power in the band over that above it, up to 150 Hz: a half where they are equal.

    Beats are looked for within the band, or between them: mains and muscle noise would go unseen.
    """
    tiny = np.finfo(power_BS.dtype).tiny
    inside_B = band_sum(power_BS, low_hz, high_hz, duration_s)
    above_B = band_sum(power_BS, high_hz, _HIGHEST_HZ, duration_s)
    return sigmoid(0.5 * 10 * (np.log10(inside_B + tiny) - np.log10(above_B + tiny)))


def _band_share(power_BS: np.ndarray, low_hz: float, high_hz: float, duration_s: float) -> np.ndarray:
    """Return clip(2 P(band) / P(0.03-150 Hz), 0, 1); 0 without any power."""
    all_B = power_BS.sum(axis=-1)
    band_B = band_sum(power_BS, low_hz, high_hz, duration_s)
    return np.clip(2 * band_B / np.where(all_B > 0, all_B, 1), 0, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
