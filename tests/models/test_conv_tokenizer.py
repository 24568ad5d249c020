"""The tokenizer's two forms are one function: values and gradients, at the lengths of encoder, decoder and others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.models.conv_tokenizer import LAYERS, ConvTokenizer, convolve_frames, takes_frames, toeplitz
from jaxbio.models.convolution import convolution

FIRST, SECOND, THIRD = LAYERS
CASES = [  # (layer, samples, channels, outputs)
    (FIRST, 9000, 2, 5),
    (SECOND, 1800, 5, 51),
    (THIRD, 180, 51, 64),
    (FIRST, 512, 18, 5),  # the decoder's three
    (SECOND, 103, 5, 51),
    (THIRD, 11, 51, 64),
    (FIRST, 3000, 2, 5),
    (FIRST, 1237, 3, 4),
    (SECOND, 613, 5, 6),
    (THIRD, 41, 7, 8),
    (FIRST, 7, 2, 3),
    (THIRD, 1, 2, 3),
]


@pytest.mark.parametrize(("layer", "length", "channels", "features"), CASES)
def test_frames_equal_convolution_in_values_and_gradients(layer, length, channels, features):
    x_key, kernel_key = jax.random.split(jax.random.key(length))
    x_BTC = jax.random.normal(x_key, (2, length, channels))
    kernel_KCO = jax.random.normal(kernel_key, (layer.kernel, channels, features))
    cotangent_BTO = jnp.cos(jnp.arange(2 * -(-length // layer.stride) * features, dtype=jnp.float32))

    @partial(jax.jit, static_argnums=0)
    def value_and_gradients(form):
        y_BTO, pull = jax.vjp(lambda x, kernel: form(x, kernel, layer), x_BTC, kernel_KCO)
        return y_BTO, *pull(cotangent_BTO.reshape(y_BTO.shape))

    def plain(x_BTC, kernel_KCO, layer):
        return convolution(x_BTC, kernel_KCO, layer.stride, layer.kernel // 2)

    for frames, expected in zip(value_and_gradients(convolve_frames), value_and_gradients(plain)):
        np.testing.assert_allclose(frames, expected, atol=1e-5 * np.abs(expected).max())


def test_toeplitz_holds_each_tap_where_its_output_meets_it():
    kernel_KCO = jax.random.normal(jax.random.key(0), (7, 2, 3))
    weight_WCPO = np.asarray(toeplitz(kernel_KCO, stride=2, outputs=4))
    expected = np.zeros((7 + 2 * 3, 2, 4, 3), np.float32)
    for output in range(4):
        expected[2 * output : 2 * output + 7, :, output] = kernel_KCO
    np.testing.assert_array_equal(weight_WCPO, expected)


@pytest.mark.parametrize(("length", "tokens"), [(9000, 18), (3000, 6), (512, 2), (1, 1), (501, 2), (2345, 5)])
@pytest.mark.parametrize("form", ["convolution", "frames"])
def test_a_token_stands_for_500_samples_begun(length, tokens, form):
    tokenizer = ConvTokenizer(100, form, jnp.dtype("float32"))
    shape = jax.eval_shape(lambda: tokenizer.init_with_output(jax.random.key(0), jnp.zeros((2, length, 2)))[0]).shape
    assert shape == (2, tokens, 100)


def test_a_length_not_known_while_tracing_goes_through_the_convolution():
    tokenizer = ConvTokenizer(100, "auto", jnp.dtype("float32"))
    batch, length = jax.export.symbolic_shape("b, t")
    x_BTC = jax.ShapeDtypeStruct((batch, length, 2), jnp.float32)
    variables = jax.eval_shape(tokenizer.init, jax.random.key(1), jnp.zeros((1, 500, 2)))
    assert "stablehlo.convolution" in jax.export.export(jax.jit(tokenizer.apply))(variables, x_BTC).mlir_module()


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match=r"model\.tokenizer"):
        takes_frames("fft", 9000)
