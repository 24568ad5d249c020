"""Which pulses have the shape that a heartbeat gives a PPG or an arterial pressure, whatever the rhythm.

A pulse rises faster than it falls, in one wave that takes its time, and is like some of its neighbours. Each of these
is a limit that clean pulses of sinus rhythm, ectopy, tachycardia and fibrillation meet: where it is met it costs
nothing, and it grows with the interval where the pulse has longer to run off. No limit asks for regular intervals.

The limits were searched for on the clean pulses of a set of six rhythms and on segments rated by eye; docs/data.md says
what they reach there, and what such a choice reaches on records that had no part in it.

    found = read_pulses(x_BT, is_whole, rate_hz=100.0)
    found.beats, found.worth_J, found.inverted_B
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxbio.signals import filters
from jaxbio.signals.beats import Beats, Read, beats_of, find_waves, neighbour_means, pulse_band, row_means, row_medians
from jaxbio.signals.likeness import find_likeness

# Window about the steepest upslope: wider ones hold the next pulse of tachycardia, narrower ones fit rubbish
BEFORE_S, AFTER_S, _STEP_S = 0.20, 0.35, 0.02

# Limits: the value that makes a pulse worth nothing, and that from which it costs nothing
_BEST, _NEXT = (0.80, 0.95), (0.60, 0.90)  # correlation with the neighbour most like it, and with the next
# Steepest rise over steepest fall, for each second of interval up to 0.7 s: fast pulses are nearly symmetrical. Of
# clean pulses 95 % reach 2.4 a second; of rubbish half stay below 1.1 to 1.2 in all, whatever the interval.
_STEEPER, _RUN_OFF_S = (1.1, 1.6), 0.7
# Way up and down beyond the one wave, over its own way: a dicrotic wave adds less than 0.3
_RIPPLE = (2.0, 0.5)
# Height over steepest rise: in clean pulses 0.06 to 0.2 s, and up to a sixth of a long interval. In multiples of
# that, and in seconds for what jumps
_RISE_S, _RISE_SHARE, _RISE, _STEP_LIKE_S = 0.2, 1 / 6, (1.5, 1.0), (0.03, 0.05)

# Pulses are judged five at a time, as an eye does: among good ones a single odd one is a beat, and a good one among
# rubbish is chance.
_TOGETHER, _JUDGED = 2, (0.25, 0.65)

INVERTED_FRAC = 0.8  # the mean worth that a segment's waves must reach turned over; rubbish does not


# Says of spans in seconds (row_J, start_J, stop_J) which have no sample missing.
IsWhole = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def read_pulses(x_BT: np.ndarray, is_whole: IsWhole, rate_hz: float) -> Read:
    """Return the pulses of segments (B, T) float32 at about 100 Hz, whether they stand upright or upside down.

    Upside down, as the raw light of reflective sensors is, are those whose steepest slopes fall, and of which, turned
    over, more has the shape of pulses, and nearly all.
    """
    rows = len(x_BT)
    band_BT, pad = pulse_band(x_BT, rate_hz)
    found = _read_upright(band_BT, pad, is_whole, rate_hz)
    slope_BT = np.diff(band_BT[:, pad:-pad], axis=-1)
    worth_B = row_means(found.worth_J, found.beats.row_J, rows)
    falling_B = np.einsum("bt,bt,bt->b", slope_BT, slope_BT, slope_BT) < 0
    falling_R = np.flatnonzero(falling_B & (worth_B < 1))
    inverted_B = np.zeros(rows, bool)
    if len(falling_R):
        turned = _read_upright(
            -band_BT[falling_R], pad, lambda row_J, *span: is_whole(falling_R[row_J], *span), rate_hz
        )
        worth_R = row_means(turned.worth_J, turned.beats.row_J, len(falling_R))
        inverted_B[falling_R] = (worth_R >= INVERTED_FRAC) & (worth_R > worth_B[falling_R])
        if inverted_B.any():
            found = _merge(found, turned, falling_R, inverted_B)
    return Read(found.beats, found.worth_J, _alternate(found.beats, found.steepness_J), inverted_B)


class _Upright(NamedTuple):
    """Waves of segments that are taken to stand upright: how steep each is, and what it is worth, (J,)."""

    beats: Beats
    steepness_J: np.ndarray
    worth_J: np.ndarray


def _read_upright(band_BT: np.ndarray, pad: int, is_whole: IsWhole, rate_hz: float) -> _Upright:
    beats, steepness_J = find_waves(band_BT, pad, rate_hz)
    return _Upright(beats, steepness_J, _judge(band_BT[:, pad:-pad], beats, is_whole, rate_hz))


def _merge(found: _Upright, turned: _Upright, turned_R: np.ndarray, chosen_B: np.ndarray) -> _Upright:
    """Return the waves of all segments: of the chosen ones those of `turned`, whose rows are turned_R, else `found`."""
    own_row_J = turned_R[turned.beats.row_J]
    from_found_J, from_turned_J = ~chosen_B[found.beats.row_J], chosen_B[own_row_J]
    row_J = np.concatenate([found.beats.row_J[from_found_J], own_row_J[from_turned_J]])
    order_J = np.argsort(row_J, kind="stable")

    def merged(of_found_J: np.ndarray, of_turned_J: np.ndarray) -> np.ndarray:
        return np.concatenate([of_found_J[from_found_J], of_turned_J[from_turned_J]])[order_J]

    beats = beats_of(row_J[order_J], merged(found.beats.time_J, turned.beats.time_J), len(chosen_B))
    return _Upright(beats, merged(found.steepness_J, turned.steepness_J), merged(found.worth_J, turned.worth_J))


def _alternate(beats: Beats, steepness_J: np.ndarray) -> np.ndarray:
    """Return the rows (bool, B) in which every second wave may be no beat of its own.

    More than a tenth of the waves rise half as steeply as those on either side, or intervals differ from the next by a
    quarter but hardly from the one after it: dicrotic waves do that, and so do the weak pulses of bigeminy, which a
    pulse alone cannot tell apart.
    """
    rows, same_J = len(beats.count_B), beats.row_J[2:] == beats.row_J[:-2]
    beside_J = np.minimum(steepness_J[:-2], steepness_J[2:])
    weak_J = same_J & (steepness_J[1:-1] < 0.5 * beside_J)
    weak_B = np.bincount(beats.row_J[1:-1][weak_J], minlength=rows)
    second_I, interval_I = beats.intervals_s()
    row_I = beats.row_J[second_I]
    usual_B = row_medians(interval_I, row_I, rows)

    def change(lag: int) -> np.ndarray:
        same_I = row_I[lag:] == row_I[:-lag]
        return row_medians(np.abs(interval_I[lag:] - interval_I[:-lag])[same_I], row_I[lag:][same_I], rows)

    return (weak_B > 0.1 * beats.count_B) | ((change(1) > 0.25 * usual_B) & (change(2) < 0.1 * usual_B))


def _judge(band_BT: np.ndarray, beats: Beats, is_whole: IsWhole, rate_hz: float) -> np.ndarray:
    """Return what each pulse is worth (J,) in [0, 1], 0 in a segment with fewer than three whole ones."""
    whole_J = is_whole(beats.row_J, beats.time_J - BEFORE_S, beats.time_J + AFTER_S)
    best_J, next_J = find_likeness(
        band_BT, beats, whole_J, rate_hz=rate_hz, before_s=BEFORE_S, after_s=AFTER_S, step_s=_STEP_S
    )
    worth_J = filters.ramp(best_J, *_BEST) * filters.ramp(next_J, *_NEXT) * _shape(band_BT, beats, rate_hz)
    together_J = neighbour_means(worth_J, beats.row_J, _TOGETHER)
    return np.nan_to_num(filters.ramp(together_J, *_JUDGED))


def _shape(band_BT: np.ndarray, beats: Beats, rate_hz: float) -> np.ndarray:
    """Return how far each pulse (J,) keeps the limits of its shape, from its upslope to the next; 1 for the last."""
    length = band_BT.shape[-1]
    step_BT = np.zeros(band_BT.shape, band_BT.dtype)
    np.subtract(band_BT[:, 1:], band_BT[:, :-1], out=step_BT[:, :-1])
    at_J = np.clip(np.rint(beats.time_J * rate_hz).astype(np.intp), 0, length - 1)
    first_J = beats.row_J * length + at_J
    if not len(first_J):
        return np.zeros(0)
    here_J, level, step = band_BT.ravel()[first_J], band_BT.ravel(), step_BT.ravel()
    peak_J, foot_J = np.maximum.reduceat(level, first_J), np.minimum.reduceat(level, first_J)
    fall_J, way_J = -np.minimum.reduceat(step, first_J), np.add.reduceat(np.abs(step), first_J)
    there_J, interval_J = np.roll(here_J, -1), np.diff(beats.time_J, append=0)
    rise_J, height_J = step[first_J], peak_J - foot_J
    with np.errstate(divide="ignore", invalid="ignore"):
        rise_s_J = height_J / (rise_J * rate_hz)
        kept_J = filters.ramp(rise_J / (fall_J * np.minimum(interval_J, _RUN_OFF_S)), *_STEEPER)
        kept_J *= filters.ramp(way_J / (peak_J - here_J + height_J + there_J - foot_J) - 1, *_RIPPLE)
        kept_J *= filters.ramp(rise_s_J / np.maximum(_RISE_S, _RISE_SHARE * interval_J), *_RISE)
        kept_J *= filters.ramp(rise_s_J, *_STEP_LIKE_S)
    kept_J[np.append(beats.row_J[1:] != beats.row_J[:-1], True)] = 1  # nothing says how the last one falls
    return kept_J
