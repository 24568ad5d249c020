"""Random masks of a segment's patches and of its times, one row at a time; True is hidden.

rank_CN = random_ranks(key, leads=12, patches=30)                        # the 7 smallest of each lead stay
hidden_N = random_times(key, 50, (0.6, 0.7))
hidden_N = block_times(key, 50, (0.175, 0.225), blocks=4)
"""

import jax
import jax.numpy as jnp


def random_ranks(key: jax.Array, leads: int, patches: int) -> jax.Array:
    """Return the rank of each patch among those of its lead, int32 (C, N), each lead shuffled alone."""
    return ranks(jax.random.uniform(key, (leads, patches)))


def ranks(noise_N: jax.Array) -> jax.Array:
    """Return the place of each number among those of the last axis, from the smallest, int32."""
    return jnp.argsort(jnp.argsort(noise_N, axis=-1), axis=-1)


def random_times(key: jax.Array, times: int, share: tuple[float, float]) -> jax.Array:
    """Return bool (N,): floor(r N) random times are hidden, r uniform in `share` (ECG-JEPA's published code)."""
    share_key, order_key = jax.random.split(key)
    count = jnp.floor(times * jax.random.uniform(share_key, minval=share[0], maxval=share[1])).astype(jnp.int32)
    return ranks(jax.random.uniform(order_key, (times,))) < count


def block_times(
    key: jax.Array, times: int, share: tuple[float, float], blocks: int, last_hidden: bool = True
) -> jax.Array:
    """Return bool (N,): the union of `blocks` blocks of floor(r N) times, r uniform in `share`, at random places.

    Source: ECG-JEPA's published code. Without `last_hidden` no block reaches the last time, as in the published
    code.
    """
    share_key, start_key = jax.random.split(key)
    length_K = jnp.floor(times * jax.random.uniform(share_key, (blocks,), minval=share[0], maxval=share[1]))
    places_K = times - length_K + last_hidden
    start_K = jnp.floor(places_K * jax.random.uniform(start_key, (blocks,)))
    time_1N = jnp.arange(times)[None]
    return ((time_1N >= start_K[:, None]) & (time_1N < (start_K + length_K)[:, None])).any(0)
