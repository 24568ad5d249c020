"""Banded attention against dense attention under its mask, forwards and backwards, and what it costs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.config.faults import UserError
from jaxbio.models import ENCODERS, attention
from jaxbio.models.attention import window_mask, window_of
from jaxbio.models.banded_attention import attend_banded
from jaxbio.models.transformer import Transformer
from jaxbio.planning.flops import count_flops


def attend_dense(q_BLHK, k_BLHK, v_BLHK, window):
    logit = jnp.einsum("blhk,bmhk->bhlm", q_BLHK, k_BLHK) * q_BLHK.shape[-1] ** -0.5
    weight = jax.nn.softmax(jnp.where(window_mask(q_BLHK.shape[1], window)[None, None], logit, -jnp.inf))
    return jnp.einsum("bhlm,bmhk->blhk", weight, v_BLHK)


def inputs(length, batch=2, heads=2, width=4):
    return jax.random.normal(jax.random.key(length), (3, batch, length, heads, width))


@pytest.mark.parametrize(("length", "window"), [(1, 8), (31, 8), (33, 0), (64, 6), (97, 80), (130, 400)])
def test_values_and_gradients_equal_the_dense_oracle(length, window):
    qkv = inputs(length)

    def weighed(attend, qkv):
        y_BLHK = attend(*qkv, window)
        return (y_BLHK * jnp.sin(jnp.arange(y_BLHK.size).reshape(y_BLHK.shape))).sum(), y_BLHK

    (_, mine), mine_grad = jax.jit(jax.value_and_grad(partial(weighed, attend_banded), has_aux=True))(qkv)
    (_, dense), dense_grad = jax.jit(jax.value_and_grad(partial(weighed, attend_dense), has_aux=True))(qkv)
    np.testing.assert_allclose(mine, dense, atol=2e-6)
    np.testing.assert_allclose(mine_grad, dense_grad, atol=1e-5)


def test_cost_grows_with_the_length():
    """From 512 tokens to 8,192, products forwards and backwards; the dense form quadruples each time."""

    def gradient(attend, length):
        qkv = jax.ShapeDtypeStruct((3, 1, length, 2, 16), jnp.float32)
        return count_flops(jax.grad(lambda qkv: attend(*qkv, 64).sum()), qkv).total

    costs = [gradient(attend_banded, length) for length in (512, 1024, 2048, 4096, 8192)]
    for shorter, longer in itertools.pairwise(costs):
        assert 1.9 < longer / shorter < 2.3
    assert gradient(attend_dense, 1024) / gradient(attend_dense, 512) == pytest.approx(4)


def test_a_transformer_is_the_same_in_both_forms(monkeypatch):
    module = Transformer(16, 2, 2, 8, 6, 0.0, "threefry", jnp.dtype("float32"), "none", 1)
    x_BLD = jax.random.normal(jax.random.key(0), (2, 140, 16))
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(1), x_BLD, False)
    banded = module.apply(variables, x_BLD, False)
    monkeypatch.setattr(attention, "DENSE_TOKENS", 200)
    np.testing.assert_allclose(module.apply(variables, x_BLD, False), banded, atol=2e-5)


def test_many_tokens_need_no_mask_and_the_window_is_checked_all_the_same():
    assert window_of(129, 8) == 8
    assert window_of(128, 8).shape == (128, 128)
    with pytest.raises(UserError, match=r"model\.window"):
        window_of(4000, 7)


def test_weights_are_dropped_out_in_both_parts():
    qkv = inputs(70)
    nothing = attend_banded(*qkv, 8, drop=jnp.zeros_like)
    np.testing.assert_array_equal(nothing, jnp.zeros_like(nothing))


def test_an_encoder_reads_an_hour_forwards_and_backwards():
    """QualityFM at small width and 25 Hz: 180 tokens, by banded attention."""
    module = ENCODERS["qualityfm"](width=100, layers=1, heads=2, feedforward=16, window=8, dropout=0.0)
    x_BCT = jnp.sin(jnp.arange(90_000.0))[None, None]
    abstract = jax.eval_shape(module.init, jax.random.key(0), x_BCT)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype), abstract)

    def last(variables):
        tok_BLD = module.apply(variables, x_BCT)
        return tok_BLD[:, -1].sum(), tok_BLD

    (_, tok_BLD), gradient = jax.jit(jax.value_and_grad(last, has_aux=True))(variables)
    assert tok_BLD.shape == (1, 180, 100)
    assert tok_BLD.shape[1] > attention.DENSE_TOKENS
    assert np.isfinite(tok_BLD).all()
    # the first convolution has one filter at this width, so the norm of one group after it takes out its bias
    assert float(jnp.abs(gradient["params"]["tokenizer"]["conv1"].pop("bias")).max()) < 1e-6
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))
