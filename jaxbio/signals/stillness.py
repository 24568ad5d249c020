"""Whether a signal moves at all: a flat line that a converter's last bits, or its noise, keep from being constant.

A channel may come in mV, in counts of a converter or in no unit, on any level, so nothing here asks how large it is:
only how many steps it takes, and whether a sample tells anything of the next.

    resting_frac(x_BN, rate_hz=125.0) > 0.5
"""

import numpy as np

from jaxbio.signals import filters

_STRETCH_S = 2.0  # longer than a beat at 30 a minute: a heart that is recorded moves within it
# A last bit that toggles, noise and hum of two more. Of 10-second segments of BIDMC, CinC 2015 and 2017, Welltory and
# HeartPy's ring, the weakest of them (its pulses are 8 counts of 16,000), one in 8,000 rests so for half of its length,
# a PPG that has come off. The half step is for what float32 rounds.
_STEPS = 4.5
# Correlation of neighbouring samples; of the segments above all have 0.58 or more, but one that holds hum alone.
_LEAST_CORRELATION = 0.25


def resting_frac(x_BN: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the share (B,) of segments (B, N), at rate_hz and without NaN, that rests for two seconds at a time within
    four steps of its converter.

    A step is the smallest by which two neighbouring samples differ; a constant rests throughout.
    """
    step_BN = np.abs(np.diff(x_BN, axis=1))
    step_B = np.min(step_BN, axis=1, where=step_BN > 0, initial=np.inf)
    limit_B = np.where(np.isfinite(step_B), _STEPS * step_B, 0.0)
    half = round(_STRETCH_S * rate_hz / 2)
    resting_BN = np.zeros(x_BN.shape, bool)
    if len(some_R := np.flatnonzero(_may_rest(x_BN, limit_B, half))):
        x_RN = x_BN[some_R]
        range_RN = filters.running_max(x_RN, 2 * half + 1) + filters.running_max(-x_RN, 2 * half + 1)
        resting_BN[some_R] = filters.grown(range_RN <= limit_B[some_R, None], half)
    return filters.share(resting_BN)


def _may_rest(x_BN: np.ndarray, limit_B: np.ndarray, half: int) -> np.ndarray:
    """Return which segments rest in some block of a third of `half`: every stretch, cut off at an end or not, holds one
    of them whole, and few signals get further.
    """
    block = min(max(half // 3, 1), x_BN.shape[1])
    x_BKN = x_BN[:, : x_BN.shape[1] // block * block].reshape(len(x_BN), -1, block)
    return (np.ptp(x_BKN, axis=2) <= limit_B[:, None]).any(axis=1)


def find_noise(x_BN: np.ndarray) -> np.ndarray:
    """Return which segments (B, N) are white noise, bool (B,): no sample tells anything of the next.

    Signals of the body are sampled so often that neighbours resemble each other; what is left of a flat line once its
    mean is gone is what its amplifier adds.
    """
    centred_BN = x_BN.astype(np.float64)
    centred_BN -= centred_BN.mean(axis=1, keepdims=True)
    power_B = np.einsum("bn,bn->b", centred_BN, centred_BN)
    shared_B = np.einsum("bn,bn->b", centred_BN[:, 1:], centred_BN[:, :-1])
    return (power_B > 0) & (shared_B < _LEAST_CORRELATION * power_B)
