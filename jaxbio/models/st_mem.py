"""ST-MEM: a transformer over patches of one lead and one time interval, and a decoder for each lead alone.

Fact sheet, sections 3 and 4. A lead that is not there (zeros in the prepared input) has no token that others see, so
that any subset of the leads gives what an encoder of these leads alone would give.

    encoder = STMEM(width=384, layers=12, heads=6)
    encoder.apply(variables, x_BCT)                                  # (B, 12, 2250) -> (B, 1, 384), the pooled vector
    encoder.apply(variables, x_BCT, kept_BCV=kept)                   # tokens of the kept patches, between SEP tokens
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.dense import dense_product
from jaxbio.models.lead_patches import cut_patches, present_channels, present_mean, time_positions
from jaxbio.models.prenorm_transformer import BlockSettings, PreNormTransformer

OUTPUTS = ("pooled", "tokens")
_small = nn.initializers.normal(0.02)


class STMEM(nn.Module):
    """The encoder: `width` to `patch` say what it is, `output` what it gives, the rest how it is computed."""

    width: int
    layers: int
    heads: int
    head_width: int = 64
    feedforward: int = 1536
    patch: int = 75
    output: str = "pooled"
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BCT: jax.Array, train: bool = False, kept_BCV: jax.Array | None = None) -> jax.Array:
        """Return the pooled vector (B, 1, D) or all tokens (B, C N, D), float32, lead by lead.

        With `kept_BCV`, the places of the patches that are seen of each lead, the tokens of these in `dtype` and order,
        a SEP token before and after each lead's: (B, C, V + 2, D). Raises UserError for an unknown output.
        """
        if self.output not in OUTPUTS:
            raise UserError(Fault("model.output", self.output, f"one of {', '.join(OUTPUTS)}"))
        dtype, (rows, leads, _) = jnp.dtype(self.dtype), x_BCT.shape
        present_BC = present_channels(x_BCT)
        patch_BCNP = cut_patches(x_BCT, self.patch)
        position_BCND = time_positions(patch_BCNP.shape[2], self.width)[None, None]
        if kept_BCV is not None:
            patch_BCNP = jnp.take_along_axis(patch_BCNP, kept_BCV[..., None], axis=2)
            position_BCND = position_BCND[0, 0][kept_BCV]
        tok_BCND = self._embed(patch_BCNP, dtype) + position_BCND.astype(dtype)
        sep_D = self.param("sep", _small, (self.width,))
        lead_CD = self.param("lead", _small, (leads, self.width))
        sep_BC1D = jnp.broadcast_to(sep_D.astype(dtype)[None, None, None], (rows, leads, 1, self.width))
        tok_BCSD = jnp.concatenate([sep_BC1D, tok_BCND, sep_BC1D], axis=2) + lead_CD.astype(dtype)[None, :, None]
        tokens = tok_BCSD.shape[2]
        tok_BLD = tok_BCSD.reshape(rows, leads * tokens, self.width)
        settings = BlockSettings(self.width, self.heads, self.feedforward, dtype, head_width=self.head_width)
        transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll, name="transformer")
        tok_BLD = transformer(tok_BLD, train, seen=jnp.repeat(present_BC, tokens, axis=1))
        norm = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")
        tok_BCSD = tok_BLD.reshape(rows, leads, tokens, self.width)
        if kept_BCV is not None:
            return norm(tok_BCSD)
        tok_BCND = tok_BCSD[:, :, 1:-1]
        if self.output == "tokens":
            return norm(tok_BCND).reshape(rows, -1, self.width).astype(jnp.float32)
        # the mean first, then the norm: not the order of pretraining (docs/references.md)
        return norm(present_mean(tok_BCND, present_BC))[:, None].astype(jnp.float32)

    def _embed(self, patch_BCNP: jax.Array, dtype: jnp.dtype) -> jax.Array:
        # a patch's mean may be many times its deviation
        raw = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="patch_norm")
        embed = nn.Dense(
            self.width,
            dtype=dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            dot_general=dense_product,
            name="patch_embed",
        )
        return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="embed_norm")(embed(raw(patch_BCNP)))


class LeadDecoder(nn.Module):
    """The decoder: from the tokens of the kept patches to all patches, each lead alone, with one set of weights."""

    width: int
    layers: int
    heads: int
    feedforward: int
    patch: int
    head_width: int = 64
    dtype: str = "float32"
    unroll: int = 1

    @nn.compact
    def __call__(self, tok_BCSD: jax.Array, rank_BCN: jax.Array) -> jax.Array:
        """Return patches (B, C, N, P) float32 in the order of time.

        `tok_BCSD` are V tokens between two SEP tokens for each lead; `rank_BCN` says of each patch which of them it is,
        V or more where it was removed.
        """
        dtype, (rows, leads, tokens, _) = jnp.dtype(self.dtype), tok_BCSD.shape
        tok_BCSE = self._dense("embed", tok_BCSD, self.width, dtype)
        mask_1E = self.param("mask", _small, (1, self.width)).astype(dtype)
        mask_BC1E = jnp.broadcast_to(mask_1E[None, None], (rows, leads, 1, self.width))
        known_BCVE = jnp.concatenate([tok_BCSE[:, :, 1:-1], mask_BC1E], axis=2)
        place_BCN1 = jnp.minimum(rank_BCN, tokens - 2)[..., None]
        tok_BCNE = jnp.take_along_axis(known_BCVE, place_BCN1, axis=2)
        tok_BCNE = tok_BCNE + time_positions(rank_BCN.shape[-1], self.width).astype(dtype)[None, None]
        tok_BCSE = jnp.concatenate([tok_BCSE[:, :, :1], tok_BCNE, tok_BCSE[:, :, -1:]], axis=2)
        tok_XSE = tok_BCSE.reshape(rows * leads, -1, self.width)  # a lead is a row of its own
        settings = BlockSettings(self.width, self.heads, self.feedforward, dtype, head_width=self.head_width)
        tok_XSE = PreNormTransformer(settings, self.layers, unroll=self.unroll, name="transformer")(tok_XSE)
        tok_XNE = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="norm")(tok_XSE[:, 1:-1])
        patch_XNP = self._dense("output", tok_XNE, self.patch, dtype).astype(jnp.float32)
        return patch_XNP.reshape(rows, leads, -1, self.patch)

    def _dense(self, name: str, x: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
        init = nn.initializers.xavier_uniform()
        return nn.Dense(features, dtype=dtype, kernel_init=init, dot_general=dense_product, name=name)(x)
