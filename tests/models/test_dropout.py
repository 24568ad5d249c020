"""Dropout: its rate, its scale, and that the gradient sees the mask that the value saw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxbio.models.dropout import Dropout
from jaxbio.transforms.random_bits import GENERATORS

X = jnp.ones((64, 18, 32))
RATE = 0.1


def drop(bits, x=X, train=True, seed=0, rate=RATE):
    return Dropout(rate, bits).apply({}, x, train, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize("bits", sorted(GENERATORS))
def test_the_stated_share_is_zero_and_the_rest_scaled(bits):
    y = np.asarray(drop(bits))
    assert set(np.unique(y)) == {0.0, np.float32(1 / (1 - RATE))}
    assert stats.binomtest(int((y == 0).sum()), y.size, RATE).pvalue > 1e-4


@pytest.mark.parametrize("bits", sorted(GENERATORS))
def test_gradient_is_the_mask(bits):
    np.testing.assert_array_equal(jax.grad(lambda x: drop(bits, x).sum())(X), drop(bits))


def test_nothing_drops_in_evaluation_or_at_rate_zero():
    np.testing.assert_array_equal(drop("counter_hash", train=False), X)
    np.testing.assert_array_equal(drop("counter_hash", rate=0.0), X)


def test_the_type_stays():
    assert drop("counter_hash", X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
