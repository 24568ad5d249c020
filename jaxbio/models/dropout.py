"""Dropout that draws its bits from a chosen generator (jaxbio/transforms/random_bits.py).

x_BLD = Dropout(0.1, "counter_hash")(x_BLD, train=True)    # the rng stream is "dropout"
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.transforms.random_bits import GENERATORS


class Dropout(nn.Module):
    """Zeroes a share `rate` of the elements in training and scales the rest by 1 / (1 - rate)."""

    rate: float
    bits: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return `x` dropped out, in its own shape and dtype."""
        if not train or self.rate == 0:
            return x
        bits = GENERATORS[self.bits](self.make_rng("dropout"), x.shape)
        keep = bits >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(keep, x * jnp.asarray(1 / (1 - self.rate), x.dtype), jnp.zeros((), x.dtype))
