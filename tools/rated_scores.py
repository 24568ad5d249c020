"""Scores beside eyes, beside cardiologists' rhythms, and beside pulses of a known rate: a part of `bench_scores.py`.

Every figure has a bootstrap interval over records: segments of one patient are alike.

    value, low, high = interval(np.median, record_R, score_R)
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from jaxbio.signals import segments
from jaxbio.signals.channel import ANALYSIS_HZ

SEGMENT_S = 30.0
DRAWS = 1000
RHYTHMS = ("sinus", "pvc", "pac", "vt", "svt", "af")
GOOD, USABLE, UNUSABLE, RUBBISH = 0.7, 0.9, 0.5, 0.3  # a score, and what eyes call a segment
RATES_BPM = (25, 30, 40, 60, 75, 100, 125, 150, 175, 200, 220, 240, 260, 280, 300)
NOTCHES = (0.2, 0.35, 0.5, 0.6, 0.7)  # height of the dicrotic wave

Interval = tuple[float, float, float]


def measure(raw: dict[str, np.ndarray], duration_s: float = SEGMENT_S, **changes: object) -> dict[str, np.ndarray]:
    """Return the columns of raw windows, and `kept`."""
    length = round(duration_s * ANALYSIS_HZ)
    measured = segments.measure(raw, rate_hz=length / duration_s, length=length, channels=tuple(raw), **changes)
    return measured.columns | {"kept": measured.reason_B == 0}


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties half."""
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(above)


def interval(figure: Callable[..., float], record_R: np.ndarray, *columns: np.ndarray) -> Interval:
    """Return a figure of columns (R,) and its 2.5 and 97.5 % quantiles when whole records are drawn again."""
    _, code_R = np.unique(record_R, return_inverse=True)
    rows = [np.flatnonzero(code_R == code) for code in range(code_R.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        chosen = np.concatenate([rows[code] for code in rng.integers(0, len(rows), len(rows))])
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(figure(*(column[chosen] for column in columns)))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(figure(*columns)), float(low), float(high)


def bench_ratings(data: Path, windows_of: Callable[[str], dict[str, np.ndarray]]) -> dict[str, Interval]:
    """PPG and ECG scores against the share of each segment that two people called usable, by eye.

    `windows_of(record)` gives raw 30-s windows by role.
    """
    with (data / "ratings" / "cinc2015_vt.csv").open(newline="") as file:
        rated = list(csv.DictReader(file))
    windows = {name: windows_of(name) for name in sorted({row["recording"] for row in rated})}
    raw = {
        role: np.stack([windows[row["recording"]][role][round(float(row["start_s"]) / SEGMENT_S)] for row in rated])
        for role in ("ppg", "ecg")
    }
    record_R = np.array([row["recording"] for row in rated])
    alone, crossed = measure(raw), measure(raw, cross_channel="on")
    figures: dict[str, Interval] = {}
    for role in ("ppg", "ecg"):
        eye_R = np.array([float(row[role] or "nan") for row in rated])
        figures |= _beside_eyes(role, record_R, eye_R, alone[f"{role}_waveform"])
        figures |= _beside_eyes(f"{role}_clean", record_R, eye_R, 1 - alone[f"{role}_artefact_frac"])
        figures |= _beside_eyes(f"{role}_author", record_R, eye_R, alone[f"{role}_author"])
        above_R = alone[f"{role}_waveform"] - (1 - alone[f"{role}_artefact_frac"])
        figures[f"{role}_most_above_clean"] = interval(np.max, record_R, above_R)
        if role == "ppg":
            figures |= _beside_eyes("ppg_cross_channel", record_R, eye_R, crossed["ppg_waveform"])
    return figures


def _beside_eyes(name: str, record_R: np.ndarray, eye_R: np.ndarray, score_R: np.ndarray) -> dict[str, Interval]:
    """Return how a score orders and meets the ratings, by what figures are called."""
    known_R = np.isfinite(eye_R)
    columns = (eye_R[known_R].round(6), score_R[known_R])
    parts = {
        "spearman": lambda eye, score: stats.spearmanr(eye, score)[0],
        "auroc": lambda eye, score: auroc(score[eye >= USABLE], score[eye <= UNUSABLE]),
        "difference": lambda eye, score: np.mean(np.abs(eye - score)),
        "rubbish_above_0.9": lambda eye, score: np.sum(score[eye <= RUBBISH] >= USABLE),
        "usable_below_0.7": lambda eye, score: np.mean(score[eye >= USABLE] < GOOD),
    }
    return {f"{name}_{part}": interval(figure, record_R[known_R], *columns) for part, figure in parts.items()}


def bench_ppg_rhythm(data: Path) -> dict[str, Interval]:
    """PPG scores of clean ten-second segments by the rhythm that cardiologists read from the ECG."""
    record, rhythm, ppg = [], [], []
    for path in sorted((data / "ppg_rhythm").glob("patient_*.npz")):
        with np.load(path) as held:
            ppg.append(held["ppg"].astype(np.float32))
            rhythm.append(held["rhythm"])
            record += [path.stem] * len(held["rhythm"])
            duration_s = held["ppg"].shape[1] / float(held["rate_hz"])
    score_R = measure({"ppg": np.concatenate(ppg)}, duration_s)["ppg_waveform"]
    rhythm_R, record_R = np.concatenate(rhythm), np.array(record)
    figures = {}
    for number, name in enumerate(RHYTHMS):
        of_R = rhythm_R == number
        figures[f"median_{name}"] = interval(np.median, record_R[of_R], score_R[of_R])
        figures[f"below_0.7_{name}"] = interval(lambda score: np.mean(score < GOOD), record_R[of_R], score_R[of_R])
    return figures


def bench_rates(_data: Path) -> dict[str, float]:
    """Rates and scores of clean synthetic pulses and QRS complexes from 25 to 300 a minute, both ways up."""
    off, unsaid, scores = [], [], []
    for bpm in RATES_BPM:
        ppg_BN = np.stack([pulse_train(bpm, notch, sign) for notch in NOTCHES for sign in (1, -1)])
        ecg_BN = np.stack([ecg_train(bpm, wave, sign) for wave in (0.1, 0.35, 0.7) for sign in (1, -1)])
        for role, x_BN, name in (("ppg", ppg_BN, "pulse_rate_bpm"), ("ecg", ecg_BN, "heart_rate_bpm")):
            columns = measure({role: x_BN})
            off_B = np.abs(columns[name] - bpm)
            off.append(np.nanmax(off_B, initial=0))
            unsaid.append(np.mean(np.isnan(off_B)))
            if role == "ppg":
                scores.append(columns["ppg_waveform"][::2])
    inside = [score_B for bpm, score_B in zip(RATES_BPM, scores) if 40 <= bpm <= 200]
    return {
        "largest_error_bpm": float(max(off)),
        "in_doubt_frac": float(np.mean(unsaid)),
        "ppg_score_spread_40_to_200": float(np.max(np.ptp(np.array(inside), axis=0))),
        "ppg_score_least": float(np.min(scores)),
    }


def pulse_train(bpm: float, notch: float, sign: float = 1, rate_hz: float = 125.0) -> np.ndarray:
    """Return 30 s of PPG: a Gaussian pulse and a dicrotic wave of `notch` its height, stretched with the interval."""
    at_N, interval_s = np.arange(round(SEGMENT_S * rate_hz)) / rate_hz, 60 / bpm
    x_N = 0.01 * np.random.default_rng(0).standard_normal(len(at_N))
    for start_s in np.arange(-1, SEGMENT_S + 1, interval_s):
        for centre, width, height in ((0.3, 0.1, 1.0), (0.62, 0.12, notch)):
            x_N += height * np.exp(-0.5 * ((at_N - start_s - centre * interval_s) / (width * interval_s)) ** 2)
    return (sign * x_N).astype(np.float32)


def ecg_train(bpm: float, t_wave: float, sign: float = 1, rate_hz: float = 250.0) -> np.ndarray:
    """Return 30 s of ECG: QRS complexes of 1 mV and T waves of t_wave mV that move up as the interval shortens."""
    at_N, interval_s = np.arange(round(SEGMENT_S * rate_hz)) / rate_hz, 60 / bpm
    x_N = 0.01 * np.random.default_rng(0).standard_normal(len(at_N))
    shrink = min(1.0, interval_s) ** 0.5
    waves = ((-0.025, 0.010, -0.12), (0.0, 0.011, 1.0), (0.028, 0.012, -0.2), (0.24 * shrink, 0.045 * shrink, t_wave))
    for beat_s in np.arange(0.3, SEGMENT_S + 1, interval_s):
        for centre_s, width_s, height in waves:
            x_N += height * np.exp(-0.5 * ((at_N - beat_s - centre_s) / width_s) ** 2)
    return (sign * x_N).astype(np.float32)
