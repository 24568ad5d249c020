"""ECG-JEPA: a transformer whose tokens see their own lead and their own time, and the predictor of hidden times.

Fact sheet, sections 3 and 5. The position is added before every block. A lead that is not there (zeros in the prepared
input) is seen by no other lead and counts in no mean.

    encoder = ECGJEPA(width=384, layers=12, heads=6)
    encoder.apply(variables, x_BCT)                                     # (B, 8, 2500) -> (B, 1, 384), the pooled vector
    encoder.apply(variables, x_BCT, visible=(time_BV, used_BV))         # tokens of the visible times (B, 8, V, 384)
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.attention_patterns import attend_cross
from jaxbio.models.dense import dense_product
from jaxbio.models.lead_patches import cut_patches, grid_positions, present_channels, present_mean
from jaxbio.models.prenorm_transformer import BlockSettings, PreNormTransformer

OUTPUTS = ("pooled", "tokens")
_small = nn.initializers.normal(0.02)
_settings = partial(BlockSettings, qkv_bias="none", kernel_init=_small, by_depth=True)


class ECGJEPA(nn.Module):
    """The encoder, student and teacher alike; `drop_path` is that of the last block, in training."""

    width: int
    layers: int
    heads: int
    feedforward: int = 1536
    patch: int = 50
    drop_path: float = 0.1
    output: str = "pooled"
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x_BCT: jax.Array, train: bool = False, visible: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        """Return the pooled vector (B, 1, D) or all tokens (B, C N, D), float32, lead by lead.

        `visible` are V times of each row, and which of them are used (the others fill up rows that see fewer): then the
        tokens at these times, (B, C, V, D) float32. Raises UserError for an unknown output.
        """
        if self.output not in OUTPUTS:
            raise UserError(Fault("model.output", self.output, f"one of {', '.join(OUTPUTS)}"))
        dtype = jnp.dtype(self.dtype)
        present_BC = present_channels(x_BCT)
        patch_BCNP = cut_patches(x_BCT, self.patch)
        position_BCND = grid_positions(patch_BCNP.shape[1], patch_BCNP.shape[2], self.width)[None]
        used_BV = None
        if visible is not None:
            time_BV, used_BV = visible
            patch_BCNP = jnp.take_along_axis(patch_BCNP, time_BV[:, None, :, None], axis=2)
            position_BCND = jnp.moveaxis(position_BCND[0][:, time_BV], 0, 1)
        tok_BCND = _dense("embed", patch_BCNP.astype(dtype), self.width, dtype)
        settings = _settings(self.width, self.heads, self.feedforward, dtype, attend_cross, drop_path=self.drop_path)
        transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll, name="transformer")
        tok_BCND = transformer(tok_BCND, train, (used_BV, present_BC), position_BCND.astype(dtype))
        tok_BCND = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(tok_BCND).astype(jnp.float32)
        if visible is not None:
            return tok_BCND
        if self.output == "tokens":
            return tok_BCND.reshape(tok_BCND.shape[0], -1, self.width)
        return present_mean(tok_BCND, present_BC)[:, None]


class TimePredictor(nn.Module):
    """The predictor: each lead alone, from the tokens of the visible times to those of all times."""

    width: int
    layers: int
    heads: int
    feedforward: int
    drop_path: float = 0.1
    dtype: str = "float32"
    unroll: int = 1

    @nn.compact
    def __call__(self, tok_BCVD: jax.Array, place_BN: jax.Array, train: bool = False) -> jax.Array:
        """Return tokens (B, C, N, D) float32 in the order of time, D as wide as those given.

        `place_BN` says of each time which of the V visible ones it is, V where it is hidden.
        """
        dtype, (rows, leads, _, width) = jnp.dtype(self.dtype), tok_BCVD.shape
        tok_BCVE = _dense("embed", tok_BCVD.astype(dtype), self.width, dtype)
        mask_1E = self.param("mask", _small, (1, self.width)).astype(dtype)
        mask_BC1E = jnp.broadcast_to(mask_1E[None, None], (rows, leads, 1, self.width))
        known_BCVE = jnp.concatenate([tok_BCVE, mask_BC1E], axis=2)
        tok_BCNE = jnp.take_along_axis(known_BCVE, place_BN[:, None, :, None], axis=2)
        tok_XNE = tok_BCNE.reshape(rows * leads, -1, self.width)  # a lead is a row of its own
        settings = _settings(self.width, self.heads, self.feedforward, dtype, drop_path=self.drop_path)
        transformer = PreNormTransformer(settings, self.layers, unroll=self.unroll, name="transformer")
        position_1NE = grid_positions(1, place_BN.shape[-1], self.width).astype(dtype)
        tok_XNE = transformer(tok_XNE, train, position_BLD=position_1NE)
        tok_XNE = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(tok_XNE)
        return _dense("output", tok_XNE, width, dtype).astype(jnp.float32).reshape(rows, leads, -1, width)


def _dense(name: str, x: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
    return nn.Dense(features, dtype=dtype, kernel_init=_small, dot_general=dense_product, name=name)(x)
