"""Hand-made features of segments: what a clinician or an engineer would measure without learning anything.

Rates and their variability, both quality scores with their terms, morphology and spectra, channel by channel.

    feature_BF, names = describe_segments(x_BCT, 125.0, ("ppg", "ecg"))
    around_BLF = describe_seconds(x_BCT, 125.0)
"""

from collections.abc import Sequence

import numpy as np

from jaxbio.config.roles import kind_of
from jaxbio.signals import beats, filters
from jaxbio.signals.beats import DETECTION_HZ, Beats
from jaxbio.signals.segments import measure

_BANDS_HZ = ((0.1, 0.5), (0.5, 1.5), (1.5, 3.0), (3.0, 8.0), (8.0, 20.0), (20.0, 40.0))
_BREATHS_HZ = (0.1, 0.6)
_SECOND = 25  # samples, to which a second is brought for a linear filter
_FAST_BEATS = 5  # consecutive ones: a run of ventricular tachycardia has five beats (CinC 2015's definition)


def describe_segments(x_BCT: np.ndarray, rate_hz: float, channels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return features (B, F) float64 and their names, of segments in physical units; NaN where a segment has none.

    A channel that does not move counts as missing. Raises ValueError for less than 5 s.
    """
    length = x_BCT.shape[-1]
    raw = {role: x_BCT[:, place] for place, role in enumerate(channels)}
    measured = measure(raw, rate_hz=rate_hz, length=length, channels=channels, missing_channel="mask")
    found: dict[str, np.ndarray] = {name: column.astype(np.float64) for name, column in measured.columns.items()}
    for place, role in enumerate(channels):
        own = _describe_channel(measured.x_BCT[:, place], rate_hz, kind_of(role) == "ecg")
        present_B = measured.present_BC[:, place]
        found |= {f"{role}_{name}": np.where(present_B, value_B, np.nan) for name, value_B in own.items()}
    return np.stack(list(found.values()), axis=1), tuple(found)


def describe_seconds(x_BCT: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return the signals around each second of segments, (B, L, F) float32: what a linear filter would read.

    Each channel at 25 Hz with mean 0 and deviation 1 over the segment (0 where it does not move), from half a second
    before a second to half a second behind it.
    """
    seconds = max(1, round(x_BCT.shape[-1] / rate_hz))
    centred_BCT = (x_BCT - x_BCT.mean(axis=-1, keepdims=True)).astype(np.float64)
    spread_BC1 = centred_BCT.std(axis=-1, keepdims=True)
    unit_BCT = centred_BCT / np.where(spread_BC1 > 0, spread_BC1, 1.0)
    rows, channels, length = unit_BCT.shape
    slow_BT = filters.resample(unit_BCT.reshape(-1, length), seconds * _SECOND)
    reach = _SECOND // 2
    wide_BT = np.pad(slow_BT, ((0, 0), (reach, reach)), mode="edge")
    around_BLK = np.lib.stride_tricks.sliding_window_view(wide_BT, _SECOND + 2 * reach, axis=1)[:, ::_SECOND]
    around_BCLK = around_BLK.reshape(rows, channels, seconds, -1)
    return np.swapaxes(around_BCLK, 1, 2).reshape(rows, seconds, -1).astype(np.float32)


def _describe_channel(x_BT: np.ndarray, rate_hz: float, is_ecg: bool) -> dict[str, np.ndarray]:
    duration_s = x_BT.shape[-1] / rate_hz
    centred_BT = x_BT - x_BT.mean(axis=1, keepdims=True)
    spread_B = centred_BT.std(axis=1)
    unit_BT = centred_BT / np.where(spread_B > 0, spread_B, 1.0)[:, None]
    slow_BT = filters.resample(unit_BT, round(duration_s * DETECTION_HZ))
    found = (beats.find_r_peaks if is_ecg else beats.find_pulses)(slow_BT.astype(np.float32), DETECTION_HZ)
    return {
        "spread": spread_B,
        "skewness": (unit_BT**3).mean(axis=1),
        "kurtosis": (unit_BT**4).mean(axis=1),
        "range": np.ptp(unit_BT, axis=1),
        "steepest": np.abs(np.diff(slow_BT, axis=1)).max(axis=1),
        **_describe_intervals(found),
        **_describe_heights(slow_BT, found),
        **_describe_spectrum(unit_BT, duration_s),
    }


def _describe_intervals(found: Beats) -> dict[str, np.ndarray]:
    """Return rate and variability of the intervals between beats, in s and 1/min; NaN of fewer than three.

    Rates of runs are NaN of fewer intervals than a run has.
    """
    second_I, interval_I = found.intervals_s()
    ends = beats.beats_of(found.row_J[second_I], interval_I, len(found.count_B))
    interval_BI = ends.table(interval_I, np.nan)
    lacking = max(0, _FAST_BEATS - interval_BI.shape[1])
    interval_BI = np.pad(interval_BI, ((0, 0), (0, lacking)), constant_values=np.nan)
    enough_B, long_B = ends.count_B >= 3, ends.count_B >= _FAST_BEATS
    step_BI = np.diff(interval_BI, axis=1)
    runs_BI = np.lib.stride_tricks.sliding_window_view(interval_BI, _FAST_BEATS, axis=1).mean(axis=-1)
    last_B = np.maximum(ends.count_B - _FAST_BEATS, 0)  # where the last run begins
    with np.errstate(all="ignore"):
        mean_B = _over(np.nanmean, interval_BI, enough_B)
        deviation_B = _over(np.nanstd, interval_BI, enough_B)
        return {
            "interval_mean_s": mean_B,
            "interval_sd_s": deviation_B,
            "interval_cv": deviation_B / mean_B,
            "interval_rmssd_s": np.sqrt(_over(np.nanmean, step_BI**2, enough_B)),
            "interval_median_step_s": _over(np.nanmedian, np.abs(step_BI), enough_B),
            "interval_shortest_s": _over(np.nanmin, interval_BI, enough_B),
            "interval_longest_s": _over(np.nanmax, interval_BI, enough_B),
            "fastest_run_bpm": 60.0 / _over(np.nanmin, runs_BI, long_B),
            "last_run_bpm": 60.0 / np.take_along_axis(runs_BI, last_B[:, None], axis=1)[:, 0],
        }


def _over(statistic, value_BI: np.ndarray, known_B: np.ndarray) -> np.ndarray:
    """Return a statistic of the known rows, NaN of the others."""
    result_B = np.full(len(value_BI), np.nan)
    if known_B.any():
        result_B[known_B] = statistic(value_BI[known_B], axis=1)
    return result_B


def _describe_heights(x_BT: np.ndarray, found: Beats) -> dict[str, np.ndarray]:
    """Return how high beats are, from one to the next, and how much that varies."""
    rows, length = x_BT.shape
    if not len(found.row_J):
        return {"height_mean": np.full(rows, np.nan), "height_cv": np.full(rows, np.nan)}
    first_J = found.row_J * length + np.clip(np.rint(found.time_J * DETECTION_HZ).astype(np.intp), 0, length - 1)
    # two beats may round to one sample at the very end of a row
    height_J = np.maximum.reduceat(x_BT.ravel(), first_J) - np.minimum.reduceat(x_BT.ravel(), first_J)
    last_J = np.append(found.row_J[1:] != found.row_J[:-1], True)
    height_BJ = found.table(np.where(last_J, np.nan, height_J), np.nan)
    enough_B = found.count_B >= 4
    mean_B = _over(np.nanmean, height_BJ, enough_B)
    with np.errstate(all="ignore"):
        return {"height_mean": mean_B, "height_cv": _over(np.nanstd, height_BJ, enough_B) / mean_B}


def _describe_spectrum(x_BT: np.ndarray, duration_s: float) -> dict[str, np.ndarray]:
    """Return shares of the power in bands, the strongest frequency up to 8 Hz, and that of breathing, Hz."""
    power_BS = filters.hann_power(filters.spectrum(x_BT), stop=int(40 * duration_s) + 1)
    total_B = np.maximum(power_BS.sum(axis=1), 1e-30)
    found = {
        f"band_{low:g}_{high:g}_hz": filters.band_sum(power_BS, low, high, duration_s) / total_B
        for low, high in _BANDS_HZ
    }
    for name, (low, high) in (("strongest", (0.5, 8.0)), ("breath", _BREATHS_HZ)):
        first, last = max(1, round(low * duration_s)), round(high * duration_s)
        band_BS = power_BS[:, first - 1 : last]
        found[f"{name}_hz"] = (first + band_BS.argmax(axis=1)) / duration_s
        found[f"{name}_share"] = band_BS.max(axis=1) / np.maximum(band_BS.sum(axis=1), 1e-30)
    return found
