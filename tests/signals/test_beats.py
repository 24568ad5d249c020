"""Beats that are known: synthetic rhythms, either polarity, the ends of a segment, rates across gaps."""

import numpy as np
import pytest

from jaxbio.signals import beats, filters
from jaxbio.signals.beats import beats_of, find_pulses, find_r_peaks, rate_bpm
from jaxbio.signals.synthetic import RHYTHMS, add_noise, recording


def matched(found_s, true_s, tolerance_s):
    """Return how many true times have a found one within the tolerance, each used once."""
    distance = np.abs(found_s[None] - true_s[:, None])
    return sum(distance[row].min(initial=np.inf) <= tolerance_s for row in range(len(true_s)))


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("polarity", [1, -1])
def test_every_synthetic_beat_is_found_and_no_other(rhythm, polarity):
    for seed in range(3):
        made = recording(seed, duration_s=30.0, rhythm=rhythm)
        ecg_T = add_noise(made.ecg, "white", 20.0, np.random.default_rng(seed), 300.0) * polarity
        beats = find_r_peaks(filters.resample(ecg_T[None], 3000))
        # of a beat that the edge cuts, enough to be seen may be left or not
        inner_s = made.r_peaks_s[(made.r_peaks_s > 0.1) & (made.r_peaks_s < 29.9)]
        assert matched(beats.time_J, inner_s, 0.15) == len(inner_s)
        assert len(inner_s) <= beats.count_B[0] <= len(inner_s) + 2


@pytest.mark.parametrize("rhythm", ["sinus", "af", "tachycardia", "vt"])
def test_pulses_are_found_behind_their_beats(rhythm):
    made = recording(5, duration_s=30.0, rhythm=rhythm)
    beats = find_pulses(filters.resample(made.ppg[None], 3000))
    inner_s = made.pulses_s[(made.pulses_s > 0.5) & (made.pulses_s < 29.5)]
    lag_s = np.array([(beats.time_J - foot_s)[np.argmin(np.abs(beats.time_J - foot_s - 0.08))] for foot_s in inner_s])
    assert np.mean(np.abs(lag_s - np.median(lag_s)) < 0.06) >= 0.95


def test_refinement_places_r_peaks_within_a_few_milliseconds():
    made = recording(2, duration_s=30.0)
    beats = find_r_peaks(filters.resample(made.ecg[None], 3000))
    off_s = np.array([np.abs(beats.time_J - peak_s).min() for peak_s in made.r_peaks_s[1:-1]])
    assert np.median(off_s) < 0.005


def test_flat_signal_has_no_beats():
    assert find_r_peaks(np.zeros((2, 3000), np.float32)).count_B.tolist() == [0, 0]
    assert find_pulses(np.zeros((2, 3000), np.float32)).count_B.tolist() == [0, 0]


def test_rate_is_the_monitors_definition():
    rng = np.random.default_rng(0)
    times = [np.cumsum(rng.uniform(0.5, 1.2, 40)) for _ in range(5)]
    times = [time_s[time_s < 30] for time_s in times]
    beats = beats_of(np.repeat(np.arange(5), [len(t) for t in times]), np.concatenate(times), 5)
    expected = []
    for time_s in times:
        rates = []
        for second in range(1, 31):
            intervals = np.diff(time_s[time_s <= second])[-12:]
            if len(intervals) >= 4:
                rates.append(60 / intervals.mean())
        expected.append(np.median(rates))
    np.testing.assert_allclose(rate_bpm(beats, 30.0), expected, rtol=1e-9)


def test_too_few_beats_have_no_rate():
    beats = beats_of(np.zeros(4, int), np.arange(4.0), 2)
    assert np.isnan(rate_bpm(beats, 30.0)).all()


def test_intervals_that_do_not_count_leave_the_rate_alone():
    time_s = np.concatenate([np.arange(0, 7, 0.8), np.arange(10, 17, 0.8), np.arange(20, 30, 0.8)])
    beats = beats_of(np.zeros(len(time_s), int), time_s, 1)
    valid_J = np.diff(time_s, prepend=time_s[0]) < 2
    assert rate_bpm(beats, 30.0, valid_J)[0] == pytest.approx(75.0)
    assert rate_bpm(beats, 30.0)[0] < 74.0


@pytest.mark.parametrize(("apart_s", "around_s"), [(0.12, 0.25), (0.1, 0.3), (0.1, 0.1)])
def test_the_largest_around_a_maximum_is_that_of_a_running_maximum(apart_s, around_s):
    x_BT = np.random.default_rng(0).random((40, 300)).astype(np.float32)
    row_J, index_J, largest_J = beats._maxima(
        x_BT, 100.0, apart_s=apart_s, level_s=1.5, level_blocks=5, threshold=0.0, around_s=around_s
    )
    assert len(row_J) > 300
    assert index_J.min() < 5
    assert index_J.max() > 294
    expected_BT = filters.running_max(x_BT, 2 * round(around_s * 100) + 1)
    np.testing.assert_array_equal(largest_J, expected_BT[row_J, index_J])
