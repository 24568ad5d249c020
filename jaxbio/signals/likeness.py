"""How like each beat is to the beats beside it.

Beats are compared with their neighbours, never with a template of the whole segment: slow rubbish makes templates of
its own and fits them. Each beat counts by the neighbour that is most like it and by the next most, so that bigeminy
and runs of ventricular beats are clean signals of more than one shape, and two bursts of noise that happen to be
alike are not. Nothing here looks at the time between beats.

    best_J, next_J = find_likeness(x_BT, beats, usable_J, rate_hz=300.0, before_s=0.1, after_s=0.2, step_s=0.005)
"""

import numpy as np

from jaxbio.signals.beats import Beats

REACH = 3  # beats on either side: couplets and every third beat of another shape still meet their own kind
MIN_BEATS = 3  # fewer in a segment say nothing about likeness


def find_likeness(
    x_BT: np.ndarray,
    beats: Beats,
    usable_J: np.ndarray,
    *,
    rate_hz: float,
    before_s: float,
    after_s: float,
    step_s: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each usable beat's largest and second largest correlation (J,) float32 with three beats on either side.

    Windows reach from before_s ahead of a beat to after_s behind it, every step_s, with their mean removed. NaN for
    the other beats, for those whose window leaves the segment, for those without enough such neighbours, and for all
    beats of a segment that has fewer than three.
    """
    rows, length = x_BT.shape
    step = max(1, round(step_s * rate_hz))
    offset_W = np.arange(-round(before_s * rate_hz), round(after_s * rate_hz) + 1, step)
    centre_J = np.rint(beats.time_J * rate_hz).astype(np.intp)
    whole_J = usable_J & (centre_J + offset_W[0] >= 0) & (centre_J + offset_W[-1] < length)
    chosen_J = np.flatnonzero(whole_J & (np.bincount(beats.row_J[whole_J], minlength=rows) >= MIN_BEATS)[beats.row_J])
    best_J, next_J = np.full((2, len(beats.row_J)), np.nan, np.float32)
    row_J = beats.row_J[chosen_J]
    if not len(row_J):
        return best_J, next_J
    beat_JW = _unit(x_BT.ravel().take((centre_J[chosen_J] + row_J * length)[:, None] + offset_W))
    beside_JN = np.full((len(row_J), 2 * REACH), -1, np.float32)
    for apart in range(1, REACH + 1):
        match_J = np.einsum("jw,jw->j", beat_JW[apart:], beat_JW[:-apart])
        match_J = np.where(row_J[apart:] == row_J[:-apart], match_J, np.float32(-1))
        beside_JN[apart:, 2 * apart - 2] = match_J
        beside_JN[:-apart, 2 * apart - 1] = match_J
    beside_JN.sort(axis=1)
    best_J[chosen_J], next_J[chosen_J] = beside_JN[:, -1], beside_JN[:, -2]
    return best_J, next_J


def _unit(x_JW: np.ndarray) -> np.ndarray:
    """Return rows with their mean removed and of length one (zero stays zero)."""
    x_JW = x_JW - x_JW.mean(axis=-1, keepdims=True)
    norm_J = np.sqrt(np.einsum("jw,jw->j", x_JW, x_JW))
    x_JW /= np.where(norm_J > 0, norm_J, np.float32(1))[:, None]
    return x_JW
