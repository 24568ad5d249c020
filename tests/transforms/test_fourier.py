"""Transforms by products, as a TPU computes them, are NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.transforms import fourier

LENGTHS = (50, 97, 100, 375, 1200, 12500)


@pytest.mark.parametrize("samples", LENGTHS)
def test_transforms_by_products_are_numpys(samples):
    x_BCT = np.random.default_rng(samples).normal(size=(2, 1, samples)).astype(np.float32)
    spectrum_BCS = np.fft.rfft(x_BCT)
    found_BCS = fourier.rfft_by_products(jnp.asarray(x_BCT))
    np.testing.assert_allclose(found_BCS, spectrum_BCS, atol=2e-6 * np.abs(spectrum_BCS).max())
    assert (np.asarray(found_BCS)[..., 0].imag == 0).all()
    again_BCT = fourier.irfft_by_products(jnp.asarray(spectrum_BCS, jnp.complex64), samples)
    np.testing.assert_allclose(again_BCT, x_BCT, atol=4e-6)


def test_the_inverse_does_not_see_the_imaginary_part_of_the_first_and_last_bin():
    spectrum_S = np.random.default_rng(0).normal(size=(2, 51)).astype(np.float32)
    spectrum_S = spectrum_S[:1] + 1j * spectrum_S[1:]
    found_T = fourier.irfft_by_products(jnp.asarray(spectrum_S, jnp.complex64), 100)
    np.testing.assert_allclose(found_T, np.fft.irfft(spectrum_S, 100), atol=2e-6)


@pytest.mark.parametrize(("platform", "has"), [("cpu", True), ("tpu", False)])
def test_a_program_for_a_tpu_has_no_transform_of_xlas(platform, has):
    def there_and_back(x_BT):
        return fourier.irfft(fourier.rfft(x_BT), 1200)

    lowered = jax.jit(there_and_back).trace(jnp.zeros((2, 1200))).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.fft" in lowered) == has


def test_a_length_with_a_large_prime_factor_is_left_to_xla():
    assert fourier.split(2 * 7919) is None
    np.testing.assert_allclose(fourier.rfft(jnp.ones((1, 2 * 7919)))[0, 0], 2 * 7919)
