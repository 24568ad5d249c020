"""An encoder with a small head whose output lies on the unit sphere, for what compares embeddings by their distance.

Headed(encoder, hidden=64, width=9).apply(variables, x_BCT) -> tok_BLD, L = 1
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbio.models.dense import dense
from jaxbio.models.quantiser import unit


class Head(nn.Module):
    """Dense, ReLU, dense, normalised to length 1: (B, D) -> (B, E) float32."""

    hidden: int
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, feature_BD: jax.Array) -> jax.Array:
        """Return vectors of length 1."""
        dtype = jnp.dtype(self.dtype)
        hidden_BF = nn.relu(dense("hidden", feature_BD, self.hidden, dtype))
        return unit(dense("output", hidden_BF, self.width, dtype).astype(jnp.float32))


class Headed(nn.Module):
    """An encoder with its head, which reads the mean over the encoder's tokens: x_BCT -> (B, 1, E)."""

    encoder: nn.Module
    hidden: int = 64
    width: int = 9
    dtype: str = "float32"

    @property
    def any_length(self) -> bool:
        """Whether the encoder takes segments of any length."""
        return getattr(self.encoder, "any_length", True)

    def setup(self):
        self.head = Head(self.hidden, self.width, self.dtype)

    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        """Return one vector of length 1 a segment."""
        return self.head(self.encoder(x_BCT, train).mean(axis=1))[:, None]
