"""SIGMA-PPG's tokenizer: patches of a PPG to codes, and codes to the patches' spectra (docs/references.md).

tokenizer = SigmaTokenizer(width=200, layers=12, heads=10, channels=8, patch=100, tokens=120, codes=4096, ...)
tok_BAD = tokenizer.apply(variables, x_BCT)                          # (B, 1, 12000) -> (B, 120, 200)
code_BA = tokenizer.apply(variables, x_BCT, method="codes_of")       # int32
spectrum_BAS = SpectrumDecoder(...).apply(decoder_variables, quantised_BAZ)["amplitude"]
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbio.models.dense import dense_product
from jaxbio.models.patch_embedding import PatchEmbedding
from jaxbio.models.prenorm_transformer import BlockSettings, PreNormTransformer
from jaxbio.models.quantiser import nearest, unit
from jaxbio.models.time_table import TimeTable, in_parts

CODEBOOK = "codebook"  # collection of the codes, which no gradient moves
_NORMAL = nn.initializers.normal(0.02)
_settings = partial(BlockSettings, qkv_bias="q_v", kernel_init=_NORMAL, by_depth=True, epsilon=1e-6)


class SigmaTokenizer(nn.Module):
    """Patch embedding, transformer and a head that gives each patch a point near one of `codes` codes.

    `tokens` are the rows of the time table. The channel position, a table of 121 rows in the reference of which
    two are used, is those two: one for the class token, one for all patches. The codes are a variable of the collection
    `codebook`, of unit length.
    """

    width: int
    layers: int
    heads: int
    channels: int
    patch: int
    tokens: int
    codes: int
    code_width: int
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"
    any_length: ClassVar[bool] = False  # a program of it has a length that patches divide

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.embedding = PatchEmbedding(self.width, self.channels, self.patch, _NORMAL, dtype)
        self.class_token = self.param("class_token", _NORMAL, (self.width,))
        self.position_table = self.param("position_table", _NORMAL, (2, self.width))
        self.time = TimeTable(self.tokens, self.width, _NORMAL)
        settings = _settings(self.width, self.heads, 4 * self.width, dtype)
        self.transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll)
        self.norm, self.patch_norm = (nn.LayerNorm(epsilon=1e-6, dtype=dtype) for _ in range(2))
        self.code_hidden = _dense(self.width)
        self.code_output = _dense(self.code_width)
        shape = (self.codes, self.code_width)
        self.code_KZ = self.variable(CODEBOOK, "code_KZ", lambda: unit(_NORMAL(self.make_rng("params"), shape)))

    def __call__(self, x_BCT: jax.Array, train: bool = False) -> jax.Array:
        """Return tokens (B, A, D) float32 of signals (B, 1, T), A = T / patch, before the head."""
        tok_BAD = in_parts(self._tokens, x_BCT, self.tokens, self.patch)
        if self.is_initializing():
            self.head(tok_BAD)
        return tok_BAD

    def head(self, tok_BAD: jax.Array) -> jax.Array:
        """Return the points (B, A, Z) float32 that a quantiser takes, not normalised: in float32 whatever `dtype`."""
        return self.code_output(nn.tanh(self.code_hidden(tok_BAD.astype(jnp.float32))))

    def points_of(self, x_BCT: jax.Array) -> jax.Array:
        """Return `head` of the tokens."""
        return self.head(self(x_BCT))

    def codes_of(self, x_BCT: jax.Array) -> jax.Array:
        """Return each patch's code, int32 (B, A)."""
        z_BAZ = unit(self.points_of(x_BCT))
        return nearest(z_BAZ.reshape(-1, self.code_width), self.code_KZ.value).reshape(z_BAZ.shape[:2])

    def _tokens(self, x_BCT: jax.Array) -> jax.Array:
        tok_BAD = self.embedding(x_BCT)
        first_D, other_D = self.position_table.astype(tok_BAD.dtype)
        class_D = self.class_token.astype(tok_BAD.dtype) + first_D
        tok_BAD = self.time(tok_BAD) + other_D[None, None]
        tok_BLD = self.transformer(_prepend(class_D, tok_BAD))
        return self.patch_norm(self.norm(tok_BLD)[:, 1:]).astype(jnp.float32)


class SpectrumDecoder(nn.Module):
    """From quantised patches to their spectra of `bins` numbers: a transformer with a head for each spectrum."""

    width: int
    layers: int
    heads: int
    tokens: int
    bins: int
    phase: bool = False
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, quantised_BAZ: jax.Array) -> dict[str, jax.Array]:
        """Return "amplitude", and "phase" where it is asked for, each (B, A, S) float32."""
        dtype = jnp.dtype(self.dtype)
        tok_BAD = _dense(self.width, "embedding", dtype)(quantised_BAZ.astype(dtype))
        tok_BAD = TimeTable(self.tokens, self.width, _NORMAL, name="time")(tok_BAD)
        class_D = self.param("class_token", _NORMAL, (self.width,)).astype(dtype)
        settings = _settings(self.width, self.heads, 4 * self.width, dtype)
        transformer = PreNormTransformer(settings, self.layers, self.remat, self.unroll, name="transformer")
        tok_BLD = transformer(_prepend(class_D, tok_BAD))
        tok_BAD = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="norm")(tok_BLD)[:, 1:].astype(jnp.float32)
        spectra = {}
        for name in ("amplitude", "phase") if self.phase else ("amplitude",):
            hidden_BAD = nn.tanh(_dense(self.width, f"{name}_hidden")(tok_BAD))
            spectra[name] = _dense(self.bins, f"{name}_output")(hidden_BAD)
        return spectra


def _dense(width: int, name: str | None = None, dtype: Any = jnp.float32) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, kernel_init=_NORMAL, dot_general=dense_product, name=name)


def _prepend(class_D: jax.Array, tok_BAD: jax.Array) -> jax.Array:
    first_B1D = jnp.broadcast_to(class_D[None, None], (tok_BAD.shape[0], 1, len(class_D)))
    return jnp.concatenate([first_B1D, tok_BAD], axis=1)
