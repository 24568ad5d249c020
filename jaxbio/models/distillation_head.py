"""Heads between an encoder's features and what a self-distillation compares; they are never exported.

DistillationHead(prototypes=512).apply(variables, x_BLD)      # (B, L, D) -> (B, L, 512), cosines
DistillationPredictor(hidden=256).apply(variables, z_BLK)     # (B, L, K) -> (B, L, K)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.dense import dense

_BOTTLENECK = 256  # DINO (Caron et al. 2021): directions are compared in 256 dimensions
NORMALISATIONS = ("none", "unit", "layer")


class DistillationHead(nn.Module):
    """What a softmax is taken of: the features, normalised or not, or their cosines with learnt prototypes.

    prototypes: 0, or the number of unit vectors that DINO's head (three layers of `hidden`, GELU, a bottleneck of unit
    length; Caron et al. 2021, section 3.1) compares with.
    """

    prototypes: int
    hidden: int
    normalise: str
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        """Return (B, L, K) float32; K is the width D without prototypes."""
        if not self.prototypes:
            return normalised(x_BLD.astype(jnp.float32), self.normalise)
        dtype = jnp.dtype(self.dtype)
        x_BLD = nn.gelu(dense("hidden_0", x_BLD, self.hidden, dtype))
        x_BLD = nn.gelu(dense("hidden_1", x_BLD, self.hidden, dtype))
        x_BLD = normalised(dense("bottleneck", x_BLD, _BOTTLENECK, dtype).astype(jnp.float32), "unit")
        prototype_DK = self.param("prototypes", nn.initializers.normal(1.0), (_BOTTLENECK, self.prototypes))
        return x_BLD @ (prototype_DK / jnp.linalg.norm(prototype_DK, axis=0, keepdims=True))


class DistillationPredictor(nn.Module):
    """A residual perceptron with which the student alone predicts; it starts as the identity."""

    hidden: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z_BLK: jax.Array) -> jax.Array:
        """Return (B, L, K) float32."""
        dtype = jnp.dtype(self.dtype)
        x_BLK = nn.gelu(dense("hidden", z_BLK, self.hidden, dtype))
        change = nn.Dense(z_BLK.shape[-1], dtype=dtype, kernel_init=nn.initializers.zeros, name="output")
        return z_BLK + change(x_BLK).astype(jnp.float32)


def normalised(x_BLD: jax.Array, how: str) -> jax.Array:
    """Return features as they are ("none"), of length 1 ("unit"), or of mean 0 and deviation 1 ("layer")."""
    if how == "layer":
        x_BLD = x_BLD - x_BLD.mean(-1, keepdims=True)
        return x_BLD / (x_BLD.std(-1, keepdims=True) + 1e-6)
    return x_BLD / (jnp.linalg.norm(x_BLD, axis=-1, keepdims=True) + 1e-6) if how == "unit" else x_BLD
