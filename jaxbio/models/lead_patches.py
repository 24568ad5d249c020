"""Signals cut into patches of one lead and one time interval, their fixed positions, and which leads are there.

patch_BCNP = cut_patches(x_BCT, 75)             # (B, 12, 2250) -> (B, 12, 30, 75)
present_BC = present_channels(x_BCT)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def cut_patches(x_BCT: jax.Array, samples: int) -> jax.Array:
    """Return patches (B, C, N, P) of `samples` each, without overlap; what is left at the end is dropped."""
    pairs, channels, length = x_BCT.shape
    patches = length // samples
    return x_BCT[:, :, : patches * samples].reshape(pairs, channels, patches, samples)


def present_channels(x_BCT: jax.Array) -> jax.Array:
    """Return which channels are there, bool (B, C): in a prepared input one that is missing or lies still is zeros."""
    return jnp.any(x_BCT != 0, axis=-1)


def present_mean(tok_BCND: jax.Array, present_BC: jax.Array) -> jax.Array:
    """Return the mean over tokens of the channels that are there, (B, D); zeros where none is."""
    weight_BC = present_BC / jnp.maximum(present_BC.sum(-1, keepdims=True), 1).astype(tok_BCND.dtype)
    return jnp.einsum("bcd,bc->bd", tok_BCND.mean(axis=2), weight_BC.astype(tok_BCND.dtype))


def time_positions(length: Any, width: int) -> jax.Array:
    """Return positions (N, D) float32 of `width` features: sines of all frequencies, then their cosines.

    Frequency k of D / 2 is 10000^(-k / (D / 2)) (ST-MEM, docs/references.md).
    """
    rate_F = np.asarray(10_000.0 ** (-np.arange(width // 2) / (width // 2)), np.float32)
    angle_NF = jnp.arange(length, dtype=jnp.float32)[:, None] * rate_F[None]
    return jnp.concatenate([jnp.sin(angle_NF), jnp.cos(angle_NF)], axis=-1)


def grid_positions(leads: int, times: Any, width: int) -> jax.Array:
    """Return positions (C, N, D) float32: the first half of the features tells the time, the second half the lead.

    Source: ECG-JEPA's published code; each half is `time_positions` of its index.
    """
    shape = (leads, times, width // 2)
    time_CNF = jnp.broadcast_to(time_positions(times, width // 2)[None], shape)
    lead_CNF = jnp.broadcast_to(time_positions(leads, width // 2)[:, None], shape)
    return jnp.concatenate([time_CNF, lead_CNF], axis=-1)
