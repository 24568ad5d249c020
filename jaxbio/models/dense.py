"""Dense layers and the initial values they start from: PyTorch's defaults, as in the reference implementations.

y_BLF = dense("feedforward_in", x_BLD, features=256, dtype=jnp.float32)    # inside a compact method
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan_in)


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
    """Return the initialiser of a bias beside a kernel of `fan_in` inputs: U(-1, 1) / sqrt(fan_in)."""

    def init(key, shape, dtype=float, out_sharding=None):
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init


def dense(name: str, x: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
    """Return `x` (..., inputs) through the calling module's dense layer `name`: (..., features) in `dtype`."""
    layer = nn.Dense(features, dtype=dtype, kernel_init=uniform_fan_in, bias_init=uniform_bias(x.shape[-1]), name=name)
    return layer(x)
