"""What a segment is worth: the default score, blind to rhythm, of ECG, PPG and arterial pressure.

waveform (default) = share of the time that holds usable beats x share of power in the signal's band. Products, not
means: a mean leaves white noise at -5 dB at 0.26. The published score is in `author.py`. Formulas and figures:
docs/data.md.

    terms = ecg_waveform(usable_B, power_BS, duration_s=30.0)
"""

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.filters import band_sum

_ECG_BEST = (0.78, 0.985)  # correlation of a beat of an ECG with the neighbour most like it: worth nothing, worth all
# Pulses: 0.3 Hz is 20 a minute, 8 Hz the second harmonic of 240
_PULSE_HZ, _POWER_HZ = (0.3, 8.0), 150.0


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
    """Return the terms `usable`, `band` and the score `waveform` of ECG segments, each (B,) in [0, 1].

    `usable_B` is the mean worth of the beats over the time that is no artefact; `power_BS` is `filters.hann_power` of
    the raw segment from bin 1 to 150 Hz. The band counts by height, not by power: QRS complexes are read on a baseline
    that sways by several times their size.
    """
    band_B = np.sqrt(_band_share(power_BS, 0.5, 40.0, duration_s))
    return {"usable": usable_B, "band": band_B, "waveform": usable_B * band_B}


def pulse_waveform(usable_B: np.ndarray, power_BS: np.ndarray, duration_s: float) -> dict[str, np.ndarray]:
    """Return the terms `usable`, `band`, `snr` and the score `waveform` of PPG or pressure segments, each (B,).

    The band that pulses are found in leaves noise above it out: `snr` sees it, and is a half where it has their power.
    """
    band_B = _band_share(power_BS, *_PULSE_HZ, duration_s)
    low_B = band_sum(power_BS, *_PULSE_HZ, duration_s)
    high_B = band_sum(power_BS, _PULSE_HZ[1], _POWER_HZ, duration_s)
    tiny = np.finfo(power_BS.dtype).tiny
    snr_B = sigmoid(0.5 * 10 * np.log10((low_B + tiny) / (high_B + tiny)))
    return {"usable": usable_B, "band": band_B, "snr": snr_B, "waveform": usable_B * snr_B * band_B}


def _band_share(power_BS: np.ndarray, low_hz: float, high_hz: float, duration_s: float) -> np.ndarray:
    """Return clip(2 P(band) / P(0.03-150 Hz), 0, 1); 0 without any power."""
    all_B = power_BS.sum(axis=-1)
    band_B = band_sum(power_BS, low_hz, high_hz, duration_s)
    return np.clip(2 * band_B / np.where(all_B > 0, all_B, 1), 0, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))
