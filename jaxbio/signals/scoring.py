"""The front door of signals: scores of arrays that never saw a store.

jaxbio.signals.score(ppg=x, ecg=y, rate_hz=125)["quality_waveform"]
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.roles import ROLES
from jaxbio.signals.channel import ANALYSIS_HZ
from jaxbio.signals.segments import MIN_S, REASONS, measure

WINDOW_S = 30.0


def score(
    *, rate_hz: float | Mapping[str, float], cross_channel: str = "off", **signals: ArrayLike | None
) -> dict[str, Any]:
    """Return the quality of signals and every term of it, by both variants: floats, or arrays (B,) for (B, T) input.

    `signals` are by role (`ppg=`, `ecg=`, `abp=`, or a lead: `ii=`, `v1=`): (T,) or (B, T), any unit, NaN or masked
    where missing, from 5 s up, at rate_hz (one number, or one by role); all span the same time. Signals longer than
    30 s are scored in whole windows of 30 s, shorter ones whole, and the mean over windows is returned; what remains
    behind the last window is not looked at. Keys are the columns of `segments.measure`, with `cross_channel` as there;
    rates are means over the windows whose rate is not in doubt, and `<role>_rate_doubt` is the share of the others (1:
    NaN). `kept_frac` is the share of windows preparation would keep.

    Raises UserError for an unknown role, no signal, unlike durations or rows, less than 5 s, or a rate not above 0.
    """
    given = {role: _as_float(x) for role, x in signals.items() if x is not None}
    rates_hz = {role: rate_hz.get(role, math.nan) if isinstance(rate_hz, Mapping) else rate_hz for role in given}
    if cross_channel not in ("off", "on"):
        raise UserError(Fault("cross_channel", cross_channel, "choose of off, on"))
    _check(given, rates_hz)
    single = all(x.ndim == 1 for x in given.values())
    duration_s = min(x.shape[-1] / rates_hz[role] for role, x in given.items())
    windows = max(1, int(duration_s / WINDOW_S + 1e-9))
    span_s = WINDOW_S if duration_s >= WINDOW_S else duration_s
    raw = {}
    for role, x in given.items():
        x_BN = np.atleast_2d(x)
        samples = round(span_s * rates_hz[role])
        starts = [round(number * span_s * rates_hz[role]) for number in range(windows)]
        starts = [min(start, x_BN.shape[1] - samples) for start in starts]
        raw[role] = np.stack([x_BN[:, start : start + samples] for start in starts], axis=1).reshape(-1, samples)
    length = round(span_s * ANALYSIS_HZ)
    measured = measure(raw, rate_hz=length / span_s, length=length, channels=tuple(raw), cross_channel=cross_channel)
    columns = dict(measured.columns)
    columns["kept_frac"] = measured.reason_B == REASONS.index("kept")
    means = {name: _mean_known(column.reshape(-1, windows)) for name, column in columns.items()}
    return {name: float(mean_B[0]) if single else mean_B for name, mean_B in means.items()}


def _as_float(x: ArrayLike) -> np.ndarray:
    return np.ma.filled(np.ma.asanyarray(x).astype(np.float32), np.nan)


def _mean_known(x_BW: np.ndarray) -> np.ndarray:
    """Return the mean (B,) float64 of each row's values that are known, NaN where none is."""
    known_BW = ~np.isnan(x_BW)
    total_B = np.where(known_BW, x_BW, 0).sum(axis=1, dtype=np.float64)
    return np.where(known_BW.any(axis=1), total_B / np.maximum(known_BW.sum(axis=1), 1), np.nan)


def _check(signals: Mapping[str, np.ndarray], rates_hz: Mapping[str, float]) -> None:
    """Raise UserError with every fault of the signals and rates."""
    if not signals:
        raise UserError(Fault("score", "no signal", f"give one by its role: {', '.join(ROLES)}"))
    faults = []
    for role, x in signals.items():
        if role not in ROLES:
            faults.append(Fault(role, "unknown role", f"one of {', '.join(ROLES)}"))
        elif not (isinstance(rates_hz[role], numbers.Real) and 0 < rates_hz[role] < math.inf):
            faults.append(Fault("rate_hz", rates_hz[role], f"give the sampling rate of {role} in Hz, above 0"))
        elif x.ndim not in (1, 2):
            faults.append(Fault(role, x.shape, "give (samples,) or (recordings, samples)"))
        elif x.shape[-1] < MIN_S * rates_hz[role]:
            faults.append(Fault(role, f"{x.shape[-1] / rates_hz[role]:g} s", f"give at least {MIN_S:g} s"))
    if faults:
        raise UserError(*faults)
    if len({x.shape[:-1] for x in signals.values()}) > 1:
        shapes = {role: x.shape for role, x in signals.items()}
        raise UserError(Fault("score", shapes, "give as many rows of each signal"))
    durations_s = {role: x.shape[-1] / rates_hz[role] for role, x in signals.items()}
    if max(durations_s.values()) - min(durations_s.values()) > 0.1:
        raise UserError(Fault("score", durations_s, "signals must span the same seconds: cut them, or check rate_hz"))
