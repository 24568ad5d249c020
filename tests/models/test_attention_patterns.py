"""Two small dense attentions are one dense attention under the mask, for values and gradients, whatever is absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbio.models.attention_patterns import attend_all, attend_cross

ROWS, LEADS, TIMES, HEADS, WIDTH = 2, 3, 7, 2, 8


def cross_mask(leads, times):
    """(C N, C N) bool, lead-major: whether two tokens share a lead or a time."""
    lead_L, time_L = np.divmod(np.arange(leads * times), times)
    return (lead_L[:, None] == lead_L[None]) | (time_L[:, None] == time_L[None])


def dense(q, k, v, allowed_BLL):
    """Softmax over all N C keys, those that are not allowed at minus infinity."""
    q, k, v = (a.reshape(a.shape[0], -1, *a.shape[3:]) for a in (q, k, v))
    logit_BHLL = jnp.einsum("blhk,bmhk->bhlm", q, k) * q.shape[-1] ** -0.5
    weight_BHLL = jax.nn.softmax(jnp.where(allowed_BLL[:, None], logit_BHLL, -jnp.inf))
    return jnp.einsum("bhlm,bmhk->blhk", weight_BHLL, v)


@pytest.fixture(scope="module")
def qkv():
    shape = (3, ROWS, LEADS, TIMES, HEADS, WIDTH)
    return tuple(jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32)))


def seen_tokens(case):
    time_BN, lead_BC = np.ones((ROWS, TIMES), bool), np.ones((ROWS, LEADS), bool)
    if case == "absent":
        time_BN[0, 4:] = time_BN[1, 2] = lead_BC[0, 1] = lead_BC[1, :2] = False
    return time_BN, lead_BC


@pytest.mark.parametrize("case", ["whole", "absent"])
def test_two_small_attentions_equal_dense_attention(qkv, case):
    time_BN, lead_BC = seen_tokens(case)
    seen_BL = (time_BN[:, None, :] & lead_BC[:, :, None]).reshape(ROWS, -1)
    allowed_BLL = cross_mask(LEADS, TIMES)[None] & seen_BL[:, None, :]

    def gathered(q, k, v):
        return attend_cross(q, k, v, (None if case == "whole" else time_BN, lead_BC)).reshape(ROWS, -1, HEADS, WIDTH)

    def value(attend):
        def seen_only(*qkv):  # tokens of what is absent are read by nobody
            return jnp.where(seen_BL[:, :, None, None], attend(*qkv), 0.0)

        weight = np.random.default_rng(1).normal(size=(ROWS, LEADS * TIMES, HEADS, WIDTH)).astype(np.float32)
        return jax.jit(
            lambda *qkv: (seen_only(*qkv), jax.grad(lambda *a: (seen_only(*a) * weight).sum(), (0, 1, 2))(*qkv))
        )

    # nobody is without a key but absent tokens, which the dense form would leave without any
    allowed_BLL = allowed_BLL | (np.eye(LEADS * TIMES, dtype=bool)[None] & ~seen_BL[:, :, None])
    ours, our_grads = value(gathered)(*qkv)
    theirs, their_grads = value(lambda *a: dense(*a, allowed_BLL))(*qkv)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for our, their in zip(our_grads, their_grads):
        np.testing.assert_allclose(our, their, atol=1e-5)


def test_the_mask_of_dense_attention_is_the_references(parity_dir):
    with np.load(parity_dir / "ecg_jepa.npz") as arrays:
        np.testing.assert_array_equal(cross_mask(3, 10), arrays["attention_mask_LL"])


def test_a_token_has_57_keys_of_400():
    assert (cross_mask(8, 50).sum(1) == 57).all()


def test_a_row_without_any_token_stays_finite(qkv):
    row = tuple(a.reshape(ROWS, -1, HEADS, WIDTH) for a in qkv)
    nobody = np.zeros((ROWS, LEADS * TIMES), bool)
    assert np.isfinite(attend_all(*row, nobody)).all()
    assert np.isfinite(attend_cross(*qkv, (nobody[:, :TIMES], nobody[:, :LEADS]))).all()


@pytest.mark.parametrize("attend", [attend_all, attend_cross])
def test_what_is_dropped_is_a_weight_behind_the_softmax(qkv, attend):
    if attend is attend_all:
        tokens, seen = tuple(a.reshape(ROWS, -1, HEADS, WIDTH) for a in qkv), None
    else:
        tokens, seen = qkv, (None, np.ones((ROWS, LEADS), bool))
    doubled = attend(*tokens, seen, lambda weight: 2 * weight)
    np.testing.assert_allclose(doubled, 2 * attend(*tokens, seen), rtol=1e-6)
