"""A stack of pre-norm transformer blocks, scanned over layers, around whatever attends.

settings = BlockSettings(width=384, heads=6, feedforward=1536, dtype=jnp.float32)
tok_BLD = PreNormTransformer(settings, layers=12, name="transformer")(tok_BLD, train=True)

Tokens lie in a row (B, L, D) or on a grid (B, C, N, D), as `attend` takes them (models/attention_patterns.py): L stands
for all axes between rows and features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbio.config.faults import Fault, UserError
from jaxbio.models.attention_patterns import attend_all
from jaxbio.models.dense import dense_product
from jaxbio.models.dropout import Dropout
from jaxbio.models.layer_stack import STACK, stack
from jaxbio.transforms.random_bits import GENERATORS

_XAVIER = nn.initializers.xavier_uniform()


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of a stack have in common; by default the plain block of vision transformers.

    `head_width`: None is the width over the heads. `qkv_bias`: queries, keys and values have a bias, or none has, or
    all but keys. `qk_norm`: queries and keys are normalised per head. `layer_scale`: start of a factor for each feature
    of both branches; 0: none. `drop_path`: probability that a row of the batch skips a branch of the last block, linear
    from 0 at the first one. `kernel_init` starts kernels; `by_depth` divides those that end a branch by sqrt(2 x
    layer), the first layer 1 (BEiT, Bao et al. 2022). Biases start at zero.
    """

    width: int
    heads: int
    feedforward: int
    dtype: jnp.dtype
    attend: Callable[..., jax.Array] = attend_all
    head_width: int | None = None
    qkv_bias: Literal["all", "q_v", "none"] = "all"
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    dropout_bits: str = "threefry"
    kernel_init: nn.initializers.Initializer = _XAVIER
    by_depth: bool = False
    epsilon: float = 1e-5


class Attention(nn.Module):
    """Multi-head self-attention by the settings' `attend`."""

    settings: BlockSettings
    train: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array, seen: Any, end_scale: jax.Array) -> jax.Array:
        """Return the attended tokens (B, L, D); `end_scale` is a factor of the output kernel's initial values."""
        own = self.settings
        head_width = own.head_width or own.width // own.heads
        # heads before query, key and value, as in models/attention.py
        qkv_BLH3K = _dense(own, "qkv", (own.heads, 3, head_width), use_bias=own.qkv_bias == "all")(x_BLD)
        q_BLHK, k_BLHK, v_BLHK = (qkv_BLH3K[..., part, :] for part in range(3))
        if own.qkv_bias == "q_v":
            shape = (own.heads, head_width)
            q_BLHK += _along(q_BLHK, self.param("q_bias", nn.initializers.zeros, shape))
            v_BLHK += _along(v_BLHK, self.param("v_bias", nn.initializers.zeros, shape))
        if own.qk_norm:
            q_BLHK, k_BLHK = _norm(own, "q_norm")(q_BLHK), _norm(own, "k_norm")(k_BLHK)
        drop = partial(Dropout(own.attention_dropout, own.dropout_bits), train=self.train)
        y_BLHK = own.attend(q_BLHK, k_BLHK, v_BLHK, seen, drop)
        return _dense(own, "output", own.width, end_scale, axis=(-2, -1))(y_BLHK)


class Block(nn.Module):
    """One pre-norm block: x = x + branch(attention(norm(x))); x = x + branch(feedforward(norm(x)))."""

    settings: BlockSettings
    train: bool

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, by_layer: tuple[jax.Array, jax.Array], seen: Any, position_BLD: jax.Array | None
    ) -> tuple[jax.Array, None]:
        """Return the block's output and nothing else, as scan wants; `by_layer` are (end_scale, drop rate)."""
        own, (end_scale, drop_rate) = self.settings, by_layer
        if position_BLD is not None:
            x_BLD = x_BLD + position_BLD
        attention = Attention(own, self.train, name="attention")
        y_BLD = attention(_norm(own, "attention_norm")(x_BLD), seen, end_scale)
        x_BLD = x_BLD + self._branch("attention_scale", y_BLD, drop_rate)
        hidden_BLF = _dense(own, "feedforward_in", own.feedforward)(_norm(own, "feedforward_norm")(x_BLD))
        hidden_BLF = nn.gelu(hidden_BLF, approximate=False)
        y_BLD = _dense(own, "feedforward_out", own.width, end_scale)(hidden_BLF)
        return x_BLD + self._branch("feedforward_scale", y_BLD, drop_rate), None

    def _branch(self, name: str, y_BLD: jax.Array, drop_rate: jax.Array) -> jax.Array:
        """Return what a branch adds: dropped out, scaled, and skipped by some rows."""
        own = self.settings
        y_BLD = Dropout(own.dropout, own.dropout_bits)(y_BLD, self.train)
        if own.layer_scale:
            y_BLD *= _along(y_BLD, self.param(name, nn.initializers.constant(own.layer_scale), (own.width,)))
        if not self.train or not own.drop_path:
            return y_BLD
        shape_B11 = (len(y_BLD), *(1,) * (y_BLD.ndim - 1))
        bits_B11 = GENERATORS[own.dropout_bits](self.make_rng("dropout"), shape_B11)
        keep_B11 = bits_B11.astype(jnp.float32) >= drop_rate * 2.0**32
        return y_BLD * jnp.where(keep_B11, 1 / (1 - drop_rate), 0.0).astype(own.dtype)


class PreNormTransformer(nn.Module):
    """Blocks of one shape, their parameters stacked on a leading layer axis N."""

    settings: BlockSettings
    layers: int
    remat: str = "none"
    unroll: int = 1

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, train: bool = False, seen: Any = None, position_BLD: jax.Array | None = None
    ) -> jax.Array:
        """Return (B, L, D) in the settings' dtype; `seen` is for `attend`, the position is added before every block.

        Raises UserError for heads or remat that cannot be.
        """
        own = self.settings
        if own.head_width is None and own.width % own.heads:
            raise UserError(Fault("model.heads", own.heads, f"a divisor of the width {own.width}"))
        layer_N = np.arange(1, self.layers + 1)
        end_scale_N = (2 * layer_N) ** -0.5 if own.by_depth else np.ones(self.layers)
        drop_rate_N = np.linspace(0, own.drop_path, self.layers)
        by_layer = (jnp.asarray(end_scale_N, jnp.float32), jnp.asarray(drop_rate_N, jnp.float32))
        in_axes = (0, nn.broadcast, nn.broadcast)
        blocks = stack(Block, layers=self.layers, remat=self.remat, unroll=self.unroll, in_axes=in_axes)
        return blocks(own, train, name=STACK)(x_BLD, by_layer, seen, position_BLD)[0]


def _norm(own: BlockSettings, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=own.epsilon, dtype=own.dtype, name=name)


def _dense(own: BlockSettings, name: str, features: Any, scale: Any = 1.0, **how: Any) -> nn.DenseGeneral:
    """Return a dense layer whose initial kernel is the settings' times `scale`."""

    def init(*arguments: Any) -> jax.Array:
        return own.kernel_init(*arguments) * scale

    return nn.DenseGeneral(features, dtype=own.dtype, kernel_init=init, dot_general=dense_product, name=name, **how)


def _along(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """Return `parameter` of the last axes of `x`, in its dtype and with axes of one before them."""
    return jnp.expand_dims(parameter.astype(x.dtype), tuple(range(x.ndim - parameter.ndim)))
