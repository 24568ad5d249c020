"""Dropout with a choice of random bits.

`threefry` is JAX's vetted generator. `counter_hash` hashes the position of an element together with the key; it fuses
into the surrounding arithmetic and costs nothing, and its uniformity and independence are tested
(tests/models/test_dropout.py).

    x_BLD = Dropout(0.1, "counter_hash")(x_BLD, train=True)    # the rng stream is "dropout"
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn


def counter_hash_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uint32 bits of `shape`: a Weyl sequence over the elements through MurmurHash3's 32-bit finaliser.

    Two words are drawn from `key`: one starts the sequence, the other enters between the finaliser's rounds, so that
    two keys do not give shifted copies of one sequence.
    """
    start, middle = jax.random.bits(key, (2,), jnp.uint32)
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
    h = index * jnp.uint32(0x9E3779B9) + start  # 2^32 / golden ratio, odd
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = h ^ middle
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def threefry_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uint32 bits of `shape` from JAX's own generator."""
    return jax.random.bits(key, shape, jnp.uint32)


BITS = {"counter_hash": counter_hash_bits, "threefry": threefry_bits}


class Dropout(nn.Module):
    """Zeroes a share `rate` of the elements in training and scales the rest by 1 / (1 - rate)."""

    rate: float
    bits: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return `x` dropped out, in its own shape and dtype."""
        if not train or self.rate == 0:
            return x
        bits = BITS[self.bits](self.make_rng("dropout"), x.shape)
        keep = bits >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(keep, x * jnp.asarray(1 / (1 - self.rate), x.dtype), jnp.zeros((), x.dtype))
