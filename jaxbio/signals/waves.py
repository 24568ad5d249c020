"""Waves of synthetic beats and pulses: a sum of Gaussians after each beat (McSharry et al., IEEE TBME 50(3), 2003).

It knows neither patients nor recordings; `synthetic` and `patients` say when beats come and what shape they have.

    pulse_T = lay_pulses(rng, at_T, rate_hz, beat_s_J, ventricular_J, transit_J, ((0.85, 0.13, 0.055),))
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import fft

Wave = tuple[float, float, float]  # amplitude (mV), centre (s from R), width (s)

# T and P centres scale with the square root of RR
SINUS_WAVES: Mapping[str, Wave] = {
    "p": (0.13, -0.17, 0.022),
    "q": (-0.10, -0.026, 0.008),
    "r": (1.00, 0.0, 0.0105),
    "s": (-0.22, 0.028, 0.010),
    "t": (0.28, 0.29, 0.050),
}
VENTRICULAR_WAVES: Mapping[str, Wave] = {
    "r": (1.15, 0.0, 0.032),
    "s": (-0.65, 0.085, 0.036),
    "t": (-0.35, 0.33, 0.060),
}
_SCALED = ("p", "t")


def lay_ecg(
    rng: np.random.Generator,
    at_T: np.ndarray,
    rate_hz: float,
    time_J: np.ndarray,
    ventricular_J: np.ndarray,
    rhythm: str,
    waves: Iterable[Iterable[tuple[str, Wave]]],
    breath_T: np.ndarray,
    *,
    swing: float,
    lift_mv: float,
) -> np.ndarray:
    """Return an ECG in mV: waves of each beat, f waves in fibrillation, breathing and wander, without gain and noise.

    `waves` are those of sinus beats and of ventricular ones; breathing swings their size by the share `swing` and lifts
    the baseline by `lift_mv`.
    """
    stretch_J = np.sqrt(_intervals(time_J).clip(0.35, 1.2) / 0.85)
    ecg_T = np.zeros(len(at_T))
    for chosen_J, named in zip((~ventricular_J, ventricular_J), waves, strict=True):
        for name, (amplitude, centre_s, width_s) in named:
            if not chosen_J.any() or (name == "p" and rhythm == "af"):
                continue
            centre_J = centre_s * (stretch_J if name in _SCALED else np.ones_like(stretch_J))
            wave_J = amplitude * (1 + rng.normal(0, 0.01, len(time_J)))
            ecg_T += _laid(at_T, rate_hz, (time_J + centre_J)[chosen_J], wave_J[chosen_J], width_s)
    ecg_T *= 1 + swing * breath_T
    if rhythm == "af":
        phase_T = np.cumsum(rng.uniform(5, 8) + 0.6 * slow(rng, len(at_T), rate_hz, 1.0)) / rate_hz
        ecg_T += rng.uniform(0.02, 0.05) * np.sin(2 * np.pi * phase_T) * (1 + 0.3 * slow(rng, len(at_T), rate_hz, 1.0))
    return ecg_T + lift_mv * breath_T + 0.02 * slow(rng, len(at_T), rate_hz, 0.3)


def lay_pulses(
    rng: np.random.Generator,
    at_T: np.ndarray,
    rate_hz: float,
    time_J: np.ndarray,
    ventricular_J: np.ndarray,
    transit_J: np.ndarray,
    waves: Iterable[tuple[float | np.ndarray, float, float]],
) -> np.ndarray:
    """Return pulses of height about 1 after each beat: `waves` are (height, centre in s from the foot, width in s).

    A height may be one for all or one a beat. The filling time before a beat makes its pulse large or small.
    """
    interval_J = _intervals(time_J)
    filling_J = (interval_J / np.median(interval_J)) ** 0.8
    height_J = filling_J.clip(0.25, 1.4) * np.where(ventricular_J, 0.75, 1.0) * (1 + rng.normal(0, 0.015, len(time_J)))
    pulse_T = np.zeros(len(at_T))
    for share, centre_s, width_s in waves:
        pulse_T += _laid(at_T, rate_hz, time_J + transit_J + centre_s, share * height_J, width_s)
    return pulse_T


def slow(rng: np.random.Generator, length: int, rate_hz: float, below_hz: float) -> np.ndarray:
    """Return noise of unit variance below a frequency."""
    gain = fft.rfftfreq(length, 1 / rate_hz) <= max(below_hz, 1.5 * rate_hz / length)
    noise_T = fft.irfft(fft.rfft(rng.standard_normal(length)) * gain, n=length)
    noise_T -= noise_T.mean()
    return noise_T / noise_T.std()


def _intervals(time_J: np.ndarray) -> np.ndarray:
    return np.diff(time_J, prepend=2 * time_J[0] - time_J[1])


def _laid(at_T, rate_hz, centre_J, amplitude_J, width_s) -> np.ndarray:
    """Return the sum of Gaussians of one width at the given times."""
    reach = int(np.ceil(5 * width_s * rate_hz))
    index_JW = np.rint(centre_J * rate_hz).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    value_JW = amplitude_J[:, None] * np.exp(-0.5 * ((index_JW / rate_hz - centre_J[:, None]) / width_s) ** 2)
    inside_JW = (index_JW >= 0) & (index_JW < len(at_T))
    return np.bincount(index_JW[inside_JW], value_JW[inside_JW], minlength=len(at_T))
