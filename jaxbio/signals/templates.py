"""How well every beat of a segment fits one of up to three template beats of the same segment.

Three templates, because bigeminy and runs of ventricular beats are clean signals of more than one shape. Nothing here
looks at the time between beats.

    fit_J = fit_templates(x_BT, beats, usable_J, rate_hz=300.0, before_s=0.25, after_s=0.4, step_s=0.005)
    rho_B = mean_fit(fit_J, beats)
"""

import numpy as np

from jaxbio.signals.beats import Beats, row_means, row_medians

MIN_BEATS = 5  # fewer say nothing about likeness
FITS = 0.8  # correlation from which a template fits a beat, and from which beats are alike enough to form the next
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
    template is the common shape of all usable beats; the next is that of the beats which no template so far fits to
    0.8, where these are at least 3 and 8 %, and alike: bursts of noise form no template.
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
        present_B = left_B >= np.maximum(1 if number == 0 else MIN_TEMPLATE_BEATS, MIN_TEMPLATE_FRAC * total_B)
        own_J = np.flatnonzero(left_J & present_B[row_J])
        if not len(own_J):
            break
        template_BW, likeness_B = _common_shape(beat_JW[own_J], row_J[own_J], rows)
        if number > 0:
            present_B &= likeness_B >= FITS
        match_J = np.einsum("jw,jw->j", beat_JW, template_BW[row_J])
        best_J = np.maximum(best_J, np.where(present_B[row_J], match_J, np.float32(-1)))
    fit_J[chosen_J] = best_J
    return fit_J


def mean_fit(fit_J: np.ndarray, beats: Beats) -> np.ndarray:
    """Return the mean correlation (B,) of each segment's usable beats, 0 below five of them."""
    usable_J = ~np.isnan(fit_J)
    row_J, rows = beats.row_J[usable_J], len(beats.count_B)
    enough_B = np.bincount(row_J, minlength=rows) >= MIN_BEATS
    return np.where(enough_B, row_means(fit_J[usable_J], row_J, rows), 0.0)


def _unit(x_JW: np.ndarray) -> np.ndarray:
    """Return rows with their mean removed and of length one (zero stays zero)."""
    x_JW = x_JW - x_JW.mean(axis=-1, keepdims=True)
    norm_J = np.sqrt(np.einsum("jw,jw->j", x_JW, x_JW))
    x_JW /= np.where(norm_J > 0, norm_J, np.float32(1))[:, None]
    return x_JW


def _common_shape(beat_JW: np.ndarray, row_J: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the template (B, W) of each row's beats, and the mean correlation (B,) of those it is made of.

    It is their median. Where that fits them badly, as the blend of two shapes in bigeminy fits neither, it is the
    median of the half that it fits better.
    """
    template_BW = _medians(beat_JW, row_J, rows)
    match_J = np.einsum("jw,jw->j", beat_JW, template_BW[row_J])
    likeness_B = row_means(match_J, row_J, rows)
    mixed_J = np.flatnonzero(likeness_B[row_J] < FITS)
    if len(mixed_J):
        middle_B = row_medians(match_J[mixed_J], row_J[mixed_J], rows)
        mixed_J = mixed_J[match_J[mixed_J] >= middle_B[row_J[mixed_J]]]
        half_BW = _medians(beat_JW[mixed_J], row_J[mixed_J], rows)
        match_J = np.einsum("jw,jw->j", beat_JW[mixed_J], half_BW[row_J[mixed_J]])
        mixed_B = likeness_B < FITS
        template_BW[mixed_B] = half_BW[mixed_B]
        likeness_B[mixed_B] = row_means(match_J, row_J[mixed_J], rows)[mixed_B]
    return template_BW, likeness_B


def _medians(beat_JW: np.ndarray, row_J: np.ndarray, rows: int) -> np.ndarray:
    """Return the median beat (B, W) of each row, of mean zero and length one; zeros for a row without beats."""
    count_B = np.bincount(row_J, minlength=rows)
    held_S = np.flatnonzero(count_B)
    count_S = count_B[held_S]
    table_SWJ = np.full((len(held_S), beat_JW.shape[1], int(count_S.max())), np.inf, beat_JW.dtype)
    slot_J = np.arange(len(row_J)) - (np.cumsum(count_B) - count_B)[row_J]
    table_SWJ[np.searchsorted(held_S, row_J), :, slot_J] = beat_JW
    table_SWJ.sort(axis=-1)
    row_S = np.arange(len(held_S))
    median_BW = np.zeros((rows, beat_JW.shape[1]), beat_JW.dtype)
    median_BW[held_S] = _unit(0.5 * (table_SWJ[row_S, :, (count_S - 1) // 2] + table_SWJ[row_S, :, count_S // 2]))
    return median_BW
