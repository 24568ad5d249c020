"""SIGMA-PPG's encoder, which learns to name hidden patches, and the small network that hides them (docs/references.md).

encoder = SigmaEncoder(width=360, layers=18, heads=12, channels=12, patch=100, tokens=120)
tok_BAD = encoder.apply(variables, x_BCT)                              # (B, 1, 12000) -> (B, 120, 360)
tok_BAD = encoder.apply(variables, x_BCT, hidden_BA=hidden_BA, train=True, rngs={"dropout": key})
logit_BA = MaskGenerator(width=64, layers=2, heads=4, patch=100, tokens=120).apply(mask_variables, x_BCT)
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.dense import dense_product
from jaxbio.models.dropout import Dropout
from jaxbio.models.patch_embedding import PatchEmbedding
from jaxbio.models.prenorm_transformer import BlockSettings, PreNormTransformer
from jaxbio.models.time_table import TimeTable, in_parts

# Normal of deviation 0.02 cut at one deviation: 0.0108 in truth, as the reference has it.
CUT_NORMAL = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
_NORMAL = nn.initializers.normal(0.02)
_settings = partial(BlockSettings, by_depth=True, epsilon=1e-6)


class SigmaEncoder(nn.Module):
    """Patch embedding, class token, places and a pre-norm transformer; hidden patches are a learnt token.

    `tokens` are the rows of the time table. The channel position, a table of 129 rows in the reference of which one is
    used, is that one; it is added to the class token too.
    """

    width: int
    layers: int
    heads: int
    channels: int
    patch: int
    tokens: int
    q_v_biases: bool = False
    qk_norm: bool = True
    layer_scale: float = 0.1
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    dropout_bits: str = "threefry"
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"
    any_length: ClassVar[bool] = False  # a program of it has a length that patches divide

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.embedding = PatchEmbedding(self.width, self.channels, self.patch, CUT_NORMAL, dtype)
        self.class_token = self.param("class_token", CUT_NORMAL, (self.width,))
        # a matrix of one row, because it decays where the class token does not
        self.mask_token = self.param("mask_token", CUT_NORMAL, (1, self.width))
        self.position = self.param("position", CUT_NORMAL, (self.width,))
        self.time = TimeTable(self.tokens, self.width, CUT_NORMAL)
        self.drop = Dropout(self.dropout, self.dropout_bits)
        settings = _settings(
            self.width,
            self.heads,
            4 * self.width,
            dtype,
            qkv_bias="q_v" if self.q_v_biases else "none",
            qk_norm=self.qk_norm,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            drop_path=self.drop_path,
            dropout_bits=self.dropout_bits,
            kernel_init=CUT_NORMAL,
        )
        self.transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll)
        self.norm = nn.LayerNorm(epsilon=1e-6, dtype=dtype)

    def __call__(self, x_BCT: jax.Array, train: bool = False, hidden_BA: jax.Array | None = None) -> jax.Array:
        """Return tokens (B, A, D) float32 of signals (B, 1, T), A = T / patch, without the class token.

        `hidden_BA` bool: patches that are not shown. `train` wants an rng stream "dropout".
        """
        if hidden_BA is not None:
            return self.all_tokens(x_BCT, train, hidden_BA)[:, 1:]
        return in_parts(lambda part_BCT: self.all_tokens(part_BCT, train)[:, 1:], x_BCT, self.tokens, self.patch)

    def all_tokens(self, x_BCT: jax.Array, train: bool = False, hidden_BA: jax.Array | None = None) -> jax.Array:
        """Return the same with the class token first, (B, 1 + A, D)."""
        tok_BAD = self.embedding(x_BCT)
        if hidden_BA is not None:
            tok_BAD = jnp.where(hidden_BA[..., None], self.mask_token[None].astype(tok_BAD.dtype), tok_BAD)
        first_B1D = jnp.broadcast_to(self.class_token[None, None], (tok_BAD.shape[0], 1, self.width))
        tok_BLD = jnp.concatenate([first_B1D.astype(tok_BAD.dtype), self.time(tok_BAD)], axis=1)
        tok_BLD = tok_BLD + self.position[None, None].astype(tok_BAD.dtype)
        return self.norm(self.transformer(self.drop(tok_BLD, train), train)).astype(jnp.float32)


class CodeHead(nn.Module):
    """One linear layer from a token to the logits of `codes` codes, float32."""

    codes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, tok_BAD: jax.Array) -> jax.Array:
        """Return (B, A, K)."""
        dtype = jnp.dtype(self.dtype)
        layer = nn.Dense(self.codes, dtype=dtype, kernel_init=CUT_NORMAL, dot_general=dense_product, name="output")
        return layer(tok_BAD).astype(jnp.float32)


class MaskGenerator(nn.Module):
    """A small transformer that gives every patch a logit: how much it should be hidden."""

    width: int
    layers: int
    heads: int
    patch: int
    tokens: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BCT: jax.Array) -> jax.Array:
        """Return (B, A) float32 of signals (B, 1, T), A = T / patch."""
        dtype = jnp.dtype(self.dtype)
        tok_BAD = PatchEmbedding(self.width, self.width, self.patch, _NORMAL, dtype, True, name="embedding")(x_BCT)
        tok_BAD = TimeTable(self.tokens, self.width, nn.initializers.zeros, name="time")(tok_BAD)
        settings = _settings(self.width, self.heads, 4 * self.width, dtype, qkv_bias="q_v", kernel_init=_NORMAL)
        tok_BAD = PreNormTransformer(settings, self.layers, name="transformer")(tok_BAD)
        tok_BAD = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(tok_BAD)
        layer = nn.Dense(1, dtype=dtype, kernel_init=_NORMAL, dot_general=dense_product, name="head")
        return layer(tok_BAD)[..., 0].astype(jnp.float32)
