"""Synthetic patients: what is said to be true of a span is what its signals show, and neighbours share it."""

import numpy as np
import pytest

from jaxbio.signals import patients
from jaxbio.signals.scoring import score
from jaxbio.signals.synthetic import RATES_BPM, RHYTHMS

RATE_HZ, LENGTH_S = 125.0, 30.0
STARTS = np.arange(10) * LENGTH_S


def course_of(seed, rhythm="sinus", time=0):
    return patients.draw_course(patients.draw_patient(seed, rhythm=rhythm), (seed, time), duration_s=300.0)


def truth_of(seed, **how):
    return course_of(seed, **how).truth(STARTS, LENGTH_S)


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_true_heart_rate_is_the_beats_of_a_span(rhythm):
    course = course_of(3, rhythm)
    counted = [np.sum((course.beat_s_J >= start) & (course.beat_s_J < start + LENGTH_S)) for start in STARTS]
    np.testing.assert_allclose(course.truth(STARTS, LENGTH_S)["true_heart_rate"], np.array(counted) * 2.0, atol=3.0)
    lowest, highest = RATES_BPM[rhythm]
    assert 0.7 * lowest < np.mean(counted) * 2.0 < 1.4 * highest


def test_true_heart_rate_is_what_the_score_measures():
    for seed in range(4):
        course = course_of(seed)
        signals = patients.record(course, seed, rate_hz=RATE_HZ)
        true = course.truth(STARTS, LENGTH_S)["true_heart_rate"]
        for place, start in enumerate(STARTS[:3]):
            span = slice(int(start * RATE_HZ), int((start + LENGTH_S) * RATE_HZ))
            found = score(ecg=signals["ecg"][span], rate_hz=RATE_HZ)
            assert found["heart_rate_bpm"] == pytest.approx(true[place], abs=2.0)


def test_the_transit_time_is_how_far_the_pulse_comes_after_the_beat():
    """Cross-correlating beats with the pulses' upstrokes finds it, but for the rise, which is the patient's own."""
    delays, true, rises = [], [], []
    for seed in range(12):
        course = course_of(seed)
        upstroke_T = np.maximum(np.diff(patients.record(course, seed, rate_hz=500.0)["ppg"]), 0)
        smooth_T = np.convolve(upstroke_T, np.ones(15) / 15, "same")
        beat_J = np.rint(course.beat_s_J[(course.beat_s_J > 1) & (course.beat_s_J < 295)] * 500).astype(int)
        around_K = np.array([smooth_T[beat_J + k].mean() for k in range(400)])
        delays.append(around_K.argmax() / 500)
        true.append(course.truth(STARTS, LENGTH_S)["transit_time"].mean())
        rises.append(course.patient.constants["rise_s"])
    residual = np.array(delays) - np.array(true) - 1.4 * np.array(rises)
    assert np.corrcoef(delays, true)[0, 1] > 0.97
    assert np.abs(residual).max() < 0.03


def test_the_respiratory_rate_is_in_the_baseline():
    for seed in range(4):
        course = course_of(seed)
        ppg_T = patients.record(course, seed, rate_hz=RATE_HZ)["ppg"][: int(60 * RATE_HZ)]
        power_F = np.abs(np.fft.rfft(ppg_T - ppg_T.mean())) ** 2
        frequency_F = np.fft.rfftfreq(len(ppg_T), 1 / RATE_HZ)
        band_F = (frequency_F > 0.12) & (frequency_F < 0.5)
        found = 60 * frequency_F[band_F][power_F[band_F].argmax()]
        assert found == pytest.approx(course.truth(np.zeros(1), 60.0)["respiratory_rate"][0], abs=2.5)


@pytest.mark.parametrize("name", patients.NUMBERS)
def test_neighbours_share_a_factor_and_patients_differ_in_it(name):
    """Within five minutes a factor varies less than between persons, and varies it does."""
    value_PB = np.array([truth_of(seed)[name] for seed in range(40)])
    within, between = value_PB.std(axis=1).mean(), value_PB.mean(axis=1).std()
    assert 0.03 * between < within < 0.5 * between
    step = np.abs(np.diff(value_PB, axis=1)).mean()
    far = np.abs(value_PB[:, 9] - value_PB[:, 0]).mean()
    assert step < far


def test_another_time_of_a_patient_has_their_constants_and_another_course():
    first, second = course_of(5, time=0), course_of(5, time=1)
    assert first.patient == second.patient
    assert not np.array_equal(first.beat_s_J, second.beat_s_J)
    again = course_of(5, time=0)
    np.testing.assert_array_equal(first.beat_s_J, again.beat_s_J)


def test_signals_are_finite_float32_of_the_length_asked_for():
    signals = patients.record(course_of(1, "af"), 0, rate_hz=RATE_HZ)
    for x_T in signals.values():
        assert x_T.dtype == np.float32
        assert x_T.shape == (37_500,)
        assert np.isfinite(x_T).all()
