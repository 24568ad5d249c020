"""Synthetic ECG, PPG and arterial pressure whose beats, rhythm and artefacts are known.

A beat is a sum of Gaussian waves in the manner of McSharry et al. (IEEE TBME 50(3), 2003); pulses follow each beat
after a transit time, with an amplitude that grows with the filling time before it, so that early beats pulse weakly.
Everything follows from the seed.

    made = recording(0, duration_s=300.0, rate_hz=300.0, rhythm="af")
    made.ecg, made.r_peaks_s
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.signals import noise
from jaxbio.signals.noise import add_noise
from jaxbio.signals.waves import SINUS_WAVES, VENTRICULAR_WAVES, Wave, lay_ecg, lay_pulses, slow

__all__ = ["ARTEFACTS", "RHYTHMS", "Artefact", "Synthetic", "add_noise", "random_artefacts", "recording"]

RHYTHMS: tuple[str, ...] = ("sinus", "af", "vt", "ectopy", "bigeminy", "tachycardia")
ARTEFACTS: tuple[str, ...] = (*noise.NOISES, "clipping", "lead_off", "dropout", "held")
CHANNELS: tuple[str, ...] = ("ppg", "ecg", "abp")

_TRANSIT_S = 0.20  # from R peak to the foot of the finger pulse
RATES_BPM = {
    "sinus": (55, 95),
    "af": (75, 115),
    "vt": (140, 190),
    "ectopy": (60, 90),
    "bigeminy": (60, 85),
    "tachycardia": (122, 165),
}


@dataclass(frozen=True)
class Artefact:
    """One planted artefact: `kind` of ARTEFACTS on `channel` from start_s to stop_s.

    `strength` is the SNR in dB against that span for noises, the share of clipped samples for clipping, else unused.
    """

    kind: str
    channel: str
    start_s: float
    stop_s: float
    strength: float = 0.0


@dataclass(frozen=True)
class Synthetic:
    """Signals (T,) float32 at rate_hz: ppg (arbitrary), ecg (mV), abp (mmHg), and what is true of them.

    r_peaks_s: R peaks, s; ventricular: bool, which of them are ventricular; pulses_s: feet of their pulses, s.
    """

    rate_hz: float
    ppg: np.ndarray
    ecg: np.ndarray
    abp: np.ndarray
    r_peaks_s: np.ndarray
    ventricular: np.ndarray
    pulses_s: np.ndarray
    rhythm: str
    artefacts: tuple[Artefact, ...]


def recording(
    seed: int,
    *,
    duration_s: float,
    rate_hz: float = 300.0,
    rhythm: str = "sinus",
    heart_rate_bpm: float | None = None,
    artefacts: Sequence[Artefact] = (),
) -> Synthetic:
    """Return a synthetic recording of `rhythm` at a mean rate (drawn when None), with artefacts planted in order.

    Raises ValueError for an unknown rhythm, artefact kind or channel.
    """
    if rhythm not in RHYTHMS:
        raise ValueError(f"rhythm {rhythm!r}; known: {', '.join(RHYTHMS)}")
    for artefact in artefacts:
        if artefact.kind not in ARTEFACTS or artefact.channel not in CHANNELS:
            raise ValueError(f"{artefact}: known are {', '.join(ARTEFACTS)} on {', '.join(CHANNELS)}")
    rng = np.random.default_rng(seed)
    mean_bpm = heart_rate_bpm or rng.uniform(*RATES_BPM[rhythm])
    breath_hz = rng.uniform(0.18, 0.30)
    # beats before and behind the recording, so that its ends look like any other part
    time_J, ventricular_J = _beats(rng, rhythm, 60.0 / mean_bpm, breath_hz, duration_s + 8.0)
    time_J = time_J - 4.0
    at_T = np.arange(round(duration_s * rate_hz)) / rate_hz
    breath_T = np.sin(2 * np.pi * (breath_hz * at_T + rng.random()))
    signals = {
        "ecg": _ecg(rng, at_T, rate_hz, time_J, ventricular_J, rhythm, breath_T),
        "ppg": _ppg(rng, at_T, rate_hz, time_J, ventricular_J, breath_T),
        "abp": _abp(rng, at_T, rate_hz, time_J, ventricular_J, breath_T),
    }
    signals = plant(signals, artefacts, rng, rate_hz)
    inside_J = (time_J >= 0) & (time_J < duration_s)
    return Synthetic(
        rate_hz=rate_hz,
        **signals,
        r_peaks_s=time_J[inside_J],
        ventricular=ventricular_J[inside_J],
        pulses_s=time_J[inside_J] + _TRANSIT_S,
        rhythm=rhythm,
        artefacts=tuple(artefacts),
    )


def random_artefacts(
    seed: int, duration_s: float, *, share: float = 0.3, channels: Sequence[str] = CHANNELS
) -> tuple[Artefact, ...]:
    """Return artefacts of every kind in stretches of 5 to 60 s that cover about `share` of each channel's time."""
    rng = np.random.default_rng(seed)
    planted = []
    for channel in channels:
        covered_s, start_s = 0.0, rng.exponential(15.0)
        while covered_s < share * duration_s and start_s < duration_s:
            stop_s = min(duration_s, start_s + rng.uniform(5.0, 60.0))
            kind = str(rng.choice(ARTEFACTS))
            strength = 0.1 if kind == "clipping" else float(rng.uniform(-10, 10))
            planted.append(Artefact(kind, channel, start_s, stop_s, strength))
            covered_s += stop_s - start_s
            start_s = stop_s + rng.exponential(32.0 * (1 - share) / max(share, 1e-3))
    return tuple(planted)


def plant(
    signals: Mapping[str, np.ndarray], artefacts: Sequence[Artefact], rng: np.random.Generator, rate_hz: float
) -> dict[str, np.ndarray]:
    """Return the signals (T,) float32 by channel with the artefacts planted in order."""
    planted = dict(signals)
    for artefact in artefacts:
        planted[artefact.channel] = _plant(planted[artefact.channel], artefact, rng, rate_hz)
    return {name: x_T.astype(np.float32) for name, x_T in planted.items()}


def _beats(
    rng: np.random.Generator, rhythm: str, mean_s: float, breath_hz: float, duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return times of beats from 0 to duration_s and which are ventricular."""
    count = int(duration_s / mean_s * 1.5) + 10
    relative_J, ventricular_J = relative_intervals(rng, rhythm, count, mean_s, breath_hz)
    time_J = np.cumsum(mean_s * relative_J)
    inside_J = time_J < duration_s
    return time_J[inside_J], ventricular_J[inside_J]


def relative_intervals(
    rng: np.random.Generator, rhythm: str, count: int, mean_s: float, breath_hz: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (J,) intervals between beats as multiples of their mean, and which beats are ventricular, bool (J,).

    Intervals sway with a breath of `breath_hz`; None: they do not.
    """
    ventricular_J = np.zeros(count, bool)
    if rhythm == "af":
        interval_J = np.maximum(0.36 / mean_s, np.exp(rng.normal(-0.02, 0.20, count)))
    else:
        spread = 0.008 if rhythm in ("vt", "tachycardia") else 0.025
        slow_J = np.cumsum(rng.normal(0, 0.004, count))
        if breath_hz is None:
            sway_J = np.zeros(count)
        else:
            sway_J = spread * np.sin(2 * np.pi * breath_hz * mean_s * np.arange(count) + rng.uniform(0, 6))
        interval_J = 1 + sway_J + (slow_J - slow_J.mean()).clip(-0.06, 0.06) + rng.normal(0, 0.006, count)
    if rhythm == "vt":
        ventricular_J[:] = True
    if rhythm == "bigeminy":
        ventricular_J[1::2] = True
    if rhythm == "ectopy":
        ventricular_J[1:] = rng.random(count - 1) < 0.12
        ventricular_J[1:] &= ~ventricular_J[:-1]
    if rhythm in ("bigeminy", "ectopy"):
        early_J = np.where(ventricular_J, rng.normal(0.64, 0.01), 1.0)
        early_J[1:] += np.where(ventricular_J[:-1], 1 - early_J[:-1], 0)
        interval_J = interval_J * early_J
    return interval_J, ventricular_J


def _ecg(rng, at_T, rate_hz, time_J, ventricular_J, rhythm, breath_T) -> np.ndarray:
    """Return the ECG in mV, of waves whose sizes are drawn."""
    drawn = [_drawn(rng, waves) for waves in (SINUS_WAVES, VENTRICULAR_WAVES)]
    ecg_T = lay_ecg(rng, at_T, rate_hz, time_J, ventricular_J, rhythm, drawn, breath_T, swing=0.04, lift_mv=0.03)
    return ecg_T * rng.uniform(0.6, 1.5) + rng.normal(0, 0.008, len(at_T))


def _drawn(rng, waves: Mapping[str, Wave]) -> Iterator[tuple[str, Wave]]:
    """Yield the waves, each size drawn when its turn comes: so the stream of random numbers is as it always was."""
    for name, (amplitude, centre_s, width_s) in waves.items():
        yield name, (amplitude * rng.uniform(0.75, 1.25), centre_s, width_s)


def _ppg(rng, at_T, rate_hz, time_J, ventricular_J, breath_T) -> np.ndarray:
    """Return the PPG in arbitrary units about 1: pulses, breathing, slow vessel tone and sensor noise."""
    pulse_T = _pulses(rng, at_T, rate_hz, time_J, ventricular_J)
    tone_T = 0.05 * breath_T + 0.06 * slow(rng, len(at_T), rate_hz, 0.2)
    return 1.0 + 0.5 * pulse_T * (1 + 0.05 * breath_T) + 0.5 * tone_T + rng.normal(0, 0.003, len(at_T))


def _abp(rng, at_T, rate_hz, time_J, ventricular_J, breath_T) -> np.ndarray:
    """Return the arterial pressure in mmHg."""
    diastolic, pulse = rng.uniform(55, 80), rng.uniform(35, 60)
    pulse_T = _pulses(rng, at_T, rate_hz, time_J - 0.08, ventricular_J)
    slow_T = 1.5 * breath_T + 2.0 * slow(rng, len(at_T), rate_hz, 0.1)
    return diastolic + pulse * pulse_T + slow_T + rng.normal(0, 0.3, len(at_T))


def _pulses(rng, at_T, rate_hz, time_J, ventricular_J) -> np.ndarray:
    """Return pulses of height about 1, of a reflected wave whose size and delay are drawn."""
    transit_J = np.full(len(time_J), _TRANSIT_S)
    return lay_pulses(rng, at_T, rate_hz, time_J, ventricular_J, transit_J, _drawn_pulse(rng))


def _drawn_pulse(rng) -> Iterator[tuple[float, float, float]]:
    notch, delay_s = rng.uniform(0.15, 0.35), rng.uniform(0.26, 0.32)
    yield from ((0.85, 0.13, 0.055), (0.45, 0.24, 0.085), (notch, 0.13 + delay_s, 0.080))


def _plant(x_T: np.ndarray, artefact: Artefact, rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    """Return the signal with one artefact in its span."""
    x_T = x_T.copy()
    span = slice(round(artefact.start_s * rate_hz), round(artefact.stop_s * rate_hz))
    part = x_T[span]
    if len(part) == 0:
        return x_T
    match artefact.kind:
        case "dropout":
            x_T[span] = np.nan
        case "held":
            x_T[span] = part[0]
        case "lead_off":
            x_T[span] = np.nanmean(x_T) + rng.choice((-1, 1)) * 6 * np.nanstd(x_T)
        case "clipping":
            x_T[span] = noise.clip_extremes(part, artefact.strength)
        case kind:
            spread = np.nanstd(x_T) * 10 ** (-artefact.strength / 20)
            x_T[span] = part + spread * noise.make_noise(kind, len(part), rng, rate_hz)
    return x_T
