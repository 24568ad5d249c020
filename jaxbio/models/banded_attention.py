"""Windowed attention with one global token whose cost grows with the length, not with its square.

The tokens are cut into blocks; a block meets itself, its neighbours and token 0. Equal to dense attention under
`window_mask` (jaxbio/models/attention.py), which is the oracle of its tests.

    y_BLHK = attend_banded(q_BLHK, k_BLHK, v_BLHK, window=8)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_LEAST_BLOCK = 32  # smaller blocks make products too small to be fast


def attend_banded(
    q_BLHK: jax.Array,
    k_BLHK: jax.Array,
    v_BLHK: jax.Array,
    window: int,
    drop: Callable[[jax.Array], jax.Array] = lambda weight: weight,
) -> jax.Array:
    """Return what each token makes of those at most `window` / 2 away and of token 0, which sees all: (B, L, H, K).

    The softmax is float32; `drop` is applied to its weights.
    """
    length, half = q_BLHK.shape[1], window // 2
    block = max(half, _LEAST_BLOCK)
    blocks = -(-length // block)
    q_BLHK = q_BLHK * q_BLHK.shape[-1] ** -0.5

    # E places in a block, J keys of three blocks
    q_BNEHK = _cut(q_BLHK, blocks, block)
    k_BNJHK, v_BNJHK = (_with_neighbours(_cut(array, blocks, block)) for array in (k_BLHK, v_BLHK))
    near_BHNEJ = jnp.einsum("bnehk,bnjhk->bhnej", q_BNEHK, k_BNJHK, preferred_element_type=jnp.float32)
    near_BHNEJ = jnp.where(_mask(length, blocks, block, half)[None, None], near_BHNEJ, -jnp.inf)
    first_BHNE = jnp.einsum("bnehk,bhk->bhne", q_BNEHK, k_BLHK[:, 0], preferred_element_type=jnp.float32)
    weight_BHNEJ = jax.nn.softmax(jnp.concatenate([first_BHNE[..., None], near_BHNEJ], axis=-1))
    weight_BHNEJ = drop(weight_BHNEJ.astype(v_BLHK.dtype))
    y_BNEHK = jnp.einsum("bhnej,bnjhk->bnehk", weight_BHNEJ[..., 1:], v_BNJHK)
    y_BNEHK += jnp.einsum("bhne,bhk->bnehk", weight_BHNEJ[..., 0], v_BLHK[:, 0])
    y_BLHK = y_BNEHK.reshape(len(q_BLHK), blocks * block, *q_BLHK.shape[2:])[:, :length]

    logit_BHL = jnp.einsum("bhk,blhk->bhl", q_BLHK[:, 0], k_BLHK, preferred_element_type=jnp.float32)
    weight_BHL = drop(jax.nn.softmax(logit_BHL).astype(v_BLHK.dtype))
    first_B1HK = jnp.einsum("bhl,blhk->bhk", weight_BHL, v_BLHK)[:, None]
    return jnp.concatenate([first_B1HK, y_BLHK[:, 1:]], axis=1)


def _cut(x_BLHK: jax.Array, blocks: int, block: int) -> jax.Array:
    """Return (B, N, E, H, K), the last block filled up with zeros."""
    missing = blocks * block - x_BLHK.shape[1]
    padded_BLHK = jnp.pad(x_BLHK, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return padded_BLHK.reshape(x_BLHK.shape[0], blocks, block, *x_BLHK.shape[2:])


def _with_neighbours(x_BNEHK: jax.Array) -> jax.Array:
    """Return each block between the one before it and the one after it, (B, N, 3 E, H, K); zeros beyond the ends."""
    padded_BNEHK = jnp.pad(x_BNEHK, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([padded_BNEHK[:, :-2], x_BNEHK, padded_BNEHK[:, 2:]], axis=2)


def _mask(length: int, blocks: int, block: int, half: int) -> jax.Array:
    """Return (N, E, 3 E) bool: whether a key of three blocks is near, there, and not token 0, which comes apart."""
    place_E1, place_1J = jnp.arange(block)[:, None], (jnp.arange(3 * block) - block)[None, :]
    key_N1J = jnp.arange(blocks)[:, None, None] * block + place_1J[None]
    return (jnp.abs(place_E1 - place_1J) <= half)[None] & (key_N1J > 0) & (key_N1J < length)
