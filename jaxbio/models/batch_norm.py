"""Batch normalisation whose statistics are values, not side effects.

A training pass normalises by the moments of the batch and *reports* them in the collection `moments`; it never moves
the running statistics in `batch_stats`. An objective moves those once a step with `move`, so that the step stays a pure
function. Moments are means over the global batch: the compiler makes them the same on every device.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM = 0.9  # PyTorch's momentum 0.1, the published networks' default


class BatchNorm(nn.Module):
    """Normalise the last axis over all others, in float32 (float64 for such an `x`).

    x (..., C) of any float type -> the same shape and type. `affine` adds scale and bias. In training the population
    variance normalises, and the variance that is reported for the running statistics is multiplied by n / (n - 1), as
    PyTorch does; with a batch of six that is a fifth of the step.
    """

    affine: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train: bool):
        channels = x.shape[-1]
        running_mean_C = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32).value
        running_var_C = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32).value
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        mean_C, var_C = running_mean_C.astype(wide.dtype), running_var_C.astype(wide.dtype)
        if train:
            count = x.size // channels
            mean_C = jnp.mean(wide, axes)
            var_C = jnp.mean(jnp.square(wide - _last(mean_C, x.ndim)), axes)
            self._report("mean", mean_C)
            self._report("var", var_C * (count / max(count - 1, 1)))
        gain_C, shift_C = jax.lax.rsqrt(var_C + self.epsilon), jnp.zeros(channels, wide.dtype)
        if self.affine:
            gain_C *= self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
            shift_C = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        return (wide * _last(gain_C, x.ndim) + _last(shift_C - mean_C * gain_C, x.ndim)).astype(x.dtype)

    def _report(self, name: str, value):
        self.sow("moments", name, value, init_fn=lambda: jnp.zeros(()), reduce_fn=lambda _, new: new)


def move(batch_stats: Any, moments: Any) -> Any:
    """Return the running statistics after one batch: 0.9 x `batch_stats` + 0.1 x `moments`, leaf by leaf."""
    return jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, batch_stats, moments)


def _last(value_C, rank: int):
    """Give a vector over the last axis the rank of what it meets."""
    return value_C.reshape((1,) * (rank - 1) + value_C.shape)
