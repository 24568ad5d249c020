"""Random bits for dropout and noise, with a choice of generator.

`threefry` is JAX's vetted generator. `counter_hash` hashes the position of an element together with the key: it fuses
into the arithmetic around it and costs a fraction of threefry on a CPU. It is no vetted generator; its uniformity and
independence are tested (tests/transforms/test_random_bits.py).

    bits = GENERATORS["counter_hash"](key, (128, 18, 512))    # uint32
    noise = normal(key, (2, 9000), "counter_hash")
"""

import math

import jax
import jax.numpy as jnp


def counter_hash(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
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


def threefry(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uint32 bits of `shape` from JAX's own generator."""
    return jax.random.bits(key, shape, jnp.uint32)


GENERATORS = {"counter_hash": counter_hash, "threefry": threefry}


def normal(key: jax.Array, shape: tuple[int, ...], generator: str) -> jax.Array:
    """Return standard normal numbers of `shape`, float32, by the inverse of the distribution at 2^23 centred points."""
    bits = GENERATORS[generator](key, shape)
    point = (bits >> 9).astype(jnp.int32).astype(jnp.float32) + 0.5  # signed integers convert in one instruction
    return math.sqrt(2) * jax.lax.erf_inv(point * 2.0**-22 - 1)
