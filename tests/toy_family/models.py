"""Tokens of eight samples of all channels through one dense layer: the smallest encoder there is."""

import jax
from flax import linen as nn


class ToyEncoder(nn.Module):
    """Tokens (B, T // 8, width) float32 of signals x_BCT."""

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        pairs, channels, _ = x_BCT.shape
        x_BCLS = x_BCT[..., : x_BCT.shape[-1] // 8 * 8].reshape(pairs, channels, -1, 8)
        tok_BLF = x_BCLS.swapaxes(1, 2).reshape(pairs, x_BCLS.shape[2], channels * 8)
        return nn.Dense(self.width, name="embed")(tok_BLF)
