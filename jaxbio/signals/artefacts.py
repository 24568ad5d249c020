"""What is missing from a signal, before any beat is looked for: gaps, flat lines, clipping.

gaps = find_gaps(x_BN, rate_hz=125.0)
gaps.missing_BN, gaps.lost_BN, gaps.clipped_BN, gaps.filled_BN
"""

from dataclasses import dataclass

import numpy as np

from jaxbio.signals import filters

HOLE_S = 0.05  # so little missing, or a single sample, is read across: a straight line leaves the beat as it was
FLAT_S = 0.5  # a signal that does not move for so long is held, not measured
CLIPPED_S = 0.04  # rests at the segment's extreme for so long
# Clipped for a while, at limits of its own: rests for so long at the extreme of so many seconds on either side. Of the
# segments of CinC 2015 one in 60 holds such a rest; every clipped beat does.
PINNED_S, PINNED_REACH_S = 0.06, 1.5


@dataclass(frozen=True)
class Gaps:
    """Faults of B segments: `missing_BN` NaN, infinite or flat, `clipped_BN`, `nan_frac_B`, `filled_BN` without NaN.

    `lost_BN` is what is missing for 50 ms or more: shorter holes take nothing but themselves. `pinned_BN` rests for 60
    ms at the largest or smallest value of the 1.5 s on either side. `offset_B` and `scale_B` are the middle and half of
    each row's range (float32); `constant_B`, `infinite_B` bool.
    """

    missing_BN: np.ndarray
    lost_BN: np.ndarray
    clipped_BN: np.ndarray
    pinned_BN: np.ndarray
    nan_frac_B: np.ndarray
    infinite_B: np.ndarray
    constant_B: np.ndarray
    filled_BN: np.ndarray
    offset_B: np.ndarray
    scale_B: np.ndarray


def find_gaps(x_BN: np.ndarray, rate_hz: float) -> Gaps:
    """Return the faults of raw segments (B, N) float32 at rate_hz, NaN where missing, and the gaps filled linearly.

    Missing: NaN, infinite, or the same value for at least 0.5 s. Clipped: at the segment's largest or smallest value
    for at least 40 ms. Gaps are filled by straight lines; before the first and after the last value it is repeated.
    """
    finite_BN = np.isfinite(x_BN)
    whole_B = finite_BN.all(axis=-1)
    infinite_B = np.zeros(len(x_BN), bool)
    filled_BN = x_BN
    if not whole_B.all():
        filled_BN = x_BN.copy()
        infinite_B[~whole_B] = np.isinf(x_BN[~whole_B]).any(axis=-1)
        for row in np.flatnonzero(~whole_B):
            filled_BN[row] = _filled(x_BN[row], finite_BN[row])
    low_B, high_B = filled_BN.min(axis=-1), filled_BN.max(axis=-1)
    scale_B = 0.5 * high_B - 0.5 * low_B
    still_BN = np.zeros(x_BN.shape, bool)
    still_BN[:, 1:] = filled_BN[:, 1:] == filled_BN[:, :-1]
    pinned_BN = _runs_of_equal(still_BN, max(3, round(PINNED_S * rate_hz)))
    flat_BN = np.zeros(x_BN.shape, bool)
    if len(resting_R := np.flatnonzero(pinned_BN.any(axis=-1))):
        flat_BN[resting_R] = _runs_of_equal(still_BN[resting_R], round(FLAT_S * rate_hz))
        pinned_BN[resting_R] &= finite_BN[resting_R] & _at_limits(filled_BN[resting_R], rate_hz)
    clipped_BN = _clipped(filled_BN, low_B, high_B, max(3, round(CLIPPED_S * rate_hz)))
    clipped_BN &= finite_BN
    missing_BN = flat_BN | ~finite_BN
    return Gaps(
        missing_BN=missing_BN,
        lost_BN=filters.in_runs(missing_BN, max(2, round(HOLE_S * rate_hz))),
        clipped_BN=clipped_BN,
        pinned_BN=pinned_BN,
        nan_frac_B=filters.share(~finite_BN),
        infinite_B=infinite_B,
        constant_B=~(scale_B > np.finfo(np.float32).tiny),
        filled_BN=filled_BN,
        offset_B=0.5 * high_B + 0.5 * low_B,
        scale_B=scale_B,
    )


def padded_frac(missing_BN: np.ndarray) -> np.ndarray:
    """Return the share (B,) of each row that is missing from its first sample on, and up to its last."""
    padded_B = np.zeros(len(missing_BN))
    if len(edge_R := np.flatnonzero(missing_BN[:, 0] | missing_BN[:, -1])):
        there_RN = ~missing_BN[edge_R]
        before_R, after_R = there_RN.argmax(axis=1), there_RN[:, ::-1].argmax(axis=1)
        padded_B[edge_R] = np.where(there_RN.any(axis=1), (before_R + after_R) / missing_BN.shape[1], 1.0)
    return padded_B


def _filled(x_N: np.ndarray, finite_N: np.ndarray) -> np.ndarray:
    """Return x_N with everything not finite replaced by linear interpolation, all zeros where nothing is finite."""
    at = np.flatnonzero(finite_N)
    return np.interp(np.arange(len(x_N)), at, x_N[at]).astype(x_N.dtype) if len(at) else np.zeros_like(x_N)


def _clipped(x_BN: np.ndarray, low_B: np.ndarray, high_B: np.ndarray, least: int) -> np.ndarray:
    """Return the samples (bool) of runs of at least `least` at their row's smallest or largest value."""
    clipped_BN = np.zeros(x_BN.shape, bool)
    some_BK = x_BN[:, ::least]  # a run holds one of them at least
    some_R = np.flatnonzero(((some_BK == low_B[:, None]) | (some_BK == high_B[:, None])).any(axis=-1))
    if len(some_R):
        x_RN = x_BN[some_R]
        extreme_RN = (x_RN == low_B[some_R, None]) | (x_RN == high_B[some_R, None])
        clipped_BN[some_R] = filters.in_runs(extreme_RN, least)
    return clipped_BN


def _at_limits(x_RN: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the samples (bool) that nothing nearby exceeds, or nothing falls below."""
    width = 2 * round(PINNED_REACH_S * rate_hz) + 1
    return (x_RN == filters.running_max(x_RN, width)) | (x_RN == -filters.running_max(-x_RN, width))


def _runs_of_equal(still_BN: np.ndarray, least: int) -> np.ndarray:
    """Return the samples of runs of at least `least` equal samples, where `still` says equal to the one before."""
    held_BN = filters.in_runs(still_BN, max(1, least - 1))
    if held_BN.any():
        held_BN = held_BN.copy()
        held_BN[:, :-1] |= held_BN[:, 1:]
    return held_BN


def to_unit(gaps: Gaps) -> np.ndarray:
    """Return each row, without its gaps, taken to [-1, 1], so that its offset costs no digits; a constant one zeros."""
    unit_BN = gaps.filled_BN - gaps.offset_B[:, None]
    unit_BN /= _half_range(gaps)
    return unit_BN


def from_unit(unit_BT: np.ndarray, gaps: Gaps) -> np.ndarray:
    """Return what `to_unit` made, at any number of samples, in the rows' own units."""
    x_BT = unit_BT * _half_range(gaps)
    x_BT += gaps.offset_B[:, None]
    return x_BT


def _half_range(gaps: Gaps) -> np.ndarray:
    return np.where(gaps.constant_B, np.float32(1), gaps.scale_B)[:, None]
