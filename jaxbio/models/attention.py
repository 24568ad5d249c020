"""Windowed self-attention with one global token: a dense masked product for some tens of tokens, banded for more.

allowed_LL = window_mask(18, window=8)
y_BLD = WindowedAttention(512, heads=4, dropout=0.1, ...)(x_BLD, allowed_LL, train=True)
y_BLD = WindowedAttention(512, heads=4, dropout=0.1, ...)(x_BLD, 8, train=True)         # banded
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.banded_attention import attend_banded
from jaxbio.models.dense import dense_product, uniform_fan_in
from jaxbio.models.dropout import Dropout

DENSE_TOKENS = 128  # up to so many a dense product is the faster, and the simpler


def window_of(length: Any, window: int | None) -> jax.Array | int:
    """Return what `WindowedAttention` takes for `length` tokens: a mask for few, `window` for many.

    The length of an exported program may be unknown, and it has the dense form, as has attention to all (`window`
    None). Raises UserError as `window_mask`.
    """
    if window is None or not isinstance(length, int) or length <= DENSE_TOKENS:
        return window_mask(length, window)
    check_window(window)
    return window


def check_window(window: int) -> None:
    """Raise UserError for an odd or negative window."""
    if window % 2 or window < 0:
        raise UserError(Fault("model.window", window, f"an even number of tokens, such as {max(window + 1, 2)}"))


def window_mask(length: Any, window: int | None) -> jax.Array:
    """Return (L, L) bool, True where token i may attend to token j: |i - j| <= window / 2, or i or j is token 0.

    With `window` None each may attend to all. Source: QualityFM's published code. Raises UserError for an odd or
    negative window.
    """
    if window is None:
        return jnp.ones((length, length), bool)
    check_window(window)
    i_L = jnp.arange(length)
    i_L1, j_1L = i_L[:, None], i_L[None, :]
    return (jnp.abs(i_L1 - j_1L) <= window // 2) | (i_L1 == 0) | (j_1L == 0)


class WindowedAttention(nn.Module):
    """Multi-head self-attention with biases, float32 softmax, and dropout on its weights."""

    width: int
    heads: int
    dropout: float
    dropout_bits: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BLD: jax.Array, allowed: jax.Array | int, train: bool) -> jax.Array:
        """Return the attended tokens, (B, L, D) in `dtype`.

        `allowed` is a mask (L, L), or the window of banded attention.
        """
        head_width = self.width // self.heads
        # heads before query, key and value: split by heads over devices, the kernel stays a matrix on each
        qkv_BLH3K = nn.DenseGeneral(
            (self.heads, 3, head_width),
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            dot_general=dense_product,
            name="qkv",
        )(x_BLD)
        q_BLHK, k_BLHK, v_BLHK = (qkv_BLH3K[:, :, :, index] for index in range(3))
        drop = partial(Dropout(self.dropout, self.dropout_bits), train=train)
        if isinstance(allowed, int):
            y_BLHK = attend_banded(q_BLHK, k_BLHK, v_BLHK, allowed, drop)
        else:
            y_BLHK = _attend_dense(q_BLHK, k_BLHK, v_BLHK, allowed, drop)
        return nn.DenseGeneral(
            self.width,
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=uniform_fan_in,
            dot_general=dense_product,
            name="output",
        )(y_BLHK)


def _attend_dense(
    q_BLHK: jax.Array,
    k_BLHK: jax.Array,
    v_BLHK: jax.Array,
    allowed_LL: jax.Array,
    drop: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    logit_BHLL = jnp.einsum(
        "blhk,bmhk->bhlm", q_BLHK * q_BLHK.shape[-1] ** -0.5, k_BLHK, preferred_element_type=jnp.float32
    )
    weight_BHLL = nn.softmax(jnp.where(allowed_LL[None, None], logit_BHLL, -jnp.inf)).astype(v_BLHK.dtype)
    return jnp.einsum("bhlm,bmhk->blhk", drop(weight_BHLL), v_BLHK)
