"""Synthetic patients: what stays the same in a person, what drifts over minutes, and what is true at every moment.

A patient has a rhythm, waves of their own shape, a pulse transit time, a heart rate and a breathing rate. The last
three and the depth of the dicrotic notch drift over minutes, so that neighbouring segments share them and distant ones
share only the person. Everything follows from two seeds, the patient's and the recording's.

    patient = draw_patient(7, rhythm="sinus")
    course = draw_course(patient, 0, duration_s=300.0)
    record(course, 1, rate_hz=125.0)["ppg"], course.truth(np.arange(10) * 30.0, 30.0)["true_heart_rate"]
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import signal

from jaxbio.signals.synthetic import RATES_BPM, relative_intervals
from jaxbio.signals.waves import SINUS_WAVES, VENTRICULAR_WAVES, Wave, lay_ecg, lay_pulses, slow

# What is drawn once for a patient: (lowest, highest), uniform. Transit from R peak to the foot of the finger pulse;
# notch: height of the reflected wave as a share of the ejection; the rise is the width of the ejection.
RANGES: Mapping[str, tuple[float, float]] = {
    "breath_hz": (0.15, 0.40),
    "transit_s": (0.14, 0.34),
    "notch": (0.05, 0.50),
    "reflection_s": (0.24, 0.34),
    "rise_s": (0.045, 0.068),
    "breath_depth": (0.04, 0.16),  # of the pulse: how much breathing moves baseline and height
    "gain": (0.6, 1.5),
}
_WAVE_SCALE, _WAVE_WIDTH = (0.6, 1.4), (0.85, 1.25)
# Deviation of a drift, as a share of the value, and the time in which it forgets itself.
_DRIFT = {"heart_rate": 0.06, "breath_hz": 0.10, "transit_s": 0.06, "notch": 0.10}
_MEMORY_S = 240.0
_ARM_S = 0.08  # an arterial line in the arm sees the pulse so much earlier than a finger
_MARGIN_S = 6.0  # beats before and behind a recording, so that its ends look like any other part
NUMBERS: tuple[str, ...] = ("true_heart_rate", "respiratory_rate", "transit_time", "wave_shape")


@dataclass(frozen=True)
class Patient:
    """A person's constants: rhythm, mean heart rate (1/min), RANGES by name, and the waves of their beats.

    Waves are (amplitude mV, centre s, width s) by name, as in `waves`.
    """

    rhythm: str
    heart_rate_bpm: float
    constants: Mapping[str, float]
    sinus_waves: Mapping[str, Wave]
    ventricular_waves: Mapping[str, Wave]


@dataclass(frozen=True)
class Course:
    """What happens in one recording of a patient, before any signal is drawn.

    Beats (J,) begin some seconds before the recording and end behind it; `drifts` and `breath_S`, the phase of
    breathing in breaths, have one value a second, of which the first is at `start_s`.
    """

    patient: Patient
    duration_s: float
    start_s: float
    beat_s_J: np.ndarray
    ventricular_J: np.ndarray
    breath_S: np.ndarray
    drifts: Mapping[str, np.ndarray]

    @property
    def second_S(self) -> np.ndarray:
        """Time of the values that come once a second, s."""
        return self.start_s + np.arange(len(self.breath_S))

    def truth(self, start_s_B: np.ndarray, length_s: float) -> dict[str, np.ndarray]:
        """Return what is true of each span, float32 (B,), by the names of NUMBERS.

        true_heart_rate: beats a minute, from the beats' mean interval; respiratory_rate: breaths a minute;
        transit_time: s; wave_shape: height of the reflected wave as a share of the ejection. Spans lie within the
        recording.
        """
        stop_s_B = start_s_B + length_s
        first_B, end_B = np.searchsorted(self.beat_s_J, start_s_B), np.searchsorted(self.beat_s_J, stop_s_B)
        interval_s_B = (self.beat_s_J[end_B] - self.beat_s_J[first_B]) / (end_B - first_B)
        inside_BS = (self.second_S >= start_s_B[:, None]) & (self.second_S < stop_s_B[:, None])
        means = {name: (inside_BS * drift_S).sum(1) / inside_BS.sum(1) for name, drift_S in self.drifts.items()}
        found = {
            "true_heart_rate": 60.0 / interval_s_B,
            "respiratory_rate": 60.0 * means["breath_hz"],
            "transit_time": means["transit_s"],
            "wave_shape": means["notch"],
        }
        return {name: value_B.astype(np.float32) for name, value_B in found.items()}


def draw_patient(seed: int | tuple[int, ...], *, rhythm: str) -> Patient:
    """Return the patient of a seed; raises KeyError for an unknown rhythm."""
    rng = np.random.default_rng(seed)
    return Patient(
        rhythm,
        float(rng.uniform(*RATES_BPM[rhythm])),
        {name: float(rng.uniform(*limits)) for name, limits in RANGES.items()},
        *(
            {
                name: (amplitude * rng.uniform(*_WAVE_SCALE), centre_s, width_s * rng.uniform(*_WAVE_WIDTH))
                for name, (amplitude, centre_s, width_s) in waves.items()
            }
            for waves in (SINUS_WAVES, VENTRICULAR_WAVES)
        ),
    )


def draw_course(patient: Patient, seed: int | tuple[int, ...], *, duration_s: float) -> Course:
    """Return what happens in a recording of `duration_s`; another seed is another time of the same patient's."""
    rng = np.random.default_rng(seed)
    seconds = int(np.ceil(duration_s + 2 * _MARGIN_S)) + 1
    centre = {"heart_rate": patient.heart_rate_bpm, **patient.constants}
    drifts = {name: centre[name] * np.exp(spread * _wander(rng, seconds)) for name, spread in _DRIFT.items()}
    breath_S = np.cumsum(drifts["breath_hz"]) + rng.random()
    second_S = np.arange(seconds) - _MARGIN_S
    beat_s_J, ventricular_J = _beats(rng, patient.rhythm, drifts["heart_rate"], second_S, breath_S)
    return Course(patient, duration_s, -_MARGIN_S, beat_s_J, ventricular_J, breath_S, drifts)


def record(course: Course, seed: int | tuple[int, ...], *, rate_hz: float) -> dict[str, np.ndarray]:
    """Return the signals of a course without artefacts, float32 (T,): ppg (arbitrary), ecg (mV), abp (mmHg)."""
    rng, patient = np.random.default_rng(seed), course.patient
    at_T = np.arange(round(course.duration_s * rate_hz)) / rate_hz
    breath_T = np.sin(2 * np.pi * np.interp(at_T, course.second_S, course.breath_S))
    transit_J = np.interp(course.beat_s_J, course.second_S, course.drifts["transit_s"])
    pulse_T = _pulses(rng, course, at_T, rate_hz, transit_J)
    pressure_T = _pulses(rng, course, at_T, rate_hz, transit_J - _ARM_S)
    signals = {
        "ppg": _ppg(rng, patient, rate_hz, pulse_T, breath_T),
        "ecg": _ecg(rng, course, at_T, rate_hz, breath_T),
        "abp": _abp(rng, rate_hz, pressure_T, breath_T),
    }
    return {role: x_T.astype(np.float32) for role, x_T in signals.items()}


def _wander(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Return a stationary first-order drift of unit variance, one value a second (an Ornstein-Uhlenbeck process)."""
    keep = np.exp(-1.0 / _MEMORY_S)
    step_S = rng.standard_normal(seconds) * np.sqrt(1 - keep**2)
    start = rng.standard_normal()
    return signal.lfilter([1.0], [1.0, -keep], step_S, zi=[keep * start])[0]


def _beats(rng, rhythm: str, rate_S, second_S, breath_S) -> tuple[np.ndarray, np.ndarray]:
    """Return times of beats (s) and which are ventricular: intervals of the rhythm, stretched by the drifting rate."""
    sway = 0.0 if rhythm == "af" else 0.008 if rhythm in ("vt", "tachycardia") else 0.025
    beat_S = np.cumsum(rate_S / 60.0 * (1 + sway * np.sin(2 * np.pi * breath_S)))
    relative_J, ventricular_J = relative_intervals(rng, rhythm, int(beat_S[-1] * 1.5) + 10, 60.0 / float(rate_S.mean()))
    phase_J = np.cumsum(relative_J)
    inside_J = (phase_J >= beat_S[0]) & (phase_J < beat_S[-1])
    return np.interp(phase_J[inside_J], beat_S, second_S), ventricular_J[inside_J]


def _pulses(rng, course: Course, at_T, rate_hz, transit_J) -> np.ndarray:
    """Return pulses of height about 1, of the patient's rise and reflection."""
    rise_s, reflection_s = course.patient.constants["rise_s"], course.patient.constants["reflection_s"]
    notch_J = np.interp(course.beat_s_J, course.second_S, course.drifts["notch"])
    ejection_s = 2.4 * rise_s
    waves = ((0.85, ejection_s, rise_s), (0.45, 0.24, 0.085), (notch_J, ejection_s + reflection_s, 0.080))
    return lay_pulses(rng, at_T, rate_hz, course.beat_s_J, course.ventricular_J, transit_J, waves)


def _ppg(rng, patient: Patient, rate_hz, pulse_T, breath_T) -> np.ndarray:
    depth = patient.constants["breath_depth"]
    tone_T = depth * breath_T + 0.06 * slow(rng, len(pulse_T), rate_hz, 0.1)
    noise_T = rng.normal(0, 0.003, len(pulse_T))
    return 1.0 + 0.5 * pulse_T * (1 + depth * breath_T) + 0.5 * tone_T + noise_T


def _abp(rng, rate_hz, pulse_T, breath_T) -> np.ndarray:
    diastolic, pulse = rng.uniform(55, 80), rng.uniform(35, 60)
    slow_T = 1.5 * breath_T + 2.0 * slow(rng, len(pulse_T), rate_hz, 0.1)
    return diastolic + pulse * pulse_T + slow_T + rng.normal(0, 0.3, len(pulse_T))


def _ecg(rng, course: Course, at_T, rate_hz, breath_T) -> np.ndarray:
    """Return the ECG in mV, of the patient's waves."""
    patient, depth = course.patient, course.patient.constants["breath_depth"]
    waves = (patient.sinus_waves.items(), patient.ventricular_waves.items())
    beats = (course.beat_s_J, course.ventricular_J, patient.rhythm)
    ecg_T = lay_ecg(rng, at_T, rate_hz, *beats, waves, breath_T, swing=depth, lift_mv=0.5 * depth)
    return ecg_T * patient.constants["gain"] + rng.normal(0, 0.008, len(at_T))
