"""Spectra and priors of patches against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import stats

from jaxbio.transforms import patches


def signals(rows=2, samples=600):
    x_BT = np.cumsum(np.random.default_rng(0).normal(size=(rows, samples)), axis=-1)
    low, high = x_BT.min(-1, keepdims=True), x_BT.max(-1, keepdims=True)
    return ((x_BT - low) / (high - low)).astype(np.float32)


@pytest.mark.parametrize("patch", [50, 25])
def test_spectra_are_those_of_the_full_transform(patch):
    x_BT = signals()
    full_BAS = np.fft.fft(x_BT.astype(np.float64).reshape(2, -1, patch))
    amplitude_BAS = np.abs(full_BAS)
    wanted_BAS = amplitude_BAS - amplitude_BAS.mean((1, 2), keepdims=True)
    wanted_BAS /= amplitude_BAS.std((1, 2), ddof=1, keepdims=True)
    found = patches.patch_spectra(x_BT, patch, phase=True)
    np.testing.assert_allclose(found["amplitude"], wanted_BAS, atol=2e-5)
    # where a bin is next to nothing its phase is rounding, and -pi is pi
    difference_BAS = np.abs(np.asarray(found["phase"]) - np.angle(full_BAS) / np.pi)
    known_BAS = amplitude_BAS > 1e-3
    assert np.minimum(difference_BAS, 2 - difference_BAS)[known_BAS].max() < 1e-3
    one_sided = patches.patch_spectra(x_BT, patch, one_sided=True, phase=True)
    np.testing.assert_array_equal(one_sided["phase"], found["phase"][..., : patch // 2 + 1])


def test_skewness_is_the_bias_corrected_one():
    patch_BAT = signals().reshape(2, -1, 50)
    wanted_BA = np.tanh(np.abs(stats.skew(patch_BAT.astype(np.float64), axis=-1, bias=False)))
    np.testing.assert_allclose(patches.skewness_score(patch_BAT), wanted_BA, atol=1e-3)


def test_a_constant_signal_has_finite_spectra_and_priors():
    x_BT = np.full((1, 600), 0.3, np.float32)
    for value in (*patches.patch_spectra(x_BT * 0, 50, phase=True).values(), patches.patch_prior(x_BT, 50, 0.5)):
        assert np.isfinite(value).all()
    assert not np.any(patches.skewness_score(x_BT.reshape(1, -1, 50)))


def test_a_patch_unlike_its_segments_others_is_no_stable_one():
    x_BT = np.tile(np.sin(np.arange(50) / 4), (1, 20)).astype(np.float32) * 0.4
    x_BT[0, 500:550] *= 0.2
    x_BT += 0.01 * np.random.default_rng(1).normal(size=x_BT.shape).astype(np.float32)
    score_A = np.asarray(patches.amplitude_stability(patches.cut_patches(x_BT, 50)))[0]
    assert np.argmin(score_A) == 10
    assert score_A[10] < 0.1 < 0.3 < np.median(score_A)
