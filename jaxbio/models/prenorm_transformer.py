"""A stack of pre-norm transformer blocks over all tokens, scanned over layers, with the options of vision transformers.

settings = BlockSettings(width=360, heads=12, qk_norm=True, layer_scale=0.1, dropout=0.08, ...)
tok_BLD = PreNormTransformer(settings, layers=18, name="transformer")(tok_BLD, train=True)
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.dense import dense_product
from jaxbio.models.dropout import Dropout
from jaxbio.models.layer_stack import STACK, stack
from jaxbio.transforms.random_bits import GENERATORS


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a stack have in common.

    `q_v_biases`: queries and values have a bias, keys none. `qk_norm`: queries and keys are normalised per head.
    `layer_scale`: start of a factor for each feature of both branches; 0: none. `drop_path`: probability that a segment
    skips a branch of the last block, linear from 0 at the first one. `kernel_init` starts kernels; those that end a
    branch are divided by sqrt(2 x layer), the first layer 1 (BEiT, Bao et al. 2022). Biases start at zero.
    """

    width: int
    heads: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype
    q_v_biases: bool = False
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    dropout_bits: str = "threefry"
    feedforward: int = 4  # times the width
    epsilon: float = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention of every token to every token, softmax in float32."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x_BLD: jax.Array, layer: jax.Array, train: bool) -> jax.Array:
        """Return the attended tokens (B, L, D); `layer` counts from 1."""
        own = self.settings
        head_width = own.width // own.heads
        qkv_BLH3K = nn.DenseGeneral(
            (own.heads, 3, head_width),
            use_bias=False,
            dtype=own.dtype,
            kernel_init=own.kernel_init,
            dot_general=dense_product,
            name="qkv",
        )(x_BLD)
        q_BLHK, k_BLHK, v_BLHK = (qkv_BLH3K[:, :, :, index] for index in range(3))
        if own.q_v_biases:
            shape = (own.heads, head_width)
            q_bias_HK, v_bias_HK = (self.param(name, nn.initializers.zeros, shape) for name in ("q_bias", "v_bias"))
            q_BLHK = q_BLHK + q_bias_HK[None, None].astype(own.dtype)
            v_BLHK = v_BLHK + v_bias_HK[None, None].astype(own.dtype)
        if own.qk_norm:
            q_BLHK, k_BLHK = _norm(own, "q_norm")(q_BLHK), _norm(own, "k_norm")(k_BLHK)
        logit_BHLL = jnp.einsum(
            "blhk,bmhk->bhlm", q_BLHK * head_width**-0.5, k_BLHK, preferred_element_type=jnp.float32
        )
        weight_BHLL = nn.softmax(logit_BHLL).astype(own.dtype)
        weight_BHLL = Dropout(own.attention_dropout, own.dropout_bits)(weight_BHLL, train)
        y_BLHK = jnp.einsum("bhlm,bmhk->blhk", weight_BHLL, v_BLHK)
        return _last_of_branch(own, "output", layer, axis=(-2, -1))(y_BLHK)


class Block(nn.Module):
    """One pre-norm block: x = x + branch(attention(norm(x))); x = x + branch(feedforward(norm(x)))."""

    settings: BlockSettings
    train: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array, by_layer: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        """Return the block's output and nothing else, the form that scan wants; `by_layer` are (layer, drop rate)."""
        own, (layer, drop_rate) = self.settings, by_layer
        y_BLD = Attention(own, name="attention")(_norm(own, "attention_norm")(x_BLD), layer, self.train)
        x_BLD = x_BLD + self._branch("attention_scale", y_BLD, drop_rate)
        hidden_BLF = nn.Dense(
            own.feedforward * own.width,
            dtype=own.dtype,
            kernel_init=own.kernel_init,
            dot_general=dense_product,
            name="feedforward_in",
        )(_norm(own, "feedforward_norm")(x_BLD))
        hidden_BLF = nn.gelu(hidden_BLF, approximate=False)
        y_BLD = _last_of_branch(own, "feedforward_out", layer)(hidden_BLF)
        return x_BLD + self._branch("feedforward_scale", y_BLD, drop_rate), None

    def _branch(self, name: str, y_BLD: jax.Array, drop_rate: jax.Array) -> jax.Array:
        """Return what a branch adds: dropped out, scaled, and skipped by some segments."""
        own = self.settings
        y_BLD = Dropout(own.dropout, own.dropout_bits)(y_BLD, self.train)
        if own.layer_scale:
            scale_D = self.param(name, nn.initializers.constant(own.layer_scale), (own.width,))
            y_BLD = y_BLD * scale_D[None, None].astype(own.dtype)
        if not self.train or not own.drop_path:
            return y_BLD
        bits_B = GENERATORS[own.dropout_bits](self.make_rng("dropout"), (len(y_BLD),))
        keep_B = bits_B.astype(jnp.float32) >= drop_rate * 2.0**32
        factor_B = jnp.where(keep_B, 1 / (1 - drop_rate), 0.0).astype(own.dtype)
        return y_BLD * factor_B[:, None, None]


class PreNormTransformer(nn.Module):
    """Blocks of one shape, their parameters stacked on a leading layer axis N."""

    settings: BlockSettings
    layers: int
    remat: str = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, x_BLD: jax.Array, train: bool) -> jax.Array:
        """Return (B, L, D) in the settings' dtype. Raises UserError for heads or remat that cannot be."""
        own = self.settings
        if own.width % own.heads:
            raise UserError(Fault("model.heads", own.heads, f"a divisor of the width {own.width}"))
        blocks = stack(Block, layers=self.layers, remat=self.remat, unroll=self.unroll)
        layer_N = jnp.arange(1, self.layers + 1, dtype=jnp.float32)
        drop_rate_N = jnp.asarray(np.linspace(0, own.drop_path, self.layers), jnp.float32)
        return blocks(own, train=train, name=STACK)(x_BLD, (layer_N, drop_rate_N))[0]


def _norm(own: BlockSettings, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=own.epsilon, dtype=own.dtype, name=name)


def _last_of_branch(own: BlockSettings, name: str, layer: jax.Array, axis: Any = -1) -> nn.DenseGeneral:
    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return own.kernel_init(key, shape, dtype) / jnp.sqrt(2 * layer)

    return nn.DenseGeneral(
        own.width, axis=axis, dtype=own.dtype, kernel_init=init, dot_general=dense_product, name=name
    )
