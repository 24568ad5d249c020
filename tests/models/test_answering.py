"""An encoder that answers: probabilities, numbers in their unit, and long segments by attention over windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from jaxbio.models.answering import Answering

X_BCT = np.random.default_rng(0).normal(size=(3, 2, 80)).astype(np.float32)


class Strides(nn.Module):
    """A dense layer on stretches of ten samples."""

    @nn.compact
    def __call__(self, x_BCT, train=False):
        rows, channels, samples = x_BCT.shape
        x_BLF = jnp.swapaxes(x_BCT.reshape(rows, channels, samples // 10, 10), 1, 2).reshape(rows, samples // 10, -1)
        return nn.tanh(nn.Dense(6)(x_BLF))


def started(**fields):
    module = Answering(Strides(), **fields)
    return module, jax.jit(module.init)(jax.random.key(0), X_BCT)


def apply(module, variables, x_BCT=X_BCT):
    return np.asarray(jax.jit(module.apply)(variables, x_BCT))


def test_a_temperature_makes_probabilities_of_logits_and_keeps_their_order():
    module, variables = started(outputs=3)
    logit_BK = apply(module, variables)[:, 0]
    probability_BK = apply(module.clone(temperature=2.0), variables)[:, 0]
    np.testing.assert_allclose(probability_BK, jax.nn.softmax(logit_BK / 2.0), atol=1e-6)
    np.testing.assert_array_equal(probability_BK.argmax(1), logit_BK.argmax(1))


def test_numbers_are_in_their_unit():
    module, variables = started(outputs=1, answer="numbers", hidden=4)
    plain = apply(module, variables)
    np.testing.assert_allclose(
        module.clone(offset=80.0, scale=20.0).apply(variables, X_BCT), 80 + 20 * plain, rtol=1e-6
    )


def test_windows_are_encoded_alone_and_pooled_by_attention():
    module, variables = started(outputs=2, window=20)
    pooled = apply(module, variables)
    turned = np.concatenate([X_BCT[:, :, 40:], X_BCT[:, :, :40]], axis=2)  # an order of windows says nothing
    np.testing.assert_allclose(apply(module, variables, turned), pooled, atol=1e-6)
    alike = np.tile(X_BCT[:, :, :20], 4)
    one = apply(module, variables, X_BCT[:, :, :20])
    np.testing.assert_allclose(apply(module, variables, alike), one, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": 3, "temperature": 2.0},
        {"outputs": 1, "answer": "numbers"},
        {"outputs": 10, "answer": "waveforms"},
        {"outputs": 2, "window": 20},
    ],
    ids=lambda fields: fields.get("answer", "windows" if "window" in fields else "classes"),
)
def test_a_program_of_any_batch_answers_as_the_network(fields):
    module, variables = started(**fields)
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 2, 80"), jnp.float32)
    program = export.export(jax.jit(lambda x_BCT: module.apply(variables, x_BCT)))(shape)
    for rows in (1, 3):
        expected = apply(module, variables, X_BCT[:rows])
        np.testing.assert_allclose(program.call(X_BCT[:rows]), expected, rtol=1e-5, atol=1e-6)
