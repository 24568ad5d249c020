"""Spectral targets against NumPy's complex transform in float64."""

import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.transforms.spectra import band_bins, band_shape, targets


def reference(x_BCT, bins, power=1):
    spectrum_BCS = np.fft.fft(x_BCT.astype(np.float64))[..., :bins]
    phase_BCS = np.angle(spectrum_BCS)
    phase_BCS[..., 0] = np.where(x_BCT.mean(-1) < 0, np.pi, 0)
    amplitude_BCS = np.abs(spectrum_BCS) ** power

    def z_score(v):
        return (v - v.mean(-1, keepdims=True)) / (v.std(-1, ddof=1, keepdims=True) + 1e-6)

    return z_score(amplitude_BCS), z_score(phase_BCS)


@pytest.fixture
def x_BCT():
    noise = np.random.default_rng(1).normal(size=(2, 3, 1501))
    return (noise + np.array([-0.5, 0.0, 0.5])[:, None]).astype(np.float32)


def test_one_hertz_sine_peaks_in_bin_30():
    t_T = np.arange(9000) / 300
    amplitude_BCS, _ = targets(np.sin(2 * np.pi * t_T).astype(np.float32)[None, None], 512)
    assert int(np.argmax(amplitude_BCS[0, 0])) == 30


@pytest.mark.parametrize("length", [1500, 1501])
@pytest.mark.parametrize(("spectrum", "power"), [("magnitude", 1), ("power", 2)])
def test_targets_equal_the_complex_transform(x_BCT, length, spectrum, power):
    expected = reference(x_BCT[..., :length], 200, power)
    amplitude_BCS, phase_BCS = targets(x_BCT[..., :length], 200, spectrum)
    np.testing.assert_allclose(amplitude_BCS, expected[0], atol=3e-5)
    np.testing.assert_allclose(phase_BCS, expected[1], atol=3e-4)


def test_bin_0_of_a_negative_mean_has_phase_plus_pi(x_BCT):
    assert (x_BCT[:, 0].mean(-1) < 0).all()
    bin_0_B = targets(x_BCT, 200)[1][:, 0, 0]
    deviation_B = np.angle(np.fft.fft(x_BCT[:, 0].astype(np.float64))[:, 1:200]).std(-1)
    np.testing.assert_allclose(bin_0_B, np.pi / deviation_B, rtol=0.2)  # a phase of -pi would be as far below


def test_too_many_bins_and_unknown_spectra_are_refused(x_BCT):
    with pytest.raises(UserError, match="at most 51"):
        targets(x_BCT[..., :100], 52)
    with pytest.raises(UserError, match=r"objective\.spectrum"):
        targets(x_BCT, 8, "cepstrum")


@pytest.mark.parametrize("breaths_a_minute", [8, 14, 30])
def test_a_band_says_where_breathing_lies_whatever_is_slower_faster_or_constant(breaths_a_minute):
    t_T, bins = np.arange(3000) / 100, band_bins(3000, 100.0, (0.1, 0.6))
    breath_T = 0.05 * np.sin(2 * np.pi * breaths_a_minute / 60 * t_T + 1)
    other_T = 3.0 + np.sin(2 * np.pi * 1.3 * t_T) + 0.1 * t_T / 30
    shape_BCS = band_shape((breath_T + other_T).astype(np.float32)[None, None], 100.0, (0.1, 0.6))
    assert bins.tolist() == list(range(3, 19))
    assert bins[int(np.argmax(shape_BCS))] == breaths_a_minute / 2
    np.testing.assert_allclose(shape_BCS.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(shape_BCS).std(-1, ddof=1), 1, atol=1e-3)


def test_a_band_equals_the_windowed_transform(x_BCT):
    windowed = (x_BCT - x_BCT.mean(-1, keepdims=True)) * np.hanning(1501) * 2 / 1501
    amplitude_BCS = np.abs(np.fft.rfft(windowed))[..., 4:21]
    expected = (amplitude_BCS - amplitude_BCS.mean(-1, keepdims=True)) / amplitude_BCS.std(-1, ddof=1, keepdims=True)
    np.testing.assert_allclose(band_shape(x_BCT, 1501.0, (4.0, 20.0)), expected, atol=2e-3)


def test_a_band_of_a_constant_is_flat_and_one_of_a_single_bin_is_refused():
    np.testing.assert_allclose(band_shape(np.full((1, 2, 300), 0.7, np.float32), 10.0, (0.1, 0.6)), 0, atol=1e-3)
    with pytest.raises(UserError, match=r"objective\.breathing_hz"):
        band_shape(np.zeros((1, 2, 300), np.float32), 10.0, (0.11, 0.14))
