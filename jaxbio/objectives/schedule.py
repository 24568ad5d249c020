"""What changes over the course of a run, as a function of its progress."""

import jax
import jax.numpy as jnp


def cosine(start: float, end: float, progress: jax.Array) -> jax.Array:
    """Return the value at `progress` (0..1) of half a cosine from `start` to `end` (DINO's schedule)."""
    share = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return share * start + (1 - share) * end


def linear(start: float, end: float, share: float, progress: jax.Array) -> jax.Array:
    """Return the value at `progress` (0..1) of a line from `start` to `end` within the first `share`, then `end`."""
    done = jnp.clip(progress / share, 0.0, 1.0) if share > 0 else jnp.ones_like(progress)
    return start + done * (end - start)


def horizon_momentum(horizon: float, passed: jax.Array) -> jax.Array:
    """Return the momentum of a moving average that forgets by 1/e in a `horizon`, after `passed` of the same unit.

    Below 0, as at the first step of a run that was lengthened, nothing has passed: the average stays.
    """
    return jnp.exp(-jnp.maximum(passed, 0.0) / horizon)
