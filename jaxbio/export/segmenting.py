"""From raw signals to segments of the encoder's rate and length, refusing what has no meaning. NumPy only.

windows = cut_signals({"ppg": x}, 125.0, ("ppg", "ecg"), segment_s=30.0)
x_BCT = windows.resample(9000)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.signals.segments import resample_segments
from jaxbio.signals.stillness import resting_frac

_RATES_HZ = (1.0, 1e6)  # below, a segment is a few samples; above, none of a body's signals is sampled
# A signal that moves at all must lie between these: sums over a segment overflow float32 above, and steps of a
# 65,534th of a range vanish below.
_LEAST_RANGE, _LARGEST_VALUE = 1e-30, 1e30
# Of a signal's range, what float32 may round away: half a step of a converter of eight bits.
_MOST_ROUNDED = 2.0**-9
_ARITHMETIC = 2e-15  # of the largest value, what float64 arithmetic leaves of a constant


@dataclass(frozen=True)
class Windows:
    """The given channels of segments as they were recorded: by role `raw` (B, N) float32, at `rate_hz`, Hz."""

    raw: Mapping[str, np.ndarray]
    rate_hz: Mapping[str, float]

    @cached_property
    def rests(self) -> dict[str, np.ndarray]:
        """What share (B,) of each segment rests, by role: `signals/stillness.py`."""
        return {role: resting_frac(raw_BN, self.rate_hz[role]) for role, raw_BN in self.raw.items()}

    def resample(self, length: int) -> np.ndarray:
        """Return x_BCT float32 of the given channels, `length` samples each, as a preparation makes them."""
        cut = [resample_segments(raw_BN, self.rate_hz[role], length) for role, raw_BN in self.raw.items()]
        return np.stack(cut, axis=1)


def cut_signals(
    signals: Mapping[str, Any],
    signal_rate_hz: float | Mapping[str, float] | None,
    channels: Sequence[str],
    segment_s: float,
) -> Windows:
    """Return the segments of the given channels, in the order of `channels`.

    `signals` are (samples,) or (recordings, samples) by role, each at its rate in Hz. Segments of `segment_s` seconds
    follow each other without overlap, recording by recording.

    Raises UserError with every fault of the signals and rates.
    """
    given = {role: signal for role, signal in signals.items() if signal is not None}
    faults = _role_faults(given, channels)
    arrays = {role: _as_recordings(role, signal, faults) for role, signal in given.items() if role in channels}
    rates = {role: _rate_of(role, signal_rate_hz, faults) for role in arrays}
    if not faults:
        faults += _duration_faults(arrays, rates, segment_s)
    if faults:
        raise UserError(*faults)
    roles = [role for role in channels if role in arrays]
    segments = min(_segments_in(arrays[role].shape[1], rates[role] * segment_s) for role in roles)
    raw = {role: _cut(arrays[role], rates[role] * segment_s, segments) for role in roles}
    return Windows(raw, {role: rates[role] for role in roles})


def _role_faults(given: Mapping[str, Any], channels: Sequence[str]) -> list[Fault]:
    known = ", ".join(channels)
    faults = [Fault(role, "unknown channel", f"this encoder takes {known}") for role in given if role not in channels]
    return faults if given else [Fault("embed", "no signal", f"give at least one of {known}")]


def _as_recordings(role: str, signal: Any, faults: list[Fault]) -> np.ndarray:
    """Return `signal` as (recordings, samples) float32, noting what is wrong with it."""
    nothing = np.zeros((1, 0), np.float32)
    try:
        array = np.asarray(signal)
    except ValueError:
        remedy = "expected recordings of one length; embed recordings of several lengths one by one"
        faults.append(Fault(role, "lists of unequal lengths", remedy))
        return nothing
    if array.dtype.kind not in "fiub":
        faults.append(Fault(role, f"type {array.dtype}", "expected real numbers"))
        return nothing
    if array.ndim not in (1, 2) or array.size == 0:
        faults.append(Fault(role, f"shape {array.shape}", "expected (samples,) or (recordings, samples)"))
        return nothing
    gap = ~np.isfinite(array) | np.ma.getmask(signal)
    if gap.any():
        faults.append(Fault(role, f"{gap.sum()} NaN or infinite samples", "fill the gaps or leave the channel out"))
        return nothing
    return _as_float32(role, np.atleast_2d(array), faults)


def _as_float32(role: str, array: np.ndarray, faults: list[Fault]) -> np.ndarray:
    """Return finite numbers as float32, noting where that would lose the signal."""
    first, last = array.min(axis=1), array.max(axis=1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = array.astype(np.float32)
        low, high = first.astype(np.float64), last.astype(np.float64)
        largest, range_R = np.maximum(np.abs(low), np.abs(high)), high - low
    unit = "give the channel in a usual unit, as mV: float32 cannot carry it through"
    if largest.max() > _LARGEST_VALUE:
        faults.append(Fault(role, f"values up to {largest.max():.3g}", unit))
    elif ((range_R > _ARITHMETIC * largest) & (range_R < _LEAST_RANGE)).any():
        faults.append(Fault(role, f"a range of {range_R[range_R > 0].min():.3g}", unit))
    elif (np.spacing(largest.astype(np.float32)) > 2 * _MOST_ROUNDED * range_R).any():
        rounded_R = np.abs(array - rounded.astype(np.float64)).max(axis=1)  # whole numbers may be exact all the same
        # A constant that went through float64 arithmetic has some last bits that differ; it does not move.
        moves_R = range_R > _ARITHMETIC * largest if array.dtype.kind == "f" else first != last
        if (moves_R & ((rounded_R > _MOST_ROUNDED * range_R) | (range_R == 0))).any():
            values = f"values up to {largest.max():.9g} that differ by {range_R.min():.3g}"
            faults.append(Fault(role, values, "subtract its mean: float32 would round the signal away"))
    return rounded


def _rate_of(role: str, rate_hz: Any, faults: list[Fault]) -> float:
    """Return the rate of a role in Hz, noting what is wrong with it."""
    rate = rate_hz.get(role) if isinstance(rate_hz, Mapping) else rate_hz
    if rate is None:
        faults.append(Fault("rate_hz", None, f"give the sampling rate of {role}, Hz"))
        return math.nan
    number = np.asarray(rate)
    least_hz, most_hz = _RATES_HZ
    if number.shape == () and number.dtype.kind in "fiu" and least_hz <= float(number) <= most_hz:
        return float(number)
    remedy = f"expected the sampling rate of {role}, Hz, above 0: from {least_hz:g} to {most_hz:g}"
    faults.append(Fault("rate_hz", _shorten(rate), remedy))
    return math.nan


def _shorten(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and abs(value) < 1e18 else str(value)[:40]


def _duration_faults(arrays: Mapping[str, np.ndarray], rates: Mapping[str, float], segment_s: float) -> list[Fault]:
    """Return the faults of signals against each other, and of those shorter than a segment."""
    faults = []
    first, *others = arrays
    for role in others:
        seconds, other_s = (arrays[name].shape[1] / rates[name] for name in (first, role))
        sample_s = 1 / min(rates[first], rates[role])
        if len(arrays[role]) != len(arrays[first]) or abs(seconds - other_s) > sample_s * (1 + 1e-9):
            shapes = f"{len(arrays[role])} x {other_s:g} s"
            expected = f"{first} has {len(arrays[first])} x {seconds:g} s; channels span the same time"
            faults.append(Fault(role, shapes, expected))
    for role, array in arrays.items():
        if not _segments_in(array.shape[1], rates[role] * segment_s):
            remedy = f"shorter than one segment of {segment_s:g} s"
            faults.append(Fault(role, f"{array.shape[1] / rates[role]:g} s", remedy))
    return faults


def _segments_in(samples: int, samples_a_segment: float) -> int:
    """Return the whole segments in `samples`; half a sample short of a whole one counts as whole."""
    return math.floor((samples + 0.5) / samples_a_segment)


def _cut(array: np.ndarray, samples_a_segment: float, segments: int) -> np.ndarray:
    """Return (recordings x segments, samples) of (recordings, samples)."""
    width = round(samples_a_segment)
    starts = [min(round(k * samples_a_segment), array.shape[1] - width) for k in range(segments)]
    return np.stack([array[:, start : start + width] for start in starts], axis=1).reshape(-1, width)
