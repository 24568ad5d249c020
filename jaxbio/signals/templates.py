"""How well every beat of a segment fits one of up to three template beats of the same segment.

Three templates, because bigeminy and runs of ventricular beats are clean signals of more than one shape. Nothing here
looks at the time between beats.

    fit = fit_templates(x_BT, beats, usable_J, rate_hz=300.0, before_s=0.25, after_s=0.4, step_s=0.005)
    template_B = template_score(fit, beats)
"""

import numpy as np

from jaxbio.signals.beats import Beats

MIN_BEATS = 5  # fewer say nothing about likeness
FITS = 0.8  # correlation from which a template fits a beat; the others may form the next one
LIKENESS = 0.7  # least mean correlation of those with their own median: bursts of noise form no template
MIN_TEMPLATE_BEATS = 3
MIN_TEMPLATE_FRAC = 0.08
TEMPLATES = 3


def fit_templates(
    x_BT: np.ndarray,
    beats: Beats,
    usable_J: np.ndarray,
    *,
    rate_hz: float,
    before_s: float,
    after_s: float,
    step_s: float,
) -> np.ndarray:
    """Return the correlation (J,) float32 of each usable beat with the nearest template; NaN for the other beats,
    and for those whose window leaves the segment.

    Windows reach from before_s ahead of a beat to after_s behind it, every step_s, with their mean removed. The first
    template is the median of all usable beats; the next is that of the beats which no template so far fits to 0.8,
    where these are at least 3 and 8 %, and alike.
    """
    length = x_BT.shape[-1]
    step = max(1, round(step_s * rate_hz))
    offset_W = np.arange(-round(before_s * rate_hz), round(after_s * rate_hz) + 1, step)
    centre_J = np.rint(beats.time_J * rate_hz).astype(np.intp)
    chosen_J = np.flatnonzero(usable_J & (centre_J + offset_W[0] >= 0) & (centre_J + offset_W[-1] < length))
    fit_J = np.full(len(beats.row_J), np.nan, np.float32)
    row_J = beats.row_J[chosen_J]
    if not len(row_J):
        return fit_J
    beat_JW = _unit(x_BT.ravel().take((centre_J[chosen_J] + row_J * length)[:, None] + offset_W))
    rows = len(x_BT)
    total_B = np.bincount(row_J, minlength=rows)
    best_J = np.full(len(row_J), -1, np.float32)
    for number in range(TEMPLATES):
        left_J = best_J < FITS
        left_B = np.bincount(row_J[left_J], minlength=rows)
        enough_B = (left_B >= MIN_TEMPLATE_BEATS) & (left_B >= MIN_TEMPLATE_FRAC * total_B)
        if number == 0:
            enough_B = total_B > 0
        if not enough_B.any():
            break
        slot_B = np.cumsum(enough_B) - 1
        own_J = left_J & enough_B[row_J]
        template_SW = _unit(_medians(beat_JW[own_J], slot_B[row_J[own_J]], left_B[enough_B]))
        match_J = np.full(len(row_J), -1, np.float32)
        against_J = enough_B[row_J]
        match_J[against_J] = np.einsum("jw,jw->j", beat_JW[against_J], template_SW[slot_B[row_J[against_J]]])
        if number > 0:
            likeness_B = np.bincount(row_J[own_J], match_J[own_J], minlength=rows) / np.maximum(left_B, 1)
            match_J[likeness_B[row_J] < LIKENESS] = -1
        best_J = np.maximum(best_J, match_J)
    fit_J[chosen_J] = best_J
    return fit_J


def mean_fit(fit_J: np.ndarray, beats: Beats) -> np.ndarray:
    """Return the mean correlation (B,) of each segment's usable beats, 0 below five of them."""
    usable_J = ~np.isnan(fit_J)
    rows = len(beats.count_B)
    count_B = np.bincount(beats.row_J[usable_J], minlength=rows)
    total_B = np.bincount(beats.row_J[usable_J], fit_J[usable_J].astype(np.float64), minlength=rows)
    return np.where(count_B >= MIN_BEATS, total_B / np.maximum(count_B, 1), 0.0)


def _unit(x_JW: np.ndarray) -> np.ndarray:
    """Return rows with their mean removed and of length one (zero stays zero)."""
    x_JW = x_JW - x_JW.mean(axis=-1, keepdims=True)
    norm_J = np.sqrt(np.einsum("jw,jw->j", x_JW, x_JW))
    x_JW /= np.where(norm_J > 0, norm_J, np.float32(1))[:, None]
    return x_JW


def _medians(beat_JW: np.ndarray, group_J: np.ndarray, count_S: np.ndarray) -> np.ndarray:
    """Return the median beat (S, W) of each group; beats of a group lie one behind the other."""
    slot_J = np.arange(len(group_J)) - (np.cumsum(count_S) - count_S)[group_J]
    table_SWJ = np.full((len(count_S), beat_JW.shape[1], int(count_S.max())), np.inf, beat_JW.dtype)
    table_SWJ[group_J, :, slot_J] = beat_JW
    table_SWJ.sort(axis=-1)
    group_S = np.arange(len(count_S))
    return 0.5 * (table_SWJ[group_S, :, (count_S - 1) // 2] + table_SWJ[group_S, :, count_S // 2])
