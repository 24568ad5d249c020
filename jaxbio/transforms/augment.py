"""Random changes of one segment, as QualityFM trains (docs/references.md), keyed by the segment and not the batch.

augmented_CT = augment(key, x_CT, noise_prob=0.5, noise_sigma=0.01, ...)    # vmap over rows and keys
"""

import jax
import jax.numpy as jnp

from jaxbio.transforms.random_bits import normal


def row_keys(key: jax.Array, row_BM: jax.Array) -> jax.Array:
    """Return a key for each member (B, M): fold_in(fold_in(key, row), member), so that batch and mesh do not matter."""

    def member_keys(row_M):
        return jax.vmap(lambda row, member: jax.random.fold_in(jax.random.fold_in(key, row), member))(
            row_M, jnp.arange(row_M.shape[0])
        )

    return jax.vmap(member_keys)(row_BM)


def augment(
    key: jax.Array,
    x_CT: jax.Array,
    *,
    noise_prob: float,
    noise_sigma: float,
    noise_bits: str,
    scale_prob: float,
    scale_range: tuple[float, float],
    offset_prob: float,
    offset_max: float,
    block_prob: float,
    block_frac: tuple[float, float],
) -> jax.Array:
    """Return `x_CT` (float32, in the scaled unit) with noise, one factor, offsets and a zeroed block, in this order.

    Each comes with its own probability: Gaussian noise of deviation `noise_sigma`, its bits from the generator
    `noise_bits` (random_bits); one factor from U`scale_range` for all channels; an offset from U(-`offset_max`,
    `offset_max`) for each channel; a block of zeros in all channels, its length uniform on the integers from
    `block_frac[0]` T up to, excluding, `block_frac[1]` T, its place uniform.
    """
    channels, length = x_CT.shape
    noise_key, uniform_key = jax.random.split(key)
    # one draw: every call of the generator is a loop to compile
    uniform = jax.random.uniform(uniform_key, (7 + channels,))
    noisy, scaled, shifted, blocked = uniform[:4] < jnp.array([noise_prob, scale_prob, offset_prob, block_prob])
    u_factor, u_block, u_start, u_offset_C1 = uniform[4], uniform[5], uniform[6], uniform[7:, None]

    x_CT = x_CT + jnp.where(noisy, noise_sigma, 0.0) * normal(noise_key, x_CT.shape, noise_bits)
    x_CT = x_CT * jnp.where(scaled, scale_range[0] + u_factor * (scale_range[1] - scale_range[0]), 1.0)
    x_CT = x_CT + jnp.where(shifted, offset_max * (2 * u_offset_C1 - 1), 0.0)

    shortest, longest = round(block_frac[0] * length), round(block_frac[1] * length)
    block = shortest + jnp.floor(u_block * (longest - shortest))
    start = jnp.floor(u_start * (length - block + 1))
    sample_1T = jnp.arange(length)[None, :]
    inside_1T = (sample_1T >= start) & (sample_1T < start + block)
    return jnp.where(blocked & inside_1T, 0.0, x_CT)
