"""Heads between an encoder's features and what a self-distillation compares; they are never exported.

DistillationHead("mlp", width=512, hidden=512).apply(variables, x_BLD)      # (B, L, D) -> (B, L, 512)
DistillationPredictor(hidden=256).apply(variables, z_BLK)                   # (B, L, K) -> (B, L, K)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.dense import dense

_BOTTLENECK = 256  # DINO (Caron et al. 2021): directions are compared in 256 dimensions


class DistillationHead(nn.Module):
    """What a softmax is taken of.

    kind: "none", the features, normalised as `normalise` says; "mlp", `width` outputs of one hidden layer of `hidden`
    and GELU; "prototypes", the cosines with `width` learnt vectors behind DINO's head (three layers, GELU, a bottleneck
    of unit length; Caron et al. 2021, section 3.1).
    """

    kind: str = "none"
    width: int = 512
    hidden: int = 512
    normalise: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        """Return (B, L, K) float32; K is `width`, or the features' own without a head."""
        dtype = jnp.dtype(self.dtype)
        if self.kind == "none":
            return normalised(x_BLD.astype(jnp.float32), self.normalise)
        x_BLD = nn.gelu(dense("hidden_0", x_BLD, self.hidden, dtype))
        if self.kind == "mlp":
            return dense("output", x_BLD, self.width, dtype).astype(jnp.float32)
        x_BLD = nn.gelu(dense("hidden_1", x_BLD, self.hidden, dtype))
        x_BLD = normalised(dense("bottleneck", x_BLD, _BOTTLENECK, dtype).astype(jnp.float32), "unit")
        prototype_DK = self.param("prototypes", nn.initializers.normal(1.0), (_BOTTLENECK, self.width))
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
