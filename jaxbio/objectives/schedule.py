"""What changes over the course of a run, as a function of its progress."""

import jax
import jax.numpy as jnp


def cosine(start: float, end: float, progress: jax.Array) -> jax.Array:
    """Return the value at `progress` (0..1) of half a cosine from `start` to `end` (DINO's schedule)."""
    share = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return share * start + (1 - share) * end


def linear(start: float, end: float, progress: jax.Array) -> jax.Array:
    """Return the value at `progress` (0..1) of the line from `start` to `end`."""
    return start + (end - start) * progress
