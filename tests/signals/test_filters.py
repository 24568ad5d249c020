"""Filters against SciPy and against definitions written out."""

import numpy as np
import pytest
from scipy import ndimage, signal

from jaxbio.signals import filters

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("samples", "length"), [(7500, 9000), (3750, 9000), (10800, 9000), (901, 3000), (3000, 901)])
def test_resampling_is_scipys(samples, length):
    x_BN = RNG.standard_normal((3, samples)).cumsum(axis=1)
    expected_BT = signal.resample(x_BN, length, axis=-1)
    np.testing.assert_allclose(filters.resample(x_BN, length), expected_BT, rtol=0, atol=1e-10 * np.abs(x_BN).max())
    single = filters.resample(x_BN.astype(np.float32), length)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected_BT, rtol=0, atol=3e-6 * np.abs(x_BN).max())


def test_resampling_to_the_same_length_copies():
    x_BN = RNG.standard_normal((2, 100))
    same_BN = filters.resample(x_BN, 100)
    assert np.array_equal(same_BN, x_BN)
    assert not np.shares_memory(same_BN, x_BN)


def test_hann_power_is_the_windowed_fft_of_the_signal_without_its_mean():
    x_BN = RNG.standard_normal((2, 600)) + 5
    windowed_BN = (x_BN - x_BN.mean(axis=1, keepdims=True)) * signal.get_window("hann", 600)
    expected_BS = np.abs(np.fft.rfft(windowed_BN)) ** 2
    found_BS = filters.hann_power(filters.spectrum(x_BN), stop=200)
    np.testing.assert_allclose(found_BS, expected_BS[:, 1:200], rtol=1e-9)


def test_band_sum_takes_the_bins_within_both_edges():
    power_BS = np.arange(1.0, 100.0)[None]  # bin k has power k
    assert filters.band_sum(power_BS, 0.5, 1.0, 10.0) == 5 + 6 + 7 + 8 + 9 + 10


@pytest.mark.parametrize("width", [1, 3, 11, 51])
def test_running_windows_are_those_of_ndimage(width):
    x_BT = RNG.standard_normal((3, 200))
    expected_BT = ndimage.maximum_filter1d(x_BT, width, axis=-1, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(filters.running_max(x_BT, width), expected_BT)
    expected_BT = ndimage.uniform_filter1d(x_BT, width, axis=-1, mode="constant")
    np.testing.assert_allclose(filters.running_mean(x_BT, width), expected_BT, atol=1e-12)
    expected_BT = ndimage.median_filter(x_BT, (1, width), mode="nearest")
    np.testing.assert_array_equal(filters.running_median(x_BT, width), expected_BT)


@pytest.mark.parametrize("least", [1, 2, 5, 16, 400])
def test_runs_are_found_whole(least):
    flag_BT = RNG.random((4, 300)) < 0.8
    expected_BT = np.zeros_like(flag_BT)
    for row, flags in enumerate(flag_BT):
        label, count = ndimage.label(flags)
        for run in range(1, count + 1):
            expected_BT[row, label == run] = (label == run).sum() >= least
    np.testing.assert_array_equal(filters.in_runs(flag_BT, least), expected_BT)


def test_odd_reflection_continues_without_a_step():
    x_BT = np.array([[1.0, 2.0, 4.0, 8.0]])
    np.testing.assert_array_equal(filters.odd_reflection(x_BT, 2), [[-2.0, 0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 14.0]])


def test_band_pass_keeps_its_band_and_nothing_far_from_it():
    response = filters.band_response(np.array([0.0, 1.0, 12.0, 100.0]), 8.0, 20.0)
    assert response[0] == 0
    assert response[1] < 1e-3
    assert response[2] > 0.9
    assert response[3] < 2e-3
