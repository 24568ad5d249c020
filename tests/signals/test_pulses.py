"""A pulse is what rises faster than it falls, in one wave, like its neighbours, at any rate and either way up."""

import numpy as np
import pytest

from jaxbio.signals import filters
from jaxbio.signals.beats import rate_bpm, row_means
from jaxbio.signals.pulses import read_pulses
from jaxbio.signals.synthetic import RHYTHMS, recording
from tools.rated_scores import NOTCHES, RATES_BPM, pulse_train


def whole(row_J, start_J, stop_J):
    return np.ones(len(row_J), bool)


def read(x_BN):
    return read_pulses(filters.resample(np.atleast_2d(x_BN).astype(np.float32), 3000), whole, 100.0)


def worth(x_BN):
    found = read(x_BN)
    return row_means(found.worth_J, found.beats.row_J, len(found.inverted_B))


def slow_rubbish(seed, low_hz=0.3, high_hz=2.0):
    """Waves of the pulse's band that come from nowhere: smooth, and of any size, width and distance."""
    rng = np.random.default_rng(seed)
    frequency_hz = np.fft.rfftfreq(9000, 1 / 300)
    gain = (frequency_hz >= low_hz) & (frequency_hz <= high_hz)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(9000)) * gain, n=9000)


@pytest.mark.parametrize("bpm", RATES_BPM)
def test_rates_are_right_from_25_to_300_either_way_up(bpm):
    x_BN = np.stack([pulse_train(bpm, notch, sign) for notch in NOTCHES for sign in (1, -1)])
    found = read(x_BN)
    np.testing.assert_allclose(rate_bpm(found.beats, 30.0), bpm, atol=2)
    assert not found.inverted_B[::2].any()
    assert worth(x_BN).min() > 0.9


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_upside_down_it_is_worth_the_same(rhythm):
    x_BN = np.stack([recording(seed, duration_s=30.0, rhythm=rhythm).ppg for seed in range(4)])
    assert not read(x_BN).inverted_B.any()
    if rhythm not in ("vt", "tachycardia"):  # so fast, pulses are pulses either way up
        assert read(-x_BN).inverted_B.all()
    np.testing.assert_allclose(worth(-x_BN), worth(x_BN), atol=0.02)
    assert worth(x_BN).min() > 0.95


def test_smooth_rubbish_is_worth_little():
    x_BN = np.stack([slow_rubbish(seed, 0.3, 5.0) for seed in range(40)])
    assert worth(x_BN).mean() < 0.1
    assert not read(x_BN).inverted_B.any()


def test_waves_as_steep_down_as_up_are_no_pulses_unless_they_are_fast():
    t_N = np.arange(9000) / 300
    rates_hz = np.array([0.8, 1.0, 1.3, 4.0, 5.0])[:, None]
    worth_B = worth(np.sin(2 * np.pi * rates_hz * t_N))
    assert (worth_B[:3] < 0.3).all()
    assert (worth_B[3:] == 1).all()


def test_a_pulse_of_many_waves_is_none():
    t_N = np.arange(9000) / 300
    x_N = recording(3, duration_s=30.0, heart_rate_bpm=50.0).ppg
    ripple_N = x_N.std() * np.sin(2 * np.pi * 4.3 * t_N)
    assert worth(x_N)[0] > 0.95
    assert worth(x_N + ripple_N)[0] < 0.7


def test_one_odd_pulse_is_a_beat_and_seconds_of_motion_are_not():
    x_N = recording(3, duration_s=30.0, heart_rate_bpm=75.0).ppg.astype(np.float64)
    odd_N, moved_N = x_N.copy(), x_N.copy()
    odd_N[4000:4150] = odd_N[4000]
    moved_N[3000:6000] += 3 * x_N.std() * slow_rubbish(1, 0.3, 5.0)[3000:6000] / slow_rubbish(1, 0.3, 5.0).std()
    assert worth(odd_N)[0] > 0.97
    assert 0.5 < worth(moved_N)[0] < 0.85


def test_waves_that_alternate_are_doubted():
    strong, weak = pulse_train(40, 0.0), np.roll(pulse_train(40, 0.0), 75)
    for ratio, doubted in ((0.0, False), (0.6, True), (1.0, True)):  # a second wave 0.6 s behind each of 1.5 s
        found = read(strong + np.float32(ratio) * weak)
        assert found.doubt_B.tolist() == [doubted], ratio


@pytest.mark.parametrize("rhythm", ["sinus", "af", "vt", "tachycardia"])
def test_other_rhythms_are_not_doubted(rhythm):
    found = read(np.stack([recording(seed, duration_s=30.0, rhythm=rhythm).ppg for seed in range(8)]))
    assert not found.doubt_B.any()


def test_no_pulses_at_all():
    found = read(np.zeros((2, 3000), np.float32))
    assert found.beats.count_B.tolist() == [0, 0]
    assert found.worth_J.shape == (0,)
    assert not found.inverted_B.any()


def test_of_a_batch_each_segment_is_read_as_it_is_alone():
    clean_BN = np.stack([recording(seed, duration_s=30.0).ppg for seed in range(3)])
    x_BN = np.stack([clean_BN[0], -clean_BN[1], slow_rubbish(0), -clean_BN[2], clean_BN[1], -slow_rubbish(1)])
    found = read(x_BN)
    assert found.inverted_B.tolist() == [False, True, False, True, False, False]
    for row, x_N in enumerate(x_BN):
        alone, own_J = read(x_N), found.beats.row_J == row
        np.testing.assert_array_equal(found.beats.time_J[own_J], alone.beats.time_J)
        np.testing.assert_array_equal(found.worth_J[own_J], alone.worth_J)
        assert (found.doubt_B[row], found.beats.count_B[row]) == (alone.doubt_B[0], alone.beats.count_B[0])
