"""Window mask and windowed attention against oracles written out element by element."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.models.attention import WindowedAttention, window_mask, window_of


@pytest.mark.parametrize(("length", "window"), [(18, 8), (18, 2), (6, 8), (2, 8), (1, 8), (9, 0), (18, 34)])
def test_mask_equals_the_oracle(length, window):
    expected = [[abs(i - j) <= window / 2 or i == 0 or j == 0 for j in range(length)] for i in range(length)]
    np.testing.assert_array_equal(window_mask(length, window), expected)


def test_mask_rows_are_those_of_the_fact_sheet():
    allowed_LL = np.asarray(window_mask(18, 8))
    assert allowed_LL[0].all()
    assert allowed_LL[9].nonzero()[0].tolist() == [0, *range(5, 14)]


def test_mask_is_the_references(parity_dir):
    with np.load(parity_dir / "qualityfm.npz") as arrays:
        np.testing.assert_array_equal(~np.asarray(window_mask(18, 8)), arrays["attention_blocked_LL"])


@pytest.mark.parametrize("length", [18, 200])
def test_without_a_window_every_token_attends_to_all(length):
    assert np.asarray(window_of(length, None)).all()
    np.testing.assert_array_equal(window_of(length, None), window_mask(length, 2 * length))


@pytest.mark.parametrize("window", [7, 1, -2])
def test_odd_and_negative_windows_are_refused(window):
    with pytest.raises(UserError, match=r"model\.window.*even"):
        window_mask(18, window)


@pytest.fixture(scope="module")
def attention():
    module = WindowedAttention(16, heads=2, dropout=0.5, dropout_bits="threefry", dtype=jnp.dtype("float32"))
    x_BLD = jax.random.normal(jax.random.key(0), (3, 12, 16))
    variables = jax.jit(module.init, static_argnums=3)(jax.random.key(1), x_BLD, window_mask(12, 4), False)
    # biases start at 0; tests want them to matter
    noisy = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(2), a.shape), variables)
    return module, noisy, x_BLD


def test_attention_equals_dense_numpy_attention(attention):
    module, variables, x_BLD = attention
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    allowed_LL, x = np.asarray(window_mask(12, 4)), np.asarray(x_BLD, np.float64)
    weights = ((p["qkv"]["kernel"][:, :, i], p["qkv"]["bias"][:, i, None]) for i in range(3))
    q, k, v = (np.einsum("bld,dhk->bhlk", x, kernel) + bias for kernel, bias in weights)
    logit = np.where(allowed_LL, q @ k.transpose(0, 1, 3, 2) / np.sqrt(8), -np.inf)
    weight = np.exp(logit - logit.max(-1, keepdims=True))
    y = np.einsum("bhlm,bhmk->blhk", weight / weight.sum(-1, keepdims=True), v)
    expected = np.einsum("blhk,hkd->bld", y, p["output"]["kernel"]) + p["output"]["bias"]
    np.testing.assert_allclose(module.apply(variables, x_BLD, window_mask(12, 4), False), expected, atol=2e-6)


def test_a_token_outside_the_window_has_no_influence(attention):
    module, variables, x_BLD = attention
    allowed_LL = window_mask(12, 4)
    gradient = jax.jacobian(lambda x: module.apply(variables, x, allowed_LL, False)[0].sum(-1))(x_BLD)[:, 0].sum(-1)
    np.testing.assert_array_equal(np.asarray(gradient) != 0, allowed_LL)


def test_attention_weights_drop_out_in_training_only(attention):
    module, variables, x_BLD = attention
    allowed_LL = window_mask(12, 4)

    @partial(jax.jit, static_argnums=0)
    def run(train, seed):
        return module.apply(variables, x_BLD, allowed_LL, train, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(run(False, 0), run(False, 1))
    assert not np.allclose(run(True, 0), run(True, 1))
    mean = np.mean([run(True, seed) for seed in range(200)], axis=0)
    assert np.abs(mean - run(False, 0)).mean() < 0.1 * np.abs(run(True, 0) - run(False, 0)).mean()
