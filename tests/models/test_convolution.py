"""Both forms of a convolution: the same values and gradients, and the form a platform gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.models.convolution import convolution, convolve, products


def arrays(length, taps, channels=3, width=5):
    rng = np.random.default_rng(length + taps)
    return (
        jnp.asarray(rng.normal(size=(2, length, channels)), jnp.float32),
        jnp.asarray(rng.normal(size=(taps, channels, width)), jnp.float32),
    )


@pytest.mark.parametrize("length", [80, 83, 121])
@pytest.mark.parametrize(
    ("taps", "stride", "padding"), [(80, 4, 0), (3, 1, 1), (3, 2, 1), (3, 2, 0), (4, 2, 1), (1, 1, 0), (1, 2, 0)]
)
def test_products_have_the_values_and_gradients_of_the_convolution(length, taps, stride, padding):
    x_BTC, kernel_WCD = arrays(length, taps)
    expected, to_gradients = jax.vjp(lambda x, k: convolution(x, k, stride, padding), x_BTC, kernel_WCD)
    grad_BLD = jnp.cos(expected)
    for form in (products, convolve):
        found, to_found = jax.vjp(lambda x, k, form=form: form(x, k, stride, padding), x_BTC, kernel_WCD)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
        for ours, theirs in zip(to_found(grad_BLD), to_gradients(grad_BLD), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)])
def test_a_cpu_gets_products_and_an_accelerator_convolutions(platform, convolutions):
    def loss(x_BTC, kernel_WCD):
        return jnp.square(convolve(x_BTC, kernel_WCD, 2, 1)).sum()

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(*arrays(40, 3))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions
