"""A VQ-VAE's encoder and decoder over patches of all leads at one time (docs/references.md).

encoder = VQVAE(width=384, layers=12, heads=6, latent=192, codes=512)
z_BNZ = encoder.apply(variables, x_BCT)                     # (B, 12, 2250) -> (B, 30, 192), one for each 0.3 s
encoder.clone(output="quantised").apply({**variables, "codebook": {"code": code_KZ}}, x_BCT)
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.dense import dense_product
from jaxbio.models.lead_patches import cut_patches
from jaxbio.models.prenorm_transformer import BlockSettings, PreNormTransformer
from jaxbio.models.quantiser import nearest

OUTPUTS = ("latent", "quantised")
_dense_init = nn.initializers.xavier_uniform()
# The published N(0, 1) is as large as a patch itself: codes then stand for places, not for what the signal does there.
_position_init = nn.initializers.normal(0.02)


class VQVAE(nn.Module):
    """The encoder: tokens `latent` wide, as they are or as the nearest of `codes` codes (collection "codebook")."""

    width: int
    layers: int
    heads: int
    latent: int
    codes: int
    head_width: int = 64
    feedforward: int = 1536
    patch: int = 75
    output: str = "latent"
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    any_length: ClassVar[bool] = False  # a position is learnt for each patch

    @nn.compact
    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        """Return tokens (B, N, Z) float32, one for each patch. Raises UserError for an unknown output."""
        if self.output not in OUTPUTS:
            raise UserError(Fault("model.output", self.output, f"one of {', '.join(OUTPUTS)}"))
        dtype = jnp.dtype(self.dtype)
        patch_BNF = join_leads(cut_patches(x_BCT, self.patch))
        # a patch's mean may be many times its deviation
        patch_BNF = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="patch_norm")(patch_BNF)
        tok_BND = _dense("patch_embed", patch_BNF, self.width, dtype)
        tok_BND = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="embed_norm")(tok_BND)
        position_ND = self.param("position", _position_init, tok_BND.shape[1:])
        settings = BlockSettings(self.width, self.heads, self.feedforward, dtype, head_width=self.head_width)
        transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll, name="transformer")
        tok_BND = transformer(tok_BND + position_ND.astype(dtype)[None], train)
        tok_BND = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(tok_BND)
        z_BNZ = _dense("output", tok_BND, self.latent, dtype).astype(jnp.float32)
        if self.output == "latent":
            return z_BNZ
        code_KZ = self.variable("codebook", "code", jnp.zeros, (self.codes, self.latent)).value
        return code_KZ[nearest_of_rows(z_BNZ, code_KZ)]


class VQVAEDecoder(nn.Module):
    """The decoder: from the tokens' codes to the signal of `leads` leads."""

    width: int
    layers: int
    heads: int
    feedforward: int
    patch: int
    leads: int
    head_width: int = 64
    unroll: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z_BNZ: jax.Array) -> jax.Array:
        """Return x_BCT float32."""
        dtype = jnp.dtype(self.dtype)
        tok_BND = _dense("embed", z_BNZ.astype(dtype), self.width, dtype)
        position_ND = self.param("position", _position_init, tok_BND.shape[1:])
        settings = BlockSettings(self.width, self.heads, self.feedforward, dtype, head_width=self.head_width)
        transformer = PreNormTransformer(settings, self.layers, unroll=self.unroll, name="transformer")
        tok_BND = transformer(tok_BND + position_ND.astype(dtype)[None])
        tok_BND = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(tok_BND)
        patch_BNF = _dense("output", tok_BND, self.patch * self.leads, dtype).astype(jnp.float32)
        rows, patches, _ = patch_BNF.shape
        patch_BNPC = patch_BNF.reshape(rows, patches, self.patch, self.leads)
        return patch_BNPC.transpose(0, 3, 1, 2).reshape(rows, self.leads, patches * self.patch)


def nearest_of_rows(z_BNZ: jax.Array, code_KZ: jax.Array) -> jax.Array:
    """Return the nearest code of every token, int32 (B, N)."""
    return nearest(z_BNZ.reshape(-1, z_BNZ.shape[-1]), code_KZ).reshape(z_BNZ.shape[:2])


def join_leads(patch_BCNP: jax.Array) -> jax.Array:
    """Return patches of all leads (B, N, P C): the leads of a sample lie together, as in the reference."""
    rows, leads, patches, samples = patch_BCNP.shape
    return patch_BCNP.transpose(0, 2, 3, 1).reshape(rows, patches, samples * leads)


def _dense(name: str, x: jax.Array, features: int, dtype: jnp.dtype) -> jax.Array:
    return nn.Dense(features, dtype=dtype, kernel_init=_dense_init, dot_general=dense_product, name=name)(x)
